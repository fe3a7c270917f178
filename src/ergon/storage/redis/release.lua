-- needs: flows
-- Give back flows of a worker that will not run them. ARGV: 6 worker, 7 how: 'given back' or 'disowned', 8 pairs of a
-- flow and its epoch, packed. Of a disowned one the count of stalled claims goes on: a flow that gets lost again and
-- again is parked some day.
local released = {}
for _, pair in ipairs(cmsgpack.unpack(ARGV[8])) do
  local flow = get(pair[1])
  if flow and flow.owner == ARGV[6] and flow.epoch == text(pair[2]) then
    make_ready(flow, { owner = false, claimed_seq = ARGV[7] == 'disowned' and flow.claimed_seq or false })
    released[#released + 1] = flow.id
  end
end
return wrote('ok', released)
