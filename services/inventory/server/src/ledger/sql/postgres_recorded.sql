SELECT k.at, r.body_hash, r.verdict, r.booking, r.first_slot, r.second_slot, r.hold_until, r.version_after
FROM unnest($1::text[], $2::bytea[], $3::uuid[]) WITH ORDINALITY k (campaign, person, request_id, at)
JOIN request r ON r.campaign = k.campaign AND r.person = k.person AND r.request_id = k.request_id
