-- Changes that are no batch: holds that ended, moves, cancellations.

-- Gives back the holds of claims that the caller has locked and found past their end; answers the slots.
-- p_shard: the shard whose owner's batch this is; null = nobody's.
CREATE FUNCTION expire_v1(p_shard int, p_campaign text[], p_person bytea[], p_now timestamptz)
RETURNS TABLE (o_slot bigint, o_capacity int, o_booked int, o_open boolean) LANGUAGE plpgsql AS $$
DECLARE
    d_slot bigint[]; d_campaign text[]; d_person bytea[]; d_booking uuid[]; d_version bigint[];
BEGIN
    SELECT array_agg(v.slot_id), array_agg(c.campaign), array_agg(c.person), array_agg(c.booking), array_agg(c.version)
    INTO d_slot, d_campaign, d_person, d_booking, d_version
    FROM unnest(p_campaign, p_person) k (campaign, person)
    CROSS JOIN LATERAL (
        SELECT * FROM claim c WHERE c.campaign = k.campaign AND c.person = k.person OFFSET 0) c
    CROSS JOIN LATERAL (VALUES (c.first_slot), (c.second_slot)) v (slot_id)
    WHERE v.slot_id IS NOT NULL;
    PERFORM 1 FROM slot s WHERE s.slot_id = ANY (d_slot) ORDER BY s.slot_id FOR NO KEY UPDATE;
    RETURN QUERY
        UPDATE slot s SET booked = s.booked - g.number
        FROM (SELECT slot_id, count(*)::int AS number FROM unnest(d_slot) d (slot_id) GROUP BY slot_id) g
        WHERE s.slot_id = g.slot_id
        RETURNING s.slot_id, s.capacity, s.booked, s.open;
    UPDATE booking b SET state = 'CANCELLED'
    FROM unnest(d_slot, d_booking) d (slot_id, booking)
    JOIN slot s ON s.slot_id = d.slot_id
    WHERE b.day = s.day AND b.slot_id = d.slot_id AND b.booking = d.booking;
    UPDATE claim c SET state = 'FREE', hold_until = NULL, hold_shard = NULL, first_slot = NULL, second_slot = NULL
    FROM unnest(p_campaign, p_person) k (campaign, person)
    WHERE c.campaign = k.campaign AND c.person = k.person;
    INSERT INTO event (at, kind, side, shard_id, slot_id, campaign, person, booking, version)
    SELECT p_now, 'EXPIRED', s.shard_id IS DISTINCT FROM p_shard, s.shard_id, d.slot_id, d.campaign, d.person, d.booking,
        d.version
    FROM unnest(d_slot, d_campaign, d_person, d_booking, d_version) d (slot_id, campaign, person, booking, version)
    JOIN slot s ON s.slot_id = d.slot_id;
END $$;

-- Gives back at most p_limit holds of the shard that have ended, as one of its batches.
CREATE FUNCTION sweep_v1(p_shard int, p_epoch bigint, p_seq bigint, p_limit int)
RETURNS TABLE (o_slot bigint, o_capacity int, o_booked int, o_open boolean) LANGUAGE plpgsql AS $$
DECLARE
    d_campaign text[];
    d_person bytea[];
    at timestamptz;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    UPDATE shard SET batch_seq = p_seq WHERE shard_id = p_shard AND epoch = p_epoch AND batch_seq = p_seq - 1;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the epoch or sequence is not in force' USING ERRCODE = 'DS001',
            DETAIL = coalesce((SELECT epoch FROM shard WHERE shard_id = p_shard), 0)::text;
    END IF;
    at := clock_timestamp();
    SELECT array_agg(l.campaign), array_agg(l.person) INTO d_campaign, d_person
    FROM (
        SELECT c.campaign, c.person
        FROM (
            SELECT d.campaign, d.person FROM (
                SELECT h.campaign, h.person FROM claim h WHERE h.hold_shard = p_shard AND h.hold_until <= at
                ORDER BY h.hold_until LIMIT p_limit) d
            ORDER BY d.campaign, d.person) d
        CROSS JOIN LATERAL (
            SELECT * FROM claim c WHERE c.campaign = d.campaign AND c.person = d.person
                AND c.hold_shard = p_shard AND c.hold_until <= at
            FOR NO KEY UPDATE) c
    ) l;
    IF d_campaign IS NOT NULL THEN
        RETURN QUERY SELECT * FROM expire_v1(p_shard, d_campaign, d_person, at);
    END IF;
