SELECT slot_id, shard_id, clinic, vaccine, dose, starts_at, day, capacity, booked, open
FROM slot WHERE shard_id = $1 ORDER BY clinic, starts_at, dose, slot_id
