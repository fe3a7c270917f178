-- needs: inbox
-- When a flow ends: its parent hears of it, and its children that close with it are cancelled, and so on from there.

-- How a child ended, as its parent hears it.
local function end_of(flow)
  local kept = redis.call('HMGET', BASE .. 'flow:' .. flow.id, 'input', 'output', 'reason')
  return '{"flow_id":' .. quote(flow.id) .. ',"name":' .. quote(flow.name) .. ',"input":' .. (kept[1] or 'null')
    .. ',"status":"' .. flow.status .. '","output":' .. (kept[2] or 'null,"reason":' .. quote(kept[3] or '')) .. '}'
end

local function why_closed(flow)
  if flow.status ~= 'cancelled' then
    return 'its parent ' .. flow.status
  end
  local told = 'its parent was cancelled'
  local reason = redis.call('HGET', BASE .. 'flow:' .. flow.id, 'reason') or ''
  if string.sub(reason, 1, #told) == told then
    return reason
  end
  return reason ~= '' and told .. ': ' .. reason or told
end

-- Cancel the children here of a flow that ended.
local function close_children(parent, why)
  for _, id in ipairs(redis.call('ZRANGE', BASE .. 'children:' .. parent, 0, -1)) do
    local child = get(id)
    if child and child.close_with_parent == '1' and not TERMINAL[child.status] then
      deliver(id, 'cancel', 'parent_ended', quote(why), 'parent-closed')
    end
  end
end

local function others_with_children(id)
  return PARTITIONS > 1 and redis.call('SMEMBERS', BASE .. 'spread:' .. id) or {}
end

local function tell_relatives()
  local place = 1
  while over[place] do
    local flow = over[place]
    place = place + 1
    if flow.parent_id and flow.parent_op then
      send_to(flow.parent_id, 'child', flow.parent_op, end_of(flow), nil)
    end
    local why = why_closed(flow)
    close_children(flow.id, why)
    for _, partition in ipairs(others_with_children(flow.id)) do
      leave_word(tonumber(partition), 'close', { parent = flow.id, why = why })
    end
  end
  over = {}
end
