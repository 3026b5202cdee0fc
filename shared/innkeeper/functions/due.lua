-- due: read the rooms of the index of timers whose score has passed, by the server's clock.
-- KEYS  1 inn:timers:N ZSET
-- ARGV  1 most rooms (count)
-- Returns {server ms, score of the first room that is not due or '0', then room and score (ms) of each that is}.
local function due(keys, args)
  local time = redis.call('TIME')
  local now = int(tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000))
  local rooms = redis.call('ZRANGEBYSCORE', keys[1], '-inf', now, 'WITHSCORES', 'LIMIT', '0', args[1])
  local following = redis.call('ZRANGEBYSCORE', keys[1], '(' .. now, '+inf', 'WITHSCORES', 'LIMIT', '0', '1')
  local answer = {now, following[2] and int(tonumber(following[2])) or '0'}
  for i = 1, #rooms, 2 do
    answer[i + 2], answer[i + 3] = rooms[i], int(tonumber(rooms[i + 1]))
  end
  return answer
end
