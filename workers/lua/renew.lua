-- Keep a lease that is still ours.   KEYS: the job's hash, the due index   ARGV: step's field, fence, member, ms
local status, value = unpack(redis.call('HMGET', KEYS[1], 'status', ARGV[1]))
if status ~= 'active' and status ~= 'publishing' then return 0 end
local state, fence = string.match(value or '', '^([^|]*)|([^|]*)|')
if fence ~= ARGV[2] or (state ~= 'running' and state ~= 'publishing') then return 0 end
local time = redis.call('TIME')
redis.call('ZADD', KEYS[2], time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[4], ARGV[3])
return 1
