-- renew: extend the lease of a room that this token still holds, and tell what came in (the sweep for lost bells).
-- KEYS  1 meta HASH, 2 lock STRING, 3 sessions HASH
-- ARGV  1 token, 2 worker, 3 lease (ms)
-- Returns {1, iseq of the last event} or {0, 'token'}: another owner's token is stored, or none.
-- Holds: an expired but unclaimed lock is made anew; a changed token never is.
local function renew(keys, args)
  if redis.call('HGET', keys[1], 'token') ~= args[1] then return {0, 'token'} end
  redis.call('SET', keys[2], args[2] .. ':' .. args[1], 'PX', args[3])
  return {1, redis.call('HGET', keys[3], '#') or '0'}
end
