-- name: promote
-- Flows whose time has come become ready. Only names the claimer runs; each flow is touched once, so the cost
-- follows what fell due. Bounded: what is left is due at the next claim. :damaged, here and below: rows that
-- cannot be written, so that they never stand in the way of others.
UPDATE flows SET status = 'pending', ready_at = wake_at, wake_at = NULL
WHERE num IN (SELECT f.num FROM json_each(:names) AS n CROSS JOIN flows AS f
              WHERE f.name = n.value AND f.wake_at <= :now AND f.num NOT IN (SELECT value FROM json_each(:damaged))
              LIMIT 1000);

-- name: due
SELECT json_group_array(num) FROM (
    SELECT f.num FROM json_each(:names) AS n CROSS JOIN flows AS f
    WHERE f.name = n.value AND f.wake_at <= :now AND f.num NOT IN (SELECT value FROM json_each(:damaged))
    LIMIT 1000);

-- name: promote_these
UPDATE flows SET status = 'pending', ready_at = wake_at, wake_at = NULL
WHERE num IN (SELECT value FROM json_each(:nums)) AND wake_at <= :now;

-- name: promote_one
UPDATE flows SET status = 'pending', ready_at = wake_at, wake_at = NULL
WHERE id = :flow AND wake_at <= :now;

-- name: take
-- For each queue, name, set of tags and version the first few in index flows_ready, then the first of those. The cost
-- follows the number of kinds asked for and :limit; flows of other kinds are never looked at.
SELECT json_group_array(num) FROM (
    SELECT f.num
    FROM json_each(:queues) AS q CROSS JOIN json_each(:names) AS n CROSS JOIN json_each(:tags) AS t
    CROSS JOIN json_each(:versions) AS v CROSS JOIN flows AS f
    WHERE f.num IN (SELECT i.num FROM flows AS i
                    WHERE i.queue = q.value AND i.name = n.value AND i.tags = t.value AND i.version IS v.value
                      AND i.status = 'pending' AND i.wake_at IS NULL
                      AND i.num NOT IN (SELECT value FROM json_each(:damaged))
                    ORDER BY i.priority DESC, i.ready_at
                    LIMIT :limit)
    ORDER BY f.priority DESC, f.ready_at, f.num
    LIMIT :limit);

-- name: take_any
-- The same for a claimer that runs every version: the versions are found by skipping through the index.
WITH RECURSIVE kinds (queue, name, tags, version, depth) AS (
    SELECT q.value, n.value, t.value, NULL, 0
    FROM json_each(:queues) AS q CROSS JOIN json_each(:names) AS n CROSS JOIN json_each(:tags) AS t
    UNION ALL
    SELECT k.queue, k.name, k.tags,
           (SELECT min(i.version) FROM flows AS i
            WHERE i.queue = k.queue AND i.name = k.name AND i.tags = k.tags AND i.version > coalesce(k.version, '')
              AND i.status = 'pending' AND i.wake_at IS NULL),
           k.depth + 1
    FROM kinds AS k WHERE k.depth = 0 OR k.version IS NOT NULL
)
SELECT json_group_array(num) FROM (
    SELECT f.num
    FROM kinds AS k CROSS JOIN flows AS f
    WHERE (k.depth = 0 OR k.version IS NOT NULL)
      AND f.num IN (SELECT i.num FROM flows AS i
                    WHERE i.queue = k.queue AND i.name = k.name AND i.tags = k.tags AND i.version IS k.version
                      AND i.status = 'pending' AND i.wake_at IS NULL
                      AND i.num NOT IN (SELECT value FROM json_each(:damaged))
                    ORDER BY i.priority DESC, i.ready_at
                    LIMIT :limit)
    ORDER BY f.priority DESC, f.ready_at, f.num
    LIMIT :limit);

-- name: versions_ready
-- Which versions there are among the ready flows of these queues, names and tags, found by skipping through the index:
-- as many seeks as there are versions, however many flows. Ranges of versions are chosen from these.
WITH RECURSIVE kinds (queue, name, tags, version) AS (
    SELECT q.value, n.value, t.value, ''
    FROM json_each(:queues) AS q CROSS JOIN json_each(:names) AS n CROSS JOIN json_each(:tags) AS t
    UNION ALL
    SELECT k.queue, k.name, k.tags,
           (SELECT min(i.version) FROM flows AS i
            WHERE i.queue = k.queue AND i.name = k.name AND i.tags = k.tags AND i.version > k.version
              AND i.status = 'pending' AND i.wake_at IS NULL)
    FROM kinds AS k WHERE k.version IS NOT NULL
)
SELECT json_group_array(version) FROM (SELECT DISTINCT version FROM kinds WHERE version <> '');

