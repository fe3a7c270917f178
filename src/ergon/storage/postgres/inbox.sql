-- name: insert
-- A message for a flow that has ended, or one whose key came before, is not inserted. In the order given, which is
-- the order of their ids.
INSERT INTO inbox (flow_id, kind, name, payload, key, at)
SELECT f.id, v.kind, v.name, v.payload, v.key, $6
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
     AS v (flow_id, kind, name, payload, key, place)
JOIN flows AS f ON f.id = v.flow_id
WHERE f.status NOT IN ('completed', 'failed', 'cancelled')
ORDER BY v.place
ON CONFLICT (flow_id, kind, name, key) WHERE key IS NOT NULL DO NOTHING;

-- name: forget_heard
-- A cancellation that its flow has heard is no reason to drop the next one: the flow may have gone on, or failed and
-- been tried again. One that is unread is. Keys that a parent derives from its attempt stay, for its replays repeat
-- them.
UPDATE inbox AS i SET key = NULL
FROM (SELECT DISTINCT flow_id, key FROM unnest($1::text[], $2::text[]) AS u (flow_id, key)) AS v
JOIN flows AS f ON f.id = v.flow_id
WHERE i.flow_id = v.flow_id AND i.key = v.key AND i.consumed_seq IS NOT NULL
  AND i.kind = 'cancel' AND i.name IN ('', 'again', 'parent_ended') AND i.key IN ('cancel', 'parent-closed')
  AND f.status NOT IN ('completed', 'failed', 'cancelled');

-- name: repeated
-- The cancellations, by place, whose flow has had them.
SELECT v.place
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS v (flow_id, name, key, place)
JOIN inbox AS i ON i.flow_id = v.flow_id AND i.kind = 'cancel' AND i.name = v.name AND i.key = v.key;

-- name: wake
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = $2
WHERE status || '' = 'suspended' AND id = ANY ($1::text[]);

-- name: never_started
SELECT id FROM flows WHERE status || '' IN ('pending', 'paused') AND started_at IS NULL AND id = ANY ($1::text[]);

-- name: cancel_unstarted
UPDATE flows AS f SET status = 'cancelled', ended_at = $3, wake_at = NULL, reason = v.reason
FROM unnest($1::text[], $2::text[]) AS v (id, reason)
WHERE f.id = v.id;

-- name: wake_to_cancel
-- Its code must run once more, to clean up; so a flow held back or parked goes on too.
UPDATE flows
SET status = 'pending', wake_at = NULL, ready_at = $2, claims_stalled = 0, claimed_seq = NULL
WHERE (status || '' IN ('suspended', 'paused', 'parked') OR (status || '' = 'pending' AND wake_at IS NOT NULL))
  AND id = ANY ($1::text[]);

-- name: find_key
SELECT 1 FROM inbox WHERE flow_id = $1 AND kind = $2 AND name = $3 AND key = $4;
