-- Ends a generation. What the thread keeps: its generation, and the operations that were done.
local live, ended = live_gen(), q.gen
local inc, seq = slot_state()
if q.operation ~= '' then
  if call('HEXISTS', KEPT, 'o' .. q.operation) == 1 then return {inc, seq, live} end
end
local current = true
if ended ~= '' then
  current = #ended > #live or (#ended == #live and ended >= live)
end
if not current and q.operation == '' then return {inc, seq, live} end

inc, seq = wrote(inc)
if q.operation ~= '' then call('HSET', KEPT, 'o' .. q.operation, '') end
call('ZADD', BY_LEAF, 0, q.leaf)
if current then
  local next = q.next
  if ended == '' then
    call('HSETNX', KEPT, 'gen', '1')
    call('HINCRBY', KEPT, 'gen', 1)
    next = call('HGET', KEPT, 'gen')
  else
    call('HSET', KEPT, 'gen', next)
  end
  live = next
  local members = call('HGETALL', MEMBERS)
  for i = 1, #members, 2 do
    local id, cut = members[i], string.find(members[i + 1], '\0', 1, true)
    local run = string.sub(members[i + 1], cut + 1)
    call('ZREM', BY_ID, string.sub(members[i + 1], 1, cut) .. q.thread .. '\0' .. id)
    if run ~= '' then call('ZREM', BY_RUN, run .. q.thread .. '\0' .. id) end
  end
  call('ZREM', NAMES, q.thread)
  local logs = call('HKEYS', ROWS)
  call('UNLINK', COUNTS, EVENTS, LOG, RECORDS, MEMBERS, ROWS, VALUES)
  for _, field in ipairs(logs) do
    -- Nothing names these any more; one that is just moving to another server is left there.
    if #field == 9 then redis.pcall('UNLINK', APPENDS .. string.sub(field, 2)) end
  end
end
return {inc, seq, live}
