-- needs: children
-- One advance of one flow, whole or not at all. ARGV: 6 flow, 7 worker, 8 epoch, 9 the number of the first event,
-- 10 everything but events ('' for none), 11 and on: the events as JSON.
--
-- The fence is the flow's own owner and epoch: declaring a worker dead and taking its flows away is one script, so a flow
-- that names an owner has a living one.
local id, worker, epoch, first = ARGV[6], ARGV[7], ARGV[8], tonumber(ARGV[9])
local EVENTS = BASE .. 'events:' .. id
local count = #ARGV - 10
local flow = get(id)

local function landed()
  if count == 0 then
    return false
  end
  local kept = redis.call('LRANGE', EVENTS, first - 1, first + count - 2)
  for place = 1, count do
    if kept[place] ~= ARGV[10 + place] then
      return false
    end
  end
  return true
end

-- Whoever sent it before may not have heard that words were left.
local function landed_before()
  return { 'ok', 0, '', {}, {}, PARTITIONS > 1 and redis.call('SMEMBERS', BASE .. 'outs') or {} }
end

if not flow or flow.owner ~= worker or flow.epoch ~= epoch then
  if landed() then
    return landed_before()
  end
  return { 'lost', flow and flow.status or '', flow and flow.owner or '', flow and flow.epoch or '' }
end
if count > 0 then
  local last = last_seq(id)
  if first ~= last + 1 then
    if landed() then
      return landed_before()
    end
    return { first <= last and 'another' or 'gap', text(math.min(first, last + 1)) }
  end
end
local rest = ARGV[10] ~= '' and cmsgpack.unpack(ARGV[10]) or nil
if not rest then
  for from = 11, #ARGV, 1000 do
    redis.call('RPUSH', EVENTS, unpack(ARGV, from, math.min(from + 999, #ARGV)))
  end
  return 1
end

-- Look at everything.
local UNREAD, TAKEN = BASE .. 'unread:' .. id, BASE .. 'taken:' .. id
local back = {}
for _, seq in ipairs(rest.returned or {}) do
  local found = false
  for number in string.gmatch(redis.call('HGET', TAKEN, text(seq)) or '', '%d+') do
    local is_json, message = pcall(cjson.decode, redis.call('HGET', BASE .. 'inbox:' .. id, number) or '')
    if is_json and message[2] == 'signal' then
      back[number] = text(seq)
      found = true
    end
  end
  if not found then
    return { 'unreturned', text(seq) }
  end
end
local consumed = {}
for _, pair in ipairs(rest.consumed or {}) do
  local number = text(pair[1])
  if consumed[number] or not (back[number] or redis.call('ZSCORE', UNREAD, number)) then
    return { 'unread', number }
  end
  consumed[number] = true
end

-- Write.
for from = 11, #ARGV, 1000 do
  redis.call('RPUSH', EVENTS, unpack(ARGV, from, math.min(from + 999, #ARGV)))
end
for number, seq in pairs(back) do
  local left = {}
  for other in string.gmatch(redis.call('HGET', TAKEN, seq) or '', '%d+') do
    if other ~= number then
      left[#left + 1] = other
    end
  end
  if #left > 0 then
    redis.call('HSET', TAKEN, seq, table.concat(left, ','))
  else
    redis.call('HDEL', TAKEN, seq)
  end
  redis.call('ZADD', UNREAD, number, number)
  redis.call('ZADD', BASE .. 'mail:' .. worker, number, number .. ' ' .. id)
end
for _, pair in ipairs(rest.consumed or {}) do
  local number, seq = text(pair[1]), text(pair[2])
  local others = redis.call('HGET', TAKEN, seq)
  redis.call('HSET', TAKEN, seq, others and others .. ',' .. number or number)
  redis.call('ZREM', UNREAD, number)
  redis.call('ZREM', BASE .. 'mail:' .. worker, number .. ' ' .. id)
end
local existing = {}
for _, new in ipairs(rest.children or {}) do
  local partition = partition_of(new.id)
  if partition ~= HERE then
    redis.call('SADD', BASE .. 'spread:' .. id, partition)
    leave_word(partition, 'start', { new = new, epoch = epoch })
  elseif redis.call('EXISTS', BASE .. 'flow:' .. new.id) == 1 then
    existing[#existing + 1] = new
  else
    insert(new)
  end
end
for _, cancel in ipairs(rest.cancels or {}) do
  cancel_child(id, cancel)
end
local settled = rest.settled
if settled then
  flow = get(id)
  local status, wake_at = settled.status, settled.wake_at
  local changes = {
    status = status, output = settled.output or false, reason = settled.reason, owner = false, claims_stalled = '0',
    claimed_seq = false, wake_at = false, ended_at = false, ready_at = false,
  }
  if TERMINAL[status] then
    changes.ended_at = text(NOW)
  elseif status == 'suspended' then
    changes.wake_at = wake_at and text(wake_at) or false
  elseif status == 'pending' then
    if not wake_at or wake_at <= NOW then
      changes.ready_at = text(NOW)
      hint.ready = 1
    else
      changes.wake_at = text(wake_at)
    end
  end
  if changes.wake_at then
    wakes(wake_at)
  end
  put(flow, changes)
  if TERMINAL[status] then
    over[#over + 1] = flow
  elseif status == 'suspended'
    and #redis.call('ZRANGEBYSCORE', UNREAD, '(' .. text(settled.inbox_seen), '+inf', 'LIMIT', 0, 1) > 0 then
    -- A message that came while the owner was letting go: the flow may not sleep on it.
    make_ready(flow, {})
  end
end
for _, new in ipairs(existing) do
  answer(new, epoch)
end
tell_relatives()
return wrote('ok')
