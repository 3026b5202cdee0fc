-- heartbeat: say that an incarnation lives, by the server's clock.
-- KEYS  1 inn:workers or inn:edges ZSET
-- ARGV  1 incarnation, 2 first 0|1
-- Returns {1, server ms}, or {0, server ms} where it was declared dead meanwhile: take a new incarnation.
local function heartbeat(keys, args)
  local time = redis.call('TIME')
  local now_ms = time[1] .. string.format('%03d', math.floor(tonumber(time[2]) / 1000))
  if args[2] ~= '1' and not redis.call('ZSCORE', keys[1], args[1]) then return {0, now_ms} end
  redis.call('ZADD', keys[1], now_ms, args[1])
  return {1, now_ms}
end
