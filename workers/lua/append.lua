-- Append one event that belongs to no job.   KEYS: asset, stream, token   ARGV: body, type, subject, stream's length,
-- seconds that the token is kept, seconds that an asset without a job is kept
local asset, stream, token = KEYS[1], KEYS[2], KEYS[3]
if not redis.call('SET', token, '1', 'NX', 'EX', ARGV[5]) then return '1' end
announce(asset, stream, ARGV[4], nil, {{body = ARGV[1], type = ARGV[2], subject = ARGV[3]}})
leave(asset, ARGV[6])
return '1'
