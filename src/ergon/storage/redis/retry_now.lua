-- needs: inbox
-- End the back-offs of a flow. ARGV: 6 flow, 7 what its history looked like when the caller read it: how many events,
-- 8 whether one of them backs off now.
local flow = get(ARGV[6])
if not flow then
  return { 'absent' }
end
local last = last_seq(flow.id)
if text(last) ~= ARGV[7] then
  return { 'again' }
end
local active = flow.status == 'pending' or flow.status == 'suspended' or flow.status == 'running'
if not active or ARGV[8] ~= '1' then
  return { 'illegal', flow.status }
end
if flow.status == 'running' then
  deliver(flow.id, 'retry_now', '', nil, nil)
  return wrote('ok')
end
redis.call('RPUSH', BASE .. 'events:' .. flow.id,
  '[' .. text(last + 1) .. ',"retry_now","","","",null,' .. text(NOW) .. ',"",0]')
if flow.status == 'suspended' or flow.wake_at then
  make_ready(flow, {})
end
hint.ready = 1
return wrote('ok')
