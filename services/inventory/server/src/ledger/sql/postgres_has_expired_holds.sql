SELECT EXISTS (SELECT FROM claim WHERE hold_shard = $1 AND hold_until <= clock_timestamp())
