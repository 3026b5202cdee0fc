-- claim: make a worker the owner of a room under a new token, and answer all it needs to start.
-- KEYS  1 meta HASH, 2 lock STRING, 3 inbox STREAM, 4 state HASH, 5 members HASH, 6 timers HASH, 7 sessions HASH,
--       8 outlog STREAM, 9 outbox STREAM, 10 dead STREAM, 11 bell CHANNEL
-- ARGV  1 worker, 2 mark (random whole number below 2^48), 3 lease (ms), 4 lock value seen ('' = free),
--       5 subscriptions of the bell that are the claimer's own
-- Returns {1, token, meta pairs, state pairs, members pairs, timers pairs, iseq, server time µs} when owned, else
--       {0, lock, ms left of the lease, other subscribers of the bell}.
-- Holds: steals only the lock value seen, and only without other subscribers or after the lease. The same mark again,
--       stored or released, gets the first answer again; a released one takes nothing.
local function mend(keys, mark, hash, cursor, last)
  -- Somebody deleted keys: what the counters promise is not there. Put the rest aside, go on above all numbers seen.
  local highest = math.max(hash, cursor, last_generated(keys[3]))
  redis.call('XADD', keys[10], '*', 'type', 'contradiction', 'error', 'inbox, # and cursor contradict each other',
    'iseq', int(hash), 'cursor', int(cursor), 'moved', int(highest))
  for _, entry in ipairs(redis.call('XRANGE', keys[3], '-', '+')) do
    redis.call('XADD', keys[10], '*', 'id', entry[1], 'error', 'put aside by the contradiction above', unpack(entry[2]))
  end
  redis.call('XTRIM', keys[3], 'MINID', int(highest + 1) .. '-0')
  redis.call('DEL', keys[8])
  redis.call('HINCRBY', keys[1], 'contradictions', 1)
  redis.call('HSET', keys[1], 'cursor', int(highest), 'last', int(seq_of(last) + 1) .. '-' .. mark, 'bytes', '0')
  redis.call('HSET', keys[7], '#', int(highest), '@', int(highest))
  return highest, highest
end

local function answer(keys, token, hash)
  local time = redis.call('TIME')
  return {1, token, redis.call('HGETALL', keys[1]), redis.call('HGETALL', keys[4]), redis.call('HGETALL', keys[5]),
    redis.call('HGETALL', keys[6]), int(hash), time[1] .. string.format('%06d', tonumber(time[2]))}
end

-- An unclean claim with backlog makes that backlog marked: one event at a time. `try` names the event whose handler may
-- be running (a commit writes it before the handler starts); a claim that finds it counts a strike, unless it comes
-- from the very worker that owned the room: that one has cut a hook, it has not died.
local function suspect(keys, meta, hash, cursor, worker)
  redis.call('HDEL', keys[1], 'try')
  if not meta[1] or meta[1] == '' or hash <= cursor then
    redis.call('HDEL', keys[1], 'strikes', 'marked')
    return
  end
  local strikes = tonumber(meta[8] or '0')
  if tonumber(meta[7] or '-1') == cursor + 1 and meta[9] ~= worker then strikes = strikes + 1 end
  redis.call('HSET', keys[1], 'strikes', int(strikes), 'marked', int(hash))
end

local function claim(keys, args)
  local worker, mark, own = args[1], args[2], tonumber(args[5])
  local held = redis.call('GET', keys[2])
  local meta = redis.call('HMGET', keys[1], 'token', 'version', 'cursor', 'epoch', 'last', 'released', 'try', 'strikes',
    'worker')
  local counts = redis.call('HMGET', keys[7], '#', '@')
  local stored = string.match(meta[1] or '', ':(%d+)$')
  if stored == mark or meta[6] == mark then
    local token = int(tonumber(meta[4])) .. ':' .. mark
    if stored == mark then redis.call('SET', keys[2], worker .. ':' .. token, 'PX', args[3]) end
    return answer(keys, token, tonumber(counts[1] or meta[3] or '0'))
  end
  if held then
    local others = redis.call('PUBSUB', 'SHARDNUMSUB', keys[11])[2] - own
    local left = redis.call('PTTL', keys[2])
    if held ~= args[4] or (others > 0 and left > 0) then return {0, held, left, others} end
  end

  local hash, copy = counters(keys[3], counts[1], counts[2])
  local cursor, epoch = tonumber(meta[3] or int(copy)), tonumber(meta[4] or '0') + 1
  if not counts[1] then hash = math.max(hash, cursor) end
  local token = int(epoch) .. ':' .. mark
  for i = 1, 10 do
    if i ~= 2 then redis.call('PERSIST', keys[i]) end
  end
  -- Below a '#' that lags behind the cursor stand new events under numbers given before: they are not committed.
  if hash >= cursor then redis.call('XTRIM', keys[3], 'MINID', int(cursor + 1) .. '-0') end
  if hash < cursor or redis.call('XLEN', keys[3]) ~= hash - cursor or last_generated(keys[3]) > hash then
    hash, cursor = mend(keys, mark, hash, cursor, meta[5] or '0-0')
  end
  redis.call('HSET', keys[7], '#', int(hash), '@', int(cursor))
  suspect(keys, meta, hash, cursor, worker)
  redis.call('HDEL', keys[1], 'released')
  redis.call('HSET', keys[1], 'token', token, 'epoch', int(epoch), 'worker', worker, 'cursor', int(cursor),
    'version', meta[2] or '0', 'last', redis.call('HGET', keys[1], 'last') or '0-0')
  redis.call('SET', keys[2], worker .. ':' .. token, 'PX', args[3])
  return answer(keys, token, hash)
end
