SELECT slot_id, shard_id, clinic, vaccine, dose, starts_at, day, capacity, booked, open
FROM slot WHERE slot_id = ANY ($1) ORDER BY slot_id
