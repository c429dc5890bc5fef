-- Prunes: marks entries as erased, drops their records, drops values.
local inc, seq = slot_state()
if call('HEXISTS', KEPT, 'o' .. q.operation) == 1 then return {inc, seq, 1} end
if live_gen() ~= q.gen or call('LLEN', LOG) > q.stored then return {inc, seq, 0} end

inc, seq = wrote(inc)
call('ZADD', BY_LEAF, 0, q.leaf)
call('HSET', KEPT, 'o' .. q.operation, '')
for _, id in ipairs(q.ids) do
  local known = call('HGET', EVENTS, 'e' .. id)
  local position = known and struct.unpack('>I8', known)
  local entry = known and call('LINDEX', LOG, position)
  if entry and string.byte(entry) == 0 then
    call('LSET', LOG, position, '\1' .. string.sub(entry, 2))
    call('HDEL', RECORDS, id)
    call('HINCRBY', COUNTS, 'erased', 1)
    if call('HINCRBY', COUNTS, 'live', -1) == 0 then call('ZREM', NAMES, q.thread) end
    local member = call('HGET', MEMBERS, id)
    if member then
      local cut = string.find(member, '\0', 1, true)
      local run = string.sub(member, cut + 1)
      call('ZREM', BY_ID, string.sub(member, 1, cut) .. q.thread .. '\0' .. id)
      if run ~= '' then call('ZREM', BY_RUN, run .. q.thread .. '\0' .. id) end
      call('HDEL', MEMBERS, id)
    end
  end
end

local touched = false
for _, hash in ipairs(q.hashes) do
  local row = row_of(hash)
  if row then
    call('HDEL', ROWS, hash)
    call('HDEL', VALUES, hash)
    touched = touched or row[4] ~= ''
  end
end

-- Cuts logs behind their longest reader, or drops them; a parent after its children.
local rows = touched and call('HGETALL', ROWS) or {}
local keep, logs = {}, {}
for i = 1, #rows, 2 do
  local row = cmsgpack.unpack(rows[i + 1])
  if #rows[i] == 9 then
    logs[#logs + 1] = {string.sub(rows[i], 2), row}
  elseif row[4] ~= '' then
    keep[row[4]] = math.max(keep[row[4]] or 0, row[3])
  end
end
table.sort(logs, function(a, b) return a[2][3] > b[2][3] end)
for _, log in ipairs(logs) do
  local id, parent, start = log[1], log[2][1], log[2][2]
  if not keep[id] then
    redis.pcall('UNLINK', APPENDS .. id)
    call('HDEL', ROWS, 'L' .. id)
  else
    if parent ~= '' then keep[parent] = math.max(keep[parent] or 0, math.min(start, keep[id])) end
    local left = math.max(0, keep[id] - start)
    local length = redis.pcall('STRLEN', APPENDS .. id)
    if type(length) == 'number' and left < length then
      local bytes = left > 0 and call('GETRANGE', APPENDS .. id, 0, left - 1) or ''
      call('SET', APPENDS .. id, bytes)
    end
  end
end
return {inc, seq, 1}
