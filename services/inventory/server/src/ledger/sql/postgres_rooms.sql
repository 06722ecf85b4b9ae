SELECT campaign, cohort, version::text AS version, document, frontier::text AS frontier
FROM room_seen ORDER BY campaign, cohort
