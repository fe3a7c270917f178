-- needs: ended
-- A message to one flow. ARGV: 6 flow, kind, name, payload and key, packed.
local message = cmsgpack.unpack(ARGV[6])
local word, flow = deliver(message.flow, message.kind, message.name, message.payload, message.key)
if word == 'absent' or word == 'ended' then
  return { word, flow and flow.status or '' }
end
tell_relatives()
return wrote(word)
