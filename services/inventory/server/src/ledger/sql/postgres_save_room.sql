INSERT INTO room_seen AS r (campaign, cohort, version, document, frontier)
VALUES ($1, $2, $3::text::numeric, $4, $5::text::numeric)
ON CONFLICT (campaign, cohort) DO UPDATE SET
    document = CASE WHEN EXCLUDED.version > r.version THEN EXCLUDED.document ELSE r.document END,
    version = greatest(r.version, EXCLUDED.version),
    frontier = greatest(r.frontier, EXCLUDED.frontier)
