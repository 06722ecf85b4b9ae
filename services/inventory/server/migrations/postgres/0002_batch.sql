-- One batch of a shard's owner, decided and written in one statement.
--
-- Lock order: shard, claims by key, slots by id, booking rows. Stock is not touched: places are opened by `apply_v1` only.
-- Ops come sorted by (campaign, person); p_turn is the order in which they are decided. Whoever has no claim yet gets one
-- in the state wished for at once, which is right nearly always; the few that are then refused are deleted again. Nothing
-- of such a person can be recorded, because a request row exists only beside a claim.
-- Every lookup that follows a lock is a statement of its own: only a new statement sees what was committed while it waited.

CREATE FUNCTION batch_v1(
    p_shard int, p_epoch bigint, p_seq bigint,
    p_turn int[],      -- indexes of ops, in their order
    p_fresh int[],     -- indexes of ops that take slots and expect no claim
    p_rest int[],      -- indexes of all others
    p_campaign text[], p_person bytea[], p_serial bigint[], p_version bigint[], p_request uuid[], p_hash bytea[],
    p_method text[],
    p_done text[],     -- what it is when it succeeds: BOOKED, HELD, CONFIRMED, RELEASED
    p_booking uuid[], p_code text[], p_ttl_ms bigint[],
    p_first int[], p_second int[], -- indexes into p_slot; 0 = none
    p_slot bigint[],   -- the slots named, by id, once each
    OUT o_now timestamptz,
    OUT o_refusal text[],   -- by op; null = it happened now, or had happened (then o_recorded is set)
    OUT o_version bigint[], -- the claim's version, with refusals and repetitions
    OUT o_recorded text[], OUT o_booking uuid[], OUT o_first bigint[], OUT o_second bigint[], OUT o_until timestamptz[],
    OUT o_slot bigint[], OUT o_capacity int[], OUT o_free int[], OUT o_open boolean[]
) LANGUAGE plpgsql AS $$
DECLARE
    n int := cardinality(p_turn);
    made int := 0;          -- claims inserted
    excluded int := 0;      -- ops that write nothing of their own
    maybe int[];            -- ops whose claim may have existed before
    known int[];            -- ops whose claim existed before
    undo int[] := '{}';     -- claims inserted in vain
    changed int[] := '{}';  -- claims to update
    expired int[] := '{}';  -- claims whose hold was met after its end
    done int[];
    xact xid8;
    i int;
    k int;
    k2 int;
    st text;
    why text;
    taking boolean;
    r record;
    -- Claims that existed before, by op.
    c_state text[]; c_serial bigint[]; c_version bigint[]; c_until timestamptz[]; c_booking uuid[];
    c_first bigint[]; c_second bigint[]; c_first_day int[]; c_second_day int[]; c_mine boolean[];
    -- Slots, in the order of o_slot.
    extra bigint[] := '{}';
    s_was int[]; s_why text[]; s_day int[]; s_dose int[]; s_shard int[];
    -- Booking rows to change.
    b_day int[] := '{}'; b_slot bigint[] := '{}'; b_booking uuid[] := '{}'; b_state text[] := '{}';
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    UPDATE shard SET batch_seq = p_seq WHERE shard_id = p_shard AND epoch = p_epoch AND batch_seq = p_seq - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the epoch or sequence is not in force' USING ERRCODE = 'DS001',
            DETAIL = coalesce((SELECT epoch FROM shard WHERE shard_id = p_shard), 0)::text;
    END IF;
    xact := pg_current_xact_id();
    o_now := clock_timestamp();
    o_refusal := array_fill(NULL::text, ARRAY[n]);
    o_version := array_fill(NULL::bigint, ARRAY[n]);
    o_recorded := array_fill(NULL::text, ARRAY[n]);

    -- Claims: new ones, then those that exist, both by key.
    INSERT INTO claim (campaign, person, serial, state, version, hold_until, hold_shard, booking, first_slot, second_slot)
    SELECT p_campaign[f], p_person[f], p_serial[f], p_done[f], 1,
        CASE WHEN p_done[f] = 'HELD' THEN o_now + p_ttl_ms[f] * interval '1 millisecond' END,
        CASE WHEN p_done[f] = 'HELD' THEN p_shard END,
        p_booking[f], p_slot[p_first[f]], p_slot[p_second[f]]
    FROM unnest(p_fresh) f ORDER BY f
    ON CONFLICT (campaign, person) DO NOTHING;
    GET DIAGNOSTICS made = ROW_COUNT;
    maybe := CASE WHEN made = cardinality(p_fresh) THEN p_rest ELSE p_fresh || p_rest END;
    IF maybe <> '{}' THEN
        SELECT array_agg(l.at) INTO known FROM (
            SELECT m.at FROM (SELECT at FROM unnest(maybe) at ORDER BY at) m
            CROSS JOIN LATERAL (
                SELECT 1 FROM claim c WHERE c.campaign = p_campaign[m.at] AND c.person = p_person[m.at]
                    -- Not those made above.
                    AND (c.xmin = xact::xid AND c.booking = p_booking[m.at]) IS NOT TRUE
                FOR NO KEY UPDATE) c
        ) l;
    END IF;
    IF known IS NOT NULL THEN
        c_state := o_recorded;
        c_serial := o_version;
        c_version := o_version;
        c_until := array_fill(NULL::timestamptz, ARRAY[n]);
        c_booking := array_fill(NULL::uuid, ARRAY[n]);
        c_first := o_version;
        c_second := o_version;
        c_first_day := array_fill(NULL::int, ARRAY[n]);
        c_second_day := c_first_day;
        c_mine := array_fill(false, ARRAY[n]);
        o_booking := c_booking;
        o_first := o_version;
        o_second := o_version;
        o_until := c_until;
        FOR r IN
            SELECT m.at, q.body_hash, q.verdict, q.booking, q.first_slot, q.second_slot, q.hold_until, q.version_after
            FROM unnest(known) m (at)
            CROSS JOIN LATERAL (
                SELECT * FROM request q WHERE q.person = p_person[m.at] AND q.request_id = p_request[m.at]
                    AND q.campaign = p_campaign[m.at] OFFSET 0) q
        LOOP
            i := r.at;
            excluded := excluded + 1;
            IF r.body_hash = p_hash[i] THEN
                o_recorded[i] := r.verdict;
                o_version[i] := r.version_after;
                o_booking[i] := r.booking;
                o_first[i] := r.first_slot;
                o_second[i] := r.second_slot;
                o_until[i] := r.hold_until;
            ELSE
                o_refusal[i] := 'REQUEST_ID_REUSED';
            END IF;
        END LOOP;
        FOR r IN
            SELECT m.at, c.serial, c.state, c.version, c.hold_until, c.booking, c.first_slot, c.second_slot,
                f.day AS first_day, s.day AS second_day,
                f.shard_id = p_shard AND coalesce(s.shard_id = p_shard, true) AS mine
            FROM unnest(known) m (at)
            CROSS JOIN LATERAL (
                SELECT * FROM claim c WHERE c.campaign = p_campaign[m.at] AND c.person = p_person[m.at] OFFSET 0) c
            LEFT JOIN slot f ON f.slot_id = c.first_slot
            LEFT JOIN slot s ON s.slot_id = c.second_slot
        LOOP
            i := r.at;
            c_state[i] := r.state;
            CONTINUE WHEN o_recorded[i] IS NOT NULL OR o_refusal[i] IS NOT NULL;
            c_version[i] := r.version;
            c_serial[i] := r.serial;
            c_booking[i] := r.booking;
            IF r.first_slot IS NOT NULL THEN
                c_until[i] := r.hold_until;
                c_first[i] := r.first_slot;
                c_first_day[i] := r.first_day;
                c_mine[i] := r.mine;
                IF r.second_slot IS NOT NULL THEN
                    c_second[i] := r.second_slot;
                    c_second_day[i] := r.second_day;
                END IF;
                IF r.state = 'HELD' AND (r.hold_until <= o_now OR p_done[i] = 'RELEASED') THEN
                    extra := extra || r.first_slot;
                    IF r.second_slot IS NOT NULL THEN
                        extra := extra || r.second_slot;
                    END IF;
                END IF;
            END IF;
        END LOOP;
    END IF;

    -- Slots, by id.
    o_slot := p_slot;
    IF extra <> '{}' THEN
        o_slot := p_slot || (SELECT array_agg(DISTINCT x) FROM unnest(extra) x WHERE x <> ALL (p_slot));
    END IF;
    IF o_slot <> '{}' THEN
        s_was := array_fill(0, ARRAY[cardinality(o_slot)]);
        o_capacity := array_fill(NULL::int, ARRAY[cardinality(o_slot)]);
        o_open := array_fill(false, ARRAY[cardinality(o_slot)]);
        s_day := s_was;
        s_dose := s_was;
        s_shard := s_was;
        s_why := array_fill('SLOT_UNKNOWN'::text, ARRAY[cardinality(o_slot)]);
        FOR r IN
            SELECT m.at, s.* FROM (SELECT id, at FROM unnest(o_slot) WITH ORDINALITY m (id, at) ORDER BY id) m
            CROSS JOIN LATERAL (
                SELECT s.capacity, s.booked, s.open, s.day, s.dose, s.shard_id,
                    CASE WHEN s.shard_id <> p_shard THEN 'WRONG_SHARD' WHEN NOT s.open THEN 'SLOT_CLOSED' END AS why
                FROM slot s WHERE s.slot_id = m.id FOR NO KEY UPDATE) s
        LOOP
            k := r.at;
            s_was[k] := r.capacity - r.booked;
            o_capacity[k] := r.capacity;
            o_open[k] := r.open;
            s_day[k] := r.day;
            s_dose[k] := r.dose;
            s_shard[k] := r.shard_id;
            s_why[k] := r.why;
        END LOOP;
        o_free := s_was;
    END IF;

    FOREACH i IN ARRAY p_turn LOOP
        st := c_state[i];
        k := p_first[i];
        -- Nearly every op of an opening day: somebody new, one slot, room in it.
        IF st IS NULL AND k > 0 AND p_second[i] = 0 AND p_version[i] = 0 AND s_why[k] IS NULL AND o_free[k] > 0 THEN
            o_free[k] := o_free[k] - 1;
            CONTINUE;
        END IF;
        IF o_recorded[i] IS NOT NULL OR o_refusal[i] IS NOT NULL THEN
            CONTINUE;
        END IF;
        why := NULL;
        taking := k > 0;
        IF st IS NULL THEN
            IF NOT taking THEN
                why := 'BOOKING_UNKNOWN';
            ELSIF p_version[i] <> 0 THEN
                why := 'CLAIM_VERSION_STALE';
            END IF;
        ELSIF p_serial[i] < c_serial[i] OR (st = 'SURRENDERED' AND p_serial[i] = c_serial[i]) THEN
            why := 'PERMIT_SUPERSEDED';
        ELSE
            IF st = 'HELD' AND c_until[i] <= o_now THEN
                st := 'FREE';
                c_state[i] := st;
                expired := expired || i;
                changed := changed || i;
                k2 := array_position(o_slot, c_first[i]);
                o_free[k2] := o_free[k2] + 1;
                b_day := b_day || c_first_day[i];
                b_slot := b_slot || c_first[i];
                b_booking := b_booking || c_booking[i];
                b_state := b_state || 'CANCELLED'::text;
                IF c_second[i] IS NOT NULL THEN
                    k2 := array_position(o_slot, c_second[i]);
                    o_free[k2] := o_free[k2] + 1;
                    b_day := b_day || c_second_day[i];
                    b_slot := b_slot || c_second[i];
                    b_booking := b_booking || c_booking[i];
                    b_state := b_state || 'CANCELLED'::text;
                END IF;
            END IF;
            IF taking THEN
                IF st = 'BOOKED' THEN
                    why := 'ALREADY_BOOKED';
                ELSIF st = 'HELD' THEN
                    why := 'ALREADY_HELD';
                ELSIF p_version[i] <> c_version[i] THEN
                    why := 'CLAIM_VERSION_STALE';
                END IF;
            ELSIF c_booking[i] IS DISTINCT FROM p_booking[i] OR st = 'SURRENDERED' THEN
                why := 'BOOKING_UNKNOWN';
            ELSIF st = 'BOOKED' THEN
                why := 'ALREADY_BOOKED';
            ELSIF st = 'FREE' THEN
                why := 'HOLD_EXPIRED';
            ELSIF p_version[i] <> c_version[i] THEN
                why := 'CLAIM_VERSION_STALE';
            ELSIF NOT c_mine[i] THEN
                why := 'WRONG_SHARD';
            END IF;
        END IF;
        IF taking AND why IS NULL THEN
            k2 := p_second[i];
            why := s_why[k];
            IF why IS NULL AND o_free[k] < 1 THEN
                why := 'SLOT_FULL';
            END IF;
            IF why IS NULL AND k2 > 0 THEN
                why := CASE WHEN k2 = k THEN 'SLOTS_MISMATCH' WHEN s_why[k2] IS NULL AND o_free[k2] < 1 THEN 'SLOT_FULL'
                    ELSE s_why[k2] END;
            END IF;
        END IF;
        IF why IS NOT NULL THEN
            excluded := excluded + 1;
            o_refusal[i] := why;
            o_version[i] := coalesce(c_version[i], 0);
            IF st IS NULL AND taking AND p_version[i] = 0 THEN
                undo := undo || i;
            END IF;
            CONTINUE;
        END IF;

        IF taking THEN
            o_free[k] := o_free[k] - 1;
            IF k2 > 0 THEN
                o_free[k2] := o_free[k2] - 1;
            END IF;
            CONTINUE WHEN st IS NULL;
            IF c_first[i] IS NULL THEN
                changed := changed || i;
            END IF;
            c_state[i] := p_done[i];
            c_booking[i] := p_booking[i];
            c_first[i] := p_slot[k];
            c_second[i] := p_slot[k2];
        ELSE
            o_first[i] := c_first[i];
            o_second[i] := c_second[i];
            changed := changed || i;
            IF p_done[i] = 'CONFIRMED' THEN
                c_state[i] := 'BOOKED';
            ELSE
                c_state[i] := 'FREE';
                k2 := array_position(o_slot, c_first[i]);
                o_free[k2] := o_free[k2] + 1;
            END IF;
            b_day := b_day || c_first_day[i];
            b_slot := b_slot || c_first[i];
            b_booking := b_booking || c_booking[i];
            b_state := b_state || CASE WHEN p_done[i] = 'CONFIRMED' THEN 'BOOKED'::text ELSE 'CANCELLED' END;
            IF c_second[i] IS NOT NULL THEN
                IF p_done[i] = 'RELEASED' THEN
                    k2 := array_position(o_slot, c_second[i]);
                    o_free[k2] := o_free[k2] + 1;
                END IF;
                b_day := b_day || c_second_day[i];
                b_slot := b_slot || c_second[i];
                b_booking := b_booking || c_booking[i];
                b_state := b_state || CASE WHEN p_done[i] = 'CONFIRMED' THEN 'BOOKED'::text ELSE 'CANCELLED' END;
            END IF;
        END IF;
    END LOOP;

    -- Everything is decided; what follows only writes.
    IF excluded = 0 THEN
        done := p_turn;
    ELSE
        SELECT array_agg(at) INTO done FROM unnest(p_turn) at WHERE o_refusal[at] IS NULL AND o_recorded[at] IS NULL;
    END IF;
    IF undo <> '{}' THEN
        DELETE FROM claim c USING unnest(undo) at WHERE c.campaign = p_campaign[at] AND c.person = p_person[at];
    END IF;
    IF expired <> '{}' THEN
        INSERT INTO event (xid, at, kind, side, shard_id, slot_id, campaign, person, booking, version)
        SELECT xact, o_now, 'EXPIRED', s_shard[e.slot_at] <> p_shard, s_shard[e.slot_at], o_slot[e.slot_at],
            p_campaign[e.at], p_person[e.at], e.booking, c_version[e.at]
        FROM (
            SELECT x.at, array_position(o_slot, q.slot_id) AS slot_at, q.booking
            FROM unnest(expired) x (at)
            JOIN LATERAL (
                SELECT v.slot_id, c.booking FROM claim c, LATERAL (VALUES (c.first_slot), (c.second_slot)) v (slot_id)
                WHERE c.campaign = p_campaign[x.at] AND c.person = p_person[x.at] AND v.slot_id IS NOT NULL
                OFFSET 0) q ON true
        ) e;
    END IF;
    IF changed <> '{}' THEN
        UPDATE claim c SET
            state = c_state[m.at],
            serial = CASE WHEN o_refusal[m.at] IS NULL THEN p_serial[m.at] ELSE c.serial END,
            version = CASE WHEN o_refusal[m.at] IS NULL THEN c.version + 1 ELSE c.version END,
            hold_until = CASE WHEN c_state[m.at] = 'HELD' THEN o_now + p_ttl_ms[m.at] * interval '1 millisecond' END,
            hold_shard = CASE WHEN c_state[m.at] = 'HELD' THEN p_shard END,
            -- Released: forgotten. Expired: remembered, so that a late confirmation can be told why.
            booking = CASE WHEN c_state[m.at] <> 'FREE' OR o_refusal[m.at] IS NOT NULL THEN c_booking[m.at] END,
            first_slot = CASE WHEN c_state[m.at] <> 'FREE' THEN c_first[m.at] END,
            second_slot = CASE WHEN c_state[m.at] <> 'FREE' THEN c_second[m.at] END
        FROM unnest(changed) m (at)
        WHERE c.campaign = p_campaign[m.at] AND c.person = p_person[m.at];
    END IF;
    IF o_free <> s_was THEN
        UPDATE slot s SET booked = s.booked - (o_free[m.at] - s_was[m.at])
        FROM (SELECT at FROM generate_subscripts(o_slot, 1) at WHERE o_free[at] <> s_was[at]) m
        WHERE s.slot_id = o_slot[m.at];
    END IF;
    IF b_day <> '{}' THEN
        UPDATE booking b SET state = m.state
        FROM unnest(b_day, b_slot, b_booking, b_state) m (day, slot_id, booking, state)
        WHERE b.day = m.day AND b.slot_id = m.slot_id AND b.booking = m.booking;
    END IF;
    INSERT INTO booking (booking, slot_id, day, dose, state, code, campaign, person)
    SELECT p_booking[at], p_slot[p_first[at]], s_day[p_first[at]], s_dose[p_first[at]], p_done[at], p_code[at],
        p_campaign[at], p_person[at]
    FROM unnest(done) at WHERE p_first[at] > 0;
    INSERT INTO request (campaign, person, request_id, method, body_hash, verdict, booking, first_slot, second_slot,
        hold_until, version_after, shard_id, epoch, batch_seq)
    SELECT p_campaign[at], p_person[at], p_request[at], p_method[at], p_hash[at], p_done[at], p_booking[at],
        coalesce(o_first[at], p_slot[p_first[at]]), coalesce(o_second[at], p_slot[p_second[at]]),
        CASE WHEN p_done[at] = 'HELD' THEN o_now + p_ttl_ms[at] * interval '1 millisecond' END,
        p_version[at] + 1, p_shard, p_epoch, p_seq
    FROM unnest(done) at;
    INSERT INTO event (xid, at, kind, side, shard_id, slot_id, campaign, person, booking, version)
    SELECT xact, o_now, p_done[at], false, p_shard, coalesce(o_first[at], p_slot[p_first[at]]),
        p_campaign[at], p_person[at], p_booking[at], p_version[at] + 1
    FROM unnest(done) at;
    -- The second dose's rows, where there are any.
    IF 0 < ANY (p_second) THEN
        INSERT INTO booking (booking, slot_id, day, dose, state, code, campaign, person)
        SELECT p_booking[at], p_slot[p_second[at]], s_day[p_second[at]], s_dose[p_second[at]], p_done[at], p_code[at],
            p_campaign[at], p_person[at]
        FROM unnest(done) at WHERE p_second[at] > 0;
    END IF;
    IF 0 < ANY (p_second) OR known IS NOT NULL THEN
        INSERT INTO event (xid, at, kind, side, shard_id, slot_id, campaign, person, booking, version)
        SELECT xact, o_now, p_done[at], false, p_shard, coalesce(o_second[at], p_slot[p_second[at]]),
            p_campaign[at], p_person[at], p_booking[at], p_version[at] + 1
        FROM unnest(done) at WHERE coalesce(o_second[at], p_slot[p_second[at]]) IS NOT NULL;
    END IF;
END $$;
