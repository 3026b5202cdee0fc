-- commit: make one turn of a room true, all of it or nothing, and show it to the edges.
-- KEYS  1 meta HASH, 2 lock STRING, 3 inbox STREAM, 4 state HASH, 5 members HASH, 6 timers HASH, 7 sessions HASH,
--       8 outlog STREAM, 9 outbox STREAM, 10 dead STREAM, 11 out CHANNEL (or one that nobody hears, where announce shows the outputs)
-- ARGV  1 token, 2 version, 3 lease (ms, 0 = leave the lock), 4 worker, 5 trim (0, or outlog entries to keep at least),
--       6 destroy 1, room not created yet 2, the next event is tried under suspicion 3, else 0; 7 count of consumed
--       ids, 8 counts of values in the nine sections of changes, or '' for none; then the ids; the changes: state set (key, JSON); state del; members set (connection, JSON); members del; timers set
--       (name, JSON); timers del; sessions closed; outbox (type, target, data); dead (id, type, connection, data,
--       error, traceback); and to the end the outputs (header, body)
-- Returns {1, version, id of the last output} when committed, {2, …} when this very commit was committed before,
--       {0, reason} when refused (token, version, input, gap): nothing was written, drop the room from memory.
local function refusal(inbox, meta, args, first, count)
  if meta[1] ~= args[1] or not meta[1] then return 'token' end
  if (meta[2] or '0') ~= args[2] then return 'version' end
  if count == 0 then return nil end
  local cursor = tonumber(meta[3] or '0')
  local entries = redis.call('XRANGE', inbox, args[first], args[first + count - 1], 'COUNT', count + 1)
  if #entries ~= count then return 'input' end
  for n, entry in ipairs(entries) do
    if entry[1] ~= args[first + n - 1] then return 'input' end
    if seq_of(entry[1]) ~= cursor + n then return 'gap' end
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
  redis.call('SPUBLISH', channel, previous .. ' ' .. mark .. ' ' .. first .. ' ' .. seq .. ' ' .. cursor .. '\n'
    .. table.concat(index, '|') .. '\n' .. table.concat(bodies))
end

