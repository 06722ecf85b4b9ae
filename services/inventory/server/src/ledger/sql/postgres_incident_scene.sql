SELECT a.o_booking, a.o_code, a.o_campaign, a.o_person, a.o_serial, a.o_version, a.o_visit, a.o_other_day,
    s.slot_id, s.shard_id, s.clinic, s.vaccine, s.dose, s.starts_at, s.day, s.capacity, s.booked, s.open
FROM incident_affected_v1($1, $2)
    WITH ORDINALITY a (o_booking, o_code, o_campaign, o_person, o_serial, o_version, o_slot, o_visit, o_other_day, at)
JOIN slot s ON s.slot_id = a.o_slot
ORDER BY a.at
