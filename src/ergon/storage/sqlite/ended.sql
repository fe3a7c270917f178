-- name: relatives
-- Parents that wait for one of these flows, and children that must not outlive one of them, each with how it ended.
SELECT (SELECT json_group_array(f.parent_id) FROM json_each(:flows) AS j CROSS JOIN flows AS f ON f.id = j.value
        WHERE f.parent_id IS NOT NULL AND f.parent_op IS NOT NULL),
       (SELECT json_group_object(c.id, json((SELECT json_array(f.status, f.reason)
                                             FROM flows AS f WHERE f.id = c.parent_id)))
        FROM json_each(:flows) AS j CROSS JOIN flows AS c ON c.parent_id = j.value
        WHERE c.close_with_parent AND c.status NOT IN ('completed', 'failed', 'cancelled'));

-- name: tell_parents
-- Once for each end of a child: one that is tried again, or deleted and started again, ends again, and a later attempt
-- of its parent may wait for that. Without a key, as this runs only in the transaction that ends the child.
INSERT INTO inbox (flow_id, kind, name, payload, at)
SELECT p.id, 'child', c.parent_op,
       '{"flow_id":' || json_quote(c.id) || ',"name":' || json_quote(c.name) || ',"input":' || c.input
       || ',"status":"' || c.status || '","output":' || coalesce(c.output, 'null,"reason":' || json_quote(c.reason)) || '}', :now
FROM json_each(:flows) AS j CROSS JOIN flows AS c ON c.id = j.value CROSS JOIN flows AS p ON p.id = c.parent_id
WHERE c.parent_op IS NOT NULL AND p.status NOT IN ('completed', 'failed', 'cancelled');

-- name: wake_parents
UPDATE flows SET status = 'pending', wake_at = NULL, ready_at = :now
WHERE +status = 'suspended' AND id IN (SELECT value FROM json_each(:flows));
