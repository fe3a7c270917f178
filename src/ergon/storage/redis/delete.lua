-- needs: flows
-- Remove an ended flow with those of its descendants that leave with it. ARGV: 6 flow, 7 '1' to remove it alone: where
-- there are several partitions its family is walked by `family.py`.
local root = get(ARGV[6])
if not root then
  return { 'absent' }
end
if not TERMINAL[root.status] then
  return { 'illegal', root.status }
end
local EPOCHS_A_LIFE = 1048576
local family, member, place = { root }, { [root.id] = true }, 1
local left_alone = {}
while family[place] and ARGV[7] ~= '1' do
  for _, id in ipairs(redis.call('ZRANGE', BASE .. 'children:' .. family[place].id, 0, -1)) do
    local child = get(id)
    if child and not member[id] then
      if TERMINAL[child.status] then
        family[#family + 1] = child
        member[id] = true
      elseif child.close_with_parent == '1' then
        return { 'unfinished', id, child.status }
      else
        left_alone[#left_alone + 1] = child
      end
    end
  end
  place = place + 1
end
-- A child that outlives a deleted flow was started by a flow that is no more. Another one that gets its id must neither
-- hear of it nor take it for its own.
for _, child in ipairs(left_alone) do
  put(child, { parent_id = false, parent_op = false, num = child.num })
end
-- Flows created from now on have other epochs than these had.
local epochs_from = tonumber(redis.call('HGET', META, 'epochs_from') or 0)
local next_from = epochs_from
for _, flow in ipairs(family) do
  next_from = math.max(next_from, (math.floor((tonumber(flow.epoch) or 0) / EPOCHS_A_LIFE) + 1) * EPOCHS_A_LIFE)
end
if next_from > epochs_from then
  redis.call('HSET', META, 'epochs_from', text(next_from))
end
for _, flow in ipairs(family) do
  local id = flow.id
  redis.call('ZREM', BASE .. 'flows', id)
  redis.call('ZREM', BASE .. 'status:' .. flow.status, id)
  redis.call('ZREM', BASE .. 'name:' .. flow.name, id)
  if flow.parent_id then
    redis.call('ZREM', BASE .. 'children:' .. flow.parent_id, id)
  end
  redis.call('DEL', BASE .. 'flow:' .. id, BASE .. 'events:' .. id, BASE .. 'inbox:' .. id, BASE .. 'unread:' .. id,
    BASE .. 'keys:' .. id, BASE .. 'taken:' .. id, BASE .. 'children:' .. id, BASE .. 'spread:' .. id)
end
return wrote('ok')
