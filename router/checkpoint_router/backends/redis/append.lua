-- Steps of one actor in one generation of one thread, each all or nothing: an event with its
-- values, or values alone. All looks of a step come before its first change.

-- Foreign keys of another type must fail now, not between two changes.
for _, key in ipairs({EVENTS, RECORDS, MEMBERS, ROWS, VALUES}) do call('HLEN', key) end
for _, key in ipairs({BY_LEAF, BY_ID, BY_RUN, NAMES}) do call('ZCARD', key) end
call('LLEN', LOG)

local gen = live_gen()
local stored = tonumber(call('HGET', COUNTS, q.actor) or 0)
local inc, seq = slot_state()
if gen == q.gen and q.first > stored + 1 then return {inc, seq, 'back', stored} end
-- Otherwise the sender does not know what it stored itself: nothing new is taken from it.
local in_step = q.first == stored + 1

local function has(segment, first, last)
  local gapless = tonumber(call('HGET', EVENTS, 'g' .. segment) or 0)
  for index = math.max(first, gapless + 1), last do
    if call('HEXISTS', EVENTS, 'e' .. segment .. index) == 0 then return false end
  end
  return true
end

local function missing_blobs(step)
  local sent, missing = {}, {}
  for _, blob in ipairs(step.blobs) do sent[blob.hash] = true end
  for _, hash in ipairs(step.names) do
    if not sent[hash] and call('HEXISTS', ROWS, hash) == 0 then missing[#missing + 1] = hash end
  end
  return missing
end

-- Whether values can be placed as their sender decided: nobody else appended meanwhile.
local function fit(blobs)
  local rows, lengths = {}, {}
  for _, blob in ipairs(blobs) do
    if call('HEXISTS', ROWS, blob.hash) == 0 and not rows[blob.hash] then
      if blob.how ~= 'whole' then
        if (rows[blob.base] or call('HGET', ROWS, blob.base)) ~= blob.base_row then return false end
        local length = lengths[blob.log]
        if blob.how == 'extend' then
          local log = not length and log_of(blob.log)
          length = length or (log and log_length(blob.log, log))
          if length ~= blob.at then return false end
        elseif length or call('EXISTS', APPENDS .. blob.log) == 1 then
          return false
        end
        lengths[blob.log] = blob.at + #ARGV[blob.arg]
        if blob.how == 'start' then rows[blob.base] = blob.base_now end
      end
      rows[blob.hash] = blob.row
    end
  end
  return true
end

local function store(blob)
  if call('HSETNX', ROWS, blob.hash, blob.row) == 0 then return end
  local bytes = ARGV[blob.arg]
  if blob.how == 'whole' then
    call('HSET', VALUES, blob.hash, bytes)
    return
  end
  if blob.how == 'start' then
    local base = call('HGET', VALUES, blob.base)
    call('SET', APPENDS .. blob.log, string.sub(base, blob.head + 1))
    call('HSET', ROWS, blob.base, blob.base_now)
    call('HDEL', VALUES, blob.base)
  end
  if blob.how ~= 'extend' then call('HSET', ROWS, 'L' .. blob.log, blob.meta) end
  call('APPEND', APPENDS .. blob.log, bytes)
end

local function add_event(step)
  local id, position = step.segment .. step.index, call('LLEN', LOG)
  stored = stored + 1
  call('RPUSH', LOG, '\0' .. q.actor .. struct.pack('>I8', stored) .. ARGV[step.entry])
  call('HSET', RECORDS, id, ARGV[step.record])
  local gapless = tonumber(call('HGET', EVENTS, 'g' .. step.segment) or 0)
  if tonumber(step.index) == gapless + 1 then
    repeat
      gapless = gapless + 1
    until call('HEXISTS', EVENTS, 'e' .. step.segment .. (gapless + 1)) == 0
  end
  call('HSET', EVENTS, 'e' .. id, struct.pack('>I8', position) .. step.digest,
    'g' .. step.segment, gapless)
  call('HSET', COUNTS, q.actor, stored)
  if step.cid then
    call('HSET', MEMBERS, id, step.cid .. '\0' .. step.run)
    call('ZADD', BY_ID, 0, step.cid .. '\0' .. q.thread .. '\0' .. id)
    if step.run ~= '' then call('ZADD', BY_RUN, 0, step.run .. q.thread .. '\0' .. id) end
  end
  if call('HINCRBY', COUNTS, 'live', 1) == 1 then call('ZADD', NAMES, 0, q.thread) end
end

local function take(step)
  if gen ~= q.gen then return {'gen', gen} end
  if step.segment then
    local known = call('HGET', EVENTS, 'e' .. step.segment .. step.index)
    if known then return {'known', string.sub(known, 9)} end
    for _, need in ipairs(step.needs) do
      if not has(need[1], need[2], need[3]) then return {'events'} end
    end
    local missing = missing_blobs(step)
    if #missing > 0 then return {'blobs', missing} end
    if not in_step then return {'again'} end
  end
  if not fit(step.blobs) then return {'moved'} end
  call('ZADD', BY_LEAF, 0, q.leaf)
  for _, blob in ipairs(step.blobs) do store(blob) end
  wrote()
  if step.segment then add_event(step) end
  return {'ok', stored}
end

local answers = {}
for i, step in ipairs(q.steps) do answers[i] = take(step) end
inc, seq = slot_state()
return {inc, seq, 'done', answers}