-- Write the outputs to the outlog and publish them in messages below 16 KiB. Returns the last id and all bytes ever.
local function show(keys, meta, mark, args, first, last, old_cursor, cursor)
  local last_id, bytes_text = meta[4] or '0-0', meta[5] or '0'
  local seq_text = string.match(last_id, '^%d+')
  local seq, bytes = tonumber(seq_text), tonumber(bytes_text)
  local previous, chunk_first, index, bodies, size = last_id, nil, {}, {}, 0
  for i = first, last, 2 do
    local header, body = args[i], args[i + 1]
    local length = #header + #body + 8
    if size > 0 and size + length > 12000 then
      publish(keys[11], previous, mark, chunk_first, seq_text, old_cursor, index, bodies)
      previous, chunk_first, index, bodies, size = last_id, nil, {}, {}, 0
    end
    seq, bytes, size = seq + 1, bytes + length - 8, size + length
    seq_text, bytes_text = seq .. '', bytes .. ''
    last_id, chunk_first = seq_text .. '-' .. mark, chunk_first or seq_text
    redis.call('XADD', keys[8], last_id, 'h', header, 'd', body, 'b', bytes_text)
    if length > 12000 then
      publish(keys[11], previous, mark, chunk_first, seq_text, i + 1 >= last and cursor or old_cursor, index, bodies)
      previous, chunk_first, size = last_id, nil, 0
    else
      index[#index + 1], index[#index + 2], bodies[#bodies + 1] = header, count_text(#body), body
    end
  end
  if size > 0 or first > last then
    publish(keys[11], previous, mark, chunk_first or seq + 1 .. '', seq_text, cursor, index, bodies)
  end
  return last_id, bytes_text
end

-- Keep the outlog at 1,000 entries and 256 KiB ('b' counts the bytes written before and with an entry), but never cut
-- what edges may still be reading: the `least` newest entries.
local function trim_outlog(outlog, bytes, least)
  redis.call('XTRIM', outlog, 'MAXLEN', math.max(1000, least))
  for _ = 1, 20 do
    local oldest, length = redis.call('XRANGE', outlog, '-', '+', 'COUNT', 1)[1], redis.call('XLEN', outlog)
    if not oldest or length <= least then return end
    local kept = bytes - tonumber(oldest[2][6]) + #oldest[2][2] + #oldest[2][4]
    if kept <= 262144 then return end
    redis.call('XTRIM', outlog, 'MAXLEN', math.max(least, math.floor(length * 262144 / kept * 0.95)))
  end
end

local function write_outbox(outbox, posted, mark, args, first, last)
  for i = first, last, 3 do
    posted = posted + 1
    redis.call('XADD', outbox, posted .. '-' .. mark, 'type', args[i], 'target', args[i + 1], 'data', args[i + 2])
  end
  return posted
end

local function write_dead(dead, args, first, last)
  for i = first, last, 6 do
    redis.call('XADD', dead, 'MAXLEN', '~', 1000, '*', 'id', args[i], 'type', args[i + 1], 'connection', args[i + 2],
      'data', args[i + 3], 'error', args[i + 4], 'traceback', args[i + 5])
  end
end

-- The first six sections are plain deltas: command and key.
local DELTAS = {{'HSET', 4}, {'HDEL', 4}, {'HSET', 5}, {'HDEL', 5}, {'HSET', 6}, {'HDEL', 6}}

-- Carry out the nine sections of changes that begin at args[at]; returns where the outputs begin, and the outbox's count.
local function change(keys, meta, mark, args, at)
  local section, posted = 0, tonumber(meta[8] or '0')
  for length in string.gmatch(args[8], '%d+') do
    section = section + 1
    local last = at + tonumber(length) - 1
    if last >= at then
      if section <= 6 then
        in_pieces(DELTAS[section][1], keys[DELTAS[section][2]], args, at, last)
      elseif section == 7 then
        close_sessions(keys[7], args, at, last, redis.call('TIME')[1])
      elseif section == 8 then
        posted = write_outbox(keys[9], posted, mark, args, at, last)
      else
        write_dead(keys[10], args, at, last)
      end
    end
    at = last + 1
  end
  return at, posted
end

local function commit(keys, args)
  local meta = redis.call('HMGET', keys[1], 'token', 'version', 'cursor', 'last', 'bytes', 'strikes', 'marked', 'posted',
    'created')
  local count = tonumber(args[7])
  local reason = refusal(keys[3], meta, args, 9, count)
  if reason == 'version' and tonumber(meta[2]) == tonumber(args[2]) + 1 then return {2, meta[2], meta[4] or '0-0'} end
  if reason then return {0, reason} end

  local mark, old_cursor = string.match(args[1], ':(%d+)$'), meta[3] or '0'
  local cursor, version = count > 0 and tonumber(old_cursor) + count .. '' or old_cursor, tonumber(args[2]) + 1
  local version_text = version .. ''
  if args[6] == '1' then
    redis.call('DEL', keys[4], keys[5], keys[6], keys[8], keys[10])
    redis.call('HDEL', keys[1], 'created')
    meta[5] = '0'
  end
  local outputs, posted = 9 + count, 0
  if args[8] ~= '' then outputs, posted = change(keys, meta, mark, args, outputs) end
  local last_id, bytes = show(keys, meta, mark, args, outputs, #args, old_cursor, cursor)
  redis.call('HSET', keys[1], 'version', version_text, 'cursor', cursor, 'last', last_id, 'bytes', bytes)
  if (args[6] == '0' or args[6] == '3') and not meta[9] then redis.call('HSET', keys[1], 'created', '1') end
  if posted > 0 then redis.call('HSET', keys[1], 'posted', posted .. '') end
  if meta[7] and tonumber(cursor) >= tonumber(meta[7]) then
    redis.call('HDEL', keys[1], 'try', 'strikes', 'marked')
  elseif meta[7] then
    if count > 0 then redis.call('HDEL', keys[1], 'try') redis.call('HSET', keys[1], 'strikes', '0') end
    if args[6] == '3' then redis.call('HSET', keys[1], 'try', (tonumber(cursor) + 1) .. '') end
  end
  if count > 0 then redis.call('HSET', keys[7], '@', cursor) end
  if args[3] ~= '0' then redis.call('SET', keys[2], args[4] .. ':' .. args[1], 'PX', args[3]) end
  if args[5] ~= '0' then
    redis.call('XTRIM', keys[3], 'MINID', (tonumber(cursor) + 1) .. '-0')
    trim_outlog(keys[8], tonumber(bytes), tonumber(args[5]))
  end
  if version % 1000 == 0 and redis.call('HGET', keys[7], '#') == cursor then
    prune(keys[7], keys[5], tonumber(redis.call('TIME')[1]))
  end
  return {1, version_text, last_id}
end
