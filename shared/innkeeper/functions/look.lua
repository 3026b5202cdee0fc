-- look: write down what a look at rooms of the index of rooms awake has shown.
-- KEYS  1 inn:rooms:N ZSET
-- ARGV  1 server ms at which the rooms were due, then pairs: room, ms until it is looked at again, or 'rest'
-- Returns how many were taken out.
-- Holds: a room that was woken since it was read from the index (its score has moved past then) stays as it is.
local function look(keys, args)
  local time, out = redis.call('TIME'), 0
  local now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000)
  for i = 2, #args, 2 do
    local score = redis.call('ZSCORE', keys[1], args[i])
    if score and tonumber(score) <= tonumber(args[1]) then
      if args[i + 1] == 'rest' then
        out = out + redis.call('ZREM', keys[1], args[i])
      else
        redis.call('ZADD', keys[1], int(now + tonumber(args[i + 1])), args[i])
      end
    end
  end
  return out
end
