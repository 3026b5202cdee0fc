-- wake: note rooms that want an owner, in the wake queue of their kind or in an index of rooms awake.
-- KEYS  1 inn:wake:KIND or inn:rooms:N ZSET
-- ARGV  1 NX, or '' to overwrite, 2 what to add to the server's time (ms), then rooms
-- Returns how many of them stood not there before.
-- Holds: the score is the server's time, so that no index depends on an edge's or worker's clock.
local function wake(keys, args)
  local time, added = redis.call('TIME'), 0
  local score = int(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000) + tonumber(args[2]))
  for i = 3, #args do
    if args[1] == 'NX' then
      added = added + redis.call('ZADD', keys[1], 'NX', score, args[i])
    else
      added = added + redis.call('ZADD', keys[1], score, args[i])
    end
  end
  return added
end
