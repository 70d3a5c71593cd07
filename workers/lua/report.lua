-- Note how far a step is, and tell the asset's subscribers at most once a second.
-- KEYS: the job's progress, its throttle, the progress stream, the job's record
-- ARGV: job, step, fraction, at (ms), seconds to keep, stream's length
redis.call('HSET', KEYS[1], ARGV[2], ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[5])
if not redis.call('SET', KEYS[2], '1', 'NX', 'PX', 1000) then return 0 end
local asset = redis.call('HGET', KEYS[4], 'asset') or ''
redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[6], '*',
  'job', ARGV[1], 'asset', asset, 'step', ARGV[2], 'fraction', ARGV[3], 'at', ARGV[4])
return 1
