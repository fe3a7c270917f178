-- name: find
SELECT {flow} FROM flows AS f WHERE f.id = $1;

-- name: history
-- From the event after $2 on, or from the pack that holds it: the nearest row before is looked at for that. Of the
-- next rows those that begin within $3 events.
SELECT {event}
FROM (SELECT n.*, sum(coalesce(n.last, n.seq) - greatest(n.seq, $2 + 1) + 1)
                  OVER (ORDER BY n.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
      FROM events AS n
      WHERE n.flow_id = $1
        AND n.seq >= coalesce((SELECT CASE WHEN p.last > $2 THEN p.seq END FROM events AS p
                               WHERE p.flow_id = $1 AND p.seq <= $2 ORDER BY p.seq DESC LIMIT 1), $2 + 1)
      ORDER BY n.seq LIMIT $3::bigint) AS e
WHERE $3 IS NULL OR coalesce(e.before, 0) < $3
ORDER BY e.seq;

-- name: inbox
SELECT {message} FROM inbox AS i WHERE i.flow_id = $1 AND i.consumed_seq IS NULL ORDER BY i.id;

-- name: arrivals_from_start
-- The cursor of both: a transaction before which all have ended that brought a message. All that this snapshot sees of them
-- lies before it, and all that comes lies not. Its newest unread message tells as much, and stays the same on a quiet log.
SELECT CASE WHEN one.newest IS NOT NULL
            THEN least(pg_snapshot_xmin(pg_current_snapshot())::text::bigint, one.newest + 1) END AS cursor, i.xact, {message}
FROM (SELECT max(CASE WHEN n.consumed_seq IS NULL THEN n.xact END) AS newest FROM inbox AS n) AS one
LEFT JOIN (flows AS f JOIN inbox AS i ON i.flow_id = f.id AND i.consumed_seq IS NULL) ON f.owner = $1
ORDER BY i.flow_id, i.id;

-- name: arrivals
-- By the transactions that brought them, newest few, whoever they are for; then those of the worker's flows.
SELECT CASE WHEN one.newest IS NULL THEN $2::bigint
            ELSE greatest($2, least(pg_snapshot_xmin(pg_current_snapshot())::text::bigint, one.newest + 1)) END AS cursor,
       i.xact, {message}
FROM (SELECT max(CASE WHEN n.consumed_seq IS NULL THEN n.xact END) AS newest FROM inbox AS n) AS one
LEFT JOIN ((SELECT * FROM inbox AS n WHERE CASE WHEN n.consumed_seq IS NULL THEN n.xact END >= $2 OFFSET 0) AS i
           JOIN flows AS f ON f.id = i.flow_id AND f.owner IS NOT DISTINCT FROM $1) ON true
ORDER BY i.flow_id, i.id;

-- name: ended_or_parked
SELECT {flow}
FROM unnest($1::text[]) WITH ORDINALITY AS v (id, place) JOIN flows AS f ON f.id = v.id
WHERE f.status || '' IN ('completed', 'failed', 'cancelled', 'parked')
ORDER BY v.place;

-- name: absent
SELECT v.id FROM unnest($1::text[]) WITH ORDINALITY AS v (id, place)
WHERE NOT EXISTS (SELECT 1 FROM flows AS f WHERE f.id = v.id)
ORDER BY v.place;

-- name: lost
SELECT v.id, f.status
FROM unnest($2::text[], $3::bigint[]) AS v (id, epoch) LEFT JOIN flows AS f ON f.id = v.id
WHERE f.owner IS DISTINCT FROM $1 OR f.epoch IS DISTINCT FROM v.epoch;

-- name: workers
SELECT {worker} FROM workers AS w ORDER BY w.num DESC;

-- name: next_wake
SELECT min(d.wake_at)
FROM unnest($1::text[]) AS n (name)
CROSS JOIN LATERAL (SELECT f.wake_at FROM flows AS f WHERE f.name = n.name AND f.wake_at IS NOT NULL
                    ORDER BY f.wake_at LIMIT 1) AS d;
