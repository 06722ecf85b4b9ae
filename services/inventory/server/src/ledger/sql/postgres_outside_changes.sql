-- Only events of transactions older than every one still running: none of them can appear behind the cursor later.
WITH news AS MATERIALIZED (
    SELECT xid, event_id, slot_id FROM event
    WHERE side AND (xid, event_id) > ($1::text::xid8, $2) AND xid < pg_snapshot_xmin(pg_current_snapshot())
    ORDER BY xid, event_id LIMIT $3
), last AS (
    SELECT xid::text AS last_xid, event_id AS last_id FROM news ORDER BY xid DESC, event_id DESC LIMIT 1
)
SELECT l.last_xid, l.last_id,
    s.slot_id, s.shard_id, s.clinic, s.vaccine, s.dose, s.starts_at, s.day, s.capacity, s.booked, s.open
FROM last l
CROSS JOIN (SELECT DISTINCT slot_id FROM news) n
LEFT JOIN slot s ON s.slot_id = n.slot_id
ORDER BY n.slot_id
