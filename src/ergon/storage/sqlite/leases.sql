-- name: register
-- Registering again under the same id extends a living incarnation; a dead one stays dead.
INSERT INTO workers (id, name, host, pid, process_start, boot_id, flows, queues, versions, tags, started_at,
                     lease_expires_at, lease_expires_boot, state)
VALUES (:id, :name, :host, :pid, :process_start, :boot_id, :flows, :queues, :versions, :tags, :now, :expires_at,
        :expires_boot, 'alive')
ON CONFLICT (id) DO UPDATE
SET flows = excluded.flows, queues = excluded.queues, versions = excluded.versions, tags = excluded.tags,
    lease_expires_at = excluded.lease_expires_at, lease_expires_boot = excluded.lease_expires_boot
WHERE workers.state IN ('alive', 'draining');

-- name: forget
-- Incarnations that ended more than a day ago.
DELETE FROM workers WHERE state IN ('dead', 'stopped') AND lease_expires_at < :now - 86400.0;

-- name: find
SELECT '[' || row || ']' FROM worker_rows WHERE id = :worker;

-- name: renew
UPDATE workers SET lease_expires_at = :expires_at, lease_expires_boot = :expires_boot
WHERE id = :worker AND state IN ('alive', 'draining');

-- name: note_draining
UPDATE workers SET state = 'draining' WHERE id = :worker AND state = 'alive';

-- name: doing
UPDATE flows SET reason = v.column3
FROM (VALUES {rows}) AS v
WHERE flows.id = v.column1 AND flows.owner = v.column2;

-- name: is_alive
SELECT 1 FROM workers WHERE id = :worker AND state IN ('alive', 'draining');

-- name: suspects
-- Everyone said to be alive, with what tells whether it is so.
SELECT json_group_array(json_array(id, pid, process_start, boot_id, lease_expires_at <= :now,
                                   lease_expires_boot <= :boot))
FROM workers WHERE state IN ('alive', 'draining');

-- name: end_workers
UPDATE workers SET state = :state
WHERE state IN ('alive', 'draining') AND id IN (SELECT value FROM json_each(:workers));

-- name: ended_workers
SELECT '[' || group_concat(row) || ']' FROM worker_rows WHERE id IN (SELECT value FROM json_each(:workers));

-- name: release_flows
-- Given back willingly, a flow's count of stalled claims starts anew; left behind by a dead worker, it goes on.
UPDATE flows
SET status = 'pending', owner = NULL, ready_at = :now,
    claimed_seq = CASE WHEN :willingly THEN NULL ELSE claimed_seq END
WHERE owner IN (SELECT value FROM json_each(:workers));

-- name: owned
-- Ids as hexadecimal: of a damaged row, one need not be a text.
SELECT json_group_array(json_array(num, hex(id), epoch)) FROM flows WHERE owner = :worker;

-- name: disown
-- The count of stalled claims goes on: a flow that gets lost again and again is parked some day.
UPDATE flows SET status = 'pending', owner = NULL, ready_at = :now
WHERE owner = :worker AND num IN (SELECT value FROM json_each(:nums));

-- name: owned_by
SELECT json_group_array(num) FROM flows WHERE owner IN (SELECT value FROM json_each(:workers));

-- name: release_these
UPDATE flows
SET status = 'pending', owner = NULL, ready_at = :now,
    claimed_seq = CASE WHEN :willingly THEN NULL ELSE claimed_seq END
WHERE num IN (SELECT value FROM json_each(:nums));

-- name: give_back
UPDATE flows SET status = 'pending', owner = NULL, ready_at = :now, claimed_seq = NULL
WHERE owner = :worker AND num IN (SELECT value FROM json_each(:nums));
