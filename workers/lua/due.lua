-- Claim what is overdue, oldest first. When nobody asked for a while, Redis was away: for some seconds no lease is
-- judged, because nobody could renew one. The readable form of this is MemoryJobStore.due in pipeline/memory.py.
--
-- A claim moves the entry a little into the future, so that the other sweepers see the next ones, and so that one that
-- nobody can decide does not stand before the others. It is marked by half a millisecond: no other due time has one.
--
-- KEYS: the due index, the pulse
-- ARGV: limit, prefix, in ms: outage, grace, claim, due time of a ready step
local due, pulse = KEYS[1], KEYS[2]
local limit, prefix = tonumber(ARGV[1]), ARGV[2]
local outage, grace, claim, ready_due = tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6])
local REVIVALS = 1000 -- in one call: a script holds up everybody
local agenda = agenda(prefix)
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local swept, judge_after = unpack(redis.call('HMGET', pulse, 'swept', 'judge_after'))
judge_after = tonumber(judge_after or 0)
if not swept or now - swept > outage then judge_after = now + grace end
redis.call('HSET', pulse, 'swept', now, 'judge_after', judge_after)

local found, gone, ready, wake = {}, {}, {}, {}

-- The ticket of a ready step was lost; unless its job is held, and it has none.
local function revive(member, job, stage)
  ready[#ready + 1] = member
  local rank, priority, organization, held =
    unpack(redis.call('HMGET', prefix .. ':job:' .. job, 'rank', 'priority', 'organization', 'held'))
  if held == '1' then return end
  local spot = stage .. '|' .. priority .. '|' .. organization
  if agenda.stand(member, spot, rank) then wake[stage] = true end
end

local function look(member)
  local job, step = string.match(member, '^(.*)/([^/]*)$')
  local status, value = unpack(redis.call('HMGET', prefix .. ':job:' .. job, 'status', 'step:' .. step))
  local state, stage = string.match(value or '', '^([^|]*)|[^|]*|([^|]*)|')
  local ended = status == 'succeeded' or status == 'failed' or status == 'cancelled'
  if not status or (ended and step ~= '@') then
    gone[#gone + 1] = member -- its record has expired, or its job is over
    agenda.leave(member)
  elseif state == 'ready' then
    revive(member, job, stage)
  elseif now >= judge_after or not (state == 'running' or state == 'publishing') then
    found[#found + 1] = member
  end
end

local offset = 0
repeat
  local page = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', offset, limit)
  offset = offset + #page
  for _, member in ipairs(page) do
    if #found < limit then look(member) end
  end
until #page < limit or #found >= limit or #ready >= REVIVALS

for _, member in ipairs(gone) do redis.call('ZREM', due, member) end
for _, member in ipairs(found) do redis.call('ZADD', due, now + claim + 0.5, member) end
for _, member in ipairs(ready) do redis.call('ZADD', due, now + ready_due, member) end

local words = {}
for word in pairs(wake) do words[#words + 1] = word end
if #words > 0 then redis.call('PUBLISH', prefix .. ':wake', table.concat(words, ' ')) end
return found
