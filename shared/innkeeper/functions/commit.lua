-- commit: make one turn of a room true, all of it or nothing, and show it to the edges.
-- KEYS  1 meta HASH, 2 lock STRING, 3 inbox STREAM, 4 sessions HASH, 5 outlog STREAM, 6 out CHANNEL (or one that nobody
--       hears, where announce shows the outputs); with changes, or letter d or p, also 7 state HASH, 8 members HASH,
--       9 timers HASH, 10 outbox STREAM, 11 dead STREAM
-- ARGV  1 words: token, version, version after it, count of consumed ids, bytes of all outputs before this turn's, bytes
--       with them, letters or '-'; and if there is any of it: lease (ms, 0 = leave the lock), worker, trim (0, or outlog
--       entries to keep at least), and with changes the counts of values in their nine sections;
--       then the ids; the changes: state set (key, JSON); state del; members set (connection, JSON); members del;
--       timers set (name, JSON); timers del; sessions closed; outbox (type, target, data); dead (id, type, connection,
--       data, error, traceback); and to the end the outputs (header, body).
--       Letters: c the room is created, d destroy, m it is under suspicion, t its next event is tried, p prune
-- Returns the id of the last output when committed, also when this very commit was committed before, or one word when
--       refused (token, version, input, gap): nothing was written, drop the room from memory.

-- Are the consumed events there, these very ones, and the next after the cursor? A single one is looked for by taking it
-- out of the inbox: that is half the price, and its absence leaves nothing to undo.
local function consume(inbox, args, count, base)
  if count == 1 then
    if string.match(args[2], '^%d+') ~= count_text(base + 1) then return 'gap' end
    return redis.call('XDEL', inbox, args[2]) == 0 and 'input' or nil
  end
  local entries = redis.call('XRANGE', inbox, args[2], args[1 + count], 'COUNT', count + 1)
  if #entries ~= count then return 'input' end
  for n, entry in ipairs(entries) do
    if entry[1] ~= args[1 + n] then return 'input' end
    if string.match(entry[1], '^%d+') ~= count_text(base + n) then return 'gap' end
  end
  return nil
end

local function close_sessions(sessions, args, first, last, seconds)
  for i = first, last do
    local l, g = string.match(redis.call('HGET', sessions, 's:' .. args[i]) or '', '^(%d+) (%d+)')
    if l then redis.call('HSET', sessions, 's:' .. args[i], l .. ' ' .. g .. ' closed ' .. seconds) end
  end
end

-- Publish the outputs first … seq; none of them in it means: too large, read the outlog.
local function publish(channel, previous, mark, first, seq, cursor, index, bodies)
  local text = #bodies == 1 and index[1] .. '\n' .. bodies[1]
    or table.concat(index, '|') .. '\n' .. table.concat(bodies)
  redis.call('SPUBLISH', channel, previous .. ' ' .. mark .. ' ' .. first .. ' ' .. seq .. ' ' .. cursor .. '\n' .. text)
end