END $$;

-- What a move and a cancellation have in common: locks the claim, then answers the recorded verdict or why not.
-- o_refusal and o_recorded both null = go on.
CREATE FUNCTION open_claim_v1(
    p_campaign text, p_person bytea, p_serial bigint, p_request uuid, p_hash bytea, p_version bigint, p_booking uuid,
    p_now timestamptz,
    OUT o_refusal text, OUT o_version bigint, OUT o_recorded text, OUT o_booking uuid,
    OUT o_first bigint, OUT o_second bigint, OUT o_until timestamptz,
    OUT o_slot bigint[], OUT o_capacity int[], OUT o_booked int[], OUT o_open boolean[]
) LANGUAGE plpgsql AS $$
DECLARE
    c claim;
    q request;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    o_version := 0;
    SELECT * INTO c FROM claim WHERE campaign = p_campaign AND person = p_person FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        o_refusal := 'BOOKING_UNKNOWN';
        RETURN;
    END IF;
    o_version := c.version;
    -- A statement after the lock: it sees what was committed while we waited for it.
    SELECT * INTO q FROM request WHERE campaign = p_campaign AND person = p_person AND request_id = p_request;
    IF FOUND THEN
        IF q.body_hash <> p_hash THEN
            o_refusal := 'REQUEST_ID_REUSED';
            o_version := NULL;
            RETURN;
        END IF;
        o_recorded := q.verdict;
        o_version := q.version_after;
        o_booking := q.booking;
        o_first := q.first_slot;
        o_second := q.second_slot;
        o_until := q.hold_until;
        RETURN;
    END IF;
    IF p_serial < c.serial OR (c.state = 'SURRENDERED' AND p_serial = c.serial) THEN
        o_refusal := 'PERMIT_SUPERSEDED';
    ELSIF c.state = 'HELD' AND c.hold_until <= p_now THEN
        SELECT array_agg(e.o_slot), array_agg(e.o_capacity), array_agg(e.o_booked), array_agg(e.o_open)
        INTO o_slot, o_capacity, o_booked, o_open
        FROM expire_v1(NULL, ARRAY[p_campaign], ARRAY[p_person], p_now) e;
        o_refusal := 'BOOKING_UNKNOWN';
    ELSIF c.state <> 'BOOKED' OR c.booking <> p_booking THEN
        o_refusal := 'BOOKING_UNKNOWN';
    ELSIF c.version <> p_version THEN
        o_refusal := 'CLAIM_VERSION_STALE';
    ELSE
        o_booking := c.booking;
        o_first := c.first_slot;
        o_second := c.second_slot;
    END IF;
END $$;

-- Runs under the epoch of the target slot's shard; the new place is taken before the old one is given up.
CREATE FUNCTION move_v1(
    p_shard int, p_epoch bigint, p_campaign text, p_person bytea, p_serial bigint, p_request uuid, p_hash bytea,
    p_version bigint, p_booking uuid, p_code text, p_dose int, p_to bigint,
    OUT o_done text, OUT o_refusal text, OUT o_version bigint, OUT o_recorded text, OUT o_booking uuid,
    OUT o_first bigint, OUT o_second bigint, OUT o_until timestamptz,
    OUT o_slot bigint[], OUT o_capacity int[], OUT o_booked int[], OUT o_open boolean[]
) LANGUAGE plpgsql AS $$
DECLARE
    found_epoch bigint;
    at timestamptz;
    a record;
    old slot;
    new slot;
