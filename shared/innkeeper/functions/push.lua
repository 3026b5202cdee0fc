-- push: append an edge's events to one room's inbox, each once, and ring the owner's bell.
-- KEYS  1 inbox STREAM, 2 sessions HASH, 3 lock STRING, 4 bell CHANNEL
-- ARGV  1 edge, 2 batch number, 3 server ms of the edge's last heartbeat answer, 4 backlog cap (count), then six for
--       each event: type, connection, session ('' in raw mode), number, generation, data
-- Returns {letters, iseq of the first accepted event or 0, lock or '', receivers of the bell, number of this edge's batch
--       before or '0'}; an edge that had a later one accepted knows that history was cut. A letter an event: a accepted, b busy, d duplicate, g gap, o old, u unknown, c closed. Or the error EDGE_CLOSED.
-- Holds: equal batch number = same answer, nothing written; once b, every later capped event of the call is b.
local function session_letter(row, kind, number, generation)
  if kind == 'join' and not row then return 'a', 0, generation, 'up' end
  if not row then return 'u' end
  if row.state == 'closed' then return kind == 'leave' and 'd' or 'c' end
  if kind == 'join' or kind == 'resume' then
    if generation > row.generation then return 'a', row.last, generation, 'up' end
    return 'o'
  end
  if kind == 'drop' or kind == 'leave' then
    if generation < row.generation then return 'o' end
    if kind == 'drop' and row.state == 'down' and generation == row.generation then return 'd' end
    return 'a', row.last, generation, kind == 'drop' and 'down' or 'closed'
  end
  if number <= row.last then return 'd' end
  if number > row.last + 1 then return 'g' end
  return 'a', number, row.generation, row.state
end

-- Kinds that the backlog cap holds back; all others are always accepted.
local CAPPED = {join = true, text = true, binary = true, request = true, post = true}

local function session_row(sessions, session)
  local last, generation, state =
    string.match(redis.call('HGET', sessions, 's:' .. session) or '', '^(%d+) (%d+) (%a+)')
  return last and {last = tonumber(last), generation = tonumber(generation), state = state}
end

local function push(keys, args)
  local inbox, sessions, lock, bell = keys[1], keys[2], keys[3], keys[4]
  local edge_row = 'e:' .. args[1]
  local head, time = redis.call('HMGET', sessions, '#', '@', edge_row), redis.call('TIME')
  local batch, row_first, row_letters
  if head[3] then batch, row_first, row_letters = string.match(head[3], '^(%S+) (%d+) (%S+)') end
  if batch == 'closed' or tonumber(time[1]) * 1000 - tonumber(args[3]) > 300000 then
    return redis.error_reply('EDGE_CLOSED this edge was declared dead or silent for 5 minutes')
  end
  local owner = redis.call('GET', lock)
  if batch == args[2] then
    return {row_letters, tonumber(row_first), owner or '', owner and redis.call('SPUBLISH', bell, '') or 0, batch}
  end
  if batch and tonumber(args[2]) < tonumber(batch) then
    return {string.rep('o', (#args - 4) / 6), 0, owner or '', 1, batch}
  end

  local hash, cursor, absent = counters(inbox, head[1], head[2])
  local before, busy_at, busy = hash, cursor + tonumber(args[4]), false
  local stamp = '-' .. time[1] .. string.sub('00000' .. time[2], -6)
  local letters, last_text, first_text, ids, rows = '', nil, '0', {}, nil
  for i = 5, #args, 6 do
    local kind, session, letter = args[i], args[i + 2], 'a'
    local row, last, generation, state
    if session ~= '' then
      rows = rows or {}
      row = rows[session] or session_row(sessions, session)
      letter, last, generation, state = session_letter(row, kind, tonumber(args[i + 3]), tonumber(args[i + 4]))
      if letter == 'g' and busy then letter = 'b' end  -- the one before it waits, so this one does
      if kind == 'join' and row then kind, args[i] = 'resume', 'resume' end
    elseif absent and hash == before and kind == 'leave' then
      letter = 'u'
    end
    if letter == 'a' and CAPPED[kind] and (busy or hash >= busy_at) then letter, busy = 'b', true end
    if letter == 'a' then
      hash = hash + 1
      last_text = hash .. ''
      if hash == before + 1 then first_text = last_text end
      ids[i] = last_text .. stamp
      if session ~= '' then rows[session] = {last = last, generation = generation, state = state} end
    end
    letters = letters .. letter
  end
  if absent and hash == before then return {letters, 0, owner or '', 0, batch or '0'} end

  if not owner then redis.call('PERSIST', inbox) redis.call('PERSIST', sessions) end
  local index, data, n = {}, {}, 0
  for i = 5, #args, 6 do
    local id = ids[i]
    if id then
      local kind, connection, session = args[i], args[i + 1], args[i + 2]
      n = n + 1
      data[n] = args[i + 5]
      if session == '' then
        redis.call('XADD', inbox, id, 't', kind, 'c', connection, 'e', args[1], 'd', data[n])
        index[n] = id .. ' ' .. kind .. ' ' .. connection .. ' ' .. args[1] .. ' - 0 0 ' .. count_text(#data[n])
      else
        redis.call('XADD', inbox, id, 't', kind, 'c', connection, 'e', args[1], 'd', data[n],
          's', session, 'n', args[i + 3], 'g', args[i + 4])
        index[n] = table.concat({id, kind, connection, args[1], session, args[i + 3], args[i + 4], #data[n]}, ' ')
      end
    end
  end
  local first = n > 0 and before + 1 or 0
  redis.call('HSET', sessions, '#', last_text or hash .. '',
    edge_row, args[2] .. ' ' .. first_text .. ' ' .. letters .. ' ' .. time[1])
  if not head[2] then redis.call('HSET', sessions, '@', cursor .. '') end
  for session, row in pairs(rows or {}) do
    redis.call('HSET', sessions, 's:' .. session,
      row.last .. ' ' .. row.generation .. ' ' .. row.state .. ' ' .. time[1])
  end
  if not owner then return {letters, first, '', 0, batch or '0'} end
  local news = table.concat(index, ' ') .. '\n' .. table.concat(data)
  if n == 0 or #news > 12000 then news = '' end
  return {letters, first, owner, redis.call('SPUBLISH', bell, news), batch or '0'}
end
