-- needs: ended
-- Children as their parents' commits start and cancel them.

-- Ask children here to cancel; never a flow that is not that child. `cancel`: id or nil, operation, reason, attempt.
local function cancel_here(parent, cancel)
  local id, op, reason, key = cancel.flow, cancel.op, cancel.reason, 'parent-' .. text(cancel.attempt)
  local ids = id and { id } or redis.call('ZRANGE', BASE .. 'children:' .. parent, 0, -1)
  for _, each in ipairs(ids) do
    local child = get(each)
    local theirs = false
    if child and child.parent_id == parent and not TERMINAL[child.status] then
      if id then
        theirs = child.parent_op == op
      else
        local inside = op .. '/'
        theirs = child.close_with_parent == '1' and string.sub(child.parent_op or '', 1, #inside) == inside
      end
    end
    if theirs then
      deliver(each, 'cancel', 'parent', reason, key)
    end
  end
end

local function cancel_child(parent, cancel)
  local home = cancel.flow and partition_of(cancel.flow)
  if not home or home == HERE then
    cancel_here(parent, cancel)
  end
  local function pass_on(partition)
    leave_word(partition, 'cancel', {
      parent = parent, flow = cancel.flow, op = cancel.op, reason = cancel.reason, attempt = cancel.attempt,
    })
  end
  if home and home ~= HERE then
    pass_on(home)
  elseif not home then
    for _, partition in ipairs(others_with_children(parent)) do
      pass_on(tonumber(partition))
    end
  end
end

-- Whether the end of a child by this operation waits in its parent's inbox.
local function is_told(parent, op)
  for _, number in ipairs(redis.call('ZRANGE', BASE .. 'unread:' .. parent, 0, -1)) do
    local message = redis.call('HGET', BASE .. 'inbox:' .. parent, number)
    local is_json, value = pcall(cjson.decode, message or '')
    if is_json and type(value) == 'table' and value[2] == 'child' and value[3] == op then
      return true
    end
  end
  return false
end

-- Whether a flow ended in this very act: its parent will be told of that end anyway.
local function ends_now(id)
  for _, flow in ipairs(over) do
    if flow.id == id then
      return true
    end
  end
  return false
end

-- Tell a parent here how its child ended, unless it has yet to read that.
local function tell_end(parent, op, payload)
  if not is_told(parent, op) then
    deliver(parent, 'child', op, payload, nil)
  end
end

-- Tell a parent whose child is another flow, or ended before it asked.
local function answer(new, epoch)
  local found = get(new.id)
  if not found then
    return
  end
  local op = new.parent_op or ''
  local input = redis.call('HGET', BASE .. 'flow:' .. new.id, 'input') or ''
  local ours = found.parent_id == new.parent_id and found.parent_op == new.parent_op
  if not (ours and found.name == new.name and input == new.input) then
    local taken = '[' .. quote(new.id) .. ',' .. quote(found.name) .. ',' .. (ours and quote(input) or 'null') .. ']'
    send_to(new.parent_id, 'taken', op, taken, new.id .. '#' .. epoch)
  end
  if ours and TERMINAL[found.status] and not ends_now(new.id) then
    local partition = partition_of(new.parent_id)
    if partition == HERE then
      tell_end(new.parent_id, op, end_of(found))
    else
      leave_word(partition, 'tell_end', { parent = new.parent_id, op = op, payload = end_of(found) })
    end
  end
end
