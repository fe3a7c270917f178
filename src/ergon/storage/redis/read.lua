-- needs: flows
-- What must be read at one moment. ARGV: 6 what, 7 and on: of what. Changes nothing.
local what = ARGV[6]

local function unread(id)
  local numbers = redis.call('ZRANGE', BASE .. 'unread:' .. id, 0, -1)
  local found = {}
  for from = 1, #numbers, 1000 do
    local some = redis.call('HMGET', BASE .. 'inbox:' .. id, unpack(numbers, from, math.min(from + 999, #numbers)))
    for _, message in ipairs(some) do
      found[#found + 1] = message
    end
  end
  return found
end

local function newest()
  return redis.call('HGET', META, 'messages') or '0'
end

if what == 'inbox' then
  return unread(ARGV[7])
elseif what == 'claimed' then
  local id, worker, epoch = ARGV[7], ARGV[8], ARGV[9]
  local owner = redis.call('HMGET', BASE .. 'flow:' .. id, 'owner', 'epoch')
  if owner[1] ~= worker or owner[2] ~= epoch then
    return {}
  end
  return {
    redis.call('HGETALL', BASE .. 'flow:' .. id), redis.call('LRANGE', BASE .. 'events:' .. id, 0, -1), unread(id), newest(),
  }
elseif what == 'arrivals' then
  local worker, after = ARGV[7], ARGV[8]
  local found = {}
  for _, entry in ipairs(redis.call('ZRANGEBYSCORE', BASE .. 'mail:' .. worker, '(' .. after, '+inf')) do
    local number, id = string.match(entry, '^(%d+) (.*)$')
    local message = redis.call('HGET', BASE .. 'inbox:' .. id, number)
    if message then
      found[#found + 1] = id
      found[#found + 1] = message
    end
  end
  return { newest(), found }
elseif what == 'ended' then
  local found, absent = {}, {}
  for place = 7, #ARGV do
    local status = redis.call('HGET', BASE .. 'flow:' .. ARGV[place], 'status')
    if not status then
      absent[#absent + 1] = ARGV[place]
    elseif TERMINAL[status] or status == 'parked' then
      found[#found + 1] = ARGV[place]
      found[#found + 1] = redis.call('HGETALL', BASE .. 'flow:' .. ARGV[place])
    end
  end
  return { found, absent }
elseif what == 'lost' then
  local found = {}
  for place = 8, #ARGV, 2 do
    local id = ARGV[place]
    local kept = redis.call('HMGET', BASE .. 'flow:' .. id, 'owner', 'epoch', 'status')
    if kept[1] ~= ARGV[7] or kept[2] ~= ARGV[place + 1] then
      found[#found + 1] = id
      found[#found + 1] = kept[3] or ''
    end
  end
  return found
elseif what == 'owned' then
  local found = {}
  for _, id in ipairs(redis.call('SMEMBERS', BASE .. 'owned:' .. ARGV[7])) do
    found[#found + 1] = id
    found[#found + 1] = redis.call('HGET', BASE .. 'flow:' .. id, 'epoch') or ''
  end
  return found
elseif what == 'versions' then
  -- The versions among the ready flows of some queues, names and sets of tags (none given: all there are).
  local want = cmsgpack.unpack(ARGV[7])
  local seen, found = {}, {}
  for _, queue in ipairs(want.queues) do
    for _, name in ipairs(want.names) do
      local group = part(queue) .. part(name)
      for _, tags in ipairs(want.sets or redis.call('SMEMBERS', BASE .. 'tags:' .. group)) do
        for _, version in ipairs(redis.call('SMEMBERS', BASE .. 'versions:' .. group .. part(tags))) do
          if not seen[version] and version ~= '-' then
            seen[version] = true
            found[#found + 1] = string.sub(version, 2)
          end
        end
      end
    end
  end
  return found
end
return redis.error_reply('ERGON no such question')
