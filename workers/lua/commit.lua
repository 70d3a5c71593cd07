-- One commit of one job: compare everything, then apply everything, or change nothing. The readable form of this is
-- MemoryJobStore in pipeline/memory.py; every rule stands there in the same order.
--
-- KEYS: the job's hash, the asset's hash, the due index, the event stream, this commit's token
-- ARGV: 1 the commit (`RedisJobStore._pack`), then what is long, in order: header, document, steps, event bodies
-- Returns '0' conflict, '1' applied, '2' applied and every step is settled.
local job, asset, due, stream, token = KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local commit = cjson.decode(ARGV[1])
local CHUNK = 1000 -- values in one unpack: Lua's stack is limited

-- The same commit asked again: its first reply was lost on the way.
local told = redis.call('GET', token)
if told then return told end

local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function member(step) return commit.job .. '/' .. step end
local function ready_index(stage) return commit.ready .. stage end
local function status_of(value) return string.match(value, '^[^|]*') end
local function standing_of(value) return string.match(value, '^[^|]*|[^|]*') end
local function stage_of(value) return string.match(value, '^[^|]*|[^|]*|([^|]*)|') end
local function over(status) return status == 'succeeded' or status == 'failed' or status == 'cancelled' end
local function settled(value)
  local status = value and status_of(value)
  return status == 'succeeded' or status == 'failed'
end

-- The records of some steps, in the order of `ids`; false where there is none.
local function read(ids)
  local values = {}
  for first = 1, #ids, CHUNK do
    local fields = {}
    for i = first, math.min(first + CHUNK - 1, #ids) do fields[#fields + 1] = 'step:' .. ids[i] end
    for _, value in ipairs(redis.call('HMGET', job, unpack(fields))) do values[#values + 1] = value end
  end
  return values
end

local function each_step(visit)
  local all = redis.call('HGETALL', job)
  for i = 1, #all, 2 do
    if string.sub(all[i], 1, 5) == 'step:' and visit(string.sub(all[i], 6), all[i + 1]) then return end
  end
end

local function all_settled()
  local open = false
  each_step(function(_, value) open = not settled(value); return open end)
  return not open
end

-- -- what must hold ----------------------------------------------------------------------------------------------------

local status, revision = unpack(redis.call('HMGET', job, 'status', 'revision'))

local function holds()
  if commit.new then
    if status then return false end
  elseif not status or not commit.job_in[status] then return false end
  if commit.revision and tonumber(revision or -1) ~= commit.revision then return false end
  if commit.asset_version
      and tonumber(redis.call('HGET', asset, 'version') or 0) ~= commit.asset_version then return false end
  if commit.overdue then
    local at = tonumber(redis.call('ZSCORE', due, member(commit.overdue)))
    local claimed = at and at % 1 ~= 0 -- see due.lua
    if not at or (at > now and not claimed) then return false end
  end
  if commit.all_settled and not (status and all_settled()) then return false end
  local values = read(commit.expect.steps)
  for i, expected in ipairs(commit.expect.standings) do
    if (values[i] and standing_of(values[i]) or '') ~= expected then return false end
  end
  return true
end

if not holds() then return '0' end

-- -- what changes ------------------------------------------------------------------------------------------------------

-- First a write that a full Redis refuses, so that it refuses the whole commit.
redis.call('SET', token, '1', 'EX', commit.token_s)

local long = 1
local function next_long() long = long + 1; return ARGV[long] end

local wake, changed, open = {}, {}, false
local was_over = over(status)

if commit.status then
  redis.call('HSET', job, 'header', next_long(), 'status', commit.status, 'revision', (revision or 0) + 1,
    'asset', commit.asset)
  status = commit.status
end
if commit.order then redis.call('HSET', job, 'order', commit.order) end
local ended = over(status)
if commit.new then
  redis.call('HSET', job, 'rank', commit.rank)
  redis.call('HINCRBY', asset, 'open', 1)
  redis.call('PERSIST', asset)
end
if ended and not was_over then redis.call('HINCRBY', asset, 'open', -1) end
local document = commit.document and next_long()

for _, id in ipairs(commit.steps) do
  local value = next_long()
  redis.call('HSET', job, 'step:' .. id, value)
  changed[#changed + 1] = {id, value}
  open = open or not settled(value)
end

-- Guarded moves: the record is asked, after the change, whether all needs are settled.
local released = {}
for _, guard in ipairs(commit.guards) do
  local value = read({guard.step})[1]
  local free = value and status_of(value) == 'waiting'
  if free then
    local needs = read(guard.needs)
    for i = 1, #guard.needs do free = free and settled(needs[i]) end
  end
  if free then
    value = 'ready' .. string.sub(value, #'waiting' + 1)
    redis.call('HSET', job, 'step:' .. guard.step, value)
    changed[#changed + 1] = {guard.step, value}
    released[#released + 1] = guard.step
    open = true
  end
end

if commit.forget then
  each_step(function(id, value)
    redis.call('ZREM', due, member(id))
    redis.call('ZREM', ready_index(stage_of(value)), member(id))
  end)
end

for _, pair in ipairs(changed) do
  local id, value = pair[1], pair[2]
  local stage = stage_of(value)
  if status_of(value) == 'ready' and not ended then
    redis.call('ZADD', ready_index(stage), commit.rank, member(id))
    wake[stage] = true
  else
    redis.call('ZREM', ready_index(stage), member(id))
  end
end

for i, id in ipairs(commit.due.steps) do
  local wait = commit.due.ms[i]
  if wait < 0 then
    redis.call('ZREM', due, member(id))
  else
    redis.call('ZADD', due, now + wait, member(id))
    if wait == 0 then wake['@due'] = true end
  end
end
for _, id in ipairs(released) do redis.call('ZADD', due, now + commit.ready_ms, member(id)) end

local events = {}
for i, type in ipairs(commit.events) do
  events[i] = {body = next_long(), type = type, subject = commit.subject}
end
announce(asset, stream, commit.max_events, document, events)

local outcome = '1'
if not ended and not open and all_settled() then
  outcome = '2'
  redis.call('SET', token, outcome, 'EX', commit.token_s)
  redis.call('ZADD', due, now, member('@'))
  wake['@due'] = true
end

if ended then
  redis.call('EXPIRE', job, commit.keep_s)
  leave(asset, commit.keep_s)
end
if ended and commit.status then redis.call('PUBLISH', commit.channels.stop, commit.job) end
local words = {}
for word in pairs(wake) do words[#words + 1] = word end
if #words > 0 then redis.call('PUBLISH', commit.channels.wake, table.concat(words, ' ')) end
return outcome
