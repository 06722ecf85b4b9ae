-- Changes of region. A person has at most one that has not ended; about one serial there is one for ever.

CREATE TABLE region_change (
    campaign    text COLLATE "C" NOT NULL,
    person      bytea NOT NULL CHECK (octet_length(person) = 16),
    serial      bigint NOT NULL CHECK (serial >= 1), -- the one in force in from_region; the next is issued at the end
    from_region text COLLATE "C" NOT NULL,
    to_region   text COLLATE "C" NOT NULL,
    outcome     text CHECK (outcome IN ('LEFT', 'STAYED')), -- null = has not ended
    began_at    timestamptz NOT NULL,
    ended_at    timestamptz,
    PRIMARY KEY (person, campaign, serial),
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
);

CREATE UNIQUE INDEX region_change_open ON region_change (person, campaign) WHERE outcome IS NULL;

-- Notes that the person is about to leave, if the permit is the one in force and nothing is noted yet.
CREATE FUNCTION begin_region_change(
    p_campaign text, p_person bytea, p_serial bigint, p_from text, p_to text
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    INSERT INTO region_change (campaign, person, serial, from_region, to_region, began_at)
        SELECT p.campaign, p.person, p.serial, p.region, p_to, clock_timestamp() FROM place p
        WHERE p.campaign = p_campaign AND p.person = p_person AND p.serial = p_serial AND p.region = p_from
        ON CONFLICT DO NOTHING;
END
$$;

-- Ends the change by what the region's receipt says; p_left_for is null for one who stayed. The receipt knows better than
-- we do where to: it is what the ledger has written down. False = the receipt is not about the newest change.
CREATE FUNCTION complete_region_change(
    p_campaign text, p_person bytea, p_serial bigint, p_from text, p_left_for text
) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
    ended text := CASE WHEN p_left_for IS NULL THEN 'STAYED' ELSE 'LEFT' END;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    UPDATE region_change
        SET outcome = ended, to_region = coalesce(p_left_for, to_region), ended_at = clock_timestamp()
        WHERE campaign = p_campaign AND person = p_person AND serial = p_serial AND from_region = p_from
            AND outcome IS NULL;
    IF FOUND THEN
        UPDATE place SET region = coalesce(p_left_for, region), serial = p_serial + 1
            WHERE campaign = p_campaign AND person = p_person AND serial = p_serial AND region = p_from;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'a change of region is not about the place in force';
        END IF;
        RETURN true;
    END IF;
    RETURN EXISTS (
        SELECT FROM region_change c
        JOIN place p ON p.campaign = c.campaign AND p.person = c.person AND p.serial = c.serial + 1
        WHERE c.campaign = p_campaign AND c.person = p_person AND c.serial = p_serial AND c.from_region = p_from
            AND c.outcome = ended AND (p_left_for IS NULL OR c.to_region = p_left_for));
END
$$;
