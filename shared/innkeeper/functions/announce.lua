-- announce: show committed outputs to the edges, where commit did not: durability `replicated`, after a replica has them.
-- KEYS  1 meta HASH, 2 outlog STREAM, 3 out CHANNEL
-- ARGV  1 token, 2 id of the last output announced before, 3 id of the last output to announce
-- Returns {1} when announced, {0, 'token'} where another owner does it.
-- Holds: writes nothing. Equal ids announce no output, but tell edges that lack some to read the outlog.
local function announce(keys, args)
  local meta = redis.call('HMGET', keys[1], 'token', 'cursor')
  if meta[1] ~= args[1] then return {0, 'token'} end
  local mark, previous, cursor = string.match(args[1], ':(%d+)$'), args[2], meta[2] or '0'
  local first, seq, index, bodies, size = seq_of(previous) + 1, seq_of(previous), {}, {}, 0
  local entries = previous == args[3] and {} or redis.call('XRANGE', keys[2], '(' .. previous, args[3])
  local function flush()
    publish(keys[3], previous, mark, first, seq, cursor, index, bodies)
    previous, first, index, bodies, size = seq .. '-' .. mark, seq + 1, {}, {}, 0
  end
  for _, entry in ipairs(entries) do
    local header, body = entry[2][2], entry[2][4]
    local length = #header + #body + 8
    if size > 0 and size + length > 12000 then flush() end
    seq = seq_of(entry[1])
    if length > 12000 then
      flush()
    else
      index[#index + 1], bodies[#bodies + 1], size = header .. '|' .. #body, body, size + length
    end
  end
  if size > 0 or #entries == 0 then flush() end
  return {1}
end