BEGIN
    -- Holds off a seizure, not a batch.
    SELECT epoch INTO found_epoch FROM shard WHERE shard_id = p_shard FOR KEY SHARE;
    IF found_epoch IS DISTINCT FROM p_epoch THEN
        RAISE EXCEPTION 'the epoch is not in force' USING ERRCODE = 'DS001', DETAIL = coalesce(found_epoch, 0)::text;
    END IF;
    at := clock_timestamp();
    SELECT * INTO a FROM open_claim_v1(p_campaign, p_person, p_serial, p_request, p_hash, p_version, p_booking, at);
    o_refusal := a.o_refusal; o_version := a.o_version; o_recorded := a.o_recorded; o_booking := a.o_booking;
    o_first := a.o_first; o_second := a.o_second; o_until := a.o_until;
    o_slot := a.o_slot; o_capacity := a.o_capacity; o_booked := a.o_booked; o_open := a.o_open;
    IF o_refusal IS NOT NULL OR o_recorded IS NOT NULL THEN
        RETURN;
    END IF;
    SELECT * INTO old FROM slot WHERE slot_id IN (o_first, o_second) AND dose = p_dose;
    IF NOT FOUND THEN
        o_refusal := 'DOSE_UNKNOWN';
        RETURN;
    END IF;
    PERFORM 1 FROM slot WHERE slot_id IN (old.slot_id, p_to) ORDER BY slot_id FOR NO KEY UPDATE;
    SELECT * INTO new FROM slot WHERE slot_id = p_to;
    IF NOT FOUND THEN
        o_refusal := 'SLOT_UNKNOWN';
    ELSIF new.shard_id <> p_shard THEN
        o_refusal := 'WRONG_SHARD';
    ELSIF NOT new.open THEN
        o_refusal := 'SLOT_CLOSED';
    ELSIF new.slot_id = old.slot_id OR new.vaccine <> old.vaccine OR new.dose <> old.dose THEN
        o_refusal := 'SLOTS_MISMATCH';
    ELSIF new.booked >= new.capacity THEN
        o_refusal := 'SLOT_FULL';
    END IF;
    IF o_refusal IS NOT NULL THEN
        RETURN;
    END IF;
    IF o_first = old.slot_id THEN
        o_first := p_to;
    ELSE
        o_second := p_to;
    END IF;
    o_done := 'MOVED';
    o_version := p_version + 1;
    UPDATE claim SET serial = p_serial, version = o_version, first_slot = o_first, second_slot = o_second
    WHERE campaign = p_campaign AND person = p_person;
    UPDATE slot SET booked = booked + 1 WHERE slot_id = p_to RETURNING * INTO new;
    UPDATE slot SET booked = booked - 1 WHERE slot_id = old.slot_id RETURNING * INTO old;
    UPDATE booking b SET state = 'CANCELLED'
    WHERE b.day = old.day AND b.slot_id = old.slot_id AND b.booking = p_booking;
    INSERT INTO booking (booking, slot_id, day, dose, state, code, campaign, person)
    VALUES (p_booking, p_to, new.day, new.dose, 'BOOKED', p_code, p_campaign, p_person)
    -- They may come back to a slot they left.
    ON CONFLICT (day, slot_id, booking) DO UPDATE SET state = 'BOOKED';
    INSERT INTO request (campaign, person, request_id, method, body_hash, verdict, booking, first_slot, second_slot,
        version_after, shard_id, epoch, batch_seq)
    VALUES (p_campaign, p_person, p_request, 'move_booking', p_hash, 'MOVED', p_booking, o_first, o_second, o_version,
        p_shard, p_epoch, 0);
    INSERT INTO event (at, kind, side, shard_id, slot_id, campaign, person, booking, version)
    VALUES (at, 'MOVED', true, new.shard_id, p_to, p_campaign, p_person, p_booking, o_version),
        (at, 'MOVED', true, old.shard_id, old.slot_id, p_campaign, p_person, p_booking, o_version);
    o_slot := ARRAY[new.slot_id, old.slot_id];
    o_capacity := ARRAY[new.capacity, old.capacity];
    o_booked := ARRAY[new.booked, old.booked];
    o_open := ARRAY[new.open, old.open];
