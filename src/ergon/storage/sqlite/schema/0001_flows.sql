-- 0001: flows, their events, their inbox, and the workers that own them.
-- Locks taken: the write lock, for some milliseconds on a new file. Apply before deploying code of schema 1.
-- Times are seconds since 1970-01-01 UTC unless a column says otherwise. JSON is kept as text, readable with SQL.

-- Facts about this file, one a row: generation (an id made with the file: another id is another file, such as a
-- restored backup), created_by, created_at, compatible_from (the oldest schema version whose code may use it),
-- epochs_from (where the epochs of new flows begin: above those of deleted ones).
CREATE TABLE meta (
    key   TEXT PRIMARY KEY,
    value TEXT NOT NULL
) STRICT, WITHOUT ROWID;

-- One row for each flow. It has a rowid (`num`) because rows change often and may hold large values.
CREATE TABLE flows (
    num               INTEGER PRIMARY KEY,       -- order of creation
    id                TEXT NOT NULL UNIQUE,
    name              TEXT NOT NULL,             -- the registered name of its code
    status            TEXT NOT NULL CHECK (status IN ('pending', 'running', 'suspended', 'paused', 'parked',
                                                      'completed', 'failed', 'cancelled')),
    queue             TEXT NOT NULL,
    version           TEXT,                      -- of its code; NULL fits every worker
    tags              TEXT NOT NULL DEFAULT '[]',  -- JSON array, sorted, each once: a worker must have all of them
    priority          INTEGER NOT NULL,          -- higher is claimed first
    input             TEXT NOT NULL,             -- JSON
    output            TEXT,                      -- JSON: the result, or the failure
    reason            TEXT NOT NULL DEFAULT '',  -- what it waits for, or why it is parked
    created_at        REAL NOT NULL,
    started_at        REAL,                      -- when it was first claimed
    ended_at          REAL,
    ready_at          REAL,                      -- since when it is ready to be claimed
    wake_at           REAL,                      -- not ready before; only while pending or suspended
    timeout_seconds   REAL,
    deadline_at       REAL,                      -- started_at + timeout_seconds
    owner             TEXT,                      -- the incarnation that runs it; only while running
    epoch             INTEGER NOT NULL DEFAULT 0,  -- one more with each claim: the fencing token
    claims_stalled    INTEGER NOT NULL DEFAULT 0,  -- claims in a row whose owner died and recorded nothing
    claimed_seq       INTEGER,                   -- last event at the last claim; NULL once given back willingly
    parent_id         TEXT,                      -- NULL also once a detached child's parent is deleted
    parent_op         TEXT,                      -- the parent's operation that waits for this flow
    close_with_parent INTEGER NOT NULL DEFAULT 1,
    CHECK ((owner IS NOT NULL) = (status = 'running')),
    CHECK (wake_at IS NULL OR status IN ('pending', 'suspended'))
) STRICT;

-- What a claim takes from: one seek for each (queue, name, tags, version), in the order of claiming.
CREATE INDEX flows_ready ON flows (queue, name, tags, version, priority DESC, ready_at)
    WHERE status = 'pending' AND wake_at IS NULL;
-- What becomes ready by time.
CREATE INDEX flows_due ON flows (name, wake_at) WHERE wake_at IS NOT NULL;
-- What a dead worker leaves behind.
CREATE INDEX flows_owned ON flows (owner) WHERE owner IS NOT NULL;
CREATE INDEX flows_children ON flows (parent_id) WHERE parent_id IS NOT NULL;
-- For lists and counts by status, newest first.
CREATE INDEX flows_status ON flows (status);
CREATE INDEX flows_name ON flows (name);

