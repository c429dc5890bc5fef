-- Steps of one actor in one generation of one thread, each all or nothing: an event with its
-- values, or values alone. All looks of a step come before its first change. Events are written
-- when all steps are decided: until then what they change is in `events` and the lists.

local gen = live_gen()
local inc, seq = slot_state()
local counts = call('HMGET', COUNTS, q.actor, 'live')
local before, live_before = tonumber(counts[1] or 0), tonumber(counts[2] or 0)
if gen == q.gen and q.first > before + 1 then return {inc, seq, 'back', before} end
-- Otherwise the sender does not know what it stored itself: nothing new is taken from it.
local in_step = q.first == before + 1
local length, stored, live, changed = call('LLEN', LOG), before, live_before, false

local function pair(list, one, two)
  list[#list + 1] = one
  list[#list + 1] = two
end

-- Fields of EVENTS and ROWS, as the steps so far leave them; false if they are not there.
local function remembered(key, names)
  local fields = {}
  for i = 1, #names, 1000 do
    local last = math.min(i + 999, #names)
    local values = call('HMGET', key, unpack(names, i, last))
    for j = i, last do fields[names[j]] = values[j - i + 1] end
  end
  return setmetatable(fields, {__index = function(_, name)
    local value = call('HGET', key, name)
    fields[name] = value
    return value
  end})
end

-- What all steps will look at, in one look; for what else one of them does, it looks itself.
local places_of, named, listed = {}, {}, false
for _, step in ipairs(q.steps) do
  for _, hash in ipairs(step.names or {}) do named[#named + 1] = hash end
  if step.segment then
    pair(places_of, 'e' .. step.segment .. step.index, 'g' .. step.segment)
    places_of[#places_of + 1] = 'e' .. step.segment .. (step.index + 1)
    listed = listed or step.cid
  end
end
local events, rows = remembered(EVENTS, places_of), remembered(ROWS, named)

-- Foreign keys of another type must fail now, not between two changes: those that were not read.
for _, key in ipairs({RECORDS, VALUES}) do call('HLEN', key) end
if listed then
  call('HLEN', MEMBERS)
  for _, key in ipairs({BY_ID, BY_RUN}) do call('ZCARD', key) end
end
if before == 0 then call('ZCARD', BY_LEAF) end
if live == 0 then call('ZCARD', NAMES) end

local function write(command, key, words)
  -- As many as fit on the stack; pairs stay together.
  for i = 1, #words, 1000 do
    call(command, key, unpack(words, i, math.min(i + 999, #words)))
  end
end

local function has(segment, first, last)
  local gapless = tonumber(events['g' .. segment] or 0)
  for index = math.max(first, gapless + 1), last do
    if not events['e' .. segment .. index] then return false end
  end
  return true
end

local function missing_blobs(step)
  local sent, missing = {}, {}
  for _, blob in ipairs(step.blobs) do sent[blob.hash] = true end
  for _, hash in ipairs(step.names) do
    if not sent[hash] and not rows[hash] then missing[#missing + 1] = hash end
  end
  return missing
end

-- Whether values can be placed as their sender decided: nobody else appended meanwhile.
local function fit(blobs)
  local placed, lengths = {}, {}
  for _, blob in ipairs(blobs) do
    if not rows[blob.hash] and not placed[blob.hash] then
      if blob.how ~= 'whole' then
        if (placed[blob.base] or rows[blob.base]) ~= blob.base_row then return false end
        local length = lengths[blob.log]
        if blob.how == 'extend' then
          local log = not length and log_of(blob.log)
          length = length or (log and log_length(blob.log, log))
          if length ~= blob.at then return false end
        elseif length or call('EXISTS', APPENDS .. blob.log) == 1 then
          return false
        end
        lengths[blob.log] = blob.at + #ARGV[blob.arg]
        if blob.how == 'start' then placed[blob.base] = blob.base_now end
      end
      placed[blob.hash] = blob.row
    end
  end
  return true
end

local function append(blob)
  if blob.how == 'start' then
    local base = call('HGET', VALUES, blob.base)
    call('SET', APPENDS .. blob.log, string.sub(base, blob.head + 1))
    call('HSET', ROWS, blob.base, blob.base_now)
    call('HDEL', VALUES, blob.base)
    rows[blob.base] = blob.base_now
  end
  if blob.how ~= 'extend' then call('HSET', ROWS, 'L' .. blob.log, blob.meta) end
  call('HSET', ROWS, blob.hash, blob.row)
  call('APPEND', APPENDS .. blob.log, ARGV[blob.arg])
  rows[blob.hash] = blob.row
end

local function store(blobs)
  local new_rows, values = {}, {}
  for _, blob in ipairs(blobs) do
    if blob.how == 'whole' and not rows[blob.hash] then
      rows[blob.hash] = blob.row
      pair(new_rows, blob.hash, blob.row)
      pair(values, blob.hash, ARGV[blob.arg])
    end
  end
  write('HSET', ROWS, new_rows)
  write('HSET', VALUES, values)
  for _, blob in ipairs(blobs) do
    if not rows[blob.hash] then append(blob) end
  end
end

local log, records, places, members, by_id, by_run = {}, {}, {}, {}, {}, {}

local function place(field, value)
  events[field] = value
  pair(places, field, value)
end

local function add_event(step)
  local segment, id = step.segment, step.segment .. step.index
  place('e' .. id, struct.pack('>I8', length + #log) .. step.digest)
  stored, live = stored + 1, live + 1
  log[#log + 1] = '\0' .. q.actor .. struct.pack('>I8', stored) .. ARGV[step.entry]
  pair(records, id, ARGV[step.record])
  local gapless = tonumber(events['g' .. segment] or 0)
  if tonumber(step.index) == gapless + 1 then
    repeat gapless = gapless + 1 until not events['e' .. segment .. (gapless + 1)]
    place('g' .. segment, gapless)
  end
  if step.cid then
    pair(members, id, step.cid .. '\0' .. step.run)
    pair(by_id, 0, step.cid .. '\0' .. q.thread .. '\0' .. id)
    if step.run ~= '' then pair(by_run, 0, step.run .. q.thread .. '\0' .. id) end
  end
end

local function take(step)
  if gen ~= q.gen then return {'gen', gen} end
  if step.segment then
    local known = events['e' .. step.segment .. step.index]
    if known then return {'known', string.sub(known, 9)} end
    for _, need in ipairs(step.needs) do
      if not has(need[1], need[2], need[3]) then return {'events'} end
    end
    local missing = missing_blobs(step)
    if #missing > 0 then return {'blobs', missing} end
    if not in_step then return {'again'} end
  end
  if not fit(step.blobs) then return {'moved'} end
  changed = true
  store(step.blobs)
  if step.segment then add_event(step) end
  return {'ok', stored}
end

local answers = {}
for i, step in ipairs(q.steps) do answers[i] = take(step) end
if not changed then return {inc, seq, 'done', answers} end

if before == 0 then
  call('ZADD', BY_LEAF, 0, q.leaf)
  -- Longer than what servers pack tightly and search from end to end.
  local long = cmsgpack.pack({string.rep(' ', 65), '', 0, ''})
  for _, key in ipairs({EVENTS, ROWS}) do call('HSET', key, '', long) end
end
write('RPUSH', LOG, log)
write('HSET', RECORDS, records)
write('HSET', EVENTS, places)
write('HSET', MEMBERS, members)
write('ZADD', BY_ID, by_id)
write('ZADD', BY_RUN, by_run)
if stored > before then call('HSET', COUNTS, q.actor, stored, 'live', live) end
if live > 0 and live_before == 0 then call('ZADD', NAMES, 0, q.thread) end
inc, seq = wrote(inc)
return {inc, seq, 'done', answers}
