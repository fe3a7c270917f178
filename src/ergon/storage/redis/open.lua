-- Make a partition this log's own, or say what it is. Not preceded by the prelude: there may be nothing yet.
-- KEYS[1] its `meta`; ARGV: 1 'look' or 'make', 2 a generation, 3 how many partitions, 4 the schema's version,
-- 5 by whom, 6 the partition's number, 7 what it is ('flows').
local META = KEYS[1]
local kind = redis.call('TYPE', META).ok
if kind == 'none' and ARGV[1] == 'make' then
  local time = redis.call('TIME')
  redis.call('HSET', META, 'application', 'ergon', 'generation', ARGV[2], 'partitions', ARGV[3], 'schema', ARGV[4],
    'compatible_from', '1', 'created_by', ARGV[5], 'created_at', time[1], 'partition', ARGV[6])
elseif kind ~= 'none' and kind ~= 'hash' then
  return { kind }
end
return { kind, redis.call('HGETALL', META), redis.call('TIME') }
