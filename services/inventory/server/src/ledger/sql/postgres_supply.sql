-- One statement: all figures are of one moment. What is open is counted, not looked up: cancellations at closed slots
-- change it, too.
SELECT t.clinic, c.district, t.vaccine, t.received, t.wasted, t.walk_in, t.given, t.walk_in_given,
    coalesce(s.opened, 0) AS opened,
    coalesce(h.held, 0) AS held,
    coalesce(s.taken, 0) - coalesce(h.held, 0) AS booked,
    coalesce(s.places_left, 0) AS places_left
FROM stock t
JOIN clinic c ON c.clinic = t.clinic
LEFT JOIN (
    SELECT clinic, vaccine, sum(booked)::bigint AS taken,
        sum(CASE WHEN open THEN capacity ELSE booked END)::bigint AS opened,
        sum(CASE WHEN open AND starts_at > statement_timestamp() THEN capacity - booked ELSE 0 END)::bigint AS places_left
    FROM slot GROUP BY clinic, vaccine
) s ON s.clinic = t.clinic AND s.vaccine = t.vaccine
LEFT JOIN (
    SELECT s.clinic, s.vaccine, count(*) AS held
    FROM claim k JOIN slot s ON s.slot_id IN (k.first_slot, k.second_slot)
    WHERE k.hold_shard IS NOT NULL GROUP BY s.clinic, s.vaccine
) h ON h.clinic = t.clinic AND h.vaccine = t.vaccine
ORDER BY t.clinic, t.vaccine
