-- fire: append an event for each timer of a room that is due by the server's clock, once, and ring the owner's bell.
-- KEYS  1 timers HASH, 2 inbox STREAM, 3 sessions HASH, 4 lock STRING, 5 bell CHANNEL
-- ARGV  1 most timers to fire (count), then the names to look at (none: all)
-- Returns {appended events, due ms of the next timer that is not fired or '0', timers left, fired ones too, backlog,
--       receivers of the bell, server time µs, lock or ''}; next and left count only what was looked at.
-- Holds: a row is marked as fired in the call that appends its event, so a second call finds nothing to do. A row named
--       ~grace:SESSION is deleted instead; unless the session is closed, or up with a newer generation, it is closed
--       and its leave appended. Nothing is refused: back-pressure is for those who can wait.

-- A row's id and due ms, nothing where it is fired already or no timer. Rows written by Innkeeper begin alike.
local function timer_of(row)
  local id, due = string.match(row, '^{"id":"([^"]+)","due":(%d+)[,}]')
  if due then return id, due + 0 end
  local ok, fields = pcall(cjson.decode, row)
  if not ok or type(fields) ~= 'table' or type(fields.due) ~= 'number' then return nil end
  return tostring(fields.id), not fields.fired and fields.due or nil
end

-- Close a session whose grace is over. Returns the leave's connection, edge, session and generation, or nothing where
-- it is closed already, or up with a newer generation.
local function end_grace(sessions, session, row, seconds)
  local connection, generation, edge =
    string.match(row, '"connection":"([^"]*)","generation":(%d+),"edge":"([^"]*)"')
  local last, known, state =
    string.match(redis.call('HGET', sessions, 's:' .. session) or '', '^(%d+) (%d+) (%a+)')
  if not connection or state == 'closed' or state == 'up' and greater(known, generation) then return nil end
  known = known or generation
  redis.call('HSET', sessions, 's:' .. session, (last or '0') .. ' ' .. known .. ' closed ' .. seconds)
  return connection, edge, session, known
end

-- Mark a timer as fired, or end a grace. Returns what is to be appended: type, connection, edge, data, session,
-- generation; or nothing.
local function fire_one(timers, sessions, name, row, id, due, seconds)
  if string.sub(name, 1, 7) ~= '~grace:' then
    redis.call('HSET', timers, name, '{"fired":true,' .. string.sub(row, 2))
    return 'timer', '-', '', '{"name":' .. cjson.encode(name) .. ',"id":' .. cjson.encode(id) .. ',"due":' .. int(due) .. '}'
  end
  redis.call('HDEL', timers, name)
  local connection, edge, session, generation = end_grace(sessions, string.sub(name, 8), row, seconds)
  if connection then return 'leave', connection, edge, '', session, generation end
end

local function rows_of(timers, args)
  if #args == 1 then return redis.call('HGETALL', timers) end
  local rows = {}
  for i, row in ipairs(redis.call('HMGET', timers, unpack(args, 2))) do
    rows[2 * i - 1], rows[2 * i] = args[i + 1], row or ''
  end
  return rows
end

local function fire(keys, args)
  local call, timers, inbox, sessions = redis.call, keys[1], keys[2], keys[3]
  local rows, time, owner = rows_of(timers, args), call('TIME'), call('GET', keys[4])
  local head, stamp = call('HMGET', sessions, '#', '@'), time[1] .. string.sub('00000' .. time[2], -6)
  local now, hash, cursor = math.floor(stamp / 1000), counters(inbox, head[1], head[2])
  local next_due, left, n, index, data = 0, 0, 0, {}, {}
  for i = 1, #rows, 2 do
    local name, row = rows[i], rows[i + 1]
    local timer, due = timer_of(row)
    if timer then left = left + 1 end
    if due and (due > now or n >= args[1] + 0) then
      if next_due == 0 or due < next_due then next_due = due end
    elseif due then
      local kind, connection, edge, body, session, generation =
        fire_one(timers, sessions, name, row, timer, due, time[1])
      if kind ~= 'timer' then left = left - 1 end
      if kind then
        hash, n = hash + 1, n + 1
        local id, words = count_text(hash) .. '-' .. stamp, kind .. ' ' .. connection
        if session then
          call('XADD', inbox, id, 't', kind, 'c', connection, 'e', edge, 'd', body, 's', session, 'n', '0', 'g', generation)
          words = words .. ' ' .. session .. ' 0 ' .. generation
        else
          call('XADD', inbox, id, 't', kind, 'c', connection, 'd', body)
        end
        index[n], data[n] = id .. ' ' .. edge .. ' ' .. count_text(#body) .. ' ' .. words, body
      end
    end
  end
  if n > 0 then
    call('PERSIST', inbox)
    call('PERSIST', sessions)
    call('HSET', sessions, '#', count_text(hash), '@', count_text(cursor))
  end
  local backlog, heard, news = math.max(hash - cursor, 0), 0, ''
  if n > 0 then news = table.concat(index, '|') .. '\n' .. table.concat(data) end
  if owner and backlog > 0 then heard = call('SPUBLISH', keys[5], #news > 12000 and '' or news) end
  return {n, int(next_due), left, int(backlog), heard, stamp, owner or ''}
end
