-- needs: flows
-- Extend a lease. ARGV: 6 worker, 7 for how many seconds.
local KEY = BASE .. 'worker:' .. ARGV[6]
if not is_alive(ARGV[6]) then
  return { 'dead' }
end
local expires = text(NOW + tonumber(ARGV[7]))
redis.call('HSET', KEY, 'lease_seconds', ARGV[7], 'lease_expires_at', expires)
return { 'ok', 0, '', {}, {}, {}, expires }
