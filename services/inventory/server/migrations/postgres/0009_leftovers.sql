-- Doses left at the end of a day: who asked to be called, rounds in which doses are offered, places of a drawn order.
--
-- Lock order: a person's advisory lock, shard, clinic, claims, round, stock, slots, booking rows. Places belong to whoever
-- holds their round. A round's doses are among those that its stock has set aside (`walk_in`), and counted in `leftover`.

ALTER TABLE stock ADD COLUMN leftover bigint NOT NULL DEFAULT 0 CHECK (leftover >= 0);

CREATE TABLE leftover_wish (
    campaign  text COLLATE "C" NOT NULL,
    person    bytea NOT NULL,
    ticket    bytea NOT NULL,
    wish      text NOT NULL,
    joined_at timestamptz NOT NULL,
    PRIMARY KEY (person, campaign)
);

CREATE INDEX leftover_wish_joined ON leftover_wish (campaign, joined_at, person);

CREATE TABLE leftover_round (
    round       bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    clinic      text COLLATE "C" NOT NULL REFERENCES clinic (clinic),
    campaign    text COLLATE "C" NOT NULL,
    vaccine     text COLLATE "C" NOT NULL,
    slot_id     bigint NOT NULL,
    doses       int NOT NULL CHECK (doses > 0),
    accepted    int NOT NULL DEFAULT 0,
    state       text NOT NULL CHECK (state IN ('ANNOUNCED', 'DRAWN', 'CLOSED')),
    seed        bytea NOT NULL,
    commitment  bytea NOT NULL,
    list_root   bytea,
    candidates  int NOT NULL DEFAULT 0,
    from_minute int NOT NULL,
    to_minute   int NOT NULL,
    answer_ms   bigint NOT NULL CHECK (answer_ms > 0),
    offered_at  timestamptz NOT NULL,
    draws_at    timestamptz NOT NULL,
    closes_at   timestamptz NOT NULL,
    CONSTRAINT leftovers_never_given_twice CHECK (accepted BETWEEN 0 AND doses)
);

CREATE INDEX leftover_round_clinic ON leftover_round (clinic, round);
CREATE INDEX leftover_round_open ON leftover_round (round) WHERE state <> 'CLOSED';

CREATE TABLE leftover_place (
    round      bigint NOT NULL,
    rank       int NOT NULL,
    campaign   text COLLATE "C" NOT NULL,
    person     bytea NOT NULL,
    ticket     bytea NOT NULL,
    state      text NOT NULL CHECK (state IN
        ('WAITING', 'OFFERED', 'ACCEPTED', 'DECLINED', 'EXPIRED', 'LEFT', 'PASSED')),
    offered_at timestamptz,
    deadline   timestamptz,
    ended_at   timestamptz,
    PRIMARY KEY (round, rank),
    UNIQUE (person, campaign, round)
);

CREATE INDEX leftover_place_live ON leftover_place (round, state, rank) WHERE state IN ('WAITING', 'OFFERED');

-- Every change of a person, under the id its device gave it. An accepted offer stands in `request` too.
CREATE TABLE leftover_request (
    campaign   text COLLATE "C" NOT NULL,
    person     bytea NOT NULL,
    request_id uuid NOT NULL,
    method     text NOT NULL,
    body_hash  bytea NOT NULL,
    answer     text NOT NULL,
    at         timestamptz NOT NULL,
    PRIMARY KEY (person, request_id, campaign)
);

-- Whatever else a terminal does with doses that are set aside: those promised stay.
CREATE FUNCTION stock_keeps_leftovers_v1() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF NEW.walk_in - NEW.walk_in_given < NEW.leftover THEN
        PERFORM refuse_v1('WALK_INS_EXCEEDED', 'vaccine', format('%s are promised as leftovers', NEW.leftover));
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER stock_keeps_leftovers BEFORE UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION stock_keeps_leftovers_v1();

-- A round as everybody may see it: no seed before the draw.
CREATE FUNCTION leftover_round_v1(r leftover_round) RETURNS jsonb LANGUAGE sql STABLE AS $$
    SELECT jsonb_build_object('round', r.round, 'clinic', r.clinic, 'campaign', r.campaign, 'vaccine', r.vaccine,
        'doses', r.doses, 'accepted', r.accepted, 'state', r.state, 'commitment', encode(r.commitment, 'hex'),
        'seed', CASE WHEN r.list_root IS NOT NULL THEN encode(r.seed, 'hex') END, 'list_root', encode(r.list_root, 'hex'),
        'candidates', r.candidates, 'offered_at', micros_v1(r.offered_at), 'draws_at', micros_v1(r.draws_at),
        'closes_at', micros_v1(r.closes_at))
