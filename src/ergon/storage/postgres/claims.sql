-- name: promote
-- Flows whose time has come become ready. Only names the claimer runs; each flow is touched once, so the cost follows
-- what fell due. Bounded: what is left is due at the next claim. Those that somebody else is busy with are passed
-- over.
UPDATE flows AS f SET status = 'pending', ready_at = f.wake_at, wake_at = NULL
FROM (SELECT d.id
      FROM unnest($1::text[]) AS n (name)
      CROSS JOIN LATERAL (SELECT i.id FROM flows AS i WHERE i.name = n.name AND i.wake_at <= $2 AND i.wake_at IS NOT NULL
                          ORDER BY i.wake_at LIMIT 1000 FOR NO KEY UPDATE SKIP LOCKED) AS d) AS due
WHERE f.id = due.id;

-- name: promote_one
UPDATE flows SET status = 'pending', ready_at = wake_at, wake_at = NULL WHERE id = $1 AND coalesce(wake_at, 'Infinity') <= $2;

-- name: take
-- For each queue, name, set of tags and version the first few in index flows_ready, then the first of those. The cost
-- follows the number of kinds asked for and $5; flows of other kinds are never looked at, and those that another
-- claim is taking at this moment are passed over. Locked, not changed yet: `own` does that. The number says how many
-- were locked.
WITH best AS MATERIALIZED (
    SELECT c.id, c.priority, c.ready_at, c.num
    FROM unnest($1::text[]) AS q (queue) CROSS JOIN unnest($2::text[]) AS n (name) CROSS JOIN unnest($3::text[]) AS t (tags)
    CROSS JOIN unnest($4::text[]) AS v (version)
    CROSS JOIN LATERAL (SELECT i.id, i.priority, i.ready_at, i.num FROM flows AS i
                        WHERE i.queue = q.queue AND i.name = n.name AND i.tags = t.tags
                          AND coalesce(i.version, '') = v.version AND i.status = 'pending' AND i.wake_at IS NULL
                        ORDER BY i.priority DESC, i.ready_at, i.num
                        LIMIT $5::bigint FOR NO KEY UPDATE SKIP LOCKED) AS c)
SELECT b.id, (SELECT count(*) FROM best) FROM best AS b ORDER BY b.priority DESC, b.ready_at, b.num LIMIT $5::bigint;

-- name: versions_ready
-- Which versions there are among the ready flows of these queues, names and tags, found by skipping through the index:
-- as many seeks as there are versions, however many flows. '' is a flow without one.
WITH RECURSIVE kinds (queue, name, tags, version) AS (
    SELECT q.queue, n.name, t.tags, ''::text COLLATE "C"
    FROM unnest($1::text[]) AS q (queue) CROSS JOIN unnest($2::text[]) AS n (name) CROSS JOIN unnest($3::text[]) AS t (tags)
    UNION ALL
    SELECT k.queue, k.name, k.tags,
           (SELECT coalesce(i.version, '') FROM flows AS i
            WHERE i.queue = k.queue AND i.name = k.name AND i.tags = k.tags AND coalesce(i.version, '') > k.version
              AND i.status = 'pending' AND i.wake_at IS NULL
            ORDER BY i.queue, i.name, i.tags, coalesce(i.version, '') LIMIT 1)
    FROM kinds AS k WHERE k.version IS NOT NULL
)
SELECT DISTINCT version FROM kinds WHERE version IS NOT NULL;

-- name: tags_ready
-- Which sets of tags there are among the ready flows of these queues and names, found in the same way.
WITH RECURSIVE kinds (queue, name, tags) AS (
    SELECT q.queue, n.name, ''::text COLLATE "C"
    FROM unnest($1::text[]) AS q (queue) CROSS JOIN unnest($2::text[]) AS n (name)
    UNION ALL
    SELECT k.queue, k.name,
           (SELECT i.tags FROM flows AS i
            WHERE i.queue = k.queue AND i.name = k.name AND i.tags > k.tags AND i.status = 'pending' AND i.wake_at IS NULL
            ORDER BY i.queue, i.name, i.tags LIMIT 1)
    FROM kinds AS k WHERE k.tags IS NOT NULL
)
SELECT DISTINCT tags FROM kinds WHERE tags <> '';

-- name: take_one
SELECT id FROM flows
WHERE id = $1 AND status || '' = 'pending' AND wake_at IS NULL AND (cardinality($2::text[]) = 0 OR name = ANY ($2::text[]))
FOR NO KEY UPDATE;

-- name: own
-- A claim that finds the same last event as the claim before it follows a worker that died without progress. After
-- $4 of those the flow is parked: most likely it is what kills its workers.
-- $5 and $6: seconds by flow name, for flows that start now and were given none. As texts, because the driver asks the
-- server about arrays of any other kind, at the first claim of each connection, and that takes longer than the claim.
UPDATE flows AS f
SET status = CASE WHEN c.stalled >= $4 THEN 'parked' ELSE 'running' END,
    owner = CASE WHEN c.stalled >= $4 THEN NULL ELSE $2 END,
    epoch = f.epoch + 1,
    reason = CASE WHEN c.stalled >= $4
                  THEN 'its worker died ' || c.stalled || ' times in a row without recording anything; mend the cause, '
                       || 'then resume it'
                  ELSE '' END,
    started_at = coalesce(f.started_at, $3),
    timeout_seconds = coalesce(f.timeout_seconds, c.timeout),
    deadline_at = coalesce(f.deadline_at, $3 + coalesce(f.timeout_seconds, c.timeout)),
    claims_stalled = c.stalled,
    claimed_seq = c.seq
FROM (SELECT s.id, s.seq, s.timeout, CASE WHEN s.claimed_seq = s.seq THEN s.claims_stalled + 1 ELSE 0 END AS stalled
      FROM (SELECT o.id, o.claimed_seq, o.claims_stalled,
                   CASE WHEN o.started_at IS NULL
                        THEN (SELECT t.seconds FROM unnest($5::text[], $6::text[]::float8[]) AS t (name, seconds)
                              WHERE t.name = o.name) END AS timeout,
                   coalesce((SELECT coalesce(e.last, e.seq) FROM events AS e
                             WHERE e.flow_id = o.id ORDER BY e.seq DESC LIMIT 1), 0) AS seq
            FROM unnest($1::text[]) AS v (id) JOIN flows AS o ON o.id = v.id) AS s) AS c
WHERE f.id = c.id
RETURNING {flow}, f.claimed_seq;

-- name: load_events
SELECT e.flow_id, {event} FROM events AS e WHERE e.flow_id = ANY ($1::text[]) ORDER BY e.flow_id, e.seq;

-- name: park
-- Flows just taken that cannot be read, so that nobody claims them again and again.
UPDATE flows AS f
SET status = 'parked', owner = NULL, claims_stalled = 0, claimed_seq = NULL, reason = v.reason
FROM unnest($1::text[], $2::text[]) AS v (id, reason) WHERE f.id = v.id;

-- name: load_inbox
-- The unread messages of flows that ever got one, each with the newest id that its flow has.
SELECT v.id, m.newest, {message}
FROM unnest($1::text[]) AS v (id)
CROSS JOIN LATERAL (SELECT max(a.id) AS newest FROM inbox AS a WHERE a.flow_id = v.id) AS m
LEFT JOIN inbox AS i ON i.flow_id = v.id AND i.consumed_seq IS NULL
WHERE m.newest IS NOT NULL
ORDER BY v.id, i.id;
