-- Bring back an asset from what storage says of it, in an epoch that no earlier one had.
-- KEYS: asset   ARGV: document, version, sequence, seconds that an asset without a job is kept
local asset = KEYS[1]
local version, epoch, sequence = unpack(redis.call('HMGET', asset, 'version', 'epoch', 'sequence'))
if epoch and tonumber(version or 0) >= tonumber(ARGV[2]) then return 0 end
redis.call('HSET', asset, 'document', ARGV[1], 'version', ARGV[2],
  'epoch', math.max(tonumber(redis.call('TIME')[1]), tonumber(epoch or 0) + 1),
  'sequence', math.max(tonumber(sequence or 0), tonumber(ARGV[3])))
leave(asset, ARGV[4])
return 1
