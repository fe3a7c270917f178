-- One row of a table as one JSON array. Statements name these as if they were tables; each name is replaced by its
-- query before SQLite sees the statement (`statements.py`), which spares a new connection the making of views.
--
-- Why JSON: Python's sqlite3 gives up the interpreter lock at every row it fetches, and beside a busy event loop
-- getting it back takes up to 5 ms a row. So statements join their rows to one text and fetch once.
-- Why each time is two integers: JSON printed by SQLite rounds a REAL to 15 digits. The whole seconds, and the rest
-- in units of 2**-62 seconds, are exact for any time a clock gives.

-- name: flow_rows
SELECT num, id, status, name, queue, version, tags, parent_id, created_at,
       json_array(id, name, status, queue, version, priority, input, output, reason,
                  CAST(created_at AS INTEGER),
                  CAST((created_at - CAST(created_at AS INTEGER)) * 4611686018427387904.0 AS INTEGER),
                  CAST(started_at AS INTEGER),
                  CAST((started_at - CAST(started_at AS INTEGER)) * 4611686018427387904.0 AS INTEGER),
                  CAST(ended_at AS INTEGER),
                  CAST((ended_at - CAST(ended_at AS INTEGER)) * 4611686018427387904.0 AS INTEGER),
                  CAST(wake_at AS INTEGER),
                  CAST((wake_at - CAST(wake_at AS INTEGER)) * 4611686018427387904.0 AS INTEGER),
                  CAST(deadline_at AS INTEGER),
                  CAST((deadline_at - CAST(deadline_at AS INTEGER)) * 4611686018427387904.0 AS INTEGER),
                  owner, epoch, claims_stalled, parent_id, parent_op, close_with_parent, tags) AS row
FROM flows;

-- name: event_rows
SELECT f.id AS flow_id, f.num AS num, e.seq,
       json_array(f.id, e.seq, e.kind, e.op, e.name, e.digest, e.payload, CAST(e.at AS INTEGER),
                  CAST((e.at - CAST(e.at AS INTEGER)) * 4611686018427387904.0 AS INTEGER), e.source, e.attempt) AS row
FROM flows AS f CROSS JOIN events AS e ON e.flow_num = f.num;

-- name: inbox_rows
SELECT id, flow_id, consumed_seq,
       json_array(id, flow_id, kind, name, payload, CAST(at AS INTEGER),
                  CAST((at - CAST(at AS INTEGER)) * 4611686018427387904.0 AS INTEGER)) AS row
FROM inbox;

-- name: worker_rows
SELECT rowid AS num, id, state,
       json_array(id, name, host, pid, process_start, boot_id, json(flows), json(queues), json(versions), json(tags),
                  CAST(started_at AS INTEGER),
                  CAST((started_at - CAST(started_at AS INTEGER)) * 4611686018427387904.0 AS INTEGER),
                  CAST(lease_expires_at AS INTEGER),
                  CAST((lease_expires_at - CAST(lease_expires_at AS INTEGER)) * 4611686018427387904.0 AS INTEGER),
                  state) AS row
FROM workers;
