-- A thread's index: all of it, or what a caller lacks who knows `q.counts` of it.
local inc, seq = slot_state()
local gen = live_gen()
local counts = call('HGETALL', COUNTS)
local by_actor, erasures, total = {}, 0, 0
for i = 1, #counts, 2 do
  if counts[i] == 'erased' then
    erasures = tonumber(counts[i + 1])
  elseif counts[i] ~= 'live' then
    by_actor[counts[i]] = tonumber(counts[i + 1])
    total = total + by_actor[counts[i]]
  end
end

local news = total
local partial = q.gen == gen and q.erased == erasures
local known = {}
for _, count in ipairs(q.counts) do
  known[count[1]] = count[2]
  news = news - count[2]
  partial = partial and count[2] <= (by_actor[count[1]] or 0)
end

local entries = {}
if not partial then
  entries = call('LRANGE', LOG, 0, -1)
else
  -- From the end: what is new was stored last, but for what others stored in between.
  local last = call('LLEN', LOG) - 1
  while #entries < news and last >= 0 do
    local rows = call('LRANGE', LOG, math.max(0, last - 63), last)
    for i = #rows, 1, -1 do
      local n = struct.unpack('>I8', rows[i], 10)
      if n > (known[string.sub(rows[i], 2, 9)] or 0) then entries[#entries + 1] = rows[i] end
    end
    last = last - 64
  end
  for i = 1, math.floor(#entries / 2) do
    entries[i], entries[#entries + 1 - i] = entries[#entries + 1 - i], entries[i]
  end
end
return {inc, seq, gen, partial and 1 or 0, counts, entries}
