-- name: insert
-- A message for a flow that has ended, or one whose key came before, is not inserted.
INSERT INTO inbox (flow_id, kind, name, payload, key, at)
SELECT f.id, v.column2, v.column3, v.column4, v.column5, v.column6
FROM (VALUES {rows}) AS v CROSS JOIN flows AS f
WHERE f.id = v.column1 AND f.status NOT IN ('completed', 'failed', 'cancelled')
ON CONFLICT (flow_id, kind, name, key) WHERE key IS NOT NULL DO NOTHING;

-- name: forget_heard
-- A cancellation that its flow has heard is no reason to drop the next one: the flow may have gone on, or failed and
-- been tried again. One that is unread is. Keys that a parent derives from its attempt stay, for its replays repeat them.
UPDATE inbox SET key = NULL
WHERE consumed_seq IS NOT NULL AND kind = 'cancel' AND name IN ('', 'again', 'parent_ended') AND key IN ('cancel', 'parent-closed')
  AND (flow_id, key) IN (SELECT json_extract(j.value, '$[0]'), json_extract(j.value, '$[2]') FROM json_each(:cancels) AS j)
  AND EXISTS (SELECT 1 FROM flows AS f
              WHERE f.id = inbox.flow_id AND f.status NOT IN ('completed', 'failed', 'cancelled'));

-- name: repeated
-- The cancellations, by place, whose flow has had them.
SELECT json_group_array(j.key)
FROM json_each(:cancels) AS j CROSS JOIN inbox AS i
ON i.flow_id = json_extract(j.value, '$[0]') AND i.kind = 'cancel' AND i.name = json_extract(j.value, '$[1]')
   AND i.key = json_extract(j.value, '$[2]');

-- name: wake
-- `+status`: the way in is the id, never the index of statuses, which may hold a million.
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = :now
WHERE +status = 'suspended' AND id IN (SELECT value FROM json_each(:flows));

-- name: never_started
SELECT json_group_array(id) FROM flows
WHERE +status IN ('pending', 'paused') AND started_at IS NULL AND id IN (SELECT value FROM json_each(:flows));

-- name: cancel_unstarted
UPDATE flows SET status = 'cancelled', ended_at = :now, wake_at = NULL, reason = r.value
FROM json_each(:reasons) AS r
WHERE flows.id = r.key;

-- name: wake_to_cancel
-- Its code must run once more, to clean up; so a flow held back or parked goes on too.
UPDATE flows
SET status = 'pending', wake_at = NULL, ready_at = :now, claims_stalled = 0, claimed_seq = NULL
WHERE (+status IN ('suspended', 'paused', 'parked') OR (+status = 'pending' AND +wake_at IS NOT NULL))
  AND id IN (SELECT value FROM json_each(:flows));

-- name: find_key
SELECT 1 FROM inbox WHERE flow_id = :flow AND kind = :kind AND name = :name AND key = :key;
