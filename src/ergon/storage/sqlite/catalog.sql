-- name: find
SELECT '[' || row || ']' FROM flow_rows WHERE id = :flow;

-- name: find_number
SELECT '[' || row || ']' FROM flow_rows WHERE num = :num;

-- name: history
-- This and the other statements with `:after` and `:limit`: see `joined.py`, which reads what is too long in pages.
SELECT '[' || group_concat(row) || ']'
FROM (SELECT row FROM event_rows WHERE flow_id = :flow AND seq > :after ORDER BY seq LIMIT :limit);

-- name: inbox
SELECT '[' || group_concat(row) || ']'
FROM (SELECT row FROM inbox_rows WHERE flow_id = :flow AND consumed_seq IS NULL AND id > :after
      ORDER BY id LIMIT :limit);

-- name: cursor
SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'inbox'), 0);

-- name: arrivals_from_start
SELECT '[' || group_concat(row) || ']'
FROM (SELECT r.row FROM flows AS f CROSS JOIN inbox_rows AS r ON r.flow_id = f.id
      WHERE f.owner = :worker AND r.consumed_seq IS NULL AND r.id > :after ORDER BY r.id LIMIT :limit);

-- name: arrivals
SELECT '[' || group_concat(row) || ']'
FROM (SELECT r.row FROM inbox_rows AS r CROSS JOIN flows AS f ON f.id = r.flow_id
      WHERE r.id > :after AND +r.consumed_seq IS NULL AND f.owner = :worker ORDER BY r.id LIMIT :limit);

-- name: arrivals_from_start_ids
SELECT json_group_array(id)
FROM (SELECT r.id FROM flows AS f CROSS JOIN inbox AS r ON r.flow_id = f.id
      WHERE f.owner = :worker AND r.consumed_seq IS NULL ORDER BY r.id);

-- name: arrivals_ids
SELECT json_group_array(id)
FROM (SELECT r.id FROM inbox AS r CROSS JOIN flows AS f ON f.id = r.flow_id
      WHERE r.id > :after AND +r.consumed_seq IS NULL AND f.owner = :worker ORDER BY r.id);

-- name: message
SELECT '[' || row || ']' FROM inbox_rows WHERE id = :id;

-- name: ended_or_parked
SELECT '[' || group_concat(row) || ']'
FROM (SELECT r.row FROM json_each(:flows) AS j CROSS JOIN flow_rows AS r ON r.id = j.value
      WHERE r.status IN ('completed', 'failed', 'cancelled', 'parked') ORDER BY j.key);

-- name: lost
SELECT json_group_array(json_array(json_extract(j.value, '$[0]'),
                                   CASE WHEN f.status IN (SELECT value FROM json_each(:known)) THEN f.status END))
FROM json_each(:epochs) AS j LEFT JOIN flows AS f ON f.id = json_extract(j.value, '$[0]')
WHERE f.owner IS NOT :worker OR f.epoch IS NOT json_extract(j.value, '$[1]');

-- name: absent
SELECT json_group_array(j.value) FROM json_each(:flows) AS j
WHERE NOT EXISTS (SELECT 1 FROM flows AS f WHERE f.id = j.value);

-- name: workers
SELECT '[' || group_concat(row) || ']' FROM (SELECT row FROM worker_rows ORDER BY num DESC);

-- name: next_wake
SELECT min((SELECT min(f.wake_at) FROM flows AS f WHERE f.name = n.value AND f.wake_at IS NOT NULL))
FROM json_each(:names) AS n;
