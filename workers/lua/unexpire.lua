-- Drop what is to be deleted at this time and no other.   KEYS: the expiries   ARGV: asset, time in ms
local at = redis.call('ZSCORE', KEYS[1], ARGV[1])
if at and tonumber(at) == tonumber(ARGV[2]) then redis.call('ZREM', KEYS[1], ARGV[1]) end
