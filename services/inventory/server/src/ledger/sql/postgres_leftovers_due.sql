SELECT r.round, r.state = 'ANNOUNCED' AND r.draws_at <= clock_timestamp() AS draws
FROM leftover_round r
WHERE r.state <> 'CLOSED' AND (
    r.closes_at <= clock_timestamp()
    OR (r.state = 'ANNOUNCED' AND r.draws_at <= clock_timestamp())
    OR EXISTS (
        SELECT FROM leftover_place p WHERE p.round = r.round AND p.state = 'OFFERED' AND (
            p.deadline <= clock_timestamp()
            OR NOT EXISTS (SELECT FROM leftover_wish w
                WHERE w.person = p.person AND w.campaign = p.campaign AND w.joined_at < r.draws_at)))
    OR (EXISTS (SELECT FROM leftover_place p WHERE p.round = r.round AND p.state = 'WAITING')
        AND r.doses > r.accepted + (SELECT count(*) FROM leftover_place p WHERE p.round = r.round AND p.state = 'OFFERED')))
ORDER BY r.round
