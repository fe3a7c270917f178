-- needs: flows
-- Messages: `inbox:<flow>` has every message a flow was sent, by number; `unread:<flow>` the numbers of those that no
-- event accounts for; `keys:<flow>` which keys came; `taken:<flow>` which messages an event accounts for.

-- Flows that ended in this script and whose relatives do not know yet: `ended.lua` tells them.
local over = {}
local NEVER_STARTED = 'cancelled before it started'

local function key_of(kind, name, key)
  return part(kind) .. part(name) .. key
end

-- Why a flow is to cancel, as whoever asked wrote it.
local function reason_of(payload)
  if not payload then
    return ''
  end
  local is_json, value = pcall(cjson.decode, payload)
  return is_json and type(value) == 'string' and value or payload
end

local function cancel_flow(flow, reason)
  if (flow.status == 'pending' or flow.status == 'paused') and not flow.started_at then
    if reason == '' then
      reason = NEVER_STARTED
    end
    put(flow, { status = 'cancelled', ended_at = text(NOW), wake_at = false, reason = reason })
    over[#over + 1] = flow
    hint.settled[#hint.settled + 1] = flow.id
  elseif flow.status == 'suspended' or flow.status == 'paused' or flow.status == 'parked'
    or (flow.status == 'pending' and flow.wake_at) then
    -- Its code must run once more, to clean up; so a flow held back or parked goes on too.
    make_ready(flow, { claims_stalled = '0', claimed_seq = false })
  end
end

-- A cancellation that its flow has heard is no reason to drop the next one. One that is unread is.
local function forget_heard(flow, key)
  for _, name in ipairs({ '', 'again', 'parent_ended' }) do
    local field = key_of('cancel', name, key)
    local id = redis.call('HGET', BASE .. 'keys:' .. flow.id, field)
    if id and not redis.call('ZSCORE', BASE .. 'unread:' .. flow.id, id) then
      redis.call('HDEL', BASE .. 'keys:' .. flow.id, field)
    end
  end
end

-- Put a message into a flow's inbox and do what it asks for. Returns 'ok', 'repeated', 'absent' or 'ended'.
local function deliver(id, kind, name, payload, key)
  local flow = get(id)
  if not flow then
    return 'absent'
  end
  local field = key and key_of(kind, name, key)
  if TERMINAL[flow.status] then
    local came = field and redis.call('HEXISTS', BASE .. 'keys:' .. id, field) == 1
    return came and 'repeated' or 'ended', flow
  end
  if kind == 'cancel' and (key == 'cancel' or key == 'parent-closed') then
    forget_heard(flow, key)
  end
  if field and redis.call('HEXISTS', BASE .. 'keys:' .. id, field) == 1 then
    if kind == 'cancel' and key == 'cancel' then
      -- A person who repeats a cancel that is unread means it also if the flow was held back meanwhile.
      cancel_flow(flow, reason_of(payload))
    end
    return 'repeated', flow
  end
  local number = text(redis.call('HINCRBY', META, 'messages', 1))
  redis.call('HSET', BASE .. 'inbox:' .. id, number,
    '[' .. number .. ',' .. quote(kind) .. ',' .. quote(name) .. ',' .. (payload and quote(payload) or 'null') .. ','
    .. text(NOW) .. ']')
  redis.call('ZADD', BASE .. 'unread:' .. id, number, number)
  if field then
    redis.call('HSET', BASE .. 'keys:' .. id, field, number)
  end
  if flow.owner then
    redis.call('ZADD', BASE .. 'mail:' .. flow.owner, number, number .. ' ' .. id)
  end
  if kind == 'cancel' then
    cancel_flow(flow, reason_of(payload))
  elseif flow.status == 'suspended' then
    make_ready(flow, {})
  end
  hint.inbox[#hint.inbox + 1] = id
  return 'ok', flow
end

-- The same for a flow that may be in another partition.
local function send_to(id, kind, name, payload, key)
  local partition = partition_of(id)
  if partition == HERE then
    deliver(id, kind, name, payload, key)
  else
    leave_word(partition, 'deliver', { flow = id, about = kind, name = name, payload = payload, key = key })
  end
end
