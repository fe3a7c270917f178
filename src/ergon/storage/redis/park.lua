-- needs: flows
-- Park a flow just taken that cannot be read, so that nobody claims it again and again. ARGV: 6 worker, 7 flow.
local flow = get(ARGV[7])
if flow and flow.owner == ARGV[6] then
  put(flow, {
    status = 'parked', owner = false, claims_stalled = '0', claimed_seq = false,
    reason = 'a key of this flow, of its history or of its messages cannot be read; mend it, then resume the flow',
  })
  hint.settled[1] = flow.id
end
return wrote('ok')
