-- post: append what a room or another program sends to one room's inbox, each once, and ring the owner's bell.
-- KEYS  1 inbox STREAM, 2 sessions HASH, 3 lock STRING, 4 bell CHANNEL
-- ARGV  1 words: source (kind/name of a room, x-… of another program), mark under which the source wrote them, backlog cap
--       (count); then two for each event: words (number, type, connection or '-'), data. Numbers grow from event to event.
-- Returns a line of three words: letters, receivers of the bell, and the lock or nothing. A letter an event: a accepted,
--       d duplicate, b busy.
-- Holds: a number of a source and mark is accepted once, and none below one that was; after the first b all are b.
local function post(keys, args)
  local call, inbox, sessions = redis.call, keys[1], keys[2]
  local source, mark, cap = string.match(args[1], '^(%S+) (%d+) (%d+)$')
  local row = 'p:' .. source .. ':' .. mark
  local head, time, owner = call('HMGET', sessions, '#', '@', row), call('TIME'), call('GET', keys[3])
  local had = head[3] and string.match(head[3], '^%d+') or '0'
  local hash, cursor = counters(inbox, head[1], head[2])
  local stamp = '-' .. time[1] .. string.sub('00000' .. time[2], -6)
  local letters, full_at, index, data = '', cursor + cap, {}, {}
  for i = 2, #args, 2 do
    local number, kind, connection = string.match(args[i], '^(%d+) (%S+) (%S+)$')
    local letter = 'a'
    if not greater(number, had) then
      letter = 'd'
    elseif string.sub(letters, -1) == 'b' or (CAPPED[kind] and hash >= full_at) then
      letter = 'b'
    else
      local body, n = args[i + 1], #index + 1
      hash, had = hash + 1, number
      local id = count_text(hash) .. stamp
      call('XADD', inbox, id, 't', kind, 'c', connection, 'e', source, 'd', body)
      index[n], data[n] = id .. ' ' .. source .. ' ' .. count_text(#body) .. ' ' .. kind .. ' ' .. connection, body
    end
    letters = letters .. letter
  end
  if #index > 0 then
    if not owner then
      call('PERSIST', inbox)
      call('PERSIST', sessions)
    end
    call('HSET', sessions, '#', count_text(hash), row, had .. ' ' .. time[1])
    if not head[2] then call('HSET', sessions, '@', count_text(cursor)) end
  end
  if not owner then return letters .. ' 0 ' end
  local told = #index > 0 and table.concat(index, '|') .. '\n' .. table.concat(data) or ''
  if #told > 12000 then told = '' end
  return letters .. ' ' .. call('SPUBLISH', keys[4], told) .. ' ' .. owner
end
