-- needs: flows
-- End an incarnation, and make what it owns pending. ARGV: 6 worker, 7 its new state, 8 '1' when its process is
-- known to be gone: else a dead one's lease must have run out, which is decided here, by the server's clock, where no
-- renewal can come in between.
local KEY = BASE .. 'worker:' .. ARGV[6]
local state = ARGV[7]
if not is_alive(ARGV[6]) then
  if HERE ~= 0 then
    -- Perhaps it was never registered here: from now on it cannot be.
    redis.call('HSET', KEY, 'state', state, 'lease_expires_at', text(NOW))
    redis.call('ZADD', BASE .. 'workers', 0, ARGV[6])
  end
  return { 'dead' }
end
if state == 'dead' and ARGV[8] ~= '1' then
  local lease = redis.call('HMGET', KEY, 'lease_expires_at', 'lease_seconds')
  local expires, latest = tonumber(lease[1]) or 0, NOW + (tonumber(lease[2] or '') or math.huge)
  if expires > latest then
    -- It ends later than any given now would: the server's clock was set back.
    redis.call('HSET', KEY, 'lease_expires_at', text(latest))
  end
  if expires > NOW then
    return { 'alive' }
  end
end
redis.call('HSET', KEY, 'state', state)
if HERE ~= 0 then
  redis.call('HSET', KEY, 'lease_expires_at', text(NOW))
elseif PARTITIONS > 1 then
  redis.call('HSET', KEY, 'unfinished', '1')
end
local released = 0
for _, id in ipairs(redis.call('SMEMBERS', BASE .. 'owned:' .. ARGV[6])) do
  local flow = get(id)
  if flow and flow.owner == ARGV[6] then
    -- Given back willingly, a flow's count of stalled claims starts anew; left behind by a dead worker, it goes on.
    make_ready(flow, { owner = false, claimed_seq = state == 'dead' and flow.claimed_seq or false })
    released = released + 1
  end
end
redis.call('DEL', BASE .. 'owned:' .. ARGV[6], BASE .. 'mail:' .. ARGV[6])
return wrote('ok', released)
