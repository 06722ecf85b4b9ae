-- A region's ledger. The same tables, columns and words as in PostgreSQL; times are microseconds since 1970-01-01T00:00:00Z,
-- ids of people, requests and bookings are 16 bytes.

CREATE TABLE shard (
    shard_id   INTEGER PRIMARY KEY CHECK (shard_id >= 0),
    epoch      INTEGER NOT NULL DEFAULT 0,
    batch_seq  INTEGER NOT NULL DEFAULT 0,
    nonce      BLOB,
    prev_epoch INTEGER NOT NULL DEFAULT 0,
    prev_seq   INTEGER NOT NULL DEFAULT 0,
    owner      TEXT NOT NULL DEFAULT '',
    addr       TEXT NOT NULL DEFAULT ''
) STRICT;

CREATE TABLE clinic (
    clinic       TEXT PRIMARY KEY,
    shard_id     INTEGER NOT NULL REFERENCES shard (shard_id),
    display_name TEXT NOT NULL,
    district     TEXT NOT NULL,
    latitude     REAL NOT NULL CHECK (latitude BETWEEN -90 AND 90),
    longitude    REAL NOT NULL CHECK (longitude BETWEEN -180 AND 180)
) STRICT, WITHOUT ROWID;

CREATE INDEX clinic_shard ON clinic (shard_id);

CREATE TABLE stock (
    clinic   TEXT NOT NULL REFERENCES clinic (clinic),
    vaccine  TEXT NOT NULL,
    received INTEGER NOT NULL DEFAULT 0 CHECK (received >= 0),
    wasted   INTEGER NOT NULL DEFAULT 0 CHECK (wasted >= 0),
    opened   INTEGER NOT NULL DEFAULT 0 CHECK (opened >= 0),
    walk_in  INTEGER NOT NULL DEFAULT 0 CHECK (walk_in >= 0),
    PRIMARY KEY (clinic, vaccine)
) STRICT, WITHOUT ROWID;

-- The CHECK is what makes overselling impossible; everything else makes it fast.
CREATE TABLE slot (
    slot_id   INTEGER PRIMARY KEY AUTOINCREMENT,
    shard_id  INTEGER NOT NULL REFERENCES shard (shard_id),
    clinic    TEXT NOT NULL REFERENCES clinic (clinic),
    vaccine   TEXT NOT NULL,
    dose      INTEGER NOT NULL CHECK (dose IN (1, 2)),
    starts_at INTEGER NOT NULL,
    day       INTEGER NOT NULL,
    capacity  INTEGER NOT NULL,
    booked    INTEGER NOT NULL DEFAULT 0,
    open      INTEGER NOT NULL CHECK (open IN (0, 1)),
    CHECK (booked BETWEEN 0 AND capacity),
    UNIQUE (clinic, starts_at, vaccine, dose)
) STRICT;

CREATE INDEX slot_shard ON slot (shard_id);

-- What makes a person unique in a campaign. A FREE claim that names a booking had that hold and let it expire.
CREATE TABLE claim (
    campaign    TEXT NOT NULL,
    person      BLOB NOT NULL CHECK (length(person) = 16),
    serial      INTEGER NOT NULL,
    state       TEXT NOT NULL CHECK (state IN ('FREE', 'HELD', 'BOOKED', 'SURRENDERED')),
    version     INTEGER NOT NULL,
    hold_until  INTEGER,
    hold_shard  INTEGER,
    booking     BLOB,
    first_slot  INTEGER,
    second_slot INTEGER,
    PRIMARY KEY (campaign, person),
    CHECK ((state = 'HELD') = (hold_until IS NOT NULL AND hold_shard IS NOT NULL)),
    CHECK ((state IN ('HELD', 'BOOKED')) = (first_slot IS NOT NULL)),
    CHECK (first_slot IS NOT NULL OR second_slot IS NULL),
    CHECK (first_slot IS NULL OR booking IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX claim_hold ON claim (hold_shard, hold_until) WHERE hold_shard IS NOT NULL;

-- One row for each appointment a hold or booking has or had; a claim knows the slots of the active ones.
CREATE TABLE booking (
    booking  BLOB NOT NULL CHECK (length(booking) = 16),
    slot_id  INTEGER NOT NULL,
    day      INTEGER NOT NULL,
    dose     INTEGER NOT NULL,
    state    TEXT NOT NULL CHECK (state IN ('HELD', 'BOOKED', 'CANCELLED')),
    code     TEXT NOT NULL,
    campaign TEXT NOT NULL,
    person   BLOB NOT NULL,
    PRIMARY KEY (slot_id, booking)
) STRICT, WITHOUT ROWID;

-- Every op that changed something, under the id its device gave it.
CREATE TABLE request (
    campaign      TEXT NOT NULL,
    person        BLOB NOT NULL,
    request_id    BLOB NOT NULL CHECK (length(request_id) = 16),
    method        TEXT NOT NULL,
    body_hash     BLOB NOT NULL,
    verdict       TEXT NOT NULL,
    booking       BLOB NOT NULL,
    first_slot    INTEGER NOT NULL,
    second_slot   INTEGER,
    hold_until    INTEGER,
    version_after INTEGER NOT NULL,
    shard_id      INTEGER NOT NULL,
    epoch         INTEGER NOT NULL,
    batch_seq     INTEGER NOT NULL,
    PRIMARY KEY (campaign, person, request_id)
) STRICT, WITHOUT ROWID;

-- The outbox: one row for each slot that a change concerns. `side` = not by a batch of the slot's owner.
CREATE TABLE event (
    event_id INTEGER PRIMARY KEY AUTOINCREMENT,
    at       INTEGER NOT NULL,
    kind     TEXT NOT NULL,
    side     INTEGER NOT NULL CHECK (side IN (0, 1)),
    shard_id INTEGER NOT NULL,
    slot_id  INTEGER NOT NULL,
    campaign TEXT,
    person   BLOB,
    booking  BLOB,
    version  INTEGER
) STRICT;

CREATE INDEX event_side ON event (event_id) WHERE side = 1;

CREATE TABLE room_seen (
    campaign TEXT NOT NULL,
    cohort   TEXT NOT NULL,
    version  INTEGER NOT NULL,
    document TEXT NOT NULL,
    -- Twenty digits, so that all 64 bits fit and the higher one compares higher.
    frontier TEXT NOT NULL CHECK (length(frontier) = 20),
    PRIMARY KEY (campaign, cohort)
) STRICT, WITHOUT ROWID;
