-- Claim what is overdue, oldest first. When nobody asked for a while, Redis was away: for some seconds no lease is
-- judged, because nobody could renew one. The readable form of this is MemoryJobStore.due in pipeline/memory.py.
--
-- A claim moves the entry a little into the future, so that the other sweepers see the next ones, and so that one that
-- nobody can decide does not stand before the others. It is marked by half a millisecond: no other due time has one.
--
-- KEYS: the due index, the pulse
-- ARGV: limit, prefix of the jobs' hashes, prefix of the ready indexes, the wake channel,
--       in ms: outage, grace, claim, due time of a ready step
local due, pulse = KEYS[1], KEYS[2]
local limit, jobs, ready_index, channel = tonumber(ARGV[1]), ARGV[2], ARGV[3], ARGV[4]
local outage, grace, claim, ready_due = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7]), tonumber(ARGV[8])
local REVIVALS = 1000 -- in one call: a script holds up everybody
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local swept, judge_after = unpack(redis.call('HMGET', pulse, 'swept', 'judge_after'))
judge_after = tonumber(judge_after or 0)
if not swept or now - swept > outage then judge_after = now + grace end
redis.call('HSET', pulse, 'swept', now, 'judge_after', judge_after)

local found, gone, lost, offset = {}, {}, {}, 0

local function look(member)
  local job, step = string.match(member, '^(.*)/([^/]*)$')
  local status, rank, value = unpack(redis.call('HMGET', jobs .. job, 'status', 'rank', 'step:' .. step))
  local state, stage = string.match(value or '', '^([^|]*)|[^|]*|([^|]*)|')
  local ended = status == 'succeeded' or status == 'failed' or status == 'cancelled'
  if not status or (ended and step ~= '@') then
    gone[#gone + 1] = member -- its record has expired, or its job is over
  elseif state == 'ready' then
    lost[#lost + 1] = {member, stage, rank}
  elseif now >= judge_after or not (state == 'running' or state == 'publishing') then
    found[#found + 1] = member
  end
end

repeat
  local page = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', offset, limit)
  offset = offset + #page
  for _, member in ipairs(page) do
    if #found < limit then look(member) end
  end
until #page < limit or #found >= limit or #lost >= REVIVALS

for _, member in ipairs(gone) do redis.call('ZREM', due, member) end
for _, member in ipairs(found) do redis.call('ZADD', due, now + claim + 0.5, member) end

-- The ticket of a ready step was lost: its record need not be read for that.
local wake = {}
for _, entry in ipairs(lost) do
  local member, stage, rank = entry[1], entry[2], entry[3]
  redis.call('ZADD', ready_index .. stage, rank or 0, member)
  redis.call('ZADD', due, now + ready_due, member)
  wake[stage] = true
end
local words = {}
for word in pairs(wake) do words[#words + 1] = word end
if #words > 0 then redis.call('PUBLISH', channel, table.concat(words, ' ')) end
return found
