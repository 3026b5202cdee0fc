"""Deliberately broken variants of the acts: each must be caught, or the model sees less than it claims.

A mutant is a small textual change of the Lua. Its pattern must stand there exactly once, so that none rots unseen.

Left out, because they break nothing that anybody could see:

- *busy without memory* for raw events: within one call the backlog only grows, so once one event is over the cap, all
  later ones are; the memory matters for sessions only, and that mutant is here ("busy not sticky");
- *claim ignores who listens*: the lock says who is alive, it fences nothing. It costs a takeover, no promise. The model
  holds the act to its word nevertheless ("claim ignores listeners");
- *input ids not compared*, only counted between the first and the last: events pushed anew after a roll-back have later
  times, so the range asked for never ends with them and their count differs. The comparison is for a server whose clock
  went back meanwhile, which a test of commit covers; here both checks fall together ("no input check").
"""

import hashlib
from dataclasses import dataclass

from innkeeper.functions.library import HASH


@dataclass(frozen=True)
class Mutant:
    """A name, what is broken by it, and what is replaced by what."""

    name: str
    breaks: str
    old: str
    new: str
    more: tuple[tuple[str, str], ...] = ()


MUTANTS = (
    # --- push
    Mutant("no dedupe", "a batch sent again is appended again", "if batch == number then", "if false then"),
    Mutant("old batch taken", "an earlier batch that comes late is appended",
           "if batch and greater(batch, number) then", "if false then"),
    Mutant("session numbers ignored", "a session's message counts twice",
           "if number <= row.last then return 'd' end", ""),
    Mutant("session gap ignored", "a session's message is left out",
           "if number > row.last + 1 then return 'g' end", ""),
    Mutant("closed session taken", "a kicked session goes on",
           "if row.state == 'closed' then", "if false then"),
    Mutant("generation ignored", "an old connection's leave ends the session's new one",
           "then\n    if generation < row.generation then return 'o' end", "then"),
    Mutant("older connection heard", "a message of a replaced connection takes a number of the newer one's",
           "if generation < row.generation then return 'o' end\n  if kind == 'resync'", "if kind == 'resync'"),
    Mutant("resync of the past", "a resync does not bring a session back that was rolled back to its drop",
           "if kind == 'resync' then return 'a', row.last, generation, 'up' end",
           "if kind == 'resync' then return 'a', row.last, row.generation, row.state end"),
    Mutant("busy not sticky", "a session's later message is told to be a gap while its elder waits",
           "if letter == 'g' and busy then letter = 'b' end", ""),
    Mutant("dead edge pushes", "messages of a reaped edge come after its members' leaves",
           "if batch == 'closed' or", "if batch == 'closed' then batch = nil end\n  if"),
    Mutant("cap counts the wrong way", "the backlog cap counts from the first event, not from the cursor",
           "= hash, cursor + cap, false", "= hash, 0 + cap, false"),
    Mutant("push lets the room expire", "accepted events of a room at rest expire with it",
           "if not owner then call('PERSIST', inbox)", "if not owner then"),
    Mutant("bell tells something else", "the owner handles an event that is not in the inbox",
           "local news = n == 1", "data[1] = data[1] and 'x' .. string.sub(data[1], 2)\n  local news = n == 1"),
    # --- claim
    Mutant("evicts any lock", "evidence about an old owner evicts the new one", "held ~= args[4] or ", ""),
    Mutant("claim ignores listeners", "an owner that lives is robbed", "others > 0 and left > 0", "false"),
    Mutant("epoch not increased", "two owners hold the same epoch",
           "tonumber(meta[4] or '0') + 1", "math.max(tonumber(meta[4] or '0'), 1)"),
    Mutant("late claim takes again", "a claim that comes late takes the room from its successor",
           "if stored == mark or meta[6] == mark then", "if false then"),
    Mutant("claim lets the room expire", "a room expires under its owner", "redis.call('PERSIST', keys[i])", ""),
    Mutant("claim trims too far", "the oldest accepted event is lost at a takeover",
           "if hash >= cursor then redis.call('XTRIM', keys[3], 'MINID', int(cursor + 1)",
           "if hash >= cursor then redis.call('XTRIM', keys[3], 'MINID', int(cursor + 2)"),
    Mutant("innocent events suspected", "a clean release leaves its backlog under suspicion",
           "if not meta[1] or meta[1] == '' or hash <= cursor then", "if not meta[1] or hash <= cursor then"),
    Mutant("cut hook counted as death", "a worker that cut a hook and lives convicts the event",
           " and meta[9] ~= worker then", " then"),
    # --- commit
    Mutant("try stays", "an event that was committed is still under trial",
           "if moved then redis.call('HDEL', meta, 'try')", "if moved then"),
    Mutant("no token check", "a stale owner writes",
           "if stored[1] ~= token then return 'token' end", ""),
    Mutant("number-only token", "after a rollback an old owner of the same epoch writes",
           "if stored[1] ~= token then",
           "if string.match(stored[1] or '', '^%d*') ~= string.match(token, '^%d*') then"),
    Mutant("no version check", "an old commit counts again, or one that builds on a history that is gone",
           "if (stored[2] or '0') ~= expected then", "if false then"),
    Mutant("no input check", "after a rollback a commit consumes other events than it handled",
           "if entry[1] ~= args[1 + n] then return 'input' end", "",
           more=(("if #entries ~= count then return 'input' end", ""),
                 ("== 0 and 'input' or nil", "== 0 and nil or nil"))),
    Mutant("input not counted", "an event in the middle is consumed unhandled",
           "if #entries ~= count then return 'input' end", ""),
    Mutant("no contiguity", "an event is left out, or handled twice",
           "if string.match(entry[1], '^%d+') ~= count_text(base + n) then return 'gap' end", "",
           more=(("if string.match(args[2], '^%d+') ~= count_text(base + 1) then return 'gap' end", ""),)),
    Mutant("lone input not looked for", "after a rollback a commit consumes an event that is not there",
           "== 0 and 'input' or nil", "== 0 and nil or nil"),
    Mutant("lone event taken before the checks", "a refused commit loses an accepted event",
           "    if string.match(args[2], '^%d+') ~= count_text(base + 1) then return 'gap' end\n"
           "    return redis.call('XDEL', inbox, args[2])",
           "    local found = redis.call('XDEL', inbox, args[2])\n"
           "    if string.match(args[2], '^%d+') ~= count_text(base + 1) then return 'gap' end\n    return found"),
    Mutant("repeat refused", "a commit whose answer was lost is refused the second time",
           "if stored[2] == version then return last_id end", ""),
    Mutant("repeat applied", "a commit whose answer was lost counts twice",
           "if stored[2] == version then return last_id end\n    return 'version'",
           "if stored[2] ~= version then return 'version' end"),
    Mutant("cursor stays", "committed events are handled again",
           "'version', version, 'cursor', cursor,", "'version', version,"),
    Mutant("version stays", "two commits have one version", "'version', version, 'cursor'", "'cursor'"),
    Mutant("backlog copy stays", "the room is busy for ever",
           "if cursor ~= old_cursor then call('HSET', sessions, '@', cursor) end", ""),
    Mutant("inbox trimmed too far", "an accepted event is lost",
           "'MINID', cursor + 1 ..", "'MINID', cursor + 2 .."),
    Mutant("outlog trimmed too far", "outputs that edges still read are gone",
           "redis.call('XTRIM', outlog, 'MAXLEN', math.max(1000, least))", "redis.call('XTRIM', outlog, 'MAXLEN', 2)"),
    Mutant("published before the checks", "outputs of a refused commit are shown",
           "  if stored[1] ~= token then",
           "  publish(keys[6], last_id, '0', 1, 1, '0', {'text *|1'}, {'x'})\n  if stored[1] ~= token then"),
    Mutant("published without the last", "an output is stored and not shown",
           "n = n + 1\n      index[n], bodies[n] = header .. '|' .. count_text(#body), body",
           "if i < last - 1 or i == first then\n"
           "        n = n + 1\n        index[n], bodies[n] = header .. '|' .. count_text(#body), body end"),
    Mutant("published under a wrong link", "a lost batch goes unnoticed",
           "'SPUBLISH', channel, previous ..", "'SPUBLISH', channel, (first - 1) .. '-' .. mark .."),
    Mutant("published too large", "messages above what the server counts against its buffers",
           "if size > 0 and size + length > 12000 then\n", "if false then\n"),
    Mutant("shown, not stored", "an output is shown that nobody can read again",
           "redis.call('XADD', outlog, last_id,",
           "local _ = (i == last - 1 and i > first) or redis.call('XADD', outlog, last_id,"),
    Mutant("destroy keeps members", "a destroyed room still has members",
           "call('DEL', keys[7], keys[8], keys[9],", "call('DEL', keys[7], keys[9],"),
    Mutant("kick ignored", "a closed session goes on",
           "close_sessions(keys[4], args, at, last, redis.call('TIME')[1])", "local _ = nil"),
    # --- renew, release, reap_edge
    Mutant("renew ignores the token", "a stale owner takes the lock back",
           "if redis.call('HGET', keys[1], 'token') ~= args[1] then return {0, 'token'} end", ""),
    Mutant("release ignores the token", "a stale owner gives the room away",
           "{1, backlog} end\n  if meta[1] ~= args[1] then return {0, 'token'} end", "{1, backlog} end"),
    Mutant("release ignores backlog", "accepted events are left without an owner",
           "if backlog > 0 and args[3] ~= '1' then return {2, backlog} end", ""),
    Mutant("released backlog expires", "accepted events expire after a hand-over",
           "if backlog > 0 then return {1, backlog} end\n\n", "\n\n"),
    Mutant("release keeps the token", "a late commit counts after the release",
           "keys[1], 'token', '', 'released', mark)", "keys[1], 'released', mark)"),
    Mutant("members' sessions expire", "dedupe is forgotten under members",
           "if memberless then redis.call('PEXPIREAT', keys[7], at) end", "redis.call('PEXPIREAT', keys[7], at)"),
    Mutant("dedupe rows forgotten", "a late push after a release counts twice",
           "seconds - used > window", "seconds - used >= 0"),
    Mutant("reaped twice", "an edge's members leave twice",
           "if head[3] and string.sub(head[3], 1, 7) == 'closed ' then", "if false then"),
    Mutant("reap leaves the edge open", "a reaped edge pushes on",
           "row, 'closed 0 - ' .. time[1])", "'e:', 'closed 0 - ' .. time[1])"),
)  # fmt: skip


def mutated(code: str, mutant: Mutant) -> tuple[str, str]:
    """Return the library's text with the mutant's change under names of its own, and the hash in those names."""
    changed = code
    for old, new in ((mutant.old, mutant.new), *mutant.more):
        found = code.count(old)
        assert found == 1, f"mutant {mutant.name!r}: its pattern stands {found} times in the acts, must be once: {old}"
        changed = changed.replace(old, new)
    library = hashlib.sha256(changed.encode()).hexdigest()[:8]
    return changed.replace(HASH, library), library
