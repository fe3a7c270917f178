-- Words that another partition has done are left no longer. ARGV: 6 which one, 7 and on: the words, oldest first.
local OUT = BASE .. 'out:' .. ARGV[6]
for place = 7, #ARGV do
  if redis.call('LINDEX', OUT, 0) == ARGV[place] then
    redis.call('LPOP', OUT)
  end
end
if redis.call('EXISTS', OUT) == 0 then
  redis.call('SREM', BASE .. 'outs', ARGV[6])
end
return { 'ok', 0, '', {}, {}, {} }
