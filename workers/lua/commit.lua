-- One or more commits: compare everything, then apply everything, or change nothing. The readable form of this is
-- MemoryJobStore.commit in pipeline/memory.py; every rule stands there in the same order.
--
-- KEYS: the due index, the event stream, this call's token; then of each commit the job's hash and the asset's hash
-- ARGV: 1 the commits (`RedisJobStore._pack`), then of each what is long, in order: header, document, steps, events
-- Returns `applied`, `settled` (applied, and every step of the first job is settled), or why not, and which commit:
-- `conflict 0`, `closed 3` …
local due, stream, token = KEYS[1], KEYS[2], KEYS[3]
local call = cjson.decode(ARGV[1])
local agenda = agenda(call.prefix)
local CHUNK = 1000 -- values in one unpack: Lua's stack is limited
local LOOK = 32 -- needs that are asked at once: mostly one of the first is not settled

-- The same call again: its first reply was lost on the way.
local told = redis.call('GET', token)
if told then return told end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local open_jobs = call.prefix .. ':open'

local function status_of(value) return string.match(value, '^[^|]*') end
local function standing_of(value) return string.match(value, '^[^|]*|[^|]*') end
local function stage_of(value) return string.match(value, '^[^|]*|[^|]*|([^|]*)|') end
local function over(status) return status == 'succeeded' or status == 'failed' or status == 'cancelled' end
local function is_settled(status) return status == 'succeeded' or status == 'failed' end
local function settled(value) return value and is_settled(status_of(value)) end
local function member(commit, step) return commit.job .. '/' .. step end
local function spot(job, stage) return stage .. '|' .. job.priority .. '|' .. job.organization end

