-- What is overdue, oldest first. When nobody asked for a while, Redis was away: for some seconds no lease is judged,
-- because nobody could renew one.
-- KEYS: the due index, the pulse   ARGV: limit, prefix of the jobs' hashes, outage in ms, grace in ms
local due, pulse = KEYS[1], KEYS[2]
local limit, jobs, outage, grace = tonumber(ARGV[1]), ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local swept, judge_after = unpack(redis.call('HMGET', pulse, 'swept', 'judge_after'))
judge_after = tonumber(judge_after or 0)
if not swept or now - swept > outage then judge_after = now + grace end
redis.call('HSET', pulse, 'swept', now, 'judge_after', judge_after)

local function leased(value)
  local status = string.match(value or '', '^[^|]*')
  return status == 'running' or status == 'publishing'
end

local found, gone, offset = {}, {}, 0
repeat
  local page = redis.call('ZRANGEBYSCORE', due, '-inf', now, 'LIMIT', offset, limit)
  offset = offset + #page
  for _, member in ipairs(page) do
    local job, step = string.match(member, '^(.*)/([^/]*)$')
    local status, value = unpack(redis.call('HMGET', jobs .. job, 'status', 'step:' .. step))
    if not status then
      gone[#gone + 1] = member -- its record has expired
    elseif #found < limit and (now >= judge_after or not leased(value)) then
      found[#found + 1] = member
    end
  end
until #page < limit or #found >= limit
for _, member in ipairs(gone) do redis.call('ZREM', due, member) end
return found
