-- name: one
-- The hot path, a transaction by itself: an event, fenced by the row of its flow. FOR SHARE: whoever takes a flow from
-- its owner waits until this has ended, and a row that was taken while this waited is looked at again and does not
-- match. The caller compares the number of rows.
-- IS NOT DISTINCT FROM, because no index serves it: a plan made while the table was small would find the flow by its
-- owner, and go through all that he has.
INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT f.id, $4::bigint, $5::text, $6::text, $7::text, $8::text, $9::text, $10::float8, $11::text, $12::bigint
FROM flows AS f WHERE f.id = $1 AND f.owner IS NOT DISTINCT FROM $2 AND f.epoch = $3
FOR SHARE OF f;

-- name: of_one_flow
-- The same for several events of one flow, whose row is looked at and locked once.
WITH f AS MATERIALIZED (
    SELECT o.id FROM flows AS o WHERE o.id = $1 AND o.owner IS NOT DISTINCT FROM $2 AND o.epoch = $3 FOR SHARE OF o)
INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT f.id, v.seq, v.kind, v.op, v.name, v.digest, v.payload, v.at, v.source, v.attempt
FROM f CROSS JOIN
     unnest($4::bigint[], string_to_array($5::text, E'\x1f'), string_to_array($6::text, E'\x1f'),
            string_to_array($7::text, E'\x1f'), string_to_array($8::text, E'\x1f'),
            string_to_array($9::text, E'\x1f', E'\x1e'), $10::float8[],
            string_to_array($11::text, E'\x1f'), $12::bigint[])
     AS v (seq, kind, op, name, digest, payload, at, source, attempt);

-- name: of_one_step
-- The same where all are results of one step of the code, as of a `gather`: what they have in common comes once, and
-- their numbers by the first and the last. Functions that return sets go side by side in the list of a SELECT; in FROM
-- each would fill a store of its own first (500 results take 2.4 ms instead of 2.8, the flush included).
WITH f AS MATERIALIZED (
    SELECT o.id FROM flows AS o WHERE o.id = $1 AND o.owner IS NOT DISTINCT FROM $2 AND o.epoch = $3 FOR SHARE OF o)
INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT f.id, v.seq, $4::text, v.op, $5::text, v.digest, v.payload, v.at, $6::text, $7::bigint
FROM f CROSS JOIN
     (SELECT generate_series($8::bigint, $9::bigint) AS seq, unnest(string_to_array($10::text, E'\x1f')) AS op,
             unnest(string_to_array($11::text, E'\x1f')) AS digest,
             unnest(string_to_array($12::text, E'\x1f', E'\x1e')) AS payload, unnest($13::float8[]) AS at) AS v;

-- name: of_many
-- The same for events of many flows. They come in the order of the flows' ids, so that two such statements never wait
-- for each other in a ring.
INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt)
SELECT v.flow_id, v.seq, v.kind, v.op, v.name, v.digest, v.payload, v.at, v.source, v.attempt
FROM unnest(string_to_array($1::text, E'\x1f'), string_to_array($2::text, E'\x1f'), $3::bigint[], $4::bigint[],
            string_to_array($5::text, E'\x1f'), string_to_array($6::text, E'\x1f'), string_to_array($7::text, E'\x1f'),
            string_to_array($8::text, E'\x1f'), string_to_array($9::text, E'\x1f', E'\x1e'), $10::float8[],
            string_to_array($11::text, E'\x1f'), $12::bigint[])
     AS v (flow_id, owner, epoch, seq, kind, op, name, digest, payload, at, source, attempt)
JOIN flows AS f ON f.id = v.flow_id AND f.owner IS NOT DISTINCT FROM v.owner AND f.epoch = v.epoch
FOR SHARE OF f;
