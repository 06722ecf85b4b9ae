-- A region's ledger. The same tables, columns and words as in SQLite; campaigns compare byte by byte (COLLATE "C").
--
-- claim, booking, request and event carry no foreign keys: each would cost a lookup and a row lock on its parent for every
-- op, and the functions that are the only writers hold those parents locked anyway.

CREATE TABLE shard (
    shard_id      int PRIMARY KEY CHECK (shard_id >= 0),
    epoch         bigint NOT NULL DEFAULT 0,
    batch_seq     bigint NOT NULL DEFAULT 0,
    nonce         bytea,
    prev_epoch    bigint NOT NULL DEFAULT 0,
    prev_seq      bigint NOT NULL DEFAULT 0,
    owner         text NOT NULL DEFAULT '',
    addr          text NOT NULL DEFAULT '',
    -- The owner's session; a process id alone may have been given to somebody else since.
    backend_pid   int,
    backend_start timestamptz
) WITH (fillfactor = 10); -- updated by every batch: room for many versions on its own page

CREATE TABLE clinic (
    clinic       text COLLATE "C" PRIMARY KEY,
    shard_id     int NOT NULL REFERENCES shard (shard_id),
    display_name text NOT NULL,
    district     text NOT NULL,
    latitude     double precision NOT NULL CHECK (latitude BETWEEN -90 AND 90),
    longitude    double precision NOT NULL CHECK (longitude BETWEEN -180 AND 180)
);

CREATE INDEX clinic_shard ON clinic (shard_id);

CREATE TABLE stock (
    clinic   text COLLATE "C" NOT NULL REFERENCES clinic (clinic),
    vaccine  text COLLATE "C" NOT NULL,
    received bigint NOT NULL DEFAULT 0 CHECK (received >= 0),
    wasted   bigint NOT NULL DEFAULT 0 CHECK (wasted >= 0),
    opened   bigint NOT NULL DEFAULT 0 CHECK (opened >= 0),
    walk_in  bigint NOT NULL DEFAULT 0 CHECK (walk_in >= 0),
    PRIMARY KEY (clinic, vaccine)
);

-- The CHECK is what makes overselling impossible; everything else makes it fast.
CREATE TABLE slot (
    slot_id   bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    shard_id  int NOT NULL REFERENCES shard (shard_id),
    clinic    text COLLATE "C" NOT NULL REFERENCES clinic (clinic),
    vaccine   text COLLATE "C" NOT NULL,
    dose      int NOT NULL CHECK (dose IN (1, 2)),
    starts_at timestamptz NOT NULL,
    day       int NOT NULL,
    capacity  int NOT NULL,
    booked    int NOT NULL DEFAULT 0,
    open      boolean NOT NULL,
    CONSTRAINT slot_never_oversold CHECK (booked BETWEEN 0 AND capacity),
    UNIQUE (clinic, starts_at, vaccine, dose)
) WITH (fillfactor = 50); -- counts change all day, and no index knows them: updates stay on their page

CREATE INDEX slot_shard ON slot (shard_id);

-- What makes a person unique in a campaign. A FREE claim that names a booking had that hold and let it expire.
-- The slots stand here too, so that a claim is read and changed without knowing the days of its booking rows.
CREATE TABLE claim (
    campaign    text COLLATE "C" NOT NULL,
    person      bytea NOT NULL,
    serial      bigint NOT NULL,
    state       text NOT NULL,
    version     bigint NOT NULL,
    hold_until  timestamptz,
    hold_shard  int,
    booking     uuid,
    first_slot  bigint,
    second_slot bigint,
    -- The person first: nearly every comparison on the way down the index ends with it.
    PRIMARY KEY (person, campaign),
    CHECK (state IN ('FREE', 'HELD', 'BOOKED', 'SURRENDERED')),
    CHECK ((state = 'HELD') = (hold_until IS NOT NULL AND hold_shard IS NOT NULL)),
    CHECK ((state IN ('HELD', 'BOOKED')) = (first_slot IS NOT NULL)),
    CHECK (first_slot IS NULL OR booking IS NOT NULL)
) WITH (fillfactor = 80);

CREATE INDEX claim_hold ON claim (hold_shard, hold_until) WHERE hold_shard IS NOT NULL;

-- One row for each appointment a hold or booking has or had; a table for each day, made when slots of the day are.
CREATE TABLE booking (
    booking  uuid NOT NULL,
    slot_id  bigint NOT NULL,
    day      int NOT NULL,
    dose     int NOT NULL,
    state    text NOT NULL,
    code     text NOT NULL,
    campaign text COLLATE "C" NOT NULL,
    person   bytea NOT NULL,
    PRIMARY KEY (day, slot_id, booking)
) PARTITION BY LIST (day);

