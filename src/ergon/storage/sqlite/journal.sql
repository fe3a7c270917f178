-- name: append_events
-- The fence is in the statement: a row of a flow that its lease no longer owns is not inserted, and the caller
-- compares the numbers. One owner for all rows. Those that only fill up the statement are NULL and match no flow.
INSERT INTO events (flow_num, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT f.num, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8, v.column9, v.column10, v.column11
FROM (VALUES {rows}) AS v CROSS JOIN flows AS f
WHERE f.id = v.column1 AND f.epoch = v.column2 AND f.owner = ?;

-- name: append_events_of_one
-- The same for many events of one flow, whose lease is looked at once. A flow that is not owned gives no number, which
-- `events` refuses.
INSERT INTO events (flow_num, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT (SELECT num FROM flows WHERE id = ?1 AND owner = ?2 AND epoch = ?3),
       v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8, v.column9
FROM (VALUES {rows}) AS v
WHERE v.column1 IS NOT NULL;

-- name: append_lone
-- The same for one event, as a transaction of its own. A flow that is not owned gives no number, which `events` refuses:
-- nothing is written then, and no number of rows has to be compared before it is durable.
INSERT INTO events (flow_num, seq, kind, op, name, digest, payload, at, source, attempt)
VALUES ((SELECT num FROM flows WHERE id = ? AND owner = ? AND epoch = ?), ?, ?, ?, ?, ?, ?, ?, ?, ?);

-- name: consume
UPDATE inbox SET consumed_seq = v.column3
FROM (VALUES {rows}) AS v
WHERE inbox.id = v.column1 AND inbox.flow_id = v.column2 AND inbox.consumed_seq IS NULL;

-- name: return
-- A signal that its event gave to a step body which never received it.
UPDATE inbox SET consumed_seq = NULL
FROM (VALUES {rows}) AS v
WHERE inbox.flow_id = v.column1 AND inbox.consumed_seq = v.column2 AND inbox.kind = 'signal';

-- name: settle
UPDATE flows
SET status = v.column4, output = v.column5, wake_at = v.column6, reason = v.column7, ended_at = v.column8,
    ready_at = v.column9, owner = NULL, claims_stalled = 0, claimed_seq = NULL
FROM (VALUES {rows}) AS v
WHERE flows.id = v.column1 AND flows.owner = v.column2 AND flows.epoch = v.column3;

-- name: wake_if_unread
-- A message that came while the owner was letting go: the flow may not sleep on it.
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = v.column3
FROM (VALUES {rows}) AS v
WHERE flows.id = v.column1 AND +flows.status = 'suspended'
  AND EXISTS (SELECT 1 FROM inbox AS i
              WHERE i.flow_id = v.column1 AND i.consumed_seq IS NULL AND i.id > v.column2);

-- name: find_event
SELECT kind, op, name, digest, payload, at, source, attempt
FROM events WHERE flow_num = (SELECT num FROM flows WHERE id = :flow) AND seq = :seq;

-- name: find_owner
SELECT status, owner, epoch FROM flows WHERE id = :flow;
