INSERT INTO shard (shard_id)
SELECT s FROM generate_series(0, $1::int - 1) s ORDER BY s
ON CONFLICT (shard_id) DO NOTHING
