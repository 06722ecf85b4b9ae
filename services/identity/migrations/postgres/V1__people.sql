-- Who has which place. Later migrations only add.

CREATE TABLE place (
    campaign        text COLLATE "C" NOT NULL,
    person          bytea NOT NULL CHECK (octet_length(person) = 16),
    cohort          text COLLATE "C" NOT NULL,
    region          text COLLATE "C" NOT NULL,
    serial          bigint NOT NULL CHECK (serial >= 1),
    bucket          integer NOT NULL CHECK (bucket >= 0),
    ticket          bytea NOT NULL CHECK (octet_length(ticket) = 16),
    first_caller    text COLLATE "C" NOT NULL,
    first_issued_at timestamptz NOT NULL,
    PRIMARY KEY (campaign, person)
);

-- Counting a bucket reads this index alone; its few distinct keys are stored once each.
CREATE INDEX place_by_bucket ON place (campaign, cohort, bucket, region);

CREATE TABLE room_bucket (
    campaign  text COLLATE "C" NOT NULL,
    cohort    text COLLATE "C" NOT NULL,
    id        integer NOT NULL CHECK (id >= 0),
    state     text NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'CLOSED')),
    n         bigint CHECK (n >= 0),
    closed_at timestamptz,
    PRIMARY KEY (campaign, cohort, id),
    CHECK (state = 'OPEN' OR n IS NOT NULL)
);

-- At most one bucket of a room is open.
CREATE UNIQUE INDEX room_bucket_open ON room_bucket (campaign, cohort) WHERE state = 'OPEN';

CREATE TABLE room_bucket_region (
    campaign text COLLATE "C" NOT NULL,
    cohort   text COLLATE "C" NOT NULL,
    id       integer NOT NULL,
    region   text COLLATE "C" NOT NULL,
    n        bigint NOT NULL CHECK (n >= 0),
    PRIMARY KEY (campaign, cohort, id, region),
    FOREIGN KEY (campaign, cohort, id) REFERENCES room_bucket (campaign, cohort, id)
);

-- Gives each person their place, or the one they have: one group, one statement, one commit.
--
-- A person appears at most once in a group. Buckets are locked FOR SHARE in key order before anybody is stamped, so
-- that whoever closes or counts a bucket (FOR UPDATE) sees everybody in it. People are inserted in key order, so that
-- two groups with the same people cannot wait for each other. A group of known people writes nothing.
--
-- Every lookup is a subquery of its own row, and never a join that the planner may turn round: with figures from
-- before the rush, when the table was empty, it would read the whole table for every group.
CREATE FUNCTION stamp_places(
    campaigns text[], people bytea[], cohorts text[], regions text[], tickets bytea[], callers text[]
) RETURNS TABLE (at bigint, o_cohort text, o_region text, o_serial bigint, o_bucket integer, o_ticket bytea)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    rooms  bigint;
    locked bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    IF EXISTS (
        SELECT FROM unnest(campaigns, people) AS asked (campaign, person)
        WHERE (SELECT true FROM place p
               WHERE p.campaign = asked.campaign AND p.person = asked.person) IS NULL
    ) THEN
        INSERT INTO room_bucket (campaign, cohort, id)
            SELECT DISTINCT asked.campaign, asked.cohort, 0
            FROM unnest(campaigns, cohorts) AS asked (campaign, cohort)
            WHERE NOT EXISTS (
                SELECT FROM room_bucket b WHERE b.campaign = asked.campaign AND b.cohort = asked.cohort)
            ORDER BY 1, 2
            ON CONFLICT DO NOTHING;
        SELECT count(DISTINCT (asked.campaign, asked.cohort)) INTO rooms
            FROM unnest(campaigns, cohorts) AS asked (campaign, cohort);
        -- A bucket that was closed while we waited for it is skipped; the one opened with it is locked next time.
        FOR attempt IN 1..100 LOOP
            PERFORM FROM room_bucket b
                WHERE b.state = 'OPEN' AND (b.campaign, b.cohort) IN (
                    SELECT asked.campaign, asked.cohort
                    FROM unnest(campaigns, cohorts) AS asked (campaign, cohort))
                ORDER BY b.campaign, b.cohort, b.id
                FOR SHARE;
            GET DIAGNOSTICS locked = ROW_COUNT;
            EXIT WHEN locked = rooms;
        END LOOP;
        IF locked <> rooms THEN
            RAISE EXCEPTION 'a room has no open bucket';
        END IF;
        INSERT INTO place (campaign, person, cohort, region, serial, bucket, ticket, first_caller, first_issued_at)
            SELECT asked.campaign, asked.person, asked.cohort, asked.region, 1, b.id, asked.ticket, asked.caller,
                   clock_timestamp()
            FROM unnest(campaigns, people, cohorts, regions, tickets, callers)
                AS asked (campaign, person, cohort, region, ticket, caller)
            JOIN room_bucket b ON b.campaign = asked.campaign AND b.cohort = asked.cohort AND b.state = 'OPEN'
            ORDER BY asked.campaign, asked.person
            ON CONFLICT DO NOTHING;
    END IF;
    RETURN QUERY
        SELECT asked.at, found.cohort, found.region, found.serial, found.bucket, found.ticket
        FROM unnest(campaigns, people) WITH ORDINALITY AS asked (campaign, person, at)
        CROSS JOIN LATERAL (
            SELECT p.cohort, p.region, p.serial, p.bucket, p.ticket FROM place p
            WHERE p.campaign = asked.campaign AND p.person = asked.person
            OFFSET 0 -- keeps it a subquery
        ) AS found;
END
$$;

-- Counts the open bucket of a room, people and people by region, and remembers it. The bucket stays open.
CREATE FUNCTION count_open_bucket(room_campaign text, room_cohort text)
RETURNS TABLE (o_id integer, o_region text, o_n bigint)
LANGUAGE plpgsql AS $$
DECLARE
    bucket_id integer;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    INSERT INTO room_bucket (campaign, cohort, id)
        SELECT room_campaign, room_cohort, 0
        WHERE NOT EXISTS (
            SELECT FROM room_bucket b WHERE b.campaign = room_campaign AND b.cohort = room_cohort)
        ON CONFLICT DO NOTHING;
    SELECT b.id INTO STRICT bucket_id FROM room_bucket b
        WHERE b.campaign = room_campaign AND b.cohort = room_cohort AND b.state = 'OPEN'
        FOR UPDATE;
    INSERT INTO room_bucket_region (campaign, cohort, id, region, n)
        SELECT room_campaign, room_cohort, bucket_id, p.region, count(*)
        FROM place p
        WHERE p.campaign = room_campaign AND p.cohort = room_cohort AND p.bucket = bucket_id
        GROUP BY p.region
        ON CONFLICT (campaign, cohort, id, region) DO UPDATE SET n = excluded.n;
    UPDATE room_bucket b
        SET n = (SELECT coalesce(sum(r.n), 0) FROM room_bucket_region r
                 WHERE r.campaign = room_campaign AND r.cohort = room_cohort AND r.id = bucket_id)
        WHERE b.campaign = room_campaign AND b.cohort = room_cohort AND b.id = bucket_id;
    RETURN QUERY
        SELECT bucket_id, r.region, r.n FROM room_bucket_region r
        WHERE r.campaign = room_campaign AND r.cohort = room_cohort AND r.id = bucket_id
        ORDER BY r.region;
END
$$;
