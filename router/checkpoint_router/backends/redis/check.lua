-- Compares a thread's index with its log as `q` has it, a piece at a time; with `q.mend` makes it
-- what it should be. What was put since is left alone; after a prune or delete nothing is compared.
local inc, seq = slot_state()
local function count(field) return tonumber(call('HGET', COUNTS, field) or 0) end
if q.fields then
  for _, key in ipairs({BY_LEAF, BY_ID, BY_RUN, NAMES}) do call('ZCARD', key) end
  return {inc, seq, call('HKEYS', EVENTS), call('HKEYS', MEMBERS)}
end
if live_gen() ~= q.gen or count('erased') ~= q.erasures then return {inc, seq, 'again'} end

local found = {}
local function say(list, id, how) found[#found + 1] = {list, id, how} end

local function field(key, name, want, list, id)
  if call('HGET', key, name) == want then return end
  say(list, id, 'lacks')
  if q.mend then call('HSET', key, name, want) end
end

local function member(key, name, list, id)
  if call('ZSCORE', key, name) then return end
  say(list, id, 'lacks')
  if q.mend then call('ZADD', key, 0, name) end
end

for _, row in ipairs(q.rows) do
  local id, place, names, by_id, by_run = unpack(row)
  field(EVENTS, 'e' .. id, place, 'e', id)
  if names ~= '' then
    field(MEMBERS, id, names, 'j', id)
    member(BY_ID, by_id, 'n', id)
    if by_run ~= '' then member(BY_RUN, by_run, 'r', id) end
  end
end
if not q.last then return {inc, seq, 'done', found} end

-- What leads to nothing: it was there before the log was read, and is not in it.
local gone = {}
for _, id in ipairs(q.places) do
  gone[id] = true
  if call('HEXISTS', EVENTS, 'e' .. id) == 1 then
    say('e', id, 'beyond')
    if q.mend then call('HDEL', EVENTS, 'e' .. id) end
  end
end
for _, id in ipairs(q.members) do
  if call('HEXISTS', MEMBERS, id) == 1 then
    say('j', id, 'beyond')
    if q.mend then call('HDEL', MEMBERS, id) end
  end
end
local length = call('LLEN', LOG)
local live = q.live + length - q.total
local sets = {n = BY_ID, r = BY_RUN, t = NAMES}
for _, row in ipairs(q.beyond) do
  local list, name, id = unpack(row)
  if not (list == 't' and live > 0) and call('ZSCORE', sets[list], name) then
    say(list, id, 'beyond')
    if q.mend then call('ZREM', sets[list], name) end
  end
end

for _, gapless in ipairs(q.gapless) do
  local segment, last = gapless[1], gapless[2]
  local next = segment .. (last + 1)
  while not gone[next] and call('HEXISTS', EVENTS, 'e' .. next) == 1 do
    last = last + 1
    next = segment .. (last + 1)
  end
  if last > 0 then field(EVENTS, 'g' .. segment, tostring(last), 'e', segment .. '1') end
end
if length > 0 then
  member(BY_LEAF, q.leaf, 'i', '')
  field(COUNTS, 'live', tostring(live), 'c', '')
end
if q.live > 0 then member(NAMES, q.thread, 't', '') end
for _, actor in ipairs(q.counts) do
  if count(actor[1]) < actor[2] then field(COUNTS, actor[1], tostring(actor[2]), 'c', '') end
end
-- Last, for it tells whether the thread is as it was when its log was read.
if q.erased ~= q.erasures then field(COUNTS, 'erased', tostring(q.erased), 'c', '') end
-- Each write leaves more than the thread's row in its slot.
if call('EXISTS', KEPT, COUNTS, EVENTS, LOG, RECORDS, MEMBERS, ROWS, VALUES) == 0
  and call('ZSCORE', BY_LEAF, q.leaf) then
  say('i', '', 'lost')
end
return {inc, seq, 'done', found}
