SELECT slot_id, shard_id, clinic, vaccine, dose, starts_at, day, capacity, booked, open
FROM slot WHERE open AND booked < capacity AND starts_at > $1 AND vaccine = ANY ($2) AND dose = ANY ($3)
ORDER BY slot_id
