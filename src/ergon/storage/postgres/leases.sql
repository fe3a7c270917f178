-- name: register
-- Registering again under the same id extends a living incarnation; a dead one stays dead.
INSERT INTO workers AS w (id, name, host, pid, process_start, boot_id, flows, queues, versions, tags, started_at,
                          lease_seconds, lease_expires_at, state)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, 'alive')
ON CONFLICT (id) DO UPDATE
SET flows = excluded.flows, queues = excluded.queues, versions = excluded.versions, tags = excluded.tags,
    lease_seconds = excluded.lease_seconds, lease_expires_at = excluded.lease_expires_at
WHERE w.state IN ('alive', 'draining')
RETURNING {worker};

-- name: forget
-- Incarnations that ended more than a day ago.
DELETE FROM workers WHERE state IN ('dead', 'stopped') AND lease_expires_at < $1::float8 - 86400.0;

-- name: forget_landed
-- Connections that were cut more than a day ago.
DELETE FROM landed WHERE at < $1::float8 - 86400.0;

-- name: renew
UPDATE workers SET lease_seconds = $3::float8, lease_expires_at = $2::float8 + $3::float8
WHERE id = $1 AND state IN ('alive', 'draining');

-- name: note_draining
UPDATE workers SET state = 'draining' WHERE id = $1 AND state = 'alive';

-- name: doing
UPDATE flows AS f SET reason = v.reason
FROM unnest($1::text[], $2::text[]) AS v (id, reason)
WHERE f.id = v.id AND f.owner IS NOT DISTINCT FROM $3;

-- name: alive
-- Those of these incarnations that are alive, and stay so until the transaction ends: whoever declares one dead waits.
SELECT id FROM workers WHERE id = ANY ($1::text[]) AND state IN ('alive', 'draining') ORDER BY id FOR SHARE;

-- name: is_alive
SELECT 1 FROM workers WHERE id = $1 AND state IN ('alive', 'draining');

-- name: suspects
-- Everyone said to be alive, with what tells whether it is so.
SELECT id, pid, process_start, boot_id, lease_expires_at <= $1, lease_expires_at > $1 + lease_seconds + 1.0
FROM workers WHERE state IN ('alive', 'draining');

-- name: trim_leases
-- Leases that end later than any given now would: the server's clock was set back. Of a worker that lives the next
-- renewal does the same.
UPDATE workers SET lease_expires_at = $2::float8 + lease_seconds
WHERE id = ANY ($1::text[]) AND lease_expires_at > $2::float8 + lease_seconds;

-- name: end_workers
-- Decided again in this very statement: a lease that was renewed since somebody looked is alive. $2: whose process is
-- gone.
UPDATE workers AS w SET state = $4
WHERE w.state IN ('alive', 'draining') AND w.id = ANY ($1::text[]) AND (w.lease_expires_at <= $3 OR w.id = ANY ($2::text[]))
RETURNING {worker};

-- name: lock_owned
SELECT id FROM flows WHERE owner = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE;

-- name: release_flows
-- Given back willingly, a flow's count of stalled claims starts anew; left behind by a dead worker, it goes on.
UPDATE flows
SET status = 'pending', owner = NULL, ready_at = $2,
    claimed_seq = CASE WHEN $3::boolean THEN NULL ELSE claimed_seq END
WHERE owner = ANY ($1::text[]);

-- name: owned
SELECT id, epoch FROM flows WHERE owner = $1;

-- name: disown
-- The count of stalled claims goes on: a flow that gets lost again and again is parked some day.
UPDATE flows AS f SET status = 'pending', owner = NULL, ready_at = $4
FROM unnest($2::text[], $3::bigint[]) AS v (id, epoch)
WHERE f.id = v.id AND f.owner IS NOT DISTINCT FROM $1 AND f.epoch = v.epoch;

-- name: give_back
UPDATE flows AS f SET status = 'pending', owner = NULL, ready_at = $4, claimed_seq = NULL
FROM unnest($2::text[], $3::bigint[]) AS v (id, epoch)
WHERE f.id = v.id AND f.owner IS NOT DISTINCT FROM $1 AND f.epoch = v.epoch;
