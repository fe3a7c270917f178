-- name: parents
-- Those that wait for one of these flows.
SELECT DISTINCT f.parent_id FROM flows AS f
WHERE f.id = ANY ($1::text[]) AND f.parent_id IS NOT NULL AND f.parent_op IS NOT NULL;

-- name: children
-- Those that must not outlive one of these flows, with how it ended.
SELECT c.id, f.status, f.reason
FROM flows AS f JOIN flows AS c ON c.parent_id = f.id
WHERE f.id = ANY ($1::text[]) AND c.close_with_parent AND c.status NOT IN ('completed', 'failed', 'cancelled')
ORDER BY c.id;

-- name: tell_parents
-- Once for each end of a child: one that is tried again, or deleted and started again, ends again, and a later attempt
-- of its parent may wait for that. Without a key, as this runs only in the transaction that ends the child.
INSERT INTO inbox (flow_id, kind, name, payload, at)
SELECT p.id, 'child', c.parent_op,
       '{"flow_id":' || to_json(c.id) || ',"name":' || to_json(c.name) || ',"input":' || c.input || ',"status":"' || c.status
       || '","output":' || coalesce(c.output, 'null,"reason":' || CASE WHEN starts_with(c.reason, chr(1)) THEN substr(c.reason, 2)
                                                                ELSE to_json(c.reason)::text END) || '}', $2
FROM unnest($1::text[]) WITH ORDINALITY AS v (id, place) JOIN flows AS c ON c.id = v.id JOIN flows AS p ON p.id = c.parent_id
WHERE c.parent_op IS NOT NULL AND p.status NOT IN ('completed', 'failed', 'cancelled')
ORDER BY v.place;

-- name: wake_parents
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = $2
WHERE status || '' = 'suspended' AND id = ANY ($1::text[]);
