-- One flow: the hash `flow:<id>`, and the indexes that are kept beside it, in the same script, by `put`:
--   flows             every flow by number, which is the order of creation
--   status:<status>, name:<name>, children:<parent>    the same, of some
--   ready:<kind>      what can be claimed, in the order of its members' bytes: by priority (`rank`, higher first, of
--                     fixed width), then since when, then by number. A kind is a queue, a name, a set of tags and a
--                     version; versions:<queue, name, tags> and tags:<queue, name> say which
--                     there are
--   due:<name>        what becomes ready by time
--   owned:<worker>    who runs what
--   mail:<worker>     unread messages for what it runs
-- The children of a flow may be in other partitions too: `spread:<parent>` says in which.
local COLUMNS = {
  'status', 'name', 'queue', 'version', 'tags', 'rank', 'num', 'ready_at', 'wake_at', 'owner', 'epoch',
  'started_at', 'parent_id', 'parent_op', 'close_with_parent', 'claims_stalled', 'claimed_seq', 'timeout_seconds',
  'deadline_at',
}

-- A flow's columns, nil where it has none; nil for no flow, and for one whose key is not what Ergon wrote.
local function get(id)
  local values = redis.pcall('HMGET', BASE .. 'flow:' .. id, unpack(COLUMNS))
  if values.err or not values[1] then
    return nil
  end
  local flow = { id = id }
  for place, column in ipairs(COLUMNS) do
    if values[place] then
      flow[column] = values[place]
    end
  end
  return flow
end

local function last_seq(id)
  return redis.call('LLEN', BASE .. 'events:' .. id)
end

local function ready_place(flow)
  if flow.status ~= 'pending' or flow.wake_at then
    return nil
  end
  local group = part(flow.queue or '') .. part(flow.name or '')
  local since = math.max(0, tonumber(flow.ready_at) or 0)
  return {
    group = group,
    kind = group .. part(flow.tags or '[]'),
    tags = flow.tags or '[]',
    version = flow.version and '+' .. flow.version or '-',
    member = (flow.rank or '') .. string.format('%021.7f%017.0f', since, tonumber(flow.num) or 0) .. flow.id,
  }
end

local READY_MEMBER_ID = 20 + 21 + 17 + 1

local function add_ready(place)
  local key = BASE .. 'ready:' .. place.kind .. place.version
  if redis.call('EXISTS', key) == 0 then
    redis.call('SADD', BASE .. 'versions:' .. place.kind, place.version)
    redis.call('SADD', BASE .. 'tags:' .. place.group, place.tags)
  end
  redis.call('ZADD', key, 0, place.member)
end

local function remove_ready(place)
  local key = BASE .. 'ready:' .. place.kind .. place.version
  redis.call('ZREM', key, place.member)
  if redis.call('EXISTS', key) == 0 then
    redis.call('SREM', BASE .. 'versions:' .. place.kind, place.version)
    if redis.call('EXISTS', BASE .. 'versions:' .. place.kind) == 0 then
      redis.call('SREM', BASE .. 'tags:' .. place.group, place.tags)
    end
  end
end

local function move_mail(flow, from, to)
  for _, id in ipairs(redis.call('ZRANGE', BASE .. 'unread:' .. flow.id, 0, -1)) do
    if from then
      redis.call('ZREM', BASE .. 'mail:' .. from, id .. ' ' .. flow.id)
    end
    if to then
      redis.call('ZADD', BASE .. 'mail:' .. to, id, id .. ' ' .. flow.id)
    end
  end
end

-- Change columns of a flow; false removes one. The indexes follow.
local function put(flow, changes)
  local ready, status, wake_at, owner = ready_place(flow), flow.status, flow.wake_at, flow.owner
  local set, gone = {}, {}
  for column, value in pairs(changes) do
    if value == false then
      gone[#gone + 1] = column
      flow[column] = nil
    else
      set[#set + 1] = column
      set[#set + 1] = value
      flow[column] = value
    end
  end
  local key = BASE .. 'flow:' .. flow.id
  redis.call('HSET', key, unpack(set))
  if #gone > 0 then
    redis.call('HDEL', key, unpack(gone))
  end
  if status ~= flow.status then
    if status then
      redis.call('ZREM', BASE .. 'status:' .. status, flow.id)
    end
    redis.call('ZADD', BASE .. 'status:' .. flow.status, flow.num, flow.id)
  end
  local place = ready_place(flow)
  if ready and not (place and place.member == ready.member) then
    remove_ready(ready)
    ready = nil
  end
  if place and not ready then
    add_ready(place)
  end
  if wake_at ~= flow.wake_at then
    if flow.wake_at then
      redis.call('ZADD', BASE .. 'due:' .. flow.name, flow.wake_at, flow.id)
    else
      redis.call('ZREM', BASE .. 'due:' .. flow.name, flow.id)
    end
  end
  if owner ~= flow.owner then
    if owner then
      redis.call('SREM', BASE .. 'owned:' .. owner, flow.id)
    end
    if flow.owner then
      redis.call('SADD', BASE .. 'owned:' .. flow.owner, flow.id)
    end
    move_mail(flow, owner, flow.owner)
  end
end

-- Make a flow ready to be claimed now, with whatever else changes.
local function make_ready(flow, changes)
  changes.status, changes.wake_at, changes.ready_at = 'pending', false, text(NOW)
  put(flow, changes)
  hint.ready = 1
end

local function is_alive(worker)
  local state = redis.call('HGET', BASE .. 'worker:' .. worker, 'state')
  return state == 'alive' or state == 'draining'
end

-- Insert a flow whose id is free. `new`: see `intake.py`.
local function insert(new)
  local kept = redis.call('HMGET', META, 'num', 'epochs_from')
  local num = math.max(tonumber(kept[1] or 0) + 1, math.floor(NOW * 1000000))
  local epochs_from = tonumber(kept[2] or 0)
  redis.call('HSET', META, 'num', text(num))
  local flow = { id = new.id }
  local changes = {
    name = new.name, status = 'pending', queue = new.queue, version = new.version, tags = new.tags,
    priority = new.priority, rank = new.rank, input = new.input, reason = '', num = text(num), created_at = text(NOW),
    epoch = text(epochs_from),
    claims_stalled = '0', parent_id = new.parent_id, parent_op = new.parent_op,
    close_with_parent = new.close and '1' or '0', timeout_seconds = new.timeout and text(new.timeout),
  }
  local start_at = new.delay and NOW + new.delay or new.start_at
  if new.owner then
    changes.status, changes.owner, changes.epoch = 'running', new.owner, text(epochs_from + 1)
    changes.started_at, changes.claimed_seq = text(NOW), '0'
    changes.deadline_at = new.timeout and text(NOW + new.timeout)
  elseif not start_at or start_at <= NOW then
    changes.ready_at = text(start_at and start_at ~= 0 and start_at or NOW)
    hint.ready = 1
  else
    changes.wake_at = text(start_at)
    wakes(start_at)
  end
  put(flow, changes)
  redis.call('ZADD', BASE .. 'flows', flow.num, flow.id)
  redis.call('ZADD', BASE .. 'name:' .. flow.name, flow.num, flow.id)
  if flow.parent_id then
    redis.call('ZADD', BASE .. 'children:' .. flow.parent_id, flow.num, flow.id)
  end
  return flow
end
