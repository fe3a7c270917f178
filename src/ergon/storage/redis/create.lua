-- needs: flows
-- A new flow. ARGV: 6 what `intake.py` packed. An id that exists changes nothing.
local new = cmsgpack.unpack(ARGV[6])
if redis.call('EXISTS', BASE .. 'flow:' .. new.id) == 1 then
  return { 'exists' }
end
if new.owner and not is_alive(new.owner) then
  return { 'dead' }
end
insert(new)
return wrote('ok')