$$;

CREATE FUNCTION leftover_answer_of_v1(p_round bigint) RETURNS text LANGUAGE sql STABLE AS $$
    SELECT (clinic_answer_v1(r.clinic, ARRAY[r.vaccine], '{}', 0, NULL)::jsonb
        || jsonb_build_object('round', leftover_round_v1(r)))::text
    FROM leftover_round r WHERE r.round = p_round
$$;

-- === Clinics ===

-- Ends appointments of people who did not come, at most p_limit, and gives their doses back. Their claims are locked.
-- Recorded as a cancellation under an id made of the clinic's own, because every change of a claim is recorded.
CREATE FUNCTION leftover_free_no_shows_v1(p_clinic text, p_vaccine text, p_request uuid, p_hash bytea, p_limit bigint,
    p_now timestamptz
) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    k record;
    c claim;
    kept bigint;
    n bigint := 0;
BEGIN
    FOR k IN
        SELECT b.booking, b.slot_id, b.day, b.campaign, b.person, s.shard_id
        FROM slot s JOIN booking b ON b.day = s.day AND b.slot_id = s.slot_id AND b.state = 'BOOKED'
        JOIN visit v ON v.slot_id = b.slot_id AND v.booking = b.booking AND v.state = 'NO_SHOW'
        WHERE s.clinic = p_clinic AND s.vaccine = p_vaccine AND s.starts_at <= p_now
        ORDER BY s.starts_at, s.slot_id, b.booking
    LOOP
        EXIT WHEN n >= p_limit;
        SELECT * INTO c FROM claim WHERE campaign = k.campaign AND person = k.person;
        CONTINUE WHEN c.state <> 'BOOKED' OR c.booking <> k.booking;
        PERFORM 1 FROM slot WHERE slot_id = k.slot_id FOR NO KEY UPDATE;
        UPDATE booking SET state = 'CANCELLED'
        WHERE day = k.day AND slot_id = k.slot_id AND booking = k.booking AND state = 'BOOKED';
        CONTINUE WHEN NOT FOUND;
        UPDATE slot SET booked = booked - 1 WHERE slot_id = k.slot_id;
        kept := CASE WHEN c.first_slot = k.slot_id THEN c.second_slot ELSE c.first_slot END;
        UPDATE claim SET version = version + 1, state = CASE WHEN kept IS NULL THEN 'FREE' ELSE 'BOOKED' END,
            booking = CASE WHEN kept IS NOT NULL THEN k.booking END, first_slot = kept, second_slot = NULL
        WHERE campaign = k.campaign AND person = k.person;
        INSERT INTO request (campaign, person, request_id, method, body_hash, verdict, booking, first_slot, version_after,
            shard_id, epoch, batch_seq)
        VALUES (k.campaign, k.person,
            encode(substr(sha256(uuid_send(p_request) || uuid_send(k.booking) || int8send(k.slot_id)), 1, 16), 'hex')::uuid,
            'offer_leftovers', p_hash, 'CANCELLED', k.booking, coalesce(kept, k.slot_id), c.version + 1, k.shard_id, 0, 0);
        INSERT INTO event (at, kind, side, shard_id, slot_id, campaign, person, booking, version)
        VALUES (p_now, 'CANCELLED', true, k.shard_id, k.slot_id, k.campaign, k.person, k.booking, c.version + 1);
        n := n + 1;
    END LOOP;
    RETURN n;
END $$;

