-- needs: ended
-- An operator's act. ARGV: 6 flow, target, reason, output, the statuses from which it is allowed, and for a retry how
-- its event begins and ends, packed.
local act = cmsgpack.unpack(ARGV[6])
local flow = get(act.flow)
if not flow then
  return { 'absent' }
end
local from, target = flow.status, act.target
if from == target and (target == 'paused' or target == 'cancelled') then
  return wrote('ok')
end
local allowed = false
for _, status in ipairs(act.allowed) do
  allowed = allowed or status == from
end
if not allowed then
  return { 'illegal', from }
end
local unstarted = from == 'paused' and not flow.started_at
local changes = {
  status = target, owner = false, reason = act.reason, output = act.output or false, wake_at = false, ready_at = false,
  ended_at = false, claimed_seq = false,
}
if from == 'failed' then
  -- The failure moves from the flow's output into its history, where its next attempt finds it.
  local EVENTS = BASE .. 'events:' .. flow.id
  local failure = redis.call('HGET', BASE .. 'flow:' .. flow.id, 'output')
  local attempts = tonumber(redis.call('HGET', BASE .. 'flow:' .. flow.id, 'retries') or 0) + 1
  changes.retries = text(attempts)
  changes.deadline_at = false
  redis.call('RPUSH', EVENTS, '[' .. text(last_seq(flow.id) + 1) .. ',"flow_retried","","","",'
    .. (failure and quote(failure) or 'null') .. ',' .. text(NOW) .. ',"",' .. text(attempts) .. ']')
end
if target == 'cancelled' then
  changes.ended_at = text(NOW)
elseif target == 'paused' then
  -- A flow paused before it ever started keeps its start time in ready_at, and gets it back when resumed.
  changes.ready_at = not flow.started_at and (flow.wake_at or flow.ready_at) or false
else
  changes.claims_stalled = '0'
  if unstarted and flow.ready_at and tonumber(flow.ready_at) > NOW then
    changes.wake_at = flow.ready_at
    wakes(tonumber(flow.ready_at))
  else
    changes.ready_at = text(NOW)
    hint.ready = 1
  end
end
put(flow, changes)
if target ~= 'pending' then
  hint.settled[#hint.settled + 1] = flow.id
end
if target == 'cancelled' then
  over[#over + 1] = flow
  tell_relatives()
end
return wrote('ok')
