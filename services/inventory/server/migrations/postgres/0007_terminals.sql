-- What a clinic's terminal changes: stock, slots and visits. The answers are the same JSON in both backends.

ALTER TABLE stock
    ADD COLUMN given bigint NOT NULL DEFAULT 0 CHECK (given >= 0),
    ADD COLUMN walk_in_given bigint NOT NULL DEFAULT 0 CHECK (walk_in_given >= 0 AND walk_in_given <= walk_in);

-- SHORTFALL: one row for each slot that was closed or made smaller, and one without a slot (0) that says how many doses
-- people are booked for and are not there.
ALTER TABLE event
    ADD COLUMN clinic text COLLATE "C",
    ADD COLUMN vaccine text COLLATE "C",
    ADD COLUMN doses bigint;

-- What became of an appointment at the clinic. No row = booked, or what the booking's own row says.
CREATE TABLE visit (
    slot_id bigint NOT NULL,
    booking uuid NOT NULL,
    state   text NOT NULL CHECK (state IN ('CHECKED_IN', 'GIVEN', 'NO_SHOW')),
    lot     text,
    at      timestamptz NOT NULL,
    PRIMARY KEY (slot_id, booking),
    CHECK ((state = 'GIVEN') = (lot IS NOT NULL))
);

-- Every change of a terminal, under the id it gave it.
CREATE TABLE clinic_request (
    clinic     text COLLATE "C" NOT NULL REFERENCES clinic (clinic),
    request_id uuid NOT NULL,
    method     text NOT NULL,
    body_hash  bytea NOT NULL,
    answer     text NOT NULL,
    lot        text,
    at         timestamptz NOT NULL,
    PRIMARY KEY (clinic, request_id)
);

