-- All appointments of the clinic under a code, on some days or ($3 is null) on any.
SELECT b.slot_id, b.booking, b.campaign, b.day, b.dose, s.vaccine,
    CASE WHEN b.state = 'BOOKED' THEN coalesce(v.state, b.state) ELSE b.state END AS state
FROM slot s
JOIN booking b ON b.day = s.day AND b.slot_id = s.slot_id
LEFT JOIN visit v ON v.slot_id = b.slot_id AND v.booking = b.booking
WHERE s.clinic = $1 AND b.code = $2 AND b.state <> 'HELD' AND ($3::int[] IS NULL OR s.day = ANY ($3))
ORDER BY b.day, b.dose, b.slot_id
