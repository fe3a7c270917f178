-- needs: flows
-- Declare an incarnation alive. ARGV: 6 worker, 7 its record as JSON, 8 for how many seconds. Registering again
-- extends a living one; a dead one stays dead.
for _, id in ipairs(redis.call('ZRANGE', BASE .. 'workers', 0, -1)) do
  -- Incarnations that ended more than a day ago are forgotten.
  local kept = redis.call('HMGET', BASE .. 'worker:' .. id, 'state', 'lease_expires_at', 'unfinished')
  if (kept[1] == 'dead' or kept[1] == 'stopped') and not kept[3] and (tonumber(kept[2]) or 0) < NOW - 86400 then
    redis.call('DEL', BASE .. 'worker:' .. id)
    redis.call('ZREM', BASE .. 'workers', id)
  end
end
local KEY = BASE .. 'worker:' .. ARGV[6]
if redis.call('EXISTS', KEY) == 1 then
  if not is_alive(ARGV[6]) then
    return { 'dead' }
  end
else
  redis.call('HSET', KEY, 'state', 'alive', 'started_at', text(NOW))
  redis.call('ZADD', BASE .. 'workers', redis.call('HINCRBY', META, 'workers', 1), ARGV[6])
end
redis.call('HSET', KEY, 'record', ARGV[7], 'lease_seconds', ARGV[8], 'lease_expires_at', text(NOW + tonumber(ARGV[8])))
return wrote('ok')
