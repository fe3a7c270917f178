-- Commits of events alone, which is what running steps make: many of one partition in one call, and nothing loaded that
-- they do not need. ARGV: 1 the log's generation, 2 how many partitions there are, 3 and on for each commit: flow, worker,
-- epoch, the number of its first event, how many there are (1000 at most), and these as JSON.
--
-- Each is written whole or not at all. The answer is 1 when all were written, else a 1 or a 0 for each. A flow whose keys
-- are damaged keeps no other from being written. Of a commit that was not, `commit.lua` knows why, or that it has
-- landed before.
local META = KEYS[1]
local BASE = string.sub(META, 1, -5)
if ARGV[2] ~= '1' then
  -- See `prelude.lua`: a partition that is moving to another node is left alone.
  redis.call('EXISTS', BASE .. 'never', BASE .. 'ever')
end
local generation = redis.call('HGET', META, 'generation')
if generation ~= ARGV[1] then
  return { 'generation', generation or '' }
end

local FLOW, EVENTS = BASE .. 'flow:', BASE .. 'events:'
local done, all_done = {}, true
local at, stop = 3, #ARGV
while at <= stop do
  local id, last = ARGV[at], at + 4 + tonumber(ARGV[at + 4])
  -- The fence is the flow's own owner and epoch, see `commit.lua`.
  local held = redis.pcall('HMGET', FLOW .. id, 'owner', 'epoch')
  local written = 0
  if held[1] == ARGV[at + 1] and held[2] == ARGV[at + 2]
    and redis.pcall('LLEN', EVENTS .. id) == tonumber(ARGV[at + 3]) - 1
    and type(redis.pcall('RPUSH', EVENTS .. id, unpack(ARGV, at + 5, last))) == 'number' then
    written = 1
  else
    all_done = false
  end
  done[#done + 1] = written
  at = last + 1
end
return all_done and 1 or done
