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

-- name: pack
-- The same where they are one row: see `packs.py`.
INSERT INTO events (flow_id, seq, kind, op, name, digest, payload, at, source, attempt, last, ats)
SELECT f.id, $4::bigint, $5::text, $6::text, $7::text, $8::text, $9::text, $10::float8, $11::text, $12::bigint,
       $13::bigint, $14::float8[]
FROM flows AS f WHERE f.id = $1 AND f.owner IS NOT DISTINCT FROM $2 AND f.epoch = $3
FOR SHARE OF f;

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
