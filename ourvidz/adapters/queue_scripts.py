"""What is done to the queues on a Redis server: one script each, atomic, and safe to repeat.

A queue is the producer's own list, untouched. Beside it stand, for all workers together:

    ourvidz:held             hash   claim id -> the element
    ourvidz:claims           hash   claim id -> number|attempts|counted|token|owner|queue
    ourvidz:leases           zset   claim id -> when its lease ends, milliseconds
    ourvidz:attempts:QUEUE   hash   SHA-1 of an element that came back -> its attempts, and those of
                                    equal elements behind it, in the order of the queue
    ourvidz:dead             list   dead letters: a line of JSON, then the element
    ourvidz:counters         hash   claims made so far, bytes of the dead letters
    ourvidz:job:ID           claim|owner|digest: which claim has the job of this id, none once it
                             has ended, and the digest of its body; for a day
    ourvidz:pushed:ID        marks a push of the last minutes, so that it can be repeated

Time is the server's own: leases are written by one worker and judged by another, and their clocks
may differ by minutes. Every key is named in KEYS, and there is no command that Redis 6.2 lacks.
Elements come back to the list itself, so that whoever else looks at it sees them all. A script that
breaks off is not undone: what may fail (a key of another type, a server that is full) comes first,
and an element is written to its new place before it leaves the old one.
"""

from __future__ import annotations

from typing import Final

HELD: Final = "ourvidz:held"
CLAIMS: Final = "ourvidz:claims"
LEASES: Final = "ourvidz:leases"
DEAD: Final = "ourvidz:dead"
COUNTERS: Final = "ourvidz:counters"
# The first string of a reply that carries an element: shows whether strings came encoded.
ELEMENT_MARK: Final = b"element"


def attempts_key(queue: str) -> str:
    return f"ourvidz:attempts:{queue}"


def pushed_key(push_id: str) -> str:
    return f"ourvidz:pushed:{push_id}"


def job_key(job: str) -> str:
    return f"ourvidz:job:{job}"


_NOW = """
local clock = redis.call('TIME')
local now = clock[1] * 1000 + math.floor(clock[2] / 1000)
"""
_FIELDS = "'^(%d+)|(%d+)|(%d+)|([^|]*)|([^|]*)|(.*)$'"

# KEYS: queue, claims, marker. ARGV: element, "hex" or "plain", most elements, seconds to remember.
# Held elements count too. Returns 1, or 0 if the queue is full.
PUSH: Final = """
local queue, claims, marker = KEYS[1], KEYS[2], KEYS[3]
if redis.call('EXISTS', marker) == 1 then return 1 end
if redis.call('LLEN', queue) + redis.call('HLEN', claims) >= tonumber(ARGV[3]) then return 0 end
local element = ARGV[1]
if ARGV[2] == 'hex' then
  element = string.gsub(element, '%x%x', function(pair) return string.char(tonumber(pair, 16)) end)
end
redis.call('RPUSH', queue, element)
redis.call('SET', marker, '1', 'EX', ARGV[4])
return 1
"""

# A dead letter more; older ones go.
_BURY = """
local function bury(dead, counters, facts, element, most, most_bytes)
  local letter = cjson.encode(facts) .. '\\n' .. element
  local count = redis.call('RPUSH', dead, letter)
  local bytes = redis.call('HINCRBY', counters, 'dead_bytes', #letter)
  while count > tonumber(most) or (count > 1 and bytes > tonumber(most_bytes)) do
    local oldest = redis.call('LPOP', dead)
    count = count - 1
    bytes = redis.call('HINCRBY', counters, 'dead_bytes', -#oldest)
  end
end
"""

