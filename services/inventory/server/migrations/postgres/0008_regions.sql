-- People who leave for another region. What becomes of one serial of a person is decided once, under the lock of their
-- claim: a row here says that they left with it, and a claim of a higher serial without such a row that they stayed.

CREATE TABLE surrender (
    campaign  text COLLATE "C" NOT NULL,
    person    bytea NOT NULL,
    serial    bigint NOT NULL CHECK (serial >= 1),
    to_region text COLLATE "C" NOT NULL,
    gave_up   text NOT NULL CHECK (gave_up IN ('NOTHING', 'HOLD', 'BOOKING')),
    at        timestamptz NOT NULL,
    PRIMARY KEY (person, campaign, serial)
);

-- Bars the serial and every lower one for ever. A claim that was never there is made: it is what a late request of the
-- old permit finds. The claim keeps its version, which counts requests.
-- o_refusal and o_to both null = the person had stayed.
CREATE FUNCTION surrender_v1(
    p_campaign text, p_person bytea, p_serial bigint, p_to text, p_give_up boolean,
    OUT o_refusal text, OUT o_to text,
    OUT o_slot bigint[], OUT o_capacity int[], OUT o_booked int[], OUT o_open boolean[]
) LANGUAGE plpgsql AS $$
DECLARE
    at timestamptz := clock_timestamp();
    c claim;
    given bigint[];
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    INSERT INTO claim (campaign, person, serial, state, version)
    VALUES (p_campaign, p_person, p_serial, 'FREE', 0) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT c FROM claim WHERE campaign = p_campaign AND person = p_person FOR NO KEY UPDATE;
    -- A statement after the lock: it sees what was committed while we waited for it.
    SELECT s.to_region INTO o_to FROM surrender s
    WHERE s.person = p_person AND s.campaign = p_campaign AND s.serial = p_serial;
    IF FOUND OR c.serial > p_serial THEN
        RETURN;
    END IF;
    SELECT array_agg(s.slot_id ORDER BY s.slot_id) INTO given
    FROM slot s WHERE s.slot_id IN (c.first_slot, c.second_slot);
    IF given IS NOT NULL THEN
        PERFORM 1 FROM slot s WHERE s.slot_id = ANY (given) ORDER BY s.slot_id FOR NO KEY UPDATE;
        IF c.state = 'BOOKED' THEN
            IF begun_v1(given, c.booking) THEN
                o_refusal := 'APPOINTMENT_BEGUN';
                RETURN;
            ELSIF NOT p_give_up THEN
                o_refusal := 'BOOKING_ACTIVE';
                RETURN;
            END IF;
        END IF;
    END IF;
    o_to := p_to;
    UPDATE claim SET serial = p_serial, state = 'SURRENDERED', hold_until = NULL, hold_shard = NULL, booking = NULL,
        first_slot = NULL, second_slot = NULL
    WHERE campaign = p_campaign AND person = p_person;
    INSERT INTO surrender (campaign, person, serial, to_region, gave_up, at)
    VALUES (p_campaign, p_person, p_serial, p_to,
        CASE c.state WHEN 'BOOKED' THEN 'BOOKING' WHEN 'HELD' THEN 'HOLD' ELSE 'NOTHING' END, at);
    IF given IS NULL THEN
        RETURN;
    END IF;
    WITH freed AS (
        UPDATE slot s SET booked = s.booked - 1 WHERE s.slot_id = ANY (given)
        RETURNING s.slot_id, s.capacity, s.booked, s.open)
    SELECT array_agg(f.slot_id), array_agg(f.capacity), array_agg(f.booked), array_agg(f.open)
    INTO o_slot, o_capacity, o_booked, o_open FROM freed f;
    UPDATE booking b SET state = 'CANCELLED' FROM slot s
    WHERE s.slot_id = ANY (given) AND b.day = s.day AND b.slot_id = s.slot_id AND b.booking = c.booking;
    INSERT INTO event (at, kind, side, shard_id, slot_id, campaign, person, booking, version)
    SELECT at, 'SURRENDERED', true, s.shard_id, s.slot_id, p_campaign, p_person, c.booking, c.version
    FROM slot s WHERE s.slot_id = ANY (given);
END $$;

-- Takes a change back: the next serial is this region's, and what the person holds or has booked stays theirs.
-- Answers where they went, if they had left; null = they stay.
CREATE FUNCTION restamp_v1(p_campaign text, p_person bytea, p_serial bigint, OUT o_to text) LANGUAGE plpgsql AS $$
DECLARE
    c claim;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    INSERT INTO claim (campaign, person, serial, state, version)
    VALUES (p_campaign, p_person, p_serial + 1, 'FREE', 0) ON CONFLICT DO NOTHING;
    SELECT * INTO STRICT c FROM claim WHERE campaign = p_campaign AND person = p_person FOR NO KEY UPDATE;
    SELECT s.to_region INTO o_to FROM surrender s
    WHERE s.person = p_person AND s.campaign = p_campaign AND s.serial = p_serial;
    IF FOUND OR c.serial > p_serial THEN
        RETURN;
    END IF;
    -- A surrender of an earlier serial barred that one; it must not bar the one that is issued now.
    UPDATE claim SET serial = p_serial + 1, state = CASE WHEN state = 'SURRENDERED' THEN 'FREE' ELSE state END
    WHERE campaign = p_campaign AND person = p_person;
END $$;
