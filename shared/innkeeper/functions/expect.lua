-- expect: note in the index of timers that rooms have one then, before the commit that makes it true.
-- KEYS  1 inn:timers:N ZSET
-- ARGV  pairs: room, due (ms)
-- Returns the scores that stand there now (ms), one a room.
-- Holds: a score is only lowered, and always changes: whoever read it before, and found no timer, removes nothing.
local function expect(keys, args)
  local scores = {}
  for i = 1, #args, 2 do
    local stored, due = redis.call('ZSCORE', keys[1], args[i]), tonumber(args[i + 1])
    if stored and tonumber(stored) <= due then due = tonumber(stored) - 1 end
    redis.call('ZADD', keys[1], int(due), args[i])
    scores[#scores + 1] = int(due)
  end
  return scores
end
