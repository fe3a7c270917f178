-- name: name_of
SELECT hex(id) FROM flows WHERE num = :num;