-- Write the outputs to the outlog and publish them in messages below 16 KiB. Returns the last id.
local function show(keys, mark, last_id, before, args, first, last, old_cursor, cursor)
  local outlog, out, seq_text = keys[5], keys[6], string.match(last_id, '^%d+')
  local seq = seq_text + 0
  local previous, chunk_first, index, bodies, n, size = last_id, nil, {}, {}, 0, 0
  for i = first, last, 2 do
    local header, body = args[i], args[i + 1]
    local length = #header + #body + 8
    if size > 0 and size + length > 12000 then
      publish(out, previous, mark, chunk_first, seq_text, old_cursor, index, bodies)
      previous, chunk_first, index, bodies, n, size = last_id, nil, {}, {}, 0, 0
    end
    seq, size = seq + 1, size + length
    seq_text = count_text(seq)
    last_id, chunk_first = seq_text .. '-' .. mark, chunk_first or seq_text
    redis.call('XADD', outlog, last_id, 'h', header, 'd', body, 'b', before)
    if length > 12000 then
      publish(out, previous, mark, chunk_first, seq_text, i + 1 >= last and cursor or old_cursor, index, bodies)
      previous, chunk_first, size = last_id, nil, 0
    else
      n = n + 1
      index[n], bodies[n] = header .. '|' .. count_text(#body), body
    end
  end
  if size > 0 or first > last then
    publish(out, previous, mark, chunk_first or count_text(seq + 1), seq_text, cursor, index, bodies)
  end
  return last_id
end

-- Keep the outlog at 1,000 entries and 256 KiB, but never cut what edges may still be reading: the `least` newest
-- entries. 'b' counts the bytes before an entry's turn: where the oldest turn is cut in two, how much it still holds is
-- not known before the next trimming.
local function trim_outlog(outlog, bytes, least)
  redis.call('XTRIM', outlog, 'MAXLEN', math.max(1000, least))
  local before
  for _ = 1, 20 do
    local oldest, length = redis.call('XRANGE', outlog, '-', '+', 'COUNT', 1)[1], redis.call('XLEN', outlog)
    if not oldest or length <= least then return end
    local kept = bytes - oldest[2][6]
    if kept <= 262144 or kept == before then return end
    before = kept
    redis.call('XTRIM', outlog, 'MAXLEN', math.max(least, math.floor(length * 262144 / kept * 0.95)))
  end
end

local function write_outbox(meta, outbox, mark, args, first, last)
  local posted = (redis.call('HGET', meta, 'posted') or last_generated(outbox)) + 0
  for i = first, last, 3 do
    posted = posted + 1
    redis.call('XADD', outbox, count_text(posted) .. '-' .. mark, 'type', args[i], 'target', args[i + 1], 'data', args[i + 2])
  end
  redis.call('HSET', meta, 'posted', count_text(posted))
end

local function write_dead(dead, args, first, last)
  for i = first, last, 6 do
    redis.call('XADD', dead, 'MAXLEN', '~', 1000, '*', 'id', args[i], 'type', args[i + 1], 'connection', args[i + 2],
      'data', args[i + 3], 'error', args[i + 4], 'traceback', args[i + 5])
  end
end

-- The first six sections are plain deltas: command and key.
local DELTAS = {{'HSET', 7}, {'HDEL', 7}, {'HSET', 8}, {'HDEL', 8}, {'HSET', 9}, {'HDEL', 9}}

-- Carry out the nine sections of changes that begin at args[at]; returns where the outputs begin.
local function change(keys, mark, counts, args, at)
  local section = 0
  for length in string.gmatch(counts, '%d+') do
    section = section + 1
    local last = at + length - 1
    if last >= at then
      if section <= 6 then
        in_pieces(DELTAS[section][1], keys[DELTAS[section][2]], args, at, last)
      elseif section == 7 then
        close_sessions(keys[4], args, at, last, redis.call('TIME')[1])
      elseif section == 8 then
        write_outbox(keys[1], keys[10], mark, args, at, last)
      else
        write_dead(keys[11], args, at, last)
      end
    end
    at = last + 1
  end
  return at
end

-- What else the letters ask for. A clean commit of the last marked event ends the suspicion.
local function note(keys, letters, moved, cursor)
  local meta, sessions = keys[1], keys[4]
  if string.find(letters, 'c', 1, true) then redis.call('HSET', meta, 'created', '1') end
  if string.find(letters, 'p', 1, true) and redis.call('HGET', sessions, '#') == cursor then
    prune(sessions, keys[8], redis.call('TIME')[1] + 0)
  end
  if not string.find(letters, 'm', 1, true) then return end
  local marked = redis.call('HGET', meta, 'marked')
  if not marked then return end
  if cursor - marked >= 0 then
    redis.call('HDEL', meta, 'try', 'strikes', 'marked')
  else
    if moved then redis.call('HDEL', meta, 'try') redis.call('HSET', meta, 'strikes', '0') end
    if string.find(letters, 't', 1, true) then redis.call('HSET', meta, 'try', cursor + 1 .. '') end
  end
end

local function commit(keys, args)
  local call, meta, inbox, sessions = redis.call, keys[1], keys[3], keys[4]
  local token, expected, version, count, before, bytes, letters, more =
    string.match(args[1], '^(%S+) (%d+) (%d+) (%d+) (%d+) (%d+) (%S+) ?(.*)$')
  local stored = call('HMGET', meta, 'token', 'version', 'cursor', 'last')
  local old_cursor, last_id = stored[3] or '0', stored[4] or '0-0'
  if stored[1] ~= token then return 'token' end
  if (stored[2] or '0') ~= expected then
    if stored[2] == version then return last_id end
    return 'version'
  end
  local cursor, outputs = old_cursor, 2 + count
  if outputs > 2 then
    local reason = consume(inbox, args, outputs - 2, old_cursor + 0)
    if reason then return reason end
    cursor = string.match(args[outputs - 1], '^%d+')
  end

  local mark, lease, worker, trim, counts = string.match(token, ':(%d+)$'), '0', nil, '0', ''
  if more ~= '' then lease, worker, trim, counts = string.match(more, '^(%d+) (%S+) (%d+) ?(.*)$') end
  if string.find(letters, 'd', 1, true) then
    call('DEL', keys[7], keys[8], keys[9], keys[5], keys[11])
    call('HDEL', meta, 'created')
  end
  if counts ~= '' then outputs = change(keys, mark, counts, args, outputs) end
  last_id = show(keys, mark, last_id, before, args, outputs, #args, old_cursor, cursor)
  call('HSET', meta, 'version', version, 'cursor', cursor, 'last', last_id, 'bytes', bytes)
  if cursor ~= old_cursor then call('HSET', sessions, '@', cursor) end
  if letters ~= '-' then note(keys, letters, cursor ~= old_cursor, cursor) end
  if lease ~= '0' then call('SET', keys[2], worker .. ':' .. token, 'PX', lease) end
  if trim ~= '0' then
    call('XTRIM', inbox, 'MINID', cursor + 1 .. '-0')
    trim_outlog(keys[5], bytes + 0, trim + 0)
  end
  return last_id
end
