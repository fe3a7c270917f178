-- needs: flows
-- A child that outlives its deleted parent has none. ARGV: 6 child, 7 parent.
local flow = get(ARGV[6])
if flow and flow.parent_id == ARGV[7] then
  redis.call('ZREM', BASE .. 'children:' .. ARGV[7], flow.id)
  put(flow, { parent_id = false, parent_op = false, num = flow.num })
end
return wrote('ok')
