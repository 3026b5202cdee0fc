-- retry: take one dead event out and append it to its room's inbox as a new one, in one step; ring the owner's bell.
-- KEYS  1 inbox STREAM, 2 sessions HASH, 3 lock STRING, 4 bell CHANNEL, 5 dead STREAM
-- ARGV  1 id of the entry in the dead stream
-- Returns a line of three words: what came of it, receivers of the bell, and the lock or nothing. It is the iseq it has
--       now, or: gone (no such entry, perhaps retried before), or the type of an event that is not for retrying.
-- Holds: an entry becomes one event at most, however often this is called.
local RETRIED = {text = true, binary = true, post = true, job = true}

local function retry(keys, args)
  local call, inbox, sessions = redis.call, keys[1], keys[2]
  local entry = call('XRANGE', keys[5], args[1], args[1])[1]
  if not entry then return 'gone 0 ' end
  local fields = {}
  for i = 1, #entry[2], 2 do fields[entry[2][i]] = entry[2][i + 1] end
  if not RETRIED[fields.type] then return (fields.type or 'unknown') .. ' 0 ' end
  local head, time, owner = call('HMGET', sessions, '#', '@'), call('TIME'), call('GET', keys[3])
  local hash, cursor = counters(inbox, head[1], head[2])
  call('XDEL', keys[5], args[1])
  local iseq = count_text(hash + 1)
  call('XADD', inbox, iseq .. '-' .. time[1] .. string.sub('00000' .. time[2], -6),
    't', fields.type, 'c', fields.connection or '-', 'e', '-', 'd', fields.data or '')
  if not owner then
    call('PERSIST', inbox)
    call('PERSIST', sessions)
  end
  call('HSET', sessions, '#', iseq)
  if not head[2] then call('HSET', sessions, '@', count_text(cursor)) end
  if not owner then return iseq .. ' 0 ' end
  return iseq .. ' ' .. call('SPUBLISH', keys[4], '') .. ' ' .. owner
end