-- DS005 = a terminal's change was refused: MESSAGE has the reason, DETAIL its notes as [[field, problem], …].
CREATE FUNCTION refuse_v1(p_reason text, p_field text DEFAULT NULL, p_problem text DEFAULT NULL,
    p_field_2 text DEFAULT NULL, p_problem_2 text DEFAULT NULL
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION USING ERRCODE = 'DS005', MESSAGE = p_reason, DETAIL = (
        SELECT coalesce(json_agg(json_build_array(n.field, n.problem) ORDER BY n.at), '[]')::text
        FROM (VALUES (1, p_field, p_problem), (2, p_field_2, p_problem_2)) n (at, field, problem)
        WHERE n.field IS NOT NULL);
END $$;

-- Locks the clinic and finds what was answered before. One change of a clinic at a time.
CREATE FUNCTION clinic_begin_v1(p_clinic text, p_request uuid, p_hash bytea, OUT o_answer text, OUT o_shard int)
LANGUAGE plpgsql AS $$
DECLARE
    r record;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM 1 FROM shard s JOIN clinic c ON c.shard_id = s.shard_id WHERE c.clinic = p_clinic FOR KEY SHARE OF s;
    SELECT shard_id INTO o_shard FROM clinic WHERE clinic = p_clinic FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_v1('CLINIC_UNKNOWN');
    END IF;
    SELECT q.body_hash, q.answer INTO r FROM clinic_request q WHERE q.clinic = p_clinic AND q.request_id = p_request;
    IF FOUND THEN
        IF r.body_hash <> p_hash THEN
            PERFORM refuse_v1('REQUEST_ID_REUSED');
        END IF;
        o_answer := r.answer;
    END IF;
END $$;

-- Counts what is open.
CREATE FUNCTION clinic_restock_v1(p_clinic text, p_vaccine text) RETURNS stock LANGUAGE sql AS $$
    UPDATE stock SET opened = (
        SELECT coalesce(sum(CASE WHEN s.open THEN s.capacity ELSE s.booked END), 0)
        FROM slot s WHERE s.clinic = p_clinic AND s.vaccine = p_vaccine)
    WHERE clinic = p_clinic AND vaccine = p_vaccine
    RETURNING *
$$;

CREATE FUNCTION micros_v1(p_at timestamptz) RETURNS bigint LANGUAGE sql IMMUTABLE AS $$
    SELECT (extract(epoch FROM p_at) * 1000000)::bigint
$$;

-- What is told and recorded. `p_new` = slots that a dry run would have made, told as 0.
CREATE FUNCTION clinic_answer_v1(p_clinic text, p_vaccines text[], p_slots bigint[], p_short bigint, p_visit json,
    p_new bigint[] DEFAULT '{}'
) RETURNS text LANGUAGE sql AS $$
    SELECT json_build_object(
        'stock', (
            SELECT coalesce(json_agg(json_build_object('vaccine', t.vaccine, 'received', t.received, 'wasted', t.wasted,
                'walk_in', t.walk_in, 'opened', t.opened, 'given', t.given, 'walk_in_given', t.walk_in_given)
                ORDER BY t.vaccine), '[]')
            FROM stock t WHERE t.clinic = p_clinic AND t.vaccine = ANY (p_vaccines)),
        'slots', (
            SELECT coalesce(json_agg(json_build_object(
                'slot', CASE WHEN s.slot_id = ANY (p_new) THEN 0 ELSE s.slot_id END, 'starts_at', micros_v1(s.starts_at),
                'vaccine', s.vaccine, 'dose', s.dose, 'capacity', s.capacity, 'booked', s.booked, 'open', s.open)
                ORDER BY s.starts_at, s.slot_id), '[]')
            FROM slot s WHERE s.slot_id = ANY (p_slots)),
        'appointment', p_visit,
        'short', p_short)::text
$$;

CREATE FUNCTION clinic_record_v1(p_clinic text, p_request uuid, p_method text, p_hash bytea, p_answer text, p_lot text)
RETURNS void LANGUAGE sql AS $$
    INSERT INTO clinic_request (clinic, request_id, method, body_hash, answer, lot, at)
    VALUES (p_clinic, p_request, p_method, p_hash, p_answer, p_lot, clock_timestamp())
$$;

CREATE FUNCTION clinic_events_v1(p_kind text, p_slots bigint[]) RETURNS void LANGUAGE sql AS $$
    INSERT INTO event (at, kind, side, shard_id, slot_id)
    SELECT clock_timestamp(), p_kind, true, s.shard_id, s.slot_id FROM slot s WHERE s.slot_id = ANY (p_slots)
$$;

-- === Stock ===

CREATE FUNCTION clinic_stock_v1(
    p_clinic text, p_request uuid, p_hash bytea, p_method text, p_vaccine text, p_doses bigint, p_lot text, p_now timestamptz,
    OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
    t stock;
    before bigint;
    short bigint;
    changed bigint[] := '{}';
    r record;
    step bigint;
BEGIN
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    INSERT INTO stock (clinic, vaccine) VALUES (p_clinic, p_vaccine) ON CONFLICT DO NOTHING;
    SELECT * INTO t FROM stock WHERE clinic = p_clinic AND vaccine = p_vaccine FOR NO KEY UPDATE;
    before := t.walk_in;
    CASE p_method
        WHEN 'deliver_stock' THEN t.received := t.received + p_doses;
        WHEN 'record_wastage' THEN t.wasted := t.wasted + p_doses;
        WHEN 'set_walk_ins' THEN
            IF p_doses < t.walk_in_given THEN
                PERFORM refuse_v1('WALK_INS_EXCEEDED', 'doses', format('%s were given', t.walk_in_given));
            END IF;
            t.walk_in := p_doses;
        WHEN 'record_walk_in' THEN
            IF t.walk_in_given >= t.walk_in THEN
                PERFORM refuse_v1('WALK_INS_EXCEEDED', 'vaccine', format('%s are set aside', t.walk_in));
            END IF;
            t.walk_in_given := t.walk_in_given + 1;
            t.given := t.given + 1;
    END CASE;
    UPDATE stock SET received = t.received, wasted = t.wasted, walk_in = t.walk_in, given = t.given,
        walk_in_given = t.walk_in_given
    WHERE clinic = p_clinic AND vaccine = p_vaccine;
    IF p_method IN ('record_wastage', 'set_walk_ins') THEN
        -- All of them: one that is full may have a place again a moment later.
        PERFORM 1 FROM slot WHERE clinic = p_clinic AND vaccine = p_vaccine AND open ORDER BY slot_id FOR NO KEY UPDATE;
        t := clinic_restock_v1(p_clinic, p_vaccine);
    END IF;
    short := greatest(t.opened - (t.received - t.wasted - t.walk_in), 0);
    IF p_method = 'set_walk_ins' AND short > 0 AND p_doses > before THEN
        PERFORM refuse_v1('STOCK_EXCEEDED', 'doses', format('%s too many', short));
    END IF;
    IF p_method <> 'record_wastage' THEN
        short := 0;
    END IF;
    IF short > 0 THEN
        FOR r IN
            SELECT s.slot_id, s.capacity - s.booked AS free FROM slot s
            WHERE s.clinic = p_clinic AND s.vaccine = p_vaccine AND s.open AND s.booked < s.capacity
            ORDER BY s.starts_at > p_now, s.starts_at DESC, s.slot_id DESC
        LOOP
            EXIT WHEN short = 0;
            step := least(r.free, short);
            -- Emptied of free places it is closed, and keeps its size.
            UPDATE slot SET open = step < r.free, capacity = CASE WHEN step < r.free THEN capacity - step ELSE capacity END
            WHERE slot_id = r.slot_id;
            short := short - step;
            changed := changed || r.slot_id;
        END LOOP;
        PERFORM clinic_restock_v1(p_clinic, p_vaccine);
        PERFORM clinic_events_v1('SHORTFALL', changed);
        INSERT INTO event (at, kind, side, shard_id, slot_id, clinic, vaccine, doses)
        VALUES (clock_timestamp(), 'SHORTFALL', false, b.o_shard, 0, p_clinic, p_vaccine, short);
    END IF;
    o_answer := clinic_answer_v1(p_clinic, ARRAY[p_vaccine], changed, short, NULL);
    PERFORM clinic_record_v1(p_clinic, p_request, p_method, p_hash, o_answer, p_lot);
END $$;

-- === Slots ===

CREATE FUNCTION clinic_open_v1(
    p_clinic text, p_request uuid, p_hash bytea, p_vaccine text, p_dose int, p_starts timestamptz[], p_day int[], p_capacity int,
    p_now timestamptz, p_dry boolean,
    OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
    t stock;
    there bigint[];
    made bigint[];
    r record;
BEGIN
    -- Before the clinic is locked: an application makes days before it locks clinics, too.
    IF NOT p_dry THEN
        PERFORM ensure_day_v1(d.day) FROM (SELECT DISTINCT unnest(p_day) AS day) d ORDER BY d.day;
    END IF;
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    IF p_now >= (SELECT min(at) FROM unnest(p_starts) at) THEN
        PERFORM refuse_v1('IN_THE_PAST', 'days', 'the first slot would start in the past');
    END IF;
    INSERT INTO stock (clinic, vaccine) VALUES (p_clinic, p_vaccine) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM stock WHERE clinic = p_clinic AND vaccine = p_vaccine FOR NO KEY UPDATE;
    PERFORM 1 FROM slot WHERE clinic = p_clinic AND vaccine = p_vaccine AND dose = p_dose AND starts_at = ANY (p_starts)
    ORDER BY slot_id FOR NO KEY UPDATE;
    SELECT coalesce(array_agg(s.slot_id), '{}') AS ids, count(*) FILTER (WHERE s.open) AS open,
        count(*) FILTER (WHERE s.booked > p_capacity) AS below INTO r
    FROM slot s WHERE s.clinic = p_clinic AND s.vaccine = p_vaccine AND s.dose = p_dose AND s.starts_at = ANY (p_starts);
    IF r.open > 0 THEN
        PERFORM refuse_v1('SLOT_EXISTS', 'days', format('%s of the slots are open already', r.open));
    ELSIF r.below > 0 THEN
        PERFORM refuse_v1('BELOW_BOOKED', 'capacity', format('%s closed slots have more people', r.below));
    END IF;
    there := r.ids;
    UPDATE slot SET capacity = p_capacity, open = true WHERE slot_id = ANY (there);
    WITH added AS (
        INSERT INTO slot (shard_id, clinic, vaccine, dose, starts_at, day, capacity, open)
        SELECT b.o_shard, p_clinic, p_vaccine, p_dose, n.starts_at, n.day, p_capacity, true
        FROM unnest(p_starts, p_day) n (starts_at, day)
        ORDER BY n.starts_at
        ON CONFLICT (clinic, starts_at, vaccine, dose) DO NOTHING
        RETURNING slot_id)
    SELECT coalesce(array_agg(slot_id), '{}') INTO made FROM added;
    t := clinic_restock_v1(p_clinic, p_vaccine);
    IF t.opened > t.received - t.wasted - t.walk_in THEN
        PERFORM refuse_v1('STOCK_EXCEEDED', 'capacity',
            format('%s doses too many', t.opened - (t.received - t.wasted - t.walk_in)));
    END IF;
    IF p_dry THEN
        RAISE EXCEPTION 'dry run' USING ERRCODE = 'DS003',
            DETAIL = clinic_answer_v1(p_clinic, ARRAY[p_vaccine], there || made, 0, NULL, made);
    END IF;
    o_answer := clinic_answer_v1(p_clinic, ARRAY[p_vaccine], there || made, 0, NULL);
    PERFORM clinic_events_v1('SUPPLY', there || made);
    PERFORM clinic_record_v1(p_clinic, p_request, 'open_slots', p_hash, o_answer, NULL);
END $$;

CREATE FUNCTION clinic_resize_v1(
    p_clinic text, p_request uuid, p_hash bytea, p_slot bigint, p_capacity int, p_now timestamptz,
    OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
    s slot;
    t stock;
BEGIN
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    -- A slot never changes its vaccine, so its stock is known before the slot is locked.
    PERFORM 1 FROM stock k JOIN slot x ON x.clinic = k.clinic AND x.vaccine = k.vaccine
    WHERE x.slot_id = p_slot AND x.clinic = p_clinic FOR NO KEY UPDATE OF k;
    SELECT * INTO s FROM slot x WHERE x.slot_id = p_slot AND x.clinic = p_clinic FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_v1('SLOT_UNKNOWN');
    ELSIF s.starts_at <= p_now THEN
        PERFORM refuse_v1('IN_THE_PAST', 'slot', 'the slot has begun');
    ELSIF s.booked > p_capacity THEN
        PERFORM refuse_v1('BELOW_BOOKED', 'capacity', format('%s people are booked', s.booked), 'booking_codes',
            (SELECT coalesce(string_agg(c.code, ', ' ORDER BY c.code), '') FROM (
                SELECT k.code FROM booking k WHERE k.day = s.day AND k.slot_id = p_slot AND k.state <> 'CANCELLED'
                ORDER BY k.code LIMIT 200) c));
    END IF;
    UPDATE slot SET capacity = p_capacity WHERE slot_id = p_slot;
    t := clinic_restock_v1(p_clinic, s.vaccine);
    IF p_capacity > s.capacity AND t.opened > t.received - t.wasted - t.walk_in THEN
        PERFORM refuse_v1('STOCK_EXCEEDED', 'capacity',
            format('%s doses too many', t.opened - (t.received - t.wasted - t.walk_in)));
    END IF;
    o_answer := clinic_answer_v1(p_clinic, ARRAY[s.vaccine], ARRAY[p_slot], 0, NULL);
    PERFORM clinic_events_v1('SUPPLY', ARRAY[p_slot]);
    PERFORM clinic_record_v1(p_clinic, p_request, 'resize_slot', p_hash, o_answer, NULL);
END $$;

CREATE FUNCTION clinic_close_v1(p_clinic text, p_request uuid, p_hash bytea, p_slots bigint[],
    OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
    vaccines text[];
    changed bigint[];
BEGIN
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    IF EXISTS (SELECT FROM unnest(p_slots) w (slot_id)
        WHERE NOT EXISTS (SELECT FROM slot s WHERE s.slot_id = w.slot_id AND s.clinic = p_clinic)) THEN
        PERFORM refuse_v1('SLOT_UNKNOWN');
    END IF;
    SELECT array_agg(DISTINCT s.vaccine ORDER BY s.vaccine) INTO vaccines FROM slot s WHERE s.slot_id = ANY (p_slots);
    PERFORM 1 FROM stock WHERE clinic = p_clinic AND vaccine = ANY (vaccines) ORDER BY vaccine FOR NO KEY UPDATE;
    PERFORM 1 FROM slot WHERE slot_id = ANY (p_slots) ORDER BY slot_id FOR NO KEY UPDATE;
    WITH closed AS (UPDATE slot SET open = false WHERE slot_id = ANY (p_slots) AND open RETURNING slot_id)
    SELECT coalesce(array_agg(slot_id), '{}') INTO changed FROM closed;
    PERFORM clinic_restock_v1(p_clinic, v) FROM unnest(vaccines) v;
    o_answer := clinic_answer_v1(p_clinic, vaccines, p_slots, 0, NULL);
    PERFORM clinic_events_v1('SUPPLY', changed);
    PERFORM clinic_record_v1(p_clinic, p_request, 'close_slots', p_hash, o_answer, NULL);
END $$;

-- === Visits ===

-- Which appointment is meant was decided from a read before: `p_seen` is what had become of it then. o_changed = it is
-- something else by now, and nothing was written.
CREATE FUNCTION clinic_visit_v1(
    p_clinic text, p_request uuid, p_hash bytea, p_method text, p_slot bigint, p_booking uuid, p_seen text, p_after text,
    p_lot text,
    OUT o_answer text, OUT o_repeated boolean, OUT o_changed boolean
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
    s slot;
    k record;
    vaccines text[] := '{}';
BEGIN
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    o_changed := false;
    IF o_repeated THEN
        RETURN;
    END IF;
    SELECT * INTO s FROM slot x WHERE x.slot_id = p_slot AND x.clinic = p_clinic;
    IF p_after = 'GIVEN' THEN
        PERFORM 1 FROM stock WHERE clinic = p_clinic AND vaccine = s.vaccine FOR NO KEY UPDATE;
    END IF;
    -- Held against cancellations and moves, which lock the same row before they look at the visit.
    SELECT x.code, x.state INTO k FROM booking x
    WHERE x.day = s.day AND x.slot_id = p_slot AND x.booking = p_booking FOR NO KEY UPDATE;
    IF k.state IS DISTINCT FROM 'BOOKED'
        OR coalesce((SELECT v.state FROM visit v WHERE v.slot_id = p_slot AND v.booking = p_booking), 'BOOKED') <> p_seen THEN
        o_changed := true;
        RETURN;
    END IF;
    INSERT INTO visit (slot_id, booking, state, lot, at) VALUES (p_slot, p_booking, p_after, p_lot, clock_timestamp())
    ON CONFLICT (slot_id, booking) DO UPDATE SET state = EXCLUDED.state, lot = EXCLUDED.lot, at = EXCLUDED.at;
    IF p_after = 'GIVEN' THEN
        UPDATE stock SET given = given + 1 WHERE clinic = p_clinic AND vaccine = s.vaccine;
        vaccines := ARRAY[s.vaccine];
    END IF;
    o_answer := clinic_answer_v1(p_clinic, vaccines, '{}', 0, json_build_object('code', k.code,
        'starts_at', micros_v1(s.starts_at), 'vaccine', s.vaccine, 'dose', s.dose, 'state', p_after));
    PERFORM clinic_record_v1(p_clinic, p_request, p_method, p_hash, o_answer, p_lot);
END $$;

-- Two makers of one day, an application and a terminal, come one after the other.
CREATE OR REPLACE FUNCTION ensure_day_v1(p_day int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'booking_' || replace(p_day::text, '-', 'm');
BEGIN
    IF to_regclass(name) IS NULL THEN
        -- What attaching takes anyway; it lets nobody who books wait.
        LOCK TABLE booking IN SHARE UPDATE EXCLUSIVE MODE;
    END IF;
    IF to_regclass(name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE booking INCLUDING ALL, CHECK (day = %s)) WITH (fillfactor = 60)', name, p_day);
        EXECUTE format('ALTER TABLE booking ATTACH PARTITION %I FOR VALUES IN (%s)', name, p_day);
    END IF;
END $$;

-- Who has come, or had the dose, has no appointment to give up. The booking rows are locked before the visits are read.
CREATE FUNCTION begun_v1(p_slots bigint[], p_booking uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN
    PERFORM 1 FROM slot s JOIN booking b ON b.day = s.day AND b.slot_id = s.slot_id AND b.booking = p_booking
    WHERE s.slot_id = ANY (p_slots) ORDER BY s.slot_id FOR NO KEY UPDATE OF b;
    RETURN EXISTS (SELECT FROM visit v
        WHERE v.slot_id = ANY (p_slots) AND v.booking = p_booking AND v.state IN ('CHECKED_IN', 'GIVEN'));
END $$;

CREATE OR REPLACE FUNCTION move_v1(
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
    IF begun_v1(ARRAY[old.slot_id], p_booking) THEN
        o_refusal := 'APPOINTMENT_BEGUN';
        RETURN;
    END IF;
    IF new.slot_id IS NULL THEN
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

CREATE OR REPLACE FUNCTION cancel_v1(
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
    PERFORM 1 FROM slot WHERE slot_id = ANY (given) ORDER BY slot_id FOR NO KEY UPDATE;
    IF begun_v1(given, p_booking) THEN
        o_refusal := 'APPOINTMENT_BEGUN';
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
