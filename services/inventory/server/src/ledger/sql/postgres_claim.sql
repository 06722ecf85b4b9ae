SELECT CASE WHEN c.state = 'HELD' AND c.hold_until <= clock_timestamp() THEN 'FREE' ELSE c.state END AS state,
    c.serial, c.version, c.booking, c.hold_until,
    s.slot_id, s.shard_id, s.clinic, s.vaccine, s.dose, s.starts_at, s.day, s.capacity, s.booked, s.open,
    v.state AS visit
FROM claim c
LEFT JOIN slot s ON s.slot_id IN (c.first_slot, c.second_slot)
LEFT JOIN visit v ON v.slot_id = s.slot_id AND v.booking = c.booking
WHERE c.campaign = $1 AND c.person = $2
ORDER BY s.dose
