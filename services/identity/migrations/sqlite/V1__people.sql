-- Who has which place. Later migrations only add. The same words and rules as in PostgreSQL.

CREATE TABLE place (
    campaign        TEXT NOT NULL,
    person          BLOB NOT NULL CHECK (length(person) = 16),
    cohort          TEXT NOT NULL,
    region          TEXT NOT NULL,
    serial          INTEGER NOT NULL CHECK (serial >= 1),
    bucket          INTEGER NOT NULL CHECK (bucket >= 0),
    ticket          BLOB NOT NULL CHECK (length(ticket) = 16),
    first_caller    TEXT NOT NULL,
    first_issued_at INTEGER NOT NULL, -- microseconds since 1970
    PRIMARY KEY (campaign, person)
) STRICT, WITHOUT ROWID;

CREATE TABLE room_bucket (
    campaign  TEXT NOT NULL,
    cohort    TEXT NOT NULL,
    id        INTEGER NOT NULL CHECK (id >= 0),
    state     TEXT NOT NULL DEFAULT 'OPEN' CHECK (state IN ('OPEN', 'CLOSED')),
    n         INTEGER CHECK (n >= 0),
    closed_at INTEGER,
    PRIMARY KEY (campaign, cohort, id),
    CHECK (state = 'OPEN' OR n IS NOT NULL)
) STRICT, WITHOUT ROWID;

-- At most one bucket of a room is open.
CREATE UNIQUE INDEX room_bucket_open ON room_bucket (campaign, cohort) WHERE state = 'OPEN';

CREATE TABLE room_bucket_region (
    campaign TEXT NOT NULL,
    cohort   TEXT NOT NULL,
    id       INTEGER NOT NULL,
    region   TEXT NOT NULL,
    n        INTEGER NOT NULL CHECK (n >= 0),
    PRIMARY KEY (campaign, cohort, id, region),
    FOREIGN KEY (campaign, cohort, id) REFERENCES room_bucket (campaign, cohort, id)
) STRICT, WITHOUT ROWID;