END $$;

-- Needs no epoch: giving back is always safe.
CREATE FUNCTION cancel_v1(
    p_campaign text, p_person bytea, p_serial bigint, p_request uuid, p_hash bytea, p_version bigint, p_booking uuid,
    p_dose int,
    OUT o_done text, OUT o_refusal text, OUT o_version bigint, OUT o_recorded text, OUT o_booking uuid,
    OUT o_first bigint, OUT o_second bigint, OUT o_until timestamptz,
    OUT o_slot bigint[], OUT o_capacity int[], OUT o_booked int[], OUT o_open boolean[]
) LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    a record;
    given bigint[];
    kept bigint;
BEGIN
    SELECT * INTO a FROM open_claim_v1(p_campaign, p_person, p_serial, p_request, p_hash, p_version, p_booking, at);
    o_refusal := a.o_refusal; o_version := a.o_version; o_recorded := a.o_recorded; o_booking := a.o_booking;
    o_first := a.o_first; o_second := a.o_second; o_until := a.o_until;
    o_slot := a.o_slot; o_capacity := a.o_capacity; o_booked := a.o_booked; o_open := a.o_open;
    IF o_refusal IS NOT NULL OR o_recorded IS NOT NULL THEN
        RETURN;
    END IF;
    SELECT array_agg(slot_id ORDER BY slot_id) INTO given
    FROM slot WHERE slot_id IN (o_first, o_second) AND (p_dose IS NULL OR dose = p_dose);
    IF given IS NULL THEN
        o_refusal := 'DOSE_UNKNOWN';
        RETURN;
    END IF;
    -- The slots after the change; those given up, where none is left.
    kept := CASE WHEN NOT o_first = ANY (given) THEN o_first WHEN NOT o_second = ANY (given) THEN o_second END;
    IF kept IS NOT NULL THEN
        o_first := kept;
        o_second := NULL;
    END IF;
    o_done := 'CANCELLED';
    o_version := p_version + 1;
    UPDATE claim SET serial = p_serial, version = o_version, state = CASE WHEN kept IS NULL THEN 'FREE' ELSE 'BOOKED' END,
        booking = CASE WHEN kept IS NOT NULL THEN p_booking END, first_slot = kept, second_slot = NULL
    WHERE campaign = p_campaign AND person = p_person;
    PERFORM 1 FROM slot WHERE slot_id = ANY (given) ORDER BY slot_id FOR NO KEY UPDATE;
    WITH freed AS (
        UPDATE slot s SET booked = s.booked - 1 WHERE s.slot_id = ANY (given)
        RETURNING s.slot_id, s.capacity, s.booked, s.open)
    SELECT array_agg(f.slot_id), array_agg(f.capacity), array_agg(f.booked), array_agg(f.open)
    INTO o_slot, o_capacity, o_booked, o_open FROM freed f;
    UPDATE booking b SET state = 'CANCELLED' FROM slot s
    WHERE s.slot_id = ANY (given) AND b.day = s.day AND b.slot_id = s.slot_id AND b.booking = p_booking;
    INSERT INTO request (campaign, person, request_id, method, body_hash, verdict, booking, first_slot, second_slot,
        version_after, shard_id, epoch, batch_seq)
    SELECT p_campaign, p_person, p_request, 'cancel_booking', p_hash, 'CANCELLED', p_booking, o_first, o_second, o_version,
        s.shard_id, 0, 0
    FROM slot s WHERE s.slot_id = given[1];
    INSERT INTO event (at, kind, side, shard_id, slot_id, campaign, person, booking, version)
    SELECT at, 'CANCELLED', true, s.shard_id, s.slot_id, p_campaign, p_person, p_booking, o_version
    FROM slot s WHERE s.slot_id = ANY (given);
END $$;