-- name: tags_ready
-- Which sets of tags there are among the ready flows of these queues and names, found in the same way.
WITH RECURSIVE kinds (queue, name, tags) AS (
    SELECT q.value, n.value, '' FROM json_each(:queues) AS q CROSS JOIN json_each(:names) AS n
    UNION ALL
    SELECT k.queue, k.name,
           (SELECT min(i.tags) FROM flows AS i
            WHERE i.queue = k.queue AND i.name = k.name AND i.tags > k.tags
              AND i.status = 'pending' AND i.wake_at IS NULL)
    FROM kinds AS k WHERE k.tags IS NOT NULL
)
SELECT json_group_array(tags) FROM (SELECT DISTINCT tags FROM kinds WHERE tags <> '');

-- name: take_one
SELECT json_group_array(num) FROM flows
WHERE id = :flow AND status = 'pending' AND wake_at IS NULL
  AND (:names = '[]' OR name IN (SELECT value FROM json_each(:names)));

-- name: own
-- A claim that finds the same last event as the claim before it follows a worker that died without progress. After
-- :stalled_max of those the flow is parked: most likely it is what kills its workers.
-- :timeouts: by flow name, for flows that start now and were given none.
UPDATE flows
SET status = CASE WHEN c.stalled >= :stalled_max THEN 'parked' ELSE 'running' END,
    owner = CASE WHEN c.stalled >= :stalled_max THEN NULL ELSE :worker END,
    epoch = epoch + 1,
    reason = CASE WHEN c.stalled >= :stalled_max
                  THEN 'its worker died ' || c.stalled || ' times in a row without recording anything; ' ||
                       'mend the cause, then resume it'
                  ELSE '' END,
    started_at = coalesce(started_at, :now),
    timeout_seconds = coalesce(timeout_seconds, c.timeout),
    deadline_at = coalesce(deadline_at, :now + coalesce(timeout_seconds, c.timeout)),
    claims_stalled = c.stalled,
    claimed_seq = c.seq
FROM (SELECT num, seq, CASE WHEN claimed_seq = seq THEN claims_stalled + 1 ELSE 0 END AS stalled, timeout
      FROM (SELECT f.num, f.claimed_seq, f.claims_stalled,
                   CASE WHEN :timeouts <> '{}' AND f.started_at IS NULL
                        THEN (SELECT t.value FROM json_each(:timeouts) AS t WHERE t.key = f.name) END AS timeout,
                   (SELECT coalesce(max(e.seq), 0) FROM events AS e WHERE e.flow_num = f.num) AS seq
            FROM json_each(:nums) AS j CROSS JOIN flows AS f ON f.num = j.value)) AS c
WHERE flows.num = c.num;

-- name: owned
-- By number: an id may be damaged. Ids are asked for in hexadecimal, which always is text.
SELECT json_group_array(f.num) FILTER (WHERE f.status = 'running'),
       json_group_array(hex(f.id)) FILTER (WHERE f.status = 'parked'),
       max(f.claimed_seq > 0
           OR EXISTS (SELECT 1 FROM inbox AS i WHERE i.flow_id = f.id AND i.consumed_seq IS NULL))
FROM json_each(:nums) AS j CROSS JOIN flows AS f ON f.num = j.value;

-- name: park_unreadable
UPDATE flows
SET status = 'parked', owner = NULL, claims_stalled = 0, claimed_seq = NULL,
    reason = 'a row of this flow, of its history or of its messages cannot be read; mend the row, then resume it'
WHERE owner = :worker AND num IN (SELECT value FROM json_each(:nums));

-- name: load_flows
SELECT '[' || group_concat(row) || ']'
FROM (SELECT r.row FROM json_each(:nums) AS j CROSS JOIN flow_rows AS r ON r.num = j.value ORDER BY j.key);

-- name: load_events
SELECT '[' || group_concat(row) || ']'
FROM (SELECT r.row FROM json_each(:nums) AS j CROSS JOIN event_rows AS r ON r.num = j.value
      ORDER BY r.num, r.seq);

-- name: load_inbox
-- With the newest id there was, from the same snapshot. The subquery keeps to index inbox_unread: joined, flows would
-- lead to every message a flow ever had.
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'inbox'), 0), '[' || group_concat(row) || ']'
FROM (SELECT r.row
      FROM json_each(:nums) AS j CROSS JOIN inbox_rows AS r
      ON r.flow_id = (SELECT f.id FROM flows AS f WHERE f.num = j.value)
      WHERE r.consumed_seq IS NULL ORDER BY r.id);
