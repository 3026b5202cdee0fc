-- push: append an edge's events to one room's inbox, each once, and ring the owner's bell.
-- KEYS  1 inbox STREAM, 2 sessions HASH, 3 lock STRING, 4 bell CHANNEL
-- ARGV  1 words: edge, batch number, server second until which the edge may push (5 min after the last answer to a
--       heartbeat of its), backlog cap (count); then two for each event: words (type, connection, and of a session also its id, number, generation), data
-- Returns a line of five words: letters, iseq of the first accepted event or 0, receivers of the bell, number of this
--       edge's batch before or 0 (an edge that had a later one accepted knows that history was cut), and the lock or
--       nothing. A letter an event: a accepted, b busy, d duplicate, g gap, o old, u unknown, c closed. Or the error
--       EDGE_CLOSED. One line, because each part of an answer costs as much as a short command's argument.
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
  if generation < row.generation then return 'o' end
  if kind == 'resync' then return 'a', row.last, generation, 'up' end
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

local function pushed(letters, first, receivers, batch, owner)
  return letters .. ' ' .. first .. ' ' .. receivers .. ' ' .. (batch or '0') .. ' ' .. (owner or '')
end

local function push(keys, args)
  local call, inbox, sessions = redis.call, keys[1], keys[2]
  local edge, number, until_s, cap = string.match(args[1], '^(%S+) (%d+) (%d+) (%d+)$')
  local edge_row = 'e:' .. edge
  local head, time, owner = call('HMGET', sessions, '#', '@', edge_row), call('TIME'), call('GET', keys[3])
  local seconds, batch = time[1], head[3] and string.sub(head[3], 1, string.find(head[3], ' ', 1, true) - 1)
  if batch == 'closed' or greater(seconds, until_s) then
    return redis.error_reply('EDGE_CLOSED this edge was declared dead or silent for 5 minutes')
  end
  if batch == number then
    local first, letters = string.match(head[3], '^%S+ (%d+) (%S+)')
    return pushed(letters, first, owner and call('SPUBLISH', keys[4], '') or 0, batch, owner)
  end
  if batch and greater(batch, number) then
    return pushed(string.rep('o', (#args - 1) / 2), '0', 1, batch, owner)
  end

  local hash, cursor, absent = counters(inbox, head[1], head[2])
  local before, busy_at, busy = hash, cursor + cap, false
  local stamp = '-' .. seconds .. string.sub('00000' .. time[2], -6)
  local letters, last_text, first_text, rows, index, data, n = '', nil, '0', nil, {}, {}, 0
  for i = 2, #args, 2 do
    local words, body, letter = args[i], args[i + 1], 'a'
    local kind, connection, session, said, tried = string.match(words, '^(%S+) (%S+) ?(%S*) ?(%d*) ?(%d*)$')
    local row, last, generation, state
    if session ~= '' then
      rows = rows or {}
      row = rows[session] or session_row(sessions, session)
      letter, last, generation, state = session_letter(row, kind, said + 0, tried + 0)
      if letter == 'g' and busy then letter = 'b' end  -- the one before it waits, so this one does
      if kind == 'join' and row then kind, words = 'resume', 'resume' .. string.sub(words, 5) end
    elseif absent and hash == before and kind == 'leave' then
      letter = 'u'
    end
    if letter == 'a' and CAPPED[kind] and (busy or hash >= busy_at) then letter, busy = 'b', true end
    if letter == 'a' then
      hash, n = hash + 1, n + 1
      last_text = count_text(hash)
      if n == 1 then first_text = last_text end
      local id = last_text .. stamp
      if session == '' then
        call('XADD', inbox, id, 't', kind, 'c', connection, 'e', edge, 'd', body)
      else
        rows[session] = {last = last, generation = generation, state = state, moved = kind == 'leave' and body or ''}
        call('XADD', inbox, id, 't', kind, 'c', connection, 'e', edge, 'd', body, 's', session, 'n', said, 'g', tried)
      end
      index[n], data[n] = id .. ' ' .. edge .. ' ' .. count_text(#body) .. ' ' .. words, body
    end
    letters = letters .. letter
  end
  if absent and n == 0 then return pushed(letters, '0', 0, batch, owner) end

  if not owner then call('PERSIST', inbox) call('PERSIST', sessions) end
  call('HSET', sessions, '#', last_text or count_text(hash),
    edge_row, number .. ' ' .. first_text .. ' ' .. letters .. ' ' .. seconds)
  if not head[2] then call('HSET', sessions, '@', cursor .. '') end
  for session, row in pairs(rows or {}) do
    call('HSET', sessions, 's:' .. session, row.last .. ' ' .. row.generation .. ' ' .. row.state
      .. (row.moved == '' and '' or ' ' .. row.moved) .. ' ' .. seconds)  -- moved: where its client is told to go
  end
  if not owner then return pushed(letters, first_text, 0, batch, owner) end
  local news = n == 1 and index[1] .. '\n' .. data[1] or table.concat(index, '|') .. '\n' .. table.concat(data)
  if n == 0 or #news > 12000 then news = '' end
  return pushed(letters, first_text, call('SPUBLISH', keys[4], news), batch, owner)
end
