-- Note, before a child is created by somebody else than its parent, in which partition it will be. A child that is not
-- created then leaves a note that leads to nothing. ARGV: 6 parent, 7 partition.
redis.call('SADD', BASE .. 'spread:' .. ARGV[6], ARGV[7])
return { 'ok', 0, '', {}, {}, {} }
