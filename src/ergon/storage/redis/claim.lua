-- needs: flows
-- Take ownership of ready flows, best first. ARGV: 6 the request, packed by `claims.py`. Where there are several
-- partitions each is asked twice: with `look` for its best, which are then compared, and with `only` to take some.
local want = cmsgpack.unpack(ARGV[6])
if not is_alive(want.worker) then
  return { 'dead' }
end

local function promote(flow)
  put(flow, { status = 'pending', ready_at = flow.wake_at, wake_at = false })
end

local chosen, best = {}, {}
if want.only then
  for _, id in ipairs(want.only) do
    local flow = get(id)
    if flow and flow.status == 'pending' and not flow.wake_at then
      chosen[#chosen + 1] = id
    end
  end
elseif want.flow then
  local flow = get(want.flow)
  if flow and flow.wake_at and tonumber(flow.wake_at) <= NOW then
    promote(flow)
  end
  local fits = #want.names == 0
  for _, name in ipairs(want.names) do
    fits = fits or (flow and flow.name == name)
  end
  if flow and fits and flow.status == 'pending' and not flow.wake_at then
    chosen[1] = flow.id
  end
elseif want.limit > 0 then
  local room = 1000
  for _, name in ipairs(want.due and want.names or {}) do
    -- Bounded: what is left is due at the next claim.
    local due = room > 0
      and redis.call('ZRANGEBYSCORE', BASE .. 'due:' .. name, '-inf', text(NOW), 'LIMIT', 0, room) or {}
    room = room - #due
    for _, id in ipairs(due) do
      local flow = get(id)
      if flow and flow.wake_at then
        promote(flow)
      else
        redis.call('ZREM', BASE .. 'due:' .. name, id)
      end
    end
  end
  local found = {}
  local function look(kind, version)
    local key = BASE .. 'ready:' .. kind .. version
    for _, member in ipairs(redis.call('ZRANGE', key, 0, want.limit - 1)) do
      found[#found + 1] = { member, key }
    end
  end
  local has = {}
  for _, tag in ipairs(want.tags) do
    has[tag] = true
  end
  for _, queue in ipairs(want.queues) do
    for _, name in ipairs(want.names) do
      local group = part(queue) .. part(name)
      local sets = want.sets
      if not sets then
        sets = {}
        for _, tags in ipairs(redis.call('SMEMBERS', BASE .. 'tags:' .. group)) do
          local is_json, list = pcall(cjson.decode, tags)
          local fits = is_json and type(list) == 'table'
          for _, tag in ipairs(fits and list or {}) do
            fits = fits and has[tag]
          end
          if fits then
            sets[#sets + 1] = tags
          end
        end
      end
      for _, tags in ipairs(sets) do
        local kind = group .. part(tags)
        if want.versions then
          look(kind, '-')
          for _, version in ipairs(want.versions) do
            look(kind, '+' .. version)
          end
        else
          for _, version in ipairs(redis.call('SMEMBERS', BASE .. 'versions:' .. kind)) do
            look(kind, version)
          end
        end
      end
    end
  end
  table.sort(found, function(one, other)
    return one[1] < other[1]
  end)
  for place = 1, math.min(want.limit, #found) do
    local id = string.sub(found[place][1], READY_MEMBER_ID)
    local flow = get(id)
    local ready = flow and ready_place(flow)
    if ready and ready.member == found[place][1] then
      chosen[#chosen + 1] = id
      best[#best + 1] = ready.member
    else
      -- A flow removed or changed by hand: its place must not stand in front of others for ever.
      redis.call('ZREM', found[place][2], found[place][1])
    end
  end
end

if want.look then
  return { 'ok', 0, '', {}, {}, {}, best }
end
local owned = {}
for _, id in ipairs(chosen) do
  local flow = get(id)
  local seq = text(last_seq(id))
  -- A claim that finds the same last event as the claim before it follows a worker that died without progress. After
  -- so many of those the flow is parked: most likely it is what kills its workers.
  local stalled = flow.claimed_seq == seq and (tonumber(flow.claims_stalled) or 0) + 1 or 0
  local timeout = tonumber(flow.timeout_seconds) or (not flow.started_at and want.timeouts[flow.name]) or nil
  local changes = {
    epoch = text((tonumber(flow.epoch) or 0) + 1), claims_stalled = text(stalled), claimed_seq = seq,
    started_at = flow.started_at or text(NOW), timeout_seconds = timeout and text(timeout),
    deadline_at = flow.deadline_at or (timeout and text(NOW + timeout)) or nil,
  }
  if stalled >= want.stalled_max then
    changes.status = 'parked'
    changes.reason = 'its worker died ' .. text(stalled) .. ' times in a row without recording anything; mend the cause, '
      .. 'then resume it'
    hint.settled[#hint.settled + 1] = id
  else
    changes.status, changes.owner, changes.reason = 'running', want.worker, ''
    owned[#owned + 1] = { id, changes.epoch }
  end
  put(flow, changes)
end
if #chosen == 0 then
  return { 'ok', 0, '', {}, {}, {}, {} }
end
return wrote('ok', owned)