# KEYS: queue, attempts, held, claims, leases, counters, dead letters. ARGV: claim, owner, lease in
# milliseconds, side, most bytes of an element, a reason, most letters, most bytes of them. Returns
# nothing for an empty queue, else the mark, the queue, the attempts and the element. One that is
# too large was made a dead letter: then -1 and its size in place of the last two.
CLAIM: Final = f"""
local queue, attempts_of, held, claims = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local leases, counters, dead = KEYS[5], KEYS[6], KEYS[7]
local claim = ARGV[1]
{_BURY}
{_NOW}
local facts, element = redis.call('HGET', claims, claim), nil
redis.call('HEXISTS', held, claim)
redis.call('HEXISTS', attempts_of, claim)
redis.call('HEXISTS', counters, claim)
redis.call('ZSCORE', leases, claim)
if facts then
  element = redis.call('HGET', held, claim)
else
  local head = redis.call('LINDEX', queue, ARGV[4] == 'left' and 0 or -1)
  local large = head and #head > tonumber(ARGV[5])
  if large then
    local letter = {{queue = queue, reason = ARGV[6], at = now / 1000, attempts = 0}}
    bury(dead, counters, letter, head, ARGV[7], ARGV[8])
  end
  element = redis.call(ARGV[4] == 'left' and 'LPOP' or 'RPOP', queue)
  if large then return {{'{ELEMENT_MARK.decode()}', queue, -1, tostring(#head)}} end
  if not element then
    redis.call('DEL', attempts_of)
    return {{}}
  end
  local attempts, digest = '0', redis.sha1hex(element)
  local counts = redis.call('HGET', attempts_of, digest)
  if counts then
    local first, rest = string.match(counts, '^(%d+),?(.*)$')
    attempts = first
    if rest == '' then
      redis.call('HDEL', attempts_of, digest)
    else
      redis.call('HSET', attempts_of, digest, rest)
    end
  end
  local number = redis.call('HINCRBY', counters, 'claims', 1)
  facts = table.concat({{number, attempts, 0, '', ARGV[2], queue}}, '|')
  redis.call('HSET', claims, claim, facts)
  redis.call('HSET', held, claim, element)
end
redis.call('ZADD', leases, now + tonumber(ARGV[3]), claim)
local _, attempts, _, _, _, from = string.match(facts, {_FIELDS})
return {{'{ELEMENT_MARK.decode()}', from, tonumber(attempts), element}}
"""

# KEYS: leases. ARGV: lease in milliseconds, claims. Returns the places (from 1) of those lost.
RENEW: Final = f"""
{_NOW}
local lost = {{}}
for place = 2, #ARGV do
  if redis.call('ZSCORE', KEYS[1], ARGV[place]) then
    redis.call('ZADD', KEYS[1], now + tonumber(ARGV[1]), ARGV[place])
  else
    lost[#lost + 1] = place - 1
  end
end
return lost
"""

# KEYS: the job's marker, claims. ARGV: claim, or nothing for a job that has ended, owner, digest of
# the body, seconds to remember. A claim that came back to its queue holds nothing. Another body
# changes nothing, whosever it is. A server that is full remembers nothing, which must not keep
# claims from ending. Returns the ``Standing``.
MARK: Final = """
local marker, claims = KEYS[1], KEYS[2]
redis.call('HEXISTS', claims, ARGV[1])
local found = redis.call('GET', marker)
if found then
  local claim, owner, digest = string.match(found, '^([^|]*)|([^|]*)|(.*)$')
  local mine, known = owner == ARGV[2], digest == ARGV[3]
  local held = claim ~= '' and redis.call('HEXISTS', claims, claim) == 1
  if not mine and not known then return 'other body' end
  if not mine and claim == '' then return 'ended' end
  if not mine and held then return 'held' end
  if mine and not known and (claim == '' or held) then return 'free' end
end
redis.pcall('SET', marker, table.concat({ARGV[1], ARGV[2], ARGV[3]}, '|'), 'EX', ARGV[4])
return 'free'
"""

# In scripts that end a claim: its job has ended, if it is still this claim's.
_ENDED = """
local function ended(marker, claim, seconds)
  local found = redis.pcall('GET', marker)
  if type(found) == 'string' and string.sub(found, 1, #claim + 1) == claim .. '|' then
    redis.pcall('SET', marker, string.sub(found, #claim + 1), 'EX', seconds)
  end
end
"""

# KEYS: held, claims, leases, the job's marker. ARGV: claim, seconds to remember the job.
ACKNOWLEDGE: Final = f"""
{_ENDED}
ended(KEYS[4], ARGV[1], ARGV[2])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
return redis.call('ZREM', KEYS[3], ARGV[1])
"""

# KEYS: claims. ARGV: claim, a token of this count: the same token counts once. Returns the
# attempts.
COUNT: Final = f"""
local facts = redis.call('HGET', KEYS[1], ARGV[1])
if not facts then return 0 end
local number, attempts, counted, token, owner, queue = string.match(facts, {_FIELDS})
if token ~= ARGV[2] then
  attempts, counted = attempts + 1, counted + 1
  facts = table.concat({{number, attempts, counted, ARGV[2], owner, queue}}, '|')
  redis.call('HSET', KEYS[1], ARGV[1], facts)
end
return tonumber(attempts)
"""