CREATE FUNCTION leftover_offer_v1(
    p_clinic text, p_request uuid, p_hash bytea, p_campaign text, p_vaccine text, p_doses int, p_seed bytea,
    p_notice_ms bigint, p_answer_ms bigint, p_closes timestamptz, p_day int, p_from int, p_to int,
    OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
    now_ timestamptz;
    t stock;
    free bigint;
    changed bigint[];
    added bigint;
    id bigint;
BEGIN
    -- Before the clinic is locked: an application makes days before it locks clinics, too.
    PERFORM ensure_day_v1(p_day);
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    now_ := clock_timestamp();
    -- Claims come before stock: all of those who did not come, though not all of their doses may be needed.
    PERFORM 1 FROM claim c WHERE (c.campaign, c.person) IN (
        SELECT k.campaign, k.person FROM slot s JOIN booking k ON k.day = s.day AND k.slot_id = s.slot_id
        JOIN visit v ON v.slot_id = k.slot_id AND v.booking = k.booking AND v.state = 'NO_SHOW'
        WHERE s.clinic = p_clinic AND s.vaccine = p_vaccine AND s.starts_at <= now_ AND k.state = 'BOOKED')
    ORDER BY c.campaign, c.person FOR NO KEY UPDATE;
    IF p_to <= p_from THEN
        PERFORM refuse_v1('INVALID_REQUEST', 'close_time', 'must be later today at the clinic');
    ELSIF p_closes <= now_ + p_notice_ms * interval '1 millisecond' THEN
        PERFORM refuse_v1('IN_THE_PAST', 'close_time', 'must be after the draw');
    END IF;
    INSERT INTO stock (clinic, vaccine) VALUES (p_clinic, p_vaccine) ON CONFLICT DO NOTHING;
    PERFORM 1 FROM stock WHERE clinic = p_clinic AND vaccine = p_vaccine FOR NO KEY UPDATE;
    PERFORM 1 FROM slot WHERE clinic = p_clinic AND vaccine = p_vaccine AND open ORDER BY slot_id FOR NO KEY UPDATE;
    t := clinic_restock_v1(p_clinic, p_vaccine);
    free := t.received - t.wasted - t.walk_in - t.opened;
    IF free < p_doses THEN
        -- Nobody books a slot that has begun: its places are left over.
        WITH closed AS (
            UPDATE slot SET open = false
            WHERE clinic = p_clinic AND vaccine = p_vaccine AND open AND starts_at <= now_
            RETURNING slot_id)
        SELECT coalesce(array_agg(slot_id), '{}') INTO changed FROM closed;
        PERFORM clinic_events_v1('SUPPLY', changed);
        t := clinic_restock_v1(p_clinic, p_vaccine);
        free := t.received - t.wasted - t.walk_in - t.opened;
    END IF;
    IF free < p_doses THEN
        PERFORM leftover_free_no_shows_v1(p_clinic, p_vaccine, p_request, p_hash, p_doses - free, now_);
        t := clinic_restock_v1(p_clinic, p_vaccine);
        free := t.received - t.wasted - t.walk_in - t.opened;
    END IF;
    IF free < p_doses THEN
        PERFORM refuse_v1('STOCK_EXCEEDED', 'doses', format('%s doses are left', greatest(free, 0)));
    END IF;
    UPDATE stock SET walk_in = walk_in + p_doses, leftover = leftover + p_doses
    WHERE clinic = p_clinic AND vaccine = p_vaccine;
    -- Closed, and begun: nobody gets in by any other way than an offer.
    INSERT INTO slot (shard_id, clinic, vaccine, dose, starts_at, day, capacity, open)
    VALUES (b.o_shard, p_clinic, p_vaccine, 1, now_, p_day, p_doses, false) RETURNING slot_id INTO added;
    PERFORM clinic_events_v1('SUPPLY', ARRAY[added]);
    INSERT INTO leftover_round (clinic, campaign, vaccine, slot_id, doses, state, seed, commitment, from_minute, to_minute,
        answer_ms, offered_at, draws_at, closes_at)
    VALUES (p_clinic, p_campaign, p_vaccine, added, p_doses, 'ANNOUNCED', p_seed, sha256(p_seed), p_from, p_to, p_answer_ms,
        now_, now_ + p_notice_ms * interval '1 millisecond', p_closes)
    RETURNING round INTO id;
    o_answer := leftover_answer_of_v1(id);
    PERFORM clinic_record_v1(p_clinic, p_request, 'offer_leftovers', p_hash, o_answer, NULL);
END $$;

-- Ends a round that the caller has locked: what nobody accepted is the clinic's again.
CREATE FUNCTION leftover_end_v1(r leftover_round, p_now timestamptz) RETURNS bigint LANGUAGE plpgsql AS $$
DECLARE
    n bigint;
BEGIN
    UPDATE leftover_place SET state = 'EXPIRED', deadline = least(deadline, p_now), ended_at = p_now
    WHERE round = r.round AND state = 'OFFERED';
    GET DIAGNOSTICS n = ROW_COUNT;
    UPDATE leftover_round SET state = 'CLOSED', closes_at = least(closes_at, p_now) WHERE round = r.round;
    UPDATE stock SET walk_in = walk_in - (r.doses - r.accepted), leftover = leftover - (r.doses - r.accepted)
    WHERE clinic = r.clinic AND vaccine = r.vaccine;
    RETURN n;
END $$;

CREATE FUNCTION leftover_close_v1(p_clinic text, p_request uuid, p_hash bytea, p_round bigint,
    OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
    r leftover_round;
BEGIN
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    SELECT * INTO r FROM leftover_round x WHERE x.round = p_round AND x.clinic = p_clinic FOR NO KEY UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_v1('LEFTOVERS_UNKNOWN');
    ELSIF r.state = 'CLOSED' THEN
        PERFORM refuse_v1('LEFTOVERS_CLOSED');
    END IF;
    PERFORM leftover_end_v1(r, clock_timestamp());
    o_answer := leftover_answer_of_v1(p_round);
    PERFORM clinic_record_v1(p_clinic, p_request, 'close_leftovers', p_hash, o_answer, NULL);
END $$;

-- === The draw, and passing on ===

-- Fixes list, order and seed of a round, once.
CREATE FUNCTION leftover_draw_v1(p_round bigint, p_root bytea, p_person bytea[], p_ticket bytea[]) RETURNS boolean
LANGUAGE plpgsql AS $$
DECLARE
    r leftover_round;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    SELECT * INTO r FROM leftover_round x WHERE x.round = p_round FOR NO KEY UPDATE;
    IF NOT FOUND OR r.state <> 'ANNOUNCED' THEN
        RETURN false;
    END IF;
    INSERT INTO leftover_place (round, rank, campaign, person, ticket, state)
    SELECT p_round, n.rank, r.campaign, n.person, n.ticket, 'WAITING'
    FROM unnest(p_person, p_ticket) WITH ORDINALITY n (person, ticket, rank);
    UPDATE leftover_round SET state = 'DRAWN', list_root = p_root, candidates = cardinality(p_person) WHERE round = p_round;
    RETURN true;
END $$;

-- Ends what is over and offers what is free to those whose turn it is. A place counts for as long as the person's wish
-- from before the draw does.
CREATE FUNCTION leftover_pass_on_v1(p_round bigint,
    OUT o_offered bigint, OUT o_expired bigint, OUT o_left bigint, OUT o_passed bigint, OUT o_closed bigint
) LANGUAGE plpgsql AS $$
DECLARE
    r leftover_round;
    p record;
    now_ timestamptz;
    free bigint;
    n bigint;
    claimed text;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    o_offered := 0; o_expired := 0; o_left := 0; o_passed := 0; o_closed := 0;
    SELECT * INTO r FROM leftover_round x WHERE x.round = p_round FOR NO KEY UPDATE;
    IF NOT FOUND OR r.state = 'CLOSED' THEN
        RETURN;
    END IF;
    now_ := clock_timestamp();
    UPDATE leftover_place SET state = 'EXPIRED', ended_at = now_
    WHERE round = p_round AND state = 'OFFERED' AND deadline <= now_;
    GET DIAGNOSTICS o_expired = ROW_COUNT;
    IF r.closes_at <= now_ THEN
        n := leftover_end_v1(r, now_);
        o_expired := o_expired + n;
        o_closed := 1;
        RETURN;
    ELSIF r.state = 'ANNOUNCED' THEN
        RETURN;
    END IF;
    UPDATE leftover_place x SET state = 'LEFT', ended_at = now_
    WHERE x.round = p_round AND x.state = 'OFFERED' AND NOT EXISTS (
        SELECT FROM leftover_wish w WHERE w.person = x.person AND w.campaign = x.campaign AND w.joined_at < r.draws_at);
    GET DIAGNOSTICS o_left = ROW_COUNT;
    free := r.doses - r.accepted - (SELECT count(*) FROM leftover_place x WHERE x.round = p_round AND x.state = 'OFFERED');
    IF free <= 0 THEN
        RETURN;
    END IF;
    FOR p IN SELECT x.rank, x.person FROM leftover_place x WHERE x.round = p_round AND x.state = 'WAITING' ORDER BY x.rank LOOP
        EXIT WHEN free = 0;
        claimed := (SELECT c.state FROM claim c WHERE c.campaign = r.campaign AND c.person = p.person);
        IF NOT EXISTS (SELECT FROM leftover_wish w
            WHERE w.person = p.person AND w.campaign = r.campaign AND w.joined_at < r.draws_at) THEN
            UPDATE leftover_place SET state = 'LEFT', ended_at = now_ WHERE round = p_round AND rank = p.rank;
        ELSIF claimed IN ('BOOKED', 'SURRENDERED') THEN
            UPDATE leftover_place SET state = 'PASSED', ended_at = now_ WHERE round = p_round AND rank = p.rank;
            o_passed := o_passed + 1;
        ELSE
            UPDATE leftover_place SET state = 'OFFERED', offered_at = now_,
                deadline = least(now_ + r.answer_ms * interval '1 millisecond', r.closes_at)
            WHERE round = p_round AND rank = p.rank;
            o_offered := o_offered + 1;
            free := free - 1;
        END IF;
    END LOOP;
END $$;

-- === People ===

-- One change of a person at a time; finds what was answered before.
CREATE FUNCTION leftover_begin_v1(p_campaign text, p_person bytea, p_request uuid, p_hash bytea, p_serial bigint) RETURNS text
LANGUAGE plpgsql AS $$
DECLARE
    q record;
    c record;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(hashtextextended(p_campaign || encode(p_person, 'hex'), 9));
    SELECT x.body_hash, x.answer INTO q FROM leftover_request x
    WHERE x.person = p_person AND x.request_id = p_request AND x.campaign = p_campaign;
    IF FOUND THEN
        IF q.body_hash <> p_hash THEN
            PERFORM refuse_v1('REQUEST_ID_REUSED');
        END IF;
        RETURN q.answer;
    END IF;
    IF EXISTS (SELECT FROM request x
        WHERE x.person = p_person AND x.request_id = p_request AND x.campaign = p_campaign) THEN
        PERFORM refuse_v1('REQUEST_ID_REUSED');
    END IF;
    SELECT x.serial, x.state INTO c FROM claim x WHERE x.person = p_person AND x.campaign = p_campaign;
    IF p_serial < c.serial OR (c.state = 'SURRENDERED' AND p_serial = c.serial) THEN
        PERFORM refuse_v1('PERMIT_SUPERSEDED');
    END IF;
    RETURN NULL;
END $$;

CREATE FUNCTION leftover_record_v1(p_campaign text, p_person bytea, p_request uuid, p_method text, p_hash bytea, p_accepted jsonb)
RETURNS text LANGUAGE sql AS $$
    INSERT INTO leftover_request (campaign, person, request_id, method, body_hash, answer, at)
    VALUES (p_campaign, p_person, p_request, p_method, p_hash, jsonb_build_object('accepted', p_accepted)::text,
        clock_timestamp())
    RETURNING answer
$$;

CREATE FUNCTION leftover_join_v1(p_campaign text, p_person bytea, p_request uuid, p_hash bytea, p_serial bigint,
    p_ticket bytea, p_wish text, OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
BEGIN
    o_answer := leftover_begin_v1(p_campaign, p_person, p_request, p_hash, p_serial);
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    INSERT INTO leftover_wish (campaign, person, ticket, wish, joined_at)
    VALUES (p_campaign, p_person, p_ticket, p_wish, clock_timestamp())
    ON CONFLICT (person, campaign) DO UPDATE SET wish = EXCLUDED.wish;
    o_answer := leftover_record_v1(p_campaign, p_person, p_request, 'join_leftovers', p_hash, NULL);
END $$;

CREATE FUNCTION leftover_leave_v1(p_campaign text, p_person bytea, p_request uuid, p_hash bytea, p_serial bigint,
    OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
BEGIN
    o_answer := leftover_begin_v1(p_campaign, p_person, p_request, p_hash, p_serial);
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    DELETE FROM leftover_wish WHERE campaign = p_campaign AND person = p_person;
    IF NOT FOUND THEN
        PERFORM refuse_v1('LEFTOVERS_NOT_JOINED');
    END IF;
    o_answer := leftover_record_v1(p_campaign, p_person, p_request, 'leave_leftovers', p_hash, NULL);
END $$;

CREATE FUNCTION leftover_answer_v1(p_campaign text, p_person bytea, p_request uuid, p_hash bytea, p_serial bigint,
    p_clinic text, p_round bigint, p_accept boolean, p_booking uuid, p_code text,
    OUT o_answer text, OUT o_repeated boolean
) LANGUAGE plpgsql AS $$
DECLARE
    now_ timestamptz;
    c claim;
    r leftover_round;
    p leftover_place;
    t stock;
    s slot;
    why text;
BEGIN
    o_answer := leftover_begin_v1(p_campaign, p_person, p_request, p_hash, p_serial);
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    IF p_accept THEN
        INSERT INTO claim (campaign, person, serial, state, version) VALUES (p_campaign, p_person, p_serial, 'FREE', 0)
        ON CONFLICT (campaign, person) DO NOTHING;
        SELECT * INTO c FROM claim x WHERE x.campaign = p_campaign AND x.person = p_person FOR NO KEY UPDATE;
    END IF;
    SELECT * INTO r FROM leftover_round x
    WHERE x.round = p_round AND x.clinic = p_clinic AND x.campaign = p_campaign FOR NO KEY UPDATE;
    now_ := clock_timestamp();
    SELECT * INTO p FROM leftover_place x WHERE x.person = p_person AND x.campaign = p_campaign AND x.round = p_round;
    why := CASE
        WHEN r.round IS NULL THEN 'LEFTOVERS_UNKNOWN'
        WHEN p.offered_at IS NULL THEN 'OFFER_UNKNOWN'
        WHEN p.state IN ('ACCEPTED', 'DECLINED') THEN 'OFFER_ANSWERED'
        WHEN p.state <> 'OFFERED' OR p.deadline <= now_ THEN 'OFFER_EXPIRED'
        WHEN NOT EXISTS (SELECT FROM leftover_wish w
            WHERE w.person = p_person AND w.campaign = p_campaign AND w.joined_at < r.draws_at) THEN 'LEFTOVERS_NOT_JOINED'
        WHEN NOT p_accept THEN NULL
        WHEN p_serial < c.serial OR (c.state = 'SURRENDERED' AND p_serial = c.serial) THEN 'PERMIT_SUPERSEDED'
        WHEN c.state = 'BOOKED' THEN 'ALREADY_BOOKED'
        WHEN c.state = 'HELD' AND c.hold_until > now_ THEN 'ALREADY_HELD'
        WHEN r.accepted >= r.doses THEN 'LEFTOVERS_GONE'
    END;
    IF why IS NOT NULL THEN
        PERFORM refuse_v1(why);
    END IF;
    UPDATE leftover_place SET state = CASE WHEN p_accept THEN 'ACCEPTED' ELSE 'DECLINED' END, ended_at = now_
    WHERE round = p_round AND rank = p.rank;
    IF NOT p_accept THEN
        o_answer := leftover_record_v1(p_campaign, p_person, p_request, 'answer_leftover_offer', p_hash, NULL);
        RETURN;
    END IF;
    UPDATE leftover_round SET accepted = accepted + 1 WHERE round = p_round;
    DELETE FROM leftover_wish WHERE campaign = p_campaign AND person = p_person;
    IF c.state = 'HELD' THEN
        PERFORM expire_v1(NULL, ARRAY[p_campaign], ARRAY[p_person], now_);
    END IF;
    UPDATE claim SET serial = p_serial, state = 'BOOKED', version = version + 1, hold_until = NULL, hold_shard = NULL,
        booking = p_booking, first_slot = r.slot_id, second_slot = NULL
    WHERE campaign = p_campaign AND person = p_person;
    PERFORM 1 FROM stock WHERE clinic = r.clinic AND vaccine = r.vaccine FOR NO KEY UPDATE;
    UPDATE slot SET booked = booked + 1 WHERE slot_id = r.slot_id RETURNING * INTO s;
    UPDATE stock SET walk_in = walk_in - 1, leftover = leftover - 1 WHERE clinic = r.clinic AND vaccine = r.vaccine;
    t := clinic_restock_v1(r.clinic, r.vaccine);
    -- Doses that spoiled since they were offered.
    IF t.opened + t.walk_in > t.received - t.wasted THEN
        PERFORM refuse_v1('LEFTOVERS_GONE');
    END IF;
    INSERT INTO booking (booking, slot_id, day, dose, state, code, campaign, person)
    VALUES (p_booking, s.slot_id, s.day, s.dose, 'BOOKED', p_code, p_campaign, p_person);
    INSERT INTO request (campaign, person, request_id, method, body_hash, verdict, booking, first_slot, version_after, shard_id,
        epoch, batch_seq)
    VALUES (p_campaign, p_person, p_request, 'answer_leftover_offer', p_hash, 'BOOKED', p_booking, s.slot_id, c.version + 1,
        s.shard_id, 0, 0);
    INSERT INTO event (at, kind, side, shard_id, slot_id, campaign, person, booking, version)
    VALUES (now_, 'BOOKED', true, s.shard_id, s.slot_id, p_campaign, p_person, p_booking, c.version + 1);
    o_answer := leftover_record_v1(p_campaign, p_person, p_request, 'answer_leftover_offer', p_hash,
        jsonb_build_object('booking', p_booking, 'slot', s.slot_id, 'version', c.version + 1));
END $$;
