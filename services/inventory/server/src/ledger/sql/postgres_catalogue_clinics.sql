SELECT clinic, shard_id, display_name, district, latitude, longitude
FROM clinic WHERE shard_id = $1 ORDER BY clinic
