-- needs: flows
-- Say what flows of a worker do. ARGV: 6 worker, 7 pairs of a flow and a text, packed.
for _, pair in ipairs(cmsgpack.unpack(ARGV[7])) do
  local flow = get(pair[1])
  if flow and flow.owner == ARGV[6] then
    redis.call('HSET', BASE .. 'flow:' .. flow.id, 'reason', pair[2])
  end
end
return { 'ok', 0, '', {}, {}, {} }
