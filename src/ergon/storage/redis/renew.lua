-- needs: flows
-- Extend a lease. ARGV: 6 worker, 7 for how many seconds, 8 what its flows do: a packed list of
-- pairs of a flow and a text.
local KEY = BASE .. 'worker:' .. ARGV[6]
if not is_alive(ARGV[6]) then
  return { 'dead' }
end
local expires = text(NOW + tonumber(ARGV[7]))
redis.call('HSET', KEY, 'lease_expires_at', expires)
for _, pair in ipairs(cmsgpack.unpack(ARGV[8])) do
  local flow = get(pair[1])
  if flow and flow.owner == ARGV[6] then
    redis.call('HSET', BASE .. 'flow:' .. flow.id, 'reason', pair[2])
  end
end
return { 'ok', 0, '', {}, {}, expires }
