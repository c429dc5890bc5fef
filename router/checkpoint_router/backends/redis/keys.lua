-- Before every script. All keys of a call have the thread's slot as their hash tag.
local SLOT, KEPT, COUNTS, EVENTS, LOG, RECORDS, MEMBERS, ROWS, VALUES, BY_LEAF, BY_ID, BY_RUN,
  NAMES, APPENDS = unpack(KEYS)
local call = redis.call
local q = cmsgpack.unpack(ARGV[1])

local function slot_state()
  local state = call('HMGET', SLOT, 'inc', 'seq')
  return state[1] or '', state[2] or '0'
end

-- Counts this write, in an incarnation that lives until the server is empty; the state after it.
local function wrote(inc)
  if inc == '' then
    inc = q.inc
    call('HSET', SLOT, 'inc', inc)
  end
  return inc, call('HINCRBY', SLOT, 'seq', 1)
end

local function live_gen()
  return call('HGET', KEPT, 'gen') or '1'
end

-- A row is (tag, head, keep, log): the value is head and `keep` bytes, in VALUES or in a log.
local function row_of(hash)
  local packed = call('HGET', ROWS, hash)
  if packed then return cmsgpack.unpack(packed), packed end
end

-- Of a log: (parent, bytes of the parent, depth).
local function log_of(id)
  local packed = call('HGET', ROWS, 'L' .. id)
  if packed then return cmsgpack.unpack(packed) end
end

local function log_length(id, log)
  return log[2] + call('STRLEN', APPENDS .. id)
end
