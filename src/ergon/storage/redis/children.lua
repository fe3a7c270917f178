-- needs: ended
-- Children as their parents' commits start and cancel them.

-- Ask children to cancel; never a flow that is not that child. `cancel`: id or nil, operation, reason, attempt.
local function cancel_child(parent, cancel)
  local id, op, reason, key = cancel[1], cancel[2], cancel[3], 'parent-' .. text(cancel[4])
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
    deliver(new.parent_id, 'taken', op, taken, new.id .. '#' .. epoch)
  end
  if ours and TERMINAL[found.status] and not ends_now(new.id) and not is_told(new.parent_id, op) then
    deliver(new.parent_id, 'child', op, end_of(found), nil)
  end
end
