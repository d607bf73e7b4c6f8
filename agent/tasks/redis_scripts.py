"""The steps that Redis takes as one, in Lua.

A task is a hash (fields below) and beside it a string, its lease, which expires by Redis' own clock: instances
can be frozen and their clocks differ. A script finds both in KEYS[1] and KEYS[2].

    fence    how often the task was taken
    holder   owner of the claim; absent once the claim has ended. The lease holds the owner too, while it is alive.
    taken    names the take: a digest of who took it with which record, so that a repeated one is recognised
    record   the record as JSON; never decoded here, Lua would round large numbers
    state    its state, and
    position its place in the index, for filters
    version  how often the record was stored: orders what followers get
    cancel   present once somebody asked to cancel
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and the name under which Redis keeps it."""

    lua: str
    sha: str = field(init=False)

    def __post_init__(self) -> None:
        # SHA-1 is what EVALSHA is made of.
        object.__setattr__(self, "sha", hashlib.sha1(self.lua.encode(), usedforsecurity=False).hexdigest())


_COMMON = """
local task, lease = KEYS[1], KEYS[2]

-- What followers get and readers see; false when the task is unknown.
local function snapshot()
  local t = redis.call('HMGET', task, 'version', 'fence', 'cancel', 'record')
  return t[4] and {t[1], t[2], redis.call('GET', lease) or '', t[3] or '', t[4]}
end

-- `from` is where in ARGV the stored things begin.
local function store(from)
  local record, state, position, ttl_ms, channel = unpack(ARGV, from)
  redis.call('HSET', task, 'record', record, 'state', state, 'position', position)
  redis.call('HINCRBY', task, 'version', 1)
  redis.call('PEXPIRE', task, ttl_ms)
  redis.call('PUBLISH', channel, table.concat(snapshot(), '\\n'))
end
"""

READ = Script(_COMMON + "return snapshot()")

#: Returns the new fence, or the snapshot of the task that could not be taken.
TAKE = Script(
    _COMMON
    + """
local expected, owner, lease_ms, ends, record = unpack(ARGV)
local taken = redis.sha1hex(table.concat({expected, owner, record}, '\\n'))
local known = redis.call('HMGET', task, 'fence', 'taken', 'holder')
if known[1] then
  if known[2] == taken and (known[3] or ends == '1') then
    if known[3] then redis.call('SET', lease, owner, 'PX', lease_ms) end
    return tonumber(known[1])
  end
  if known[1] ~= expected or redis.call('EXISTS', lease) == 1 then return snapshot() end
end
local fence = tonumber(expected) + 1
redis.call('HSET', task, 'fence', fence, 'holder', owner, 'taken', taken)
redis.call('HDEL', task, 'cancel')
if ends == '1' then
  redis.call('HDEL', task, 'holder')
else
  redis.call('SET', lease, owner, 'PX', lease_ms)
end
store(5)
return fence
"""
)

#: Returns 1, or 0 when the claim is lost.
WRITE = Script(
    _COMMON
    + """
local fence, owner, lease_ms, ends, record = unpack(ARGV)
local known = redis.call('HMGET', task, 'fence', 'holder', 'record')
if not known[1] then
  redis.call('HSET', task, 'fence', fence, 'holder', owner)
  redis.call('SET', lease, owner, 'PX', lease_ms)
elseif known[1] ~= fence then
  return 0
elseif known[2] ~= owner then
  -- The answer to the write that ended the claim can get lost; its repetition is no fault.
  return (ends == '1' and not known[2] and known[3] == record) and 1 or 0
end
if ends == '1' then
  redis.call('DEL', lease)
  redis.call('HDEL', task, 'holder')
end
store(5)
return 1
"""
)

#: Returns 1, or 0 when somebody has the task, or it is not in this state, or not as this fence left it.
AMEND = Script(
    _COMMON
    + """
local fence, record, state = unpack(ARGV)
local known = redis.call('HMGET', task, 'fence', 'holder', 'state')
if known[1] ~= fence or known[2] or known[3] ~= state then return 0 end
store(2)
return 1
"""
)

#: Returns whether a cancel was requested (1 or 0), or -1 when the claim is lost.
EXTEND = Script(
    _COMMON
    + """
local fence, owner, lease_ms, ttl_ms = unpack(ARGV)
local known = redis.call('HMGET', task, 'fence', 'holder', 'cancel')
if not known[1] then return 0 end
if known[1] ~= fence or known[2] ~= owner then return -1 end
redis.call('SET', lease, owner, 'PX', lease_ms)
redis.call('PEXPIRE', task, ttl_ms)
return known[3] and 1 or 0
"""
)

#: ARGV: the task's id, and what an owner's channel begins with. Returns the snapshot.
CANCEL = Script(
    _COMMON
    + """
local task_id, channels = unpack(ARGV)
if redis.call('EXISTS', task) == 0 then return false end
redis.call('HSET', task, 'cancel', 1)
local owner = redis.call('GET', lease)
if owner then redis.call('PUBLISH', channels .. owner, task_id) end
return snapshot()
"""
)

_CLOCK = """
local time = redis.call('TIME')
local now_ms = time[1] * 1000 + math.floor(time[2] / 1000)
"""

#: Adds a task to the index: KEYS[1] holds the tasks by position, KEYS[2] when they leave, KEYS[3] when somebody must
#: see to those that owe something; `due_ms` is empty for one that owes nothing. Some of those that are to leave do so
#: with each call, so that the index does not grow for ever when nobody reads it.
INDEX = Script(
    _CLOCK
    + """
local position, ttl_ms, task_id, due_ms = unpack(ARGV)
if due_ms == '' then
  redis.call('ZREM', KEYS[3], task_id)
else
  redis.call('ZADD', KEYS[3], now_ms + due_ms, task_id)
  redis.call('PEXPIRE', KEYS[3], ttl_ms)
end
redis.call('ZADD', KEYS[1], 0, position)
redis.call('ZADD', KEYS[2], now_ms + ttl_ms, position)
local due = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', now_ms, 'LIMIT', 0, 100)
for _, gone in ipairs(due) do
  redis.call('ZREM', KEYS[1], gone)
  redis.call('ZREM', KEYS[2], gone)
end
redis.call('PEXPIRE', KEYS[1], ttl_ms)
redis.call('PEXPIRE', KEYS[2], ttl_ms)
"""
)

#: Says when somebody must see to a task; `how` GT: not earlier than was said before. KEYS[1] holds all such times.
SEE_TO = Script(
    _CLOCK
    + """
local task_id, due_ms, ttl_ms, how = unpack(ARGV)
redis.call('ZADD', KEYS[1], how, now_ms + due_ms, task_id)
redis.call('PEXPIRE', KEYS[1], ttl_ms)
"""
)

#: Returns the ids of tasks that somebody must see to, and puts them off.
OVERDUE = Script(
    _CLOCK
    + """
local limit, put_off_ms = unpack(ARGV)
local overdue = redis.call('ZRANGEBYSCORE', KEYS[1], '-inf', now_ms, 'LIMIT', 0, limit)
for _, task_id in ipairs(overdue) do redis.call('ZADD', KEYS[1], now_ms + put_off_ms, task_id) end
return overdue
"""
)
