SELECT b.code, s.starts_at, s.vaccine, b.dose, coalesce(v.state, b.state) AS state
FROM slot s
JOIN booking b ON b.day = s.day AND b.slot_id = s.slot_id
LEFT JOIN visit v ON v.slot_id = b.slot_id AND v.booking = b.booking
WHERE s.clinic = $1 AND s.day = $2 AND b.day = $2 AND b.state = 'BOOKED'
    AND ($3::timestamptz IS NULL OR (s.starts_at, b.code COLLATE "C") > ($3, $4::text COLLATE "C"))
ORDER BY s.starts_at, b.code COLLATE "C"
LIMIT $5
