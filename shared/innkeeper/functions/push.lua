-- push: append an edge's events to one room's inbox, each once, and ring the owner's bell.
-- KEYS  1 inbox STREAM, 2 sessions HASH, 3 lock STRING, 4 bell CHANNEL
-- ARGV  1 edge, 2 batch number, 3 server ms of the edge's last heartbeat answer, 4 backlog cap (count), then six for
--       each event: type, connection, session ('' in raw mode), number, generation, data
-- Returns {letters, iseq of the first accepted event or 0, lock or '', receivers of the bell}; a letter an event:
--       a accepted, b busy, d duplicate, g gap, o old, u unknown, c closed. Or the error EDGE_CLOSED.
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

local function push(keys, args)
  local inbox, sessions, lock, bell = keys[1], keys[2], keys[3], keys[4]
  local edge_row = 'e:' .. args[1]
  local capped = {join = true, text = true, binary = true, request = true, post = true}
  local head = redis.call('HMGET', sessions, '#', '@', edge_row)
  local time = redis.call('TIME')
  local seconds, count = tonumber(time[1]), (#args - 4) / 6
  local stamp = time[1] .. string.format('%06d', tonumber(time[2]))
  local batch, row_first, row_letters = string.match(head[3] or '', '^(%S+) (%d+) (%S+)')
  if batch == 'closed' or seconds * 1000 - tonumber(args[3]) > 300000 then
    return redis.error_reply('EDGE_CLOSED this edge was declared dead or silent for 5 minutes')
  end
  local owner = redis.call('GET', lock)
  if batch and tonumber(args[2]) < tonumber(batch) then return {string.rep('o', count), 0, owner or '', 1} end
  if batch == args[2] then
    return {row_letters, tonumber(row_first), owner or '', owner and redis.call('SPUBLISH', bell, '') or 0}
  end

  local hash, cursor, absent = counters(inbox, head[1], head[2])
  local before, backlog, cap, busy = hash, hash - cursor, tonumber(args[4]), false
  local letters, accepted, rows, changed = {}, {}, {}, {}
  for i = 5, #args, 6 do
    local kind, session, letter = args[i], args[i + 2], 'a'
    local row, last, generation, state
    if session ~= '' then
      row = rows[session]
      if row == nil then
        local l, g, s = string.match(redis.call('HGET', sessions, 's:' .. session) or '', '^(%d+) (%d+) (%a+)')
        row = l and {last = tonumber(l), generation = tonumber(g), state = s} or false
        rows[session] = row
      end
      letter, last, generation, state = session_letter(row, kind, tonumber(args[i + 3]), tonumber(args[i + 4]))
      if kind == 'join' and row then kind = 'resume' end
    elseif absent and hash == before and kind == 'leave' then
      letter = 'u'
    end
    if letter == 'a' and capped[kind] and (busy or backlog >= cap) then letter, busy = 'b', true end
    if letter == 'a' then
      hash, backlog = hash + 1, backlog + 1
      accepted[#accepted + 1] = {i, kind}
      if session ~= '' then
        rows[session] = {last = last, generation = generation, state = state}
        changed[session] = rows[session]
      end
    end
    letters[#letters + 1] = letter
  end
  letters = table.concat(letters)
  if absent and #accepted == 0 then return {letters, 0, owner or '', 0} end

  local first = #accepted > 0 and before + 1 or 0
  local fields = {'#', int(hash), edge_row, args[2] .. ' ' .. int(first) .. ' ' .. letters .. ' ' .. time[1]}
  if not head[2] then fields[5], fields[6] = '@', int(cursor) end
  for session, row in pairs(changed) do
    fields[#fields + 1] = 's:' .. session
    fields[#fields + 1] = int(row.last) .. ' ' .. int(row.generation) .. ' ' .. row.state .. ' ' .. time[1]
  end
  if not owner then redis.call('PERSIST', inbox) redis.call('PERSIST', sessions) end
  local index, bodies, size = {}, {}, 0
  for n, event in ipairs(accepted) do
    local i, kind = event[1], event[2]
    local id, data = int(before + n) .. '-' .. stamp, args[i + 5]
    if args[i + 2] == '' then
      redis.call('XADD', inbox, id, 't', kind, 'c', args[i + 1], 'e', args[1], 'd', data)
      index[n] = id .. ' ' .. kind .. ' ' .. args[i + 1] .. ' ' .. args[1] .. ' - 0 0 ' .. #data
    else
      redis.call('XADD', inbox, id, 't', kind, 'c', args[i + 1], 'e', args[1], 'd', data,
        's', args[i + 2], 'n', args[i + 3], 'g', args[i + 4])
      index[n] = table.concat({id, kind, args[i + 1], args[1], args[i + 2], args[i + 3], args[i + 4], #data}, ' ')
    end
    bodies[n], size = data, size + #data + #index[n]
  end
  in_pieces('HSET', sessions, fields, 1, #fields)
  if not owner then return {letters, first, '', 0} end
  local news = ''
  if #accepted > 0 and size < 12000 then news = table.concat(index, ' ') .. '\n' .. table.concat(bodies) end
  return {letters, first, owner, redis.call('SPUBLISH', bell, news)}
end
