SELECT l.incident, l.plan, l.line, s.shard_id, l.campaign, l.person, l.serial, l.booking, l.dose, l.to_slot, l.request,
    CASE WHEN p.state = 'MOVED' THEN p.version_after ELSE l.version END AS version
FROM incident i
CROSS JOIN LATERAL (
    SELECT min(w.wave) AS wave FROM incident_line w
    WHERE w.incident = i.incident AND w.plan = i.plan AND w.state = 'PLANNED') w
JOIN incident_line l ON l.incident = i.incident AND l.plan = i.plan AND l.wave = w.wave AND l.state = 'PLANNED'
LEFT JOIN incident_line p ON p.incident = l.incident AND p.plan = l.plan AND p.line = l.after_line
JOIN slot s ON s.slot_id = l.to_slot
WHERE i.state = 'APPLYING' AND s.shard_id = ANY ($1)
ORDER BY i.opened_at, l.incident, l.line
LIMIT $2
