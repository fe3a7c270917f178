-- name: who_has
-- The flow with the id that a child was to get: whether that operation started it, and whether it is what was asked for.
SELECT f.name, f.input, coalesce(f.parent_id = :parent AND f.parent_op = :op, 0),
       f.name = :name AND f.input = :input, f.status IN ('completed', 'failed', 'cancelled')
FROM flows AS f WHERE f.id = :child;

-- name: tell_again
-- How a child ended, for a parent that asks for it in a later attempt and has heard it before, or had ended itself
-- when the child did. Not while such a message is unread.
INSERT INTO inbox (flow_id, kind, name, payload, at)
SELECT p.id, 'child', c.parent_op,
       '{"flow_id":' || json_quote(c.id) || ',"name":' || json_quote(c.name) || ',"input":' || c.input
       || ',"status":"' || c.status || '","output":' || coalesce(c.output, 'null,"reason":' || json_quote(c.reason)) || '}', :now
FROM flows AS c CROSS JOIN flows AS p ON p.id = c.parent_id
WHERE c.id = :child AND p.status NOT IN ('completed', 'failed', 'cancelled')
  AND NOT EXISTS (SELECT 1 FROM inbox AS i
                  WHERE i.flow_id = p.id AND i.consumed_seq IS NULL AND i.kind = 'child' AND i.name = c.parent_op);

-- name: wake_parent
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = :now WHERE +status = 'suspended' AND id = :parent;

-- name: of_steps
-- The children that bodies of steps started, each with the place of the step in the list: their operations are the
-- step's, a slash and more.
SELECT json_group_array(json_array(j.key, f.id))
FROM json_each(:cancels) AS j CROSS JOIN flows AS f ON f.parent_id = json_extract(j.value, '$[1]')
WHERE json_extract(j.value, '$[0]') IS NULL AND f.close_with_parent
  AND f.status NOT IN ('completed', 'failed', 'cancelled')
  AND substr(f.parent_op, 1, length(json_extract(j.value, '$[2]')) + 1) = json_extract(j.value, '$[2]') || '/';

-- name: theirs
-- Of the children to be cancelled those that the sender's operation started, each with its place in the list.
SELECT json_group_array(json_array(j.key, f.id))
FROM json_each(:cancels) AS j CROSS JOIN flows AS f ON f.id = json_extract(j.value, '$[0]')
WHERE f.parent_id = json_extract(j.value, '$[1]') AND f.parent_op = json_extract(j.value, '$[2]');
