-- needs: flows
-- Say that a living incarnation is about to end. ARGV: 6 worker.
local KEY = BASE .. 'worker:' .. ARGV[6]
if redis.call('HGET', KEY, 'state') == 'alive' then
  redis.call('HSET', KEY, 'state', 'draining')
end
return { 'ok', 0, '', {}, {}, {} }
