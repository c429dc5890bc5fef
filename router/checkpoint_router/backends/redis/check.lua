-- Compares a thread's index with its log as `q` has it; with `q.mend` makes it what it should be.
-- What was put since then is left alone; after a prune or delete nothing is compared.
local inc, seq = slot_state()
local function count(field) return tonumber(call('HGET', COUNTS, field) or 0) end
local places = call('HGETALL', EVENTS)
local members = call('HKEYS', MEMBERS)
for _, key in ipairs({BY_LEAF, BY_ID, BY_RUN, NAMES}) do call('ZCARD', key) end
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

local known, shown = {}, {}
for _, row in ipairs(q.rows) do
  local id, place, names, by_id, by_run = unpack(row)
  known[id] = true
  field(EVENTS, 'e' .. id, place, 'e', id)
  if names ~= '' then
    shown[id] = true
    field(MEMBERS, id, names, 'j', id)
    member(BY_ID, by_id, 'n', id)
    if by_run ~= '' then member(BY_RUN, by_run, 'r', id) end
  end
end

local length = call('LLEN', LOG)
local live = q.live + length - q.total
if length > 0 then member(BY_LEAF, q.leaf, 'i', '') end
if q.live > 0 then member(NAMES, q.thread, 't', '') end
if length > 0 then field(COUNTS, 'live', tostring(live), 'c', '') end
if q.erased ~= q.erasures then field(COUNTS, 'erased', tostring(q.erased), 'c', '') end
for _, actor in ipairs(q.counts) do
  if count(actor[1]) < actor[2] then field(COUNTS, actor[1], tostring(actor[2]), 'c', '') end
end

-- What leads to nothing. An event that came since has a place behind those that were read.
local since = {}
for i = 1, #places, 2 do
  local id = string.sub(places[i], 2)
  if string.byte(places[i]) == 101 and not known[id] then
    local at = #places[i + 1] == 40 and struct.unpack('>I8', places[i + 1]) or -1
    if at >= q.total and at < length then
      since[id] = true
    else
      say('e', id, 'beyond')
      if q.mend then call('HDEL', EVENTS, places[i]) end
    end
  end
end
for _, gapless in ipairs(q.gapless) do
  local segment, last = gapless[1], gapless[2]
  while since[segment .. (last + 1)] do last = last + 1 end
  if last > 0 then field(EVENTS, 'g' .. segment, tostring(last), 'e', segment .. '1') end
end
for _, id in ipairs(members) do
  if not shown[id] and not since[id] then
    say('j', id, 'beyond')
    if q.mend then call('HDEL', MEMBERS, id) end
  end
end
local sets = {n = BY_ID, r = BY_RUN, t = NAMES}
for _, row in ipairs(q.beyond) do
  local list, name, id = unpack(row)
  if not since[id] and not (list == 't' and live > 0) and call('ZSCORE', sets[list], name) then
    say(list, id, 'beyond')
    if q.mend then call('ZREM', sets[list], name) end
  end
end
return {inc, seq, 'done', found}
