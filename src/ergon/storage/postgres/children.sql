-- name: who_has
-- The flows with the ids that children were to get: whether that operation started it, whether it is what was asked
-- for, and whether it has ended.
SELECT v.place, f.name, f.input, coalesce(f.parent_id = v.parent_id AND f.parent_op = v.op, false) AS ours,
       f.name = v.name AND f.input = v.input AS same, f.status IN ('completed', 'failed', 'cancelled') AS ended
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
     AS v (id, parent_id, op, name, input, place)
JOIN flows AS f ON f.id = v.id
ORDER BY v.place;

-- name: tell_again
-- How a child ended, for a parent that asks for it in a later attempt and has heard it before, or had ended itself
-- when the child did. Not while such a message is unread.
INSERT INTO inbox (flow_id, kind, name, payload, at)
SELECT p.id, 'child', c.parent_op,
       '{"flow_id":' || to_json(c.id) || ',"name":' || to_json(c.name) || ',"input":' || c.input || ',"status":"' || c.status
       || '","output":' || coalesce(c.output, 'null,"reason":' || CASE WHEN starts_with(c.reason, chr(1)) THEN substr(c.reason, 2)
                                                                ELSE to_json(c.reason)::text END) || '}', $2
FROM flows AS c JOIN flows AS p ON p.id = c.parent_id
WHERE c.id = $1 AND p.status NOT IN ('completed', 'failed', 'cancelled')
  AND NOT EXISTS (SELECT 1 FROM inbox AS i
                  WHERE i.flow_id = p.id AND i.consumed_seq IS NULL AND i.kind = 'child' AND i.name = c.parent_op);

-- name: wake_parent
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = $2 WHERE status || '' = 'suspended' AND id = $1;

-- name: theirs
-- Of the children to be cancelled those that the sender's operation started, each with its place in the list; and for
-- those without an id the children that the step's body started: their operations are the step's, a slash and more.
SELECT v.place, f.id
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS v (id, parent_id, op, place)
JOIN flows AS f ON f.id = v.id AND f.parent_id = v.parent_id AND f.parent_op = v.op
UNION ALL
SELECT v.place, f.id
FROM unnest($1::text[], $2::text[], $3::text[]) WITH ORDINALITY AS v (id, parent_id, op, place)
JOIN flows AS f ON v.id IS NULL AND f.parent_id = v.parent_id AND f.close_with_parent
     AND f.status NOT IN ('completed', 'failed', 'cancelled') AND starts_with(f.parent_op, v.op || '/')
ORDER BY 1, 2;
