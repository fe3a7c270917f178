-- name: lock
-- The rows of these flows, of the parents of those that end and of the children that end with them, locked in the
-- order of their ids until the transaction ends. Nothing that is decided about a flow is decided before.
SELECT f.id, f.status, f.owner, f.epoch
FROM (SELECT unnest($1::text[])
      UNION
      SELECT c.parent_id FROM unnest($2::text[]) AS v (id) JOIN flows AS c ON c.id = v.id WHERE c.parent_id IS NOT NULL
      UNION
      SELECT c.id FROM unnest($2::text[]) AS v (id) JOIN flows AS c ON c.parent_id = v.id
      WHERE c.close_with_parent AND c.status NOT IN ('completed', 'failed', 'cancelled')) AS w (id)
JOIN flows AS f ON f.id = w.id
ORDER BY f.id
FOR NO KEY UPDATE OF f;

-- name: add
-- Events of flows whose rows are locked and whose leases have been compared.
INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT v.flow_id, v.seq, v.kind, v.op, v.name, v.digest, v.payload, v.at, v.source, v.attempt
FROM unnest($1::text[], $2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::float8[],
            $9::text[], $10::bigint[])
     AS v (flow_id, seq, kind, op, name, digest, payload, at, source, attempt);

-- name: consume
UPDATE inbox AS i SET consumed_seq = v.seq
FROM unnest($1::text[], $2::bigint[], $3::bigint[]) AS v (flow_id, id, seq)
WHERE i.flow_id = v.flow_id AND i.id = v.id AND i.consumed_seq IS NULL;

-- name: return
-- A signal that its event gave to a step body which never received it.
UPDATE inbox AS i SET consumed_seq = NULL
FROM unnest($1::text[], $2::bigint[]) AS v (flow_id, seq)
WHERE i.flow_id = v.flow_id AND i.consumed_seq = v.seq AND i.kind = 'signal';

-- name: settle
UPDATE flows AS f
SET status = v.status, output = v.output, wake_at = v.wake_at, reason = v.reason, ended_at = v.ended_at,
    ready_at = v.ready_at, owner = NULL, claims_stalled = 0, claimed_seq = NULL
FROM unnest($1::text[], $2::text[], $3::bigint[], $4::text[], $5::text[], $6::float8[], $7::text[], $8::float8[],
            $9::float8[]) AS v (id, owner, epoch, status, output, wake_at, reason, ended_at, ready_at)
WHERE f.id = v.id AND f.owner IS NOT DISTINCT FROM v.owner AND f.epoch = v.epoch;

-- name: wake_if_unread
-- A message that came while the owner was letting go: the flow may not sleep on it.
UPDATE flows AS f SET status = 'pending', wake_at = NULL, ready_at = $3
FROM unnest($1::text[], $2::bigint[]) AS v (id, seen)
WHERE f.id = v.id AND f.status || '' = 'suspended'
  AND EXISTS (SELECT 1 FROM inbox AS i WHERE i.flow_id = v.id AND i.consumed_seq IS NULL AND i.id > v.seen);

-- name: find_events
SELECT e.flow_id, {event}
FROM unnest($1::text[], $2::bigint[]) AS v (flow_id, seq) JOIN events AS e ON e.flow_id = v.flow_id AND e.seq = v.seq;