# KEYS: held, claims, leases, dead letters, counters, the job's marker. ARGV: claim, reason, most
# letters, most bytes, seconds to remember the job.
DEAD_LETTER: Final = f"""
{_ENDED}
{_BURY}
local element = redis.call('HGET', KEYS[1], ARGV[1])
if not element then return 0 end
{_NOW}
local facts = redis.call('HGET', KEYS[2], ARGV[1])
local _, attempts, _, _, _, queue = string.match(facts, {_FIELDS})
local letter = {{queue = queue, reason = ARGV[2], at = now / 1000, attempts = tonumber(attempts)}}
bury(KEYS[4], KEYS[5], letter, element, ARGV[3], ARGV[4])
ended(KEYS[6], ARGV[1], ARGV[5])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
return 1
"""

# KEYS: dead letters. ARGV: most of them, most bytes of each. Returns the mark, and of the newest
# ones, oldest first, the beginning and the bytes that were left out.
DEAD_LETTERS: Final = f"""
local found = {{'{ELEMENT_MARK.decode()}'}}
for _, letter in ipairs(redis.call('LRANGE', KEYS[1], -ARGV[1], -1)) do
  local beginning = string.sub(letter, 1, tonumber(ARGV[2]))
  found[#found + 1], found[#found + 2] = beginning, #letter - #beginning
end
return found
"""

# KEYS: claims, leases. ARGV: most of them. Returns claims whose lease has ended, each followed by
# its number and its queue.
EXPIRED: Final = f"""
{_NOW}
local found = {{}}
local ended = redis.call('ZRANGEBYSCORE', KEYS[2], '-inf', '(' .. now, 'LIMIT', 0, ARGV[1])
for _, claim in ipairs(ended) do
  local facts = redis.call('HGET', KEYS[1], claim)
  if facts then
    local number, _, _, _, _, queue = string.match(facts, {_FIELDS})
    found[#found + 1], found[#found + 2], found[#found + 3] = claim, number, queue
  else
    redis.call('ZREM', KEYS[2], claim)
  end
end
return found
"""

# KEYS: claims. ARGV: owner. Returns the owner's claims as EXPIRED does.
OWNED: Final = f"""
local found = {{}}
local all = redis.call('HGETALL', KEYS[1])
for place = 1, #all, 2 do
  local number, _, _, _, owner, queue = string.match(all[place + 1], {_FIELDS})
  if owner == ARGV[1] then
    found[#found + 1], found[#found + 2], found[#found + 3] = all[place], number, queue
  end
end
return found
"""

# KEYS: queue, attempts, held, claims, leases. ARGV: side, "expired", "owned" or "back", owner,
# claims: the one to be taken last comes first. What has changed since it was found stays. Returns
# how many came back.
PUT_BACK: Final = f"""
local queue, attempts_of, held, claims, leases = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local side, why, owned_by = ARGV[1], ARGV[2], ARGV[3]
{_NOW}
local count = 0
for place = 4, #ARGV do
  local claim = ARGV[place]
  local facts, ends = redis.call('HGET', claims, claim), redis.call('ZSCORE', leases, claim)
  if facts and ends then
    local _, attempts, counted, _, owner, from = string.match(facts, {_FIELDS})
    local due = why == 'back' or (why == 'expired' and tonumber(ends) < now)
    if from == queue and (due or (why == 'owned' and owner == owned_by)) then
      local element = redis.call('HGET', held, claim)
      local digest = redis.sha1hex(element)
      redis.call(side == 'left' and 'LPUSH' or 'RPUSH', queue, element)
      attempts = tonumber(attempts)
      if why == 'back' then attempts = attempts - tonumber(counted) end
      local others = redis.call('HGET', attempts_of, digest)
      if others then
        redis.call('HSET', attempts_of, digest, attempts .. ',' .. others)
      elseif attempts > 0 then
        redis.call('HSET', attempts_of, digest, attempts)
      end
      redis.call('HDEL', held, claim)
      redis.call('HDEL', claims, claim)
      redis.call('ZREM', leases, claim)
      count = count + 1
    end
  end
end
return count
"""

# KEYS: queues. Returns how many elements each has that nobody holds.
DEPTHS: Final = """
local depths = {}
for place, queue in ipairs(KEYS) do depths[place] = redis.call('LLEN', queue) end
return depths
"""

# KEYS: claims. ARGV: claim. Returns its queue, or nothing.
QUEUE_OF: Final = f"""
local facts = redis.call('HGET', KEYS[1], ARGV[1])
if not facts then return {{}} end
local _, _, _, _, _, queue = string.match(facts, {_FIELDS})
return {{queue}}
"""
