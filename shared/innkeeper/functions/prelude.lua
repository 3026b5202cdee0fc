-- What the acts share. The top level of a library may define functions only: string and redis.call exist inside them.
-- Arithmetic takes text for numbers and concatenation numbers for text; tonumber and string.format cost twice as much.

-- A whole number as text (Lua would print large ones as 1e+15).
local function int(number)
  return string.format('%.0f', number)
end

-- Counts as text, by thousands: to let Lua write a number costs as much as a short command.
local SMALL, THREE_DIGITS = {}, {}
for number = 0, 999 do
  SMALL[number] = number .. ''
  THREE_DIGITS[number] = (number < 100 and '0' or '') .. (number < 10 and '0' or '') .. number
end

local function count_text(number)
  if number < 1000 then return SMALL[number] end
  local rest = number % 1000
  return count_text((number - rest) / 1000) .. THREE_DIGITS[rest]
end

-- Is one whole number greater than another, both as text?
local function greater(text, other)
  return #text > #other or #text == #other and text > other
end

-- The first part of a stream id: iseq of an inbox entry, oseq of an outlog entry.
local function seq_of(id)
  return tonumber(string.match(id, '^%d+'))
end

-- The iseq of the last entry a stream ever held; 0 for a stream that is not there.
local function last_generated(stream)
  if redis.call('EXISTS', stream) == 0 then return 0 end
  local info = redis.call('XINFO', 'STREAM', stream)
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then return seq_of(info[i + 1]) end
  end
  return 0
end

-- Run a command over args[first..last] in pieces of at most 900 values (unpack fails at 8,000, after earlier writes).
local function in_pieces(command, key, args, first, last)
  for i = first, last, 900 do
    redis.call(command, key, unpack(args, i, math.min(i + 899, last)))
  end
end

-- Forget dedupe rows idle for 10 min (posts of rooms: 24 h). Rows named by members stay. Only while nothing is pending.
-- Returns whether rows of rooms' posts are left.
local function prune(sessions, members, seconds)
  local named = {}
  for _, member in ipairs(redis.call('HVALS', members)) do
    local ok, row = pcall(cjson.decode, member)
    if ok then
      if row.edge then named['e:' .. row.edge] = true end
      if row.session then named['s:' .. row.session] = true end
    end
  end
  local rows, has_posts = redis.call('HGETALL', sessions), false
  for i = 1, #rows, 2 do
    local field, used = rows[i], tonumber(string.match(rows[i + 1], ' (%d+)$'))
    local is_post = string.sub(field, 1, 2) == 'p:' and string.find(field, '/', 1, true) ~= nil
    local window = is_post and 86400 or 600
    if used and not named[field] and seconds - used > window then
      redis.call('HDEL', sessions, field)
    elseif is_post then
      has_posts = true
    end
  end
  return has_posts
end

-- Where an act starts from: '#' and '@'. Where '#' is missing both are the inbox's last id. The third answer is
-- true for a room that is not there at all.
local function counters(inbox, stored_hash, stored_cursor)
  if stored_hash then return stored_hash + 0, (stored_cursor or stored_hash) + 0, false end
  local last = last_generated(inbox)
  return last, last, last == 0
end
