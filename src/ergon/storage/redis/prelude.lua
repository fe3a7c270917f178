-- How each script of the log begins. Scripts are atomic and are not rolled back when they fail: each one looks at
-- everything first and writes last, and its answer begins with one word that says what it came to.
--
-- KEYS[1] is the partition's `meta`. Every other key has the same hash tag, so that all of a partition is in one slot.
-- ARGV: 1 the log's generation, 2 how many partitions there are, 3 the writer, 4 the number of its call ('' when
-- repeating the call does no harm), 5 its oldest call that is not answered yet, 6 and on: what the script needs.
--
-- No text of a flow, a message or a worker is ever a part of a script: texts are arguments and parts of key names.
local META = KEYS[1]
local BASE = string.sub(META, 1, -5)
local PARTITIONS = tonumber(ARGV[2])
if PARTITIONS > 1 then
  -- These two never exist. While the slot moves to another node, not knowing them is an error: so a script that could
  -- meet half a partition ends here, before it wrote anything.
  redis.call('EXISTS', BASE .. 'never', BASE .. 'ever')
end
local generation = redis.call('HGET', META, 'generation')
if generation ~= ARGV[1] then
  return { 'generation', generation or '' }
end

-- The answers of a writer's latest calls. One whose answer was lost is sent again under its number, and gets the answer
-- of the first time without being done twice.
local SAID = ARGV[4] ~= '' and BASE .. 'said:' .. ARGV[3]
local said_from
if SAID then
  local said = redis.call('HMGET', SAID, ARGV[4], 'from')
  if said[1] then
    return cmsgpack.unpack(said[1])
  end
  said_from = said[2]
  if said_from and tonumber(ARGV[4]) < tonumber(said_from) then
    -- It was held back on its way, has been sent again since, and its answer is forgotten. Nobody waits for this one.
    return { 'late' }
  end
end

-- The log's clock: the server's. It stands still within a script.
local time = redis.call('TIME')
local NOW = tonumber(time[1]) + tonumber(time[2]) / 1000000

local TERMINAL = { completed = true, failed = true, cancelled = true }

-- What others should hear about.
local hint = { ready = 0, wake = nil, inbox = {}, settled = {}, out = {} }

local function wakes(at)
  if not hint.wake or at < hint.wake then
    hint.wake = at
  end
end

-- A number as text, to the last bit.
local function text(number)
  return string.format('%.17g', number)
end

-- A text as JSON. The encoder also escapes each slash, which JSON does not ask for.
local function quote(value)
  return (string.gsub(cjson.encode(value), '\\/', '/'))
end

-- A text that cannot run into the next one.
local function part(value)
  return #value .. ':' .. value
end

-- Which partition a flow is in. `Partitions.of` in Python is the same.
local HERE = tonumber(string.match(META, ':(%d+)}:meta$'))
local function partition_of(id)
  if PARTITIONS == 1 then
    return HERE
  end
  return tonumber(string.sub(redis.sha1hex(id), 1, 7), 16) % PARTITIONS
end

-- Leave word for another partition: kept here until `receive.lua` has done there what it says. Its token is never used
-- again, not even when this partition loses its latest writes.
local function leave_word(partition, kind, word)
  word.kind = kind
  word.token = text(redis.call('HINCRBY', META, 'words', 1)) .. '-' .. time[1] .. '.' .. time[2]
  redis.call('RPUSH', BASE .. 'out:' .. partition, cmsgpack.pack(word))
  redis.call('SADD', BASE .. 'outs', partition)
  hint.out[partition] = true
end

-- The answer of a script that wrote: kept, in case it gets lost on its way.
local function wrote(word, ...)
  local out = {}
  for partition in pairs(hint.out) do
    out[#out + 1] = partition
  end
  local answer = { word, hint.ready, hint.wake and text(hint.wake) or '', hint.inbox, hint.settled, out, ... }
  if SAID then
    if said_from ~= ARGV[5] then
      redis.call('DEL', SAID)
      redis.call('HSET', SAID, 'from', ARGV[5])
      redis.call('PEXPIRE', SAID, 86400000)
    end
    redis.call('HSET', SAID, ARGV[4], cmsgpack.pack(answer))
  end
  return answer
end
