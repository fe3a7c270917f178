-- needs: flows
-- Another start time. ARGV: 6 flow, 'at' or 'delay' (or neither), packed.
local act = cmsgpack.unpack(ARGV[6])
local flow = get(act.flow)
if not flow then
  return { 'absent' }
end
if flow.started_at or (flow.status ~= 'pending' and flow.status ~= 'paused') then
  return { 'illegal', flow.status, flow.started_at and 1 or 0 }
end
local due = act.delay and NOW + act.delay or act.at or NOW
if flow.status == 'paused' then
  put(flow, { ready_at = text(due), wake_at = false })
elseif due > NOW then
  put(flow, { wake_at = text(due), ready_at = false })
  wakes(due)
else
  put(flow, { wake_at = false, ready_at = text(NOW) })
  hint.ready = 1
end
return wrote('ok')