-- The history: rows are added in order and never changed. Rows stand in the order of writing, and the index holds the
-- flow's number, not its id: a thousand flows that each add a row then touch a few pages instead of a thousand. With
-- PRIMARY KEY (flow_id, seq) WITHOUT ROWID the same load wrote five times the pages at a third of the speed.
CREATE TABLE events (
    flow_num INTEGER NOT NULL,         -- flows.num
    seq      INTEGER NOT NULL,         -- 1, 2, 3 ... without a gap
    kind     TEXT NOT NULL,
    op       TEXT NOT NULL,            -- the operation it settles, such as 0/2:1
    name     TEXT NOT NULL,
    digest   TEXT NOT NULL,            -- of the operation's arguments
    payload  TEXT,                     -- JSON
    at       REAL NOT NULL,
    source   TEXT NOT NULL,            -- where the flow's code asked for it
    attempt  INTEGER NOT NULL
) STRICT;
CREATE UNIQUE INDEX events_order ON events (flow_num, seq);

-- Messages to flows. Those accounted for by an event stay until the flow is deleted, so that their keys still
-- tell a repeated message. AUTOINCREMENT: an id is never used twice, so a reader may remember how far it came.
CREATE TABLE inbox (
    id           INTEGER PRIMARY KEY AUTOINCREMENT,
    flow_id      TEXT NOT NULL,
    kind         TEXT NOT NULL,        -- signal, child, taken (a child's id was), cancel or retry_now
    name         TEXT NOT NULL,
    key          TEXT,                 -- idempotency key
    payload      TEXT,                 -- JSON
    at           REAL NOT NULL,
    consumed_seq INTEGER               -- the event that accounts for it; NULL: unread
) STRICT;
CREATE UNIQUE INDEX inbox_keys ON inbox (flow_id, kind, name, key) WHERE key IS NOT NULL;
CREATE INDEX inbox_unread ON inbox (flow_id, id) WHERE consumed_seq IS NULL;
CREATE INDEX inbox_flow ON inbox (flow_id);

-- Incarnations of workers. flows.owner names a row here that is alive or draining: marking one dead and taking
-- its flows away is one transaction, so the flow's row alone tells whether a late writer may still write.
CREATE TABLE workers (
    id                 TEXT PRIMARY KEY,
    name               TEXT NOT NULL,
    host               TEXT NOT NULL,
    pid                INTEGER NOT NULL,
    process_start      TEXT NOT NULL,
    boot_id            TEXT NOT NULL,
    flows              TEXT NOT NULL,     -- JSON array of names
    queues             TEXT NOT NULL,     -- JSON array
    versions           TEXT NOT NULL,     -- JSON array, or null for any
    tags               TEXT NOT NULL,     -- JSON array
    started_at         REAL NOT NULL,
    lease_expires_at   REAL NOT NULL,     -- by the wall clock, for people
    lease_expires_boot REAL NOT NULL,     -- by boot_id's clock since boot: what counts
    state              TEXT NOT NULL CHECK (state IN ('alive', 'draining', 'dead', 'stopped'))
) STRICT;

-- One row for each writer that may have to ask, after an I/O error, whether its last transaction landed.
CREATE TABLE landed (
    writer TEXT PRIMARY KEY,
    batch  INTEGER NOT NULL,
    at     REAL NOT NULL
) STRICT, WITHOUT ROWID;

-- For people: the same rows with times they can read.
CREATE VIEW flows_readable AS
SELECT id, name, status, queue, version, tags, priority, input, output, reason,
       strftime('%Y-%m-%d %H:%M:%fZ', created_at, 'unixepoch') AS created,
       strftime('%Y-%m-%d %H:%M:%fZ', started_at, 'unixepoch') AS started,
       strftime('%Y-%m-%d %H:%M:%fZ', ended_at, 'unixepoch') AS ended,
       strftime('%Y-%m-%d %H:%M:%fZ', wake_at, 'unixepoch') AS wakes,
       owner, epoch, claims_stalled, parent_id, parent_op
FROM flows;

CREATE VIEW events_readable AS
SELECT f.id AS flow_id, e.seq, e.kind, e.op, e.name, e.payload, e.attempt, e.source,
       strftime('%Y-%m-%d %H:%M:%fZ', e.at, 'unixepoch') AS happened
FROM events AS e JOIN flows AS f ON f.num = e.flow_num;