-- Every op that changed something, under the id its device gave it.
CREATE TABLE request (
    campaign      text COLLATE "C" NOT NULL,
    person        bytea NOT NULL,
    request_id    uuid NOT NULL,
    method        text NOT NULL,
    body_hash     bytea NOT NULL,
    verdict       text NOT NULL,
    booking       uuid NOT NULL,
    first_slot    bigint NOT NULL,
    second_slot   bigint,
    hold_until    timestamptz,
    version_after bigint NOT NULL,
    shard_id      int NOT NULL,
    epoch         bigint NOT NULL,
    batch_seq     bigint NOT NULL,
    PRIMARY KEY (person, request_id, campaign)
);

-- The outbox: one row for each slot that a change concerns. `side` = not by a batch of the slot's owner.
-- Ids are handed out before the commit, so a reader goes by the transaction and waits for all older ones to end.
CREATE TABLE event (
    event_id bigint GENERATED ALWAYS AS IDENTITY (CACHE 64) PRIMARY KEY,
    xid      xid8 NOT NULL DEFAULT pg_current_xact_id(),
    at       timestamptz NOT NULL,
    kind     text NOT NULL,
    side     boolean NOT NULL,
    shard_id int NOT NULL,
    slot_id  bigint NOT NULL,
    campaign text COLLATE "C",
    person   bytea,
    booking  uuid,
    version  bigint
);

CREATE INDEX event_side ON event (xid, event_id) WHERE side;

CREATE TABLE room_seen (
    campaign text COLLATE "C" NOT NULL,
    cohort   text COLLATE "C" NOT NULL,
    version  numeric(20, 0) NOT NULL,
    document text NOT NULL,
    frontier numeric(20, 0) NOT NULL,
    PRIMARY KEY (campaign, cohort)
);

-- === Taking over ===

-- Refusals of the functions: DS001 = fenced, DETAIL has the epoch found; DS002 = supply refused, DETAIL has the clinic;
-- DS003 = a dry run's figures in DETAIL; DS004 = there is no such shard.
CREATE FUNCTION seize_v1(
    p_shard int, p_expect bigint, p_floor bigint, p_nonce bytea, p_owner text, p_addr text,
    OUT o_epoch bigint, OUT o_prev_epoch bigint, OUT o_prev_seq bigint
) LANGUAGE plpgsql AS $$
DECLARE
    s shard;
    me record;
BEGIN
    -- Whoever may commit without the standby could promise what a failover takes back.
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM set_config('lock_timeout', '300ms', true);
    SELECT * INTO s FROM shard WHERE shard_id = p_shard FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'there is no such shard' USING ERRCODE = 'DS004';
    END IF;
    SELECT pid, backend_start INTO me FROM pg_stat_activity WHERE pid = pg_backend_pid();
    IF s.nonce = p_nonce THEN
        UPDATE shard SET backend_pid = me.pid, backend_start = me.backend_start WHERE shard_id = p_shard;
        o_epoch := s.epoch;
        o_prev_epoch := s.prev_epoch;
        o_prev_seq := s.prev_seq;
        RETURN;
    END IF;
    IF s.epoch <> p_expect THEN
        RAISE EXCEPTION 'the epoch expected is not in force' USING ERRCODE = 'DS001', DETAIL = s.epoch::text;
    END IF;
    o_epoch := greatest(s.epoch, p_floor) + 1;
    o_prev_epoch := s.epoch;
    o_prev_seq := s.batch_seq;
    UPDATE shard SET epoch = o_epoch, batch_seq = 0, nonce = p_nonce, prev_epoch = o_prev_epoch, prev_seq = o_prev_seq,
        owner = p_owner, addr = p_addr, backend_pid = me.pid, backend_start = me.backend_start
    WHERE shard_id = p_shard;
END $$;

-- Ends the session of the owner that is being replaced; nobody else's, and not one of a newer epoch.
CREATE FUNCTION end_owner_v1(p_shard int, p_expect bigint) RETURNS boolean LANGUAGE sql AS $$
    SELECT coalesce(bool_or(pg_terminate_backend(a.pid, 200)), false)
    FROM shard s
    JOIN pg_stat_activity a ON a.pid = s.backend_pid AND a.backend_start = s.backend_start
    WHERE s.shard_id = p_shard AND s.epoch = p_expect
$$;
