-- release: give a room back. Its token is emptied, its mark stays as `released`, so a late commit is refused.
-- KEYS  1 meta HASH, 2 lock STRING, 3 inbox STREAM, 4 state HASH, 5 members HASH, 6 timers HASH, 7 sessions HASH,
--       8 outlog STREAM, 9 outbox STREAM, 10 dead STREAM
-- ARGV  1 token, 2 worker, 3 force 0|1, 4 resume window (ms)
-- Returns {1, backlog} when released (also when it was before), {2, backlog} when refused for backlog, {0, 'token'}.
-- Holds: sets expiry only without backlog, one moment for all keys of an empty room, on sessions only without members.
local function release(keys, args)
  local meta = redis.call('HMGET', keys[1], 'token', 'cursor', 'released')
  local mark = string.match(args[1], ':(%d+)$')
  local counts = redis.call('HMGET', keys[7], '#', '@')
  local hash, cursor = counters(keys[3], counts[1], counts[2]), tonumber(meta[2] or '0')
  local backlog = math.max(hash - cursor, 0)
  if meta[3] == mark and meta[1] == '' then return {1, backlog} end
  if meta[1] ~= args[1] then return {0, 'token'} end
  if backlog > 0 and args[3] ~= '1' then return {2, backlog} end
  redis.call('HSET', keys[1], 'token', '', 'released', mark)
  if redis.call('GET', keys[2]) == args[2] .. ':' .. args[1] then redis.call('DEL', keys[2]) end
  redis.call('XTRIM', keys[3], 'MINID', int(cursor + 1) .. '-0')
  if backlog > 0 then return {1, backlog} end

  local time = redis.call('TIME')
  local now, window = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), tonumber(args[4])
  -- What says which posts of rooms were accepted stays for a day: their senders may be cut off for as long.
  local has_posts = prune(keys[7], keys[5], tonumber(time[1]))
  local at = int(now + (has_posts and math.max(window, 86400000) or window))
  local memberless = redis.call('EXISTS', keys[5]) == 0
  if memberless and redis.call('EXISTS', keys[4], keys[6], keys[10]) == 0 and redis.call('XLEN', keys[9]) == 0 then
    for i = 1, 10 do
      if i ~= 2 then redis.call('PEXPIREAT', keys[i], at) end
    end
    return {1, 0}
  end
  redis.call('PEXPIREAT', keys[8], int(now + window))
  if memberless then redis.call('PEXPIREAT', keys[7], at) end
  return {1, 0}
end
