-- postpone: write down when rooms of the index of timers are looked at again, or that they have none.
-- KEYS  1 inn:timers:N ZSET
-- ARGV  triples: room, score as it was read (ms), new score (ms) or 'gone'
-- Returns how many were written.
-- Holds: a score that has changed since it was read stays as it is.
local function postpone(keys, args)
  local written = 0
  for i = 1, #args, 3 do
    local stored = redis.call('ZSCORE', keys[1], args[i])
    if stored and tonumber(stored) == tonumber(args[i + 1]) then
      written = written + 1
      if args[i + 2] == 'gone' then
        redis.call('ZREM', keys[1], args[i])
      else
        redis.call('ZADD', keys[1], args[i + 2], args[i])
      end
    end
  end
  return written
end
