-- name: insert
-- Where its epochs begin is the transaction's number, times EPOCHS_A_LIFE: so another flow with the id of a deleted one
-- has other epochs, also when this statement has waited for the deletion.
-- A flow whose id exists is not inserted. In the order of their ids, so that two such statements never wait in a ring.
INSERT INTO flows (id, name, status, queue, version, priority, input, created_at, started_at, ready_at, wake_at,
                   timeout_seconds, deadline_at, owner, epoch, claimed_seq, parent_id, parent_op, close_with_parent, tags)
SELECT v.id, v.name, v.status, v.queue, v.version, v.priority, v.input, v.created_at, v.started_at, v.ready_at, v.wake_at,
       v.timeout_seconds, v.deadline_at, v.owner, pg_current_xact_id()::text::bigint * 1048576 + v.claims, v.claimed_seq,
       v.parent_id, v.parent_op, v.close_with_parent, v.tags
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[], $8::float8[],
            $9::float8[], $10::float8[], $11::float8[], $12::float8[], $13::float8[], $14::text[], $15::bigint[],
            $16::bigint[], $17::text[], $18::text[], $19::boolean[], $20::text[]) WITH ORDINALITY
     AS v (id, name, status, queue, version, priority, input, created_at, started_at, ready_at, wake_at, timeout_seconds,
           deadline_at, owner, claims, claimed_seq, parent_id, parent_op, close_with_parent, tags, place)
ORDER BY v.place
ON CONFLICT (id) DO NOTHING
RETURNING id;

-- name: find
SELECT {flow} FROM flows AS f WHERE f.id = ANY ($1::text[]);

-- name: move
-- A flow paused before it ever started keeps its start time in ready_at, and gets it back when resumed.
UPDATE flows
SET status = $2, owner = NULL, reason = $3, output = $4,
    wake_at = CASE WHEN $2 = 'pending' AND status = 'paused' AND started_at IS NULL AND ready_at > $5 THEN ready_at END,
    ended_at = CASE WHEN $2 = 'cancelled' THEN $5 END,
    ready_at = CASE WHEN $2 = 'paused' AND started_at IS NULL THEN coalesce(wake_at, ready_at)
                    WHEN $2 = 'pending' AND status = 'paused' AND started_at IS NULL AND ready_at > $5 THEN NULL
                    WHEN $2 = 'pending' THEN $5 END,
    claims_stalled = CASE WHEN $2 = 'pending' THEN 0 ELSE claims_stalled END,
    claimed_seq = NULL,
    deadline_at = CASE WHEN status = 'failed' THEN NULL ELSE deadline_at END  -- a retry gets its whole time again
WHERE id = $1;

-- name: reschedule
-- A paused flow keeps its start time in ready_at; see `move`.
UPDATE flows
SET wake_at = CASE WHEN status = 'pending' AND $2::float8 > $3::float8 THEN $2 END,
    ready_at = CASE WHEN status = 'paused' THEN $2 WHEN $2 <= $3 THEN $3 END
WHERE id = $1 AND started_at IS NULL AND status || '' IN ('pending', 'paused');

-- name: note_retry
-- The failure moves from the flow's output into its history, where its next attempt finds it.
INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT f.id, 1 + coalesce((SELECT coalesce(e.last, e.seq) FROM events AS e WHERE e.flow_id = f.id ORDER BY e.seq DESC LIMIT 1), 0),
       $2, '', '', '', f.output, $3, '',
       1 + (SELECT count(*) FROM events AS e WHERE e.flow_id = f.id AND e.kind = $2)
FROM flows AS f WHERE f.id = $1;

-- name: backs_off
-- Only these events can be dated ahead: with the time of the attempt they announce.
SELECT EXISTS (SELECT 1 FROM events AS e
               WHERE e.flow_id = $1 AND e.at > $3 AND e.kind = ANY ($2::text[])
                 AND NOT EXISTS (SELECT 1 FROM events AS n
                                 WHERE n.flow_id = $1 AND n.seq > e.seq AND n.kind = 'retry_now'));

-- name: note_retry_now
INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT f.id, 1 + coalesce((SELECT coalesce(e.last, e.seq) FROM events AS e WHERE e.flow_id = f.id ORDER BY e.seq DESC LIMIT 1), 0),
       $2, '', '', '', NULL, $3, '', 0
FROM flows AS f WHERE f.id = $1;

-- name: wake_to_retry
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = $2
WHERE id = $1 AND (status || '' = 'suspended' OR wake_at IS NOT NULL);

-- name: family
-- A flow and those of its descendants that leave with it, each with whether it has not ended though it should have.
WITH RECURSIVE family (id, status) AS (
    SELECT f.id, f.status FROM flows AS f WHERE f.id = $1
    UNION
    SELECT c.id, c.status FROM family JOIN flows AS c ON c.parent_id = family.id
    WHERE c.close_with_parent OR c.status IN ('completed', 'failed', 'cancelled')
)
SELECT id, status FROM family ORDER BY id;

-- name: leave_alone
-- Children that outlive a deleted flow were started by a flow that is no more. Another one that gets its id must
-- neither hear of them nor take them for its own.
UPDATE flows SET parent_id = NULL, parent_op = NULL WHERE parent_id = ANY ($1::text[]);

-- name: delete_events
DELETE FROM events WHERE flow_id = ANY ($1::text[]);

-- name: delete_inbox
DELETE FROM inbox WHERE flow_id = ANY ($1::text[]);

-- name: delete_flows
DELETE FROM flows WHERE id = ANY ($1::text[]);