-- The records of some steps, in the order of `ids`; false where there is none.
local function read(key, ids)
  local values = {}
  for first = 1, #ids, CHUNK do
    local fields = {}
    for i = first, math.min(first + CHUNK - 1, #ids) do fields[#fields + 1] = 'step:' .. ids[i] end
    for _, value in ipairs(redis.call('HMGET', key, unpack(fields))) do values[#values + 1] = value end
  end
  return values
end

local function are_settled(key, ids)
  for first = 1, #ids, LOOK do
    local some = {}
    for i = first, math.min(first + LOOK - 1, #ids) do some[#some + 1] = ids[i] end
    local values = read(key, some)
    for i = 1, #some do
      if not settled(values[i]) then return false end
    end
  end
  return true
end

local function each_step(key, visit)
  local all = redis.call('HGETALL', key)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 5) == 'step:' then visit(string.sub(all[i], 6), all[i + 1]) end
  end
end

-- A job's hash, but for its steps.
local function read_job(key)
  local values = redis.call('HMGET', key, 'status', 'revision', 'priority', 'organization', 'held', 'rank', 'unsettled')
  return {
    status = values[1], revision = tonumber(values[2] or 0), priority = values[3], organization = values[4],
    held = values[5] == '1', rank = values[6], unsettled = tonumber(values[7] or 0),
  }
end

-- -- what must hold ----------------------------------------------------------------------------------------------------

-- What the earlier commits of this call would change, should they be applied.
local earlier = {jobs = {}, documents = {}, closed = {}, opened = {}}

local function is_overdue(commit)
  local at = tonumber(redis.call('ZSCORE', due, member(commit, commit.overdue)))
  local claimed = at and at % 1 ~= 0 -- see due.lua
  return at and (at <= now or claimed)
end

local function holds(commit, job)
  if not commit.new and not (job.status and commit.job_in[job.status]) then return false end
  if earlier.jobs[commit.job] then return false end
  if commit.revision and not (job.status and job.revision == commit.revision) then return false end
  if commit.asset_version then
    if earlier.documents[commit.asset] then return false end
    local version = tonumber(redis.call('HGET', commit.asset_key, 'version') or 0)
    if version ~= commit.asset_version then return false end
  end
  if commit.overdue and not is_overdue(commit) then return false end
  if commit.all_settled and not (job.status and job.unsettled == 0) then return false end
  local values = read(commit.key, commit.expect.steps)
  for i, expected in ipairs(commit.expect.standings) do
    if (values[i] and standing_of(values[i]) or '') ~= expected then return false end
  end
  return true
end

local function is_closed(commit)
  return earlier.closed[commit.asset] or redis.call('HEXISTS', commit.asset_key, 'closed') == 1
end

local function too_many(commit)
  local organization = commit.header.organization
  local open = tonumber(redis.call('HGET', open_jobs, organization) or 0)
  return open + (earlier.opened[organization] or 0) + 1 > commit.max_open
end

local function refusal(commit, job)
  if commit.new and job.status then return 'conflict' end
  if commit.new and is_closed(commit) then return 'closed' end
  if not holds(commit, job) then return 'conflict' end
  if commit.new and commit.max_open and too_many(commit) then return 'quota' end
  return nil
end

local function note(commit)
  earlier.jobs[commit.job] = true
  if commit.document then earlier.documents[commit.asset] = true end
  if commit.closes then earlier.closed[commit.asset] = true end
  if commit.new then
    local organization = commit.header.organization
    earlier.opened[organization] = (earlier.opened[organization] or 0) + 1
  end
end

local jobs = {}
for i, commit in ipairs(call.commits) do
  commit.key, commit.asset_key = KEYS[2 * i + 2], KEYS[2 * i + 3]
  jobs[i] = read_job(commit.key)
  local why = refusal(commit, jobs[i])
  if why then return why .. ' ' .. (i - 1) end
  note(commit)
end

-- -- what changes ------------------------------------------------------------------------------------------------------

-- First a write that a full Redis refuses, so that it refuses the whole call.
redis.call('SET', token, 'applied', 'EX', call.token_s)

local long = 1
local function next_long() long = long + 1; return ARGV[long] end

local wake = {}

local function count_open(organization, by)
  if redis.call('HINCRBY', open_jobs, organization, by) <= 0 then redis.call('HDEL', open_jobs, organization) end
end

local function look_in(commit, id, ms)
  redis.call('ZADD', due, now + ms, member(commit, id))
  if ms == 0 then wake['@due'] = true end
end

-- The job is held, released, or has another priority: its ready steps go with it.
local function rearrange(commit, before, after)
  if before.held == after.held and before.priority == after.priority then return end
  each_step(commit.key, function(id, value)
    if status_of(value) ~= 'ready' then return end
    local stage = stage_of(value)
    if after.held then
      agenda.leave(member(commit, id))
    elseif before.held then
      agenda.stand(member(commit, id), spot(after, stage), after.rank)
      look_in(commit, id, call.ready_ms)
      wake[stage] = true
    else
      agenda.promote(member(commit, id), after.priority, after.rank)
    end
  end)
end

-- The job's fields beside its steps; returns the job as it is now.
local function write_header(commit, before)
  if not commit.header then return before end
  local after = {
    status = commit.header.status, revision = before.revision + 1, priority = commit.header.priority,
    organization = before.organization or commit.header.organization, held = commit.header.held,
    rank = before.rank or commit.rank, unsettled = before.unsettled,
  }
  redis.call('HSET', commit.key, 'header', next_long(), 'status', after.status, 'revision', after.revision,
    'asset', commit.asset, 'priority', after.priority, 'organization', after.organization,
    'held', after.held and '1' or '0', 'rank', after.rank)
  if commit.order then redis.call('HSET', commit.key, 'order', commit.order) end
  return after
end

-- A new job, known to its asset and counted for its organization. What has expired is struck off the asset's list.
local function enter(commit, job)
  local known = commit.asset_key .. ':jobs'
  for _, old in ipairs(redis.call('ZRANGE', known, 0, 9)) do
    if redis.call('EXISTS', call.prefix .. ':job:' .. old) == 0 then redis.call('ZREM', known, old) end
  end
  redis.call('ZADD', known, commit.rank, commit.job)
  redis.call('ZADD', commit.asset_key .. ':open', commit.rank, commit.job)
  redis.call('HINCRBY', commit.asset_key, 'open', 1)
  redis.call('PERSIST', commit.asset_key)
  redis.call('PERSIST', known)
  count_open(job.organization, 1)
end

-- A job's end: its record stays for a while.
local function close(commit, job)
  redis.call('HINCRBY', commit.asset_key, 'open', -1)
  redis.call('ZREM', commit.asset_key .. ':open', commit.job)
  count_open(job.organization, -1)
  redis.call('EXPIRE', commit.key, call.keep_s)
  if job.status ~= 'failed' then return end
  local failed = call.prefix .. ':failed'
  redis.call('ZREMRANGEBYSCORE', failed, '-inf', now - call.keep_s * 1000)
  redis.call('ZADD', failed, now, commit.job)
end

-- Writes the steps, and makes the guarded moves: the record is asked, after the change, whether all needs are settled.
-- Returns what changed, as pairs of id and value, and the ids that a guard released.
local function write_steps(commit, job)
  local changed, released = {}, {}
  local old = read(commit.key, commit.steps)
  local unsettled = job.unsettled
  for i, id in ipairs(commit.steps) do
    local value = next_long()
    redis.call('HSET', commit.key, 'step:' .. id, value)
    changed[#changed + 1] = {id, value}
    unsettled = unsettled - (old[i] and not settled(old[i]) and 1 or 0) + (settled(value) and 0 or 1)
  end
  if unsettled ~= job.unsettled then redis.call('HSET', commit.key, 'unsettled', unsettled) end
  job.unsettled = unsettled
  for _, guard in ipairs(commit.guards) do
    local value = read(commit.key, {guard.step})[1]
    if value and status_of(value) == 'waiting' and are_settled(commit.key, guard.needs) then
      value = 'ready' .. string.sub(value, #'waiting' + 1)
      redis.call('HSET', commit.key, 'step:' .. guard.step, value)
      changed[#changed + 1] = {guard.step, value}
      released[#released + 1] = guard.step
    end
  end
  return changed, released
end

local function forget(commit)
  each_step(commit.key, function(id)
    redis.call('ZREM', due, member(commit, id))
    agenda.leave(member(commit, id))
  end)
end

local function index(commit, job, id, value)
  local status, stage = status_of(value), stage_of(value)
  if status == 'ready' and not over(job.status) and not job.held then
    agenda.stand(member(commit, id), spot(job, stage), commit.rank)
    wake[stage] = true
  elseif (status == 'running' or status == 'publishing') and not over(job.status) then
    agenda.begin(member(commit, id), spot(job, stage))
  else
    agenda.leave(member(commit, id))
  end
end

-- Returns whether the commit itself says when to look at the job again.
local function schedule(commit, released)
  local job_level = false
  for i, id in ipairs(commit.due.steps) do
    local ms = commit.due.ms[i]
    if ms < 0 then redis.call('ZREM', due, member(commit, id)) else look_in(commit, id, ms) end
    job_level = job_level or id == '@'
  end
  for _, id in ipairs(released) do look_in(commit, id, call.ready_ms) end
  return job_level
end

-- What is known of the asset besides.
local function remember(commit)
  if commit.closes then
    born(commit.asset_key)
    redis.call('HSET', commit.asset_key, 'closed', commit.job)
  end
  local expiries = call.prefix .. ':expiries'
  if commit.closes or commit.expire_at_ms == 0 then
    redis.call('ZREM', expiries, commit.asset)
  elseif commit.expire_at_ms then
    redis.call('ZADD', expiries, commit.expire_at_ms, commit.asset)
  end
end

-- Returns whether every step is settled, and the job has not ended.
local function apply(commit, before)
  local job = write_header(commit, before)
  local document = commit.document and next_long()
  if commit.new then enter(commit, job) end
  if before.status and not commit.forget then rearrange(commit, before, job) end
  local changed, released = write_steps(commit, job)
  if commit.forget then forget(commit) end
  for _, pair in ipairs(changed) do index(commit, job, pair[1], pair[2]) end
  local job_level = schedule(commit, released)
  remember(commit)
  local events = {}
  for i, type in ipairs(commit.events) do
    events[i] = {body = next_long(), type = type, subject = commit.asset}
  end
  announce(commit.asset_key, stream, call.max_events, document, events)
  if over(job.status) then
    if not over(before.status) then close(commit, job) end
    leave(commit.asset_key, call.keep_s)
    if commit.header then redis.call('PUBLISH', call.prefix .. ':stop', commit.job) end
    return false
  end
  local all_settled = job.unsettled == 0
  if all_settled and not job_level then look_in(commit, '@', 0) end
  return all_settled
end

local outcome = 'applied'
for i, commit in ipairs(call.commits) do
  local all_settled = apply(commit, jobs[i])
  if i == 1 and all_settled then outcome = 'settled' end
end
if outcome ~= 'applied' then redis.call('SET', token, outcome, 'EX', call.token_s) end

local words = {}
for word in pairs(wake) do words[#words + 1] = word end
if #words > 0 then redis.call('PUBLISH', call.prefix .. ':wake', table.concat(words, ' ')) end
return outcome
