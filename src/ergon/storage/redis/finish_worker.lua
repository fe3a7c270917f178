-- Note that every partition knows that an incarnation has ended. ARGV: 6 worker.
redis.call('HDEL', BASE .. 'worker:' .. ARGV[6], 'unfinished')
return { 'ok', 0, '', {}, {}, {} }
