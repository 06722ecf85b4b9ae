-- Closing buckets, the secret of a draw, and every version of a room.

ALTER TABLE room_bucket ADD COLUMN opened_at timestamptz NOT NULL DEFAULT clock_timestamp();
-- People in earlier buckets; known when the bucket is closed.
ALTER TABLE room_bucket ADD COLUMN before_n bigint CHECK (before_n >= 0);

-- The seed of a draw between its commitment and its reveal, and after.
CREATE TABLE room_seed (
    campaign text COLLATE "C" NOT NULL,
    cohort   text COLLATE "C" NOT NULL,
    seed     bytea NOT NULL CHECK (octet_length(seed) = 32),
    made_at  timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (campaign, cohort)
);

CREATE TABLE room_document (
    campaign   text COLLATE "C" NOT NULL,
    cohort     text COLLATE "C" NOT NULL,
    version    bigint NOT NULL CHECK (version >= 1),
    document   text NOT NULL,
    written_at timestamptz NOT NULL,
    PRIMARY KEY (campaign, cohort, version)
);

-- A row lock lets later sharers pass a waiting closer, which could wait as long as people come. This lock is
-- granted in the order of asking. Whose bucket a person is in is still decided by the row.
CREATE FUNCTION room_gate(room_campaign text, room_cohort text) RETURNS bigint
LANGUAGE sql IMMUTABLE AS $$ SELECT hashtextextended(room_campaign || '/' || room_cohort, 0) $$;

-- As before, and behind the room's gate.
CREATE OR REPLACE FUNCTION stamp_places(
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
        PERFORM pg_advisory_xact_lock_shared(gates.gate) FROM (
            SELECT DISTINCT room_gate(asked.campaign, asked.cohort) AS gate
            FROM unnest(campaigns, cohorts) AS asked (campaign, cohort)
            ORDER BY 1
        ) AS gates;
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

-- Closes a bucket and opens the next, or says how it was closed before: one row a region, at least one.
-- No row = the bucket has not been opened yet.
CREATE FUNCTION close_bucket(room_campaign text, room_cohort text, bucket_id integer)
RETURNS TABLE (o_before bigint, o_closed_at timestamptz, o_region text, o_n bigint)
LANGUAGE plpgsql
SET enable_seqscan = off
AS $$
DECLARE
    found_state text;
    people_before bigint;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM pg_advisory_xact_lock(room_gate(room_campaign, room_cohort));
    INSERT INTO room_bucket (campaign, cohort, id)
        SELECT room_campaign, room_cohort, 0
        WHERE NOT EXISTS (
            SELECT FROM room_bucket b WHERE b.campaign = room_campaign AND b.cohort = room_cohort)
        ON CONFLICT DO NOTHING;
    SELECT b.state INTO found_state FROM room_bucket b
        WHERE b.campaign = room_campaign AND b.cohort = room_cohort AND b.id = bucket_id
        FOR UPDATE;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    IF found_state = 'OPEN' THEN
        INSERT INTO room_bucket_region (campaign, cohort, id, region, n)
            SELECT room_campaign, room_cohort, bucket_id, p.region, count(*)
            FROM place p
            WHERE p.campaign = room_campaign AND p.cohort = room_cohort AND p.bucket = bucket_id
            GROUP BY p.region
            ON CONFLICT (campaign, cohort, id, region) DO UPDATE SET n = excluded.n;
        SELECT coalesce(max(b.before_n + b.n), 0) INTO people_before FROM room_bucket b
            WHERE b.campaign = room_campaign AND b.cohort = room_cohort AND b.id = bucket_id - 1;
        UPDATE room_bucket b
            SET state = 'CLOSED', closed_at = clock_timestamp(), before_n = people_before,
                n = (SELECT coalesce(sum(r.n), 0) FROM room_bucket_region r
                     WHERE r.campaign = room_campaign AND r.cohort = room_cohort AND r.id = bucket_id)
            WHERE b.campaign = room_campaign AND b.cohort = room_cohort AND b.id = bucket_id;
        INSERT INTO room_bucket (campaign, cohort, id) VALUES (room_campaign, room_cohort, bucket_id + 1);
    END IF;
    RETURN QUERY
        SELECT b.before_n, b.closed_at, r.region, r.n
        FROM room_bucket b
        LEFT JOIN room_bucket_region r ON r.campaign = b.campaign AND r.cohort = b.cohort AND r.id = b.id
        WHERE b.campaign = room_campaign AND b.cohort = room_cohort AND b.id = bucket_id
        ORDER BY r.region;
END
$$;

-- Looks at the open bucket without holding anybody up. Counts up to a number; no row = nobody has asked for a place yet.
CREATE FUNCTION peek_bucket(room_campaign text, room_cohort text, count_up_to bigint)
RETURNS TABLE (o_id integer, o_open_for_us bigint, o_people bigint)
LANGUAGE plpgsql STABLE
SET enable_seqscan = off
AS $$
BEGIN
    RETURN QUERY
        SELECT b.id, (extract(epoch FROM clock_timestamp() - b.opened_at) * 1000000)::bigint,
               (SELECT count(*) FROM (
                    SELECT FROM place p
                    WHERE p.campaign = room_campaign AND p.cohort = room_cohort AND p.bucket = b.id
                    LIMIT count_up_to) AS counted)
        FROM room_bucket b
        WHERE b.campaign = room_campaign AND b.cohort = room_cohort AND b.state = 'OPEN';
END
$$;
