-- reap_edge: close a dead edge's row in one room and append one edge-gone event, so that its members leave in order.
-- KEYS  1 inbox STREAM, 2 sessions HASH, 3 lock STRING, 4 bell CHANNEL
-- ARGV  1 edge
-- Returns {appended 0|1, lock or '', receivers of the bell}.
-- Holds: one event an edge and room; a later push of that edge is answered EDGE_CLOSED.
local function reap_edge(keys, args)
  local row = 'e:' .. args[1]
  local head = redis.call('HMGET', keys[2], '#', '@', row)
  local owner = redis.call('GET', keys[3])
  if head[3] and string.sub(head[3], 1, 7) == 'closed ' then
    return {0, owner or '', owner and redis.call('SPUBLISH', keys[4], '') or 0}
  end
  local time = redis.call('TIME')
  local hash, cursor = counters(keys[1], head[1], head[2])
  redis.call('PERSIST', keys[1])
  redis.call('PERSIST', keys[2])
  redis.call('XADD', keys[1], int(hash + 1) .. '-' .. time[1] .. string.format('%06d', tonumber(time[2])),
    't', 'edge-gone', 'c', '-', 'e', args[1], 'd', '')
  redis.call('HSET', keys[2], '#', int(hash + 1), '@', int(cursor), row, 'closed 0 - ' .. time[1])
  return {1, owner or '', owner and redis.call('SPUBLISH', keys[4], '') or 0}
end
