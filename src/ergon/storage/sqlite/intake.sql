-- name: insert
-- A flow whose id exists is not inserted; nor is one already claimed by a worker that is not alive. Its epochs begin
-- above those of every flow that was deleted: `begin_lives`.
INSERT INTO flows (id, name, status, queue, version, priority, input, created_at, started_at, ready_at, wake_at,
                   timeout_seconds, deadline_at, owner, epoch, claimed_seq, parent_id, parent_op, close_with_parent,
                   tags)
SELECT v.column1, v.column2, v.column3, v.column4, v.column5, v.column6, v.column7, v.column8, v.column9,
       v.column10, v.column11, v.column12, v.column13, v.column14,
       v.column15 + (SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'epochs_from'), v.column16, v.column17, v.column18,
       v.column19, v.column20
FROM (VALUES {rows}) AS v
WHERE v.column1 IS NOT NULL
  AND (v.column14 IS NULL
       OR EXISTS (SELECT 1 FROM workers AS w WHERE w.id = v.column14 AND w.state IN ('alive', 'draining')))
ON CONFLICT (id) DO NOTHING;

-- name: epochs_from
SELECT CAST(value AS INTEGER) FROM meta WHERE key = 'epochs_from';

-- name: find
SELECT '[' || row || ']' FROM flow_rows WHERE id = :flow;

-- name: move
-- A flow paused before it ever started keeps its start time in ready_at, and gets it back when resumed.
UPDATE flows
SET status = :status, owner = NULL, reason = :reason, output = :output,
    wake_at = CASE WHEN :status = 'pending' AND status = 'paused' AND started_at IS NULL AND ready_at > :now
                   THEN ready_at END,
    ended_at = CASE WHEN :status = 'cancelled' THEN :now END,
    ready_at = CASE WHEN :status = 'paused' AND started_at IS NULL THEN coalesce(wake_at, ready_at)
                    WHEN :status = 'pending' AND status = 'paused' AND started_at IS NULL AND ready_at > :now THEN NULL
                    WHEN :status = 'pending' THEN :now END,
    claims_stalled = CASE WHEN :status = 'pending' THEN 0 ELSE claims_stalled END,
    claimed_seq = NULL,
    deadline_at = CASE WHEN status = 'failed' THEN NULL ELSE deadline_at END  -- a retry gets its whole time again
WHERE id = :flow;

-- name: reschedule
-- A paused flow keeps its start time in ready_at; see `move`.
UPDATE flows
SET wake_at = CASE WHEN status = 'pending' AND :at > :now THEN :at END,
    ready_at = CASE WHEN status = 'paused' THEN :at WHEN :at <= :now THEN :now END
WHERE id = :flow AND started_at IS NULL AND status IN ('pending', 'paused');

-- name: note_retry
-- The failure moves from the flow's output into its history, where its next attempt finds it.
INSERT INTO events (flow_num, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT f.num, 1 + coalesce((SELECT max(e.seq) FROM events AS e WHERE e.flow_num = f.num), 0), :kind, '', '', '',
       f.output, :now, '',
       1 + (SELECT count(*) FROM events AS e WHERE e.flow_num = f.num AND e.kind = :kind)
FROM flows AS f WHERE f.id = :flow;

-- name: backs_off
-- Only these events can be dated ahead: with the time of the attempt they announce.
SELECT EXISTS (SELECT 1 FROM events AS e
               WHERE e.flow_num = f.num AND e.at > :now AND e.kind IN (SELECT value FROM json_each(:kinds))
                 AND NOT EXISTS (SELECT 1 FROM events AS n
                                 WHERE n.flow_num = f.num AND n.seq > e.seq AND n.kind = 'retry_now'))
FROM flows AS f WHERE f.id = :flow;

-- name: note_retry_now
INSERT INTO events (flow_num, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT f.num, 1 + coalesce((SELECT max(e.seq) FROM events AS e WHERE e.flow_num = f.num), 0), :kind, '', '', '',
       NULL, :now, '', 0
FROM flows AS f WHERE f.id = :flow;

-- name: wake_to_retry
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = :now
WHERE id = :flow AND (status = 'suspended' OR wake_at IS NOT NULL);

-- name: family
-- A flow and those of its descendants that leave with it, and one that has not ended though it should have.
WITH RECURSIVE family (id, status) AS (
    SELECT id, status FROM flows WHERE id = :flow
    UNION
    SELECT c.id, c.status FROM family CROSS JOIN flows AS c ON c.parent_id = family.id
    WHERE c.close_with_parent OR c.status IN ('completed', 'failed', 'cancelled')
)
SELECT json_group_array(id),
       min(CASE WHEN status NOT IN ('completed', 'failed', 'cancelled') THEN id || ' is ' || status END)
FROM family;

-- name: leave_alone
-- Children that outlive a deleted flow were started by a flow that is no more. Another one that gets its id must
-- neither hear of them nor take them for its own.
UPDATE flows SET parent_id = NULL, parent_op = NULL WHERE parent_id IN (SELECT value FROM json_each(:flows));

-- name: begin_lives
-- Flows created from now on have other epochs than these had. 1048576: EPOCHS_A_LIFE. Most often nothing changes: a
-- flow that is deleted was created before others were.
UPDATE meta SET value = d.next
FROM (SELECT (max(f.epoch) / 1048576 + 1) * 1048576 AS next
      FROM json_each(:flows) AS j CROSS JOIN flows AS f ON f.id = j.value) AS d
WHERE meta.key = 'epochs_from' AND CAST(meta.value AS INTEGER) < d.next;

-- name: delete_events
DELETE FROM events WHERE flow_num IN (SELECT f.num FROM json_each(:flows) AS j CROSS JOIN flows AS f ON f.id = j.value);

-- name: delete_inbox
DELETE FROM inbox WHERE flow_id IN (SELECT value FROM json_each(:flows));

-- name: delete_flows
DELETE FROM flows WHERE id IN (SELECT value FROM json_each(:flows));
