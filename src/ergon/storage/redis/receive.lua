-- needs: children
-- Do what another partition left word of. ARGV: 6 which one, 7 and on: its oldest words, in order. Words that were done
-- before are known by their tokens, which are kept for a day; as whoever brings words begins with the oldest that is
-- left, one that was done and not crossed out yet is looked up here before its token is forgotten.
local HEARD = BASE .. 'heard:' .. ARGV[6]
for place = 7, #ARGV do
  local word = cmsgpack.unpack(ARGV[place])
  if not redis.call('ZSCORE', HEARD, word.token) then
    redis.call('ZADD', HEARD, text(NOW), word.token)
    if word.kind == 'deliver' then
      deliver(word.flow, word.about, word.name, word.payload, word.key)
    elseif word.kind == 'close' then
      close_children(word.parent, word.why)
    elseif word.kind == 'cancel' then
      cancel_here(word.parent, word)
    elseif word.kind == 'tell_end' then
      tell_end(word.parent, word.op, word.payload)
    elseif word.kind == 'start' then
      if redis.call('EXISTS', BASE .. 'flow:' .. word.new.id) == 1 then
        answer(word.new, word.epoch)
      else
        insert(word.new)
      end
    end
    tell_relatives()
  end
end
redis.call('ZREMRANGEBYSCORE', HEARD, '-inf', text(NOW - 86400))
return wrote('ok')
