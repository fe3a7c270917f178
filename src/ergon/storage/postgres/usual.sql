-- name: usual
-- A batch of usual things, a transaction by itself. All of it lands, or it fails: what reads a sentence as
-- a number is how a statement without functions of its own fails, and the sentence is what the server's log shows.
-- gate: the transaction's number, unless somebody has asked for it meanwhile ($1 to $3, see `landed.py`). All else
-- depends on it, so its row stays locked as long as anything of this is under way.
-- held: the flows of these commits, locked in the order of their ids while their owner and epoch are as they say
-- ($8 to $10). Whoever takes a flow away waits, and one that was taken away while this waited is looked at again and
-- is not among them.
-- added, left_, made: events, how flows are left, and new flows. A flow that ends and has somebody who must hear of
-- it, a parent or a child, is not left: children are started by its own earlier commits, so this statement sees them.
-- Not by NOT EXISTS: a plan made while the table was small would go through all of it for that.
WITH gate AS (
    INSERT INTO landed AS l (writer, batch, at) VALUES ($1, $2, $3)
    ON CONFLICT (writer) DO UPDATE SET batch = excluded.batch, at = excluded.at WHERE abs(l.batch) < excluded.batch
    RETURNING 1),
held AS MATERIALIZED (
    SELECT f.id
    FROM gate CROSS JOIN unnest({texts:8}, {texts:9}, $10::bigint[]) AS v (id, owner, epoch)
    JOIN flows AS f ON f.id = v.id AND f.owner IS NOT DISTINCT FROM v.owner AND f.epoch = v.epoch
    ORDER BY f.id FOR NO KEY UPDATE OF f),
sound AS MATERIALIZED (
    SELECT 1 FROM gate CROSS JOIN (SELECT count(*) AS n FROM held) AS h WHERE h.n = $4),
added AS (
    INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
    SELECT v.flow_id, v.seq, v.kind, v.op, v.name, v.digest, v.payload, v.at, v.source, v.attempt
    FROM sound CROSS JOIN
         unnest({texts:11}, $12::bigint[], {texts:13}, {texts:14}, {texts:15}, {texts:16}, {texts:17}, $18::float8[],
                {texts:19}, $20::bigint[])
         AS v (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
    RETURNING 1),
left_ AS (
    UPDATE flows AS f
    SET status = v.status, output = v.output, wake_at = v.wake_at, reason = v.reason, ended_at = v.ended_at,
        ready_at = v.ready_at, owner = NULL, claims_stalled = 0, claimed_seq = NULL
    FROM sound CROSS JOIN
         unnest({texts:21}, {texts:22}, $23::bigint[], {texts:24}, {texts:25}, $26::float8[], {texts:27},
                $28::float8[], $29::float8[])
         AS v (id, owner, epoch, status, output, wake_at, reason, ended_at, ready_at)
    WHERE f.id = v.id AND f.owner IS NOT DISTINCT FROM v.owner AND f.epoch = v.epoch
      AND (v.ended_at IS NULL
           OR ((f.parent_id IS NULL OR f.parent_op IS NULL)
               AND (SELECT true FROM flows AS c
                    WHERE c.parent_id = f.id AND c.close_with_parent
                      AND c.status NOT IN ('completed', 'failed', 'cancelled') LIMIT 1) IS NULL))
    RETURNING 1),
made AS (
    INSERT INTO flows (id, name, status, queue, version, priority, input, created_at, started_at, ready_at, wake_at,
                       timeout_seconds, deadline_at, owner, epoch, claimed_seq, parent_id, parent_op, close_with_parent,
                       tags)
    SELECT v.id, v.name, v.status, v.queue, v.version, v.priority, v.input, v.created_at, v.started_at, v.ready_at,
           v.wake_at, v.timeout_seconds, v.deadline_at, v.owner, pg_current_xact_id()::text::bigint * 1048576 + v.claims,
           v.claimed_seq, v.parent_id, v.parent_op, v.close_with_parent, v.tags
    FROM sound CROSS JOIN
         unnest({texts:30}, {texts:31}, {texts:32}, {texts:33}, {texts:34}, $35::bigint[], {texts:36}, $37::float8[],
                $38::float8[], $39::float8[], $40::float8[], $41::float8[], $42::float8[], {texts:43}, $44::bigint[],
                $45::bigint[], {texts:46}, {texts:47}, $48::boolean[], {texts:49})
         WITH ORDINALITY
         AS v (id, name, status, queue, version, priority, input, created_at, started_at, ready_at, wake_at,
               timeout_seconds, deadline_at, owner, claims, claimed_seq, parent_id, parent_op, close_with_parent, tags,
               place)
    ORDER BY v.place
    ON CONFLICT (id) DO NOTHING
    RETURNING 1)
SELECT CASE WHEN EXISTS (SELECT 1 FROM sound) AND (SELECT count(*) FROM added) = $5
             AND (SELECT count(*) FROM left_) = $6 AND (SELECT count(*) FROM made) = $7 THEN 1
       ELSE ('ergon: no fault, this batch goes the longer way' || (SELECT '' FROM gate))::int END;
