-- Records by event id; then values by hash, or those that the records name; in one snapshot.
local inc, seq = slot_state()
if live_gen() ~= q.gen then return {inc, seq, {}, {}, {}} end

local records, hashes = {}, q.hashes
for i, id in ipairs(q.ids) do
  local record = call('HGET', RECORDS, id)
  if record then
    for n = 1, q.named and struct.unpack('>I4', record) or 0 do
      hashes[#hashes + 1] = string.sub(record, 32 * n - 27, 32 * n + 4)
    end
  else
    -- Erased, unknown, or lost.
    local known = call('HGET', EVENTS, 'e' .. id)
    local entry = known and call('LINDEX', LOG, (struct.unpack('>I8', known))) or '\1'
    record = string.byte(entry) == 0 and '' or nil
  end
  if record then records[#records + 1] = {id, record} end
end

-- The first `keep` bytes of a log, through its parents.
local function body_of(id, keep)
  local parts = {}
  while id ~= '' do
    local log = log_of(id)
    if not log then break end
    if keep > log[2] then
      table.insert(parts, 1, call('GETRANGE', APPENDS .. id, 0, keep - log[2] - 1))
    end
    id, keep = log[1], math.min(keep, log[2])
  end
  return table.concat(parts)
end

local values, rest, seen, left = {}, {}, {}, q.budget
for _, hash in ipairs(hashes) do
  local row, packed = row_of(hash)
  if row and not seen[hash] then
    seen[hash] = true
    if q.rows then
      local log = row[4] ~= '' and log_of(row[4])
      values[#values + 1] = {hash, packed, log and log_length(row[4], log) or 0, log and log[3] or 0}
    else
      left = left - #row[2] - row[3]
      if #rest > 0 or (left < 0 and #values > 0) then
        rest[#rest + 1] = hash
      elseif row[4] == '' then
        values[#values + 1] = {hash, packed, call('HGET', VALUES, hash) or ''}
      else
        values[#values + 1] = {hash, packed, row[2] .. body_of(row[4], row[3])}
      end
    end
  end
end
return {inc, seq, records, values, rest}
