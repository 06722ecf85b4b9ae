-- People who leave for another region. The same words and rules as in PostgreSQL.
CREATE TABLE surrender (
    campaign  TEXT NOT NULL,
    person    BLOB NOT NULL CHECK (length(person) = 16),
    serial    INTEGER NOT NULL CHECK (serial >= 1),
    to_region TEXT NOT NULL,
    gave_up   TEXT NOT NULL CHECK (gave_up IN ('NOTHING', 'HOLD', 'BOOKING')),
    at        INTEGER NOT NULL,
    PRIMARY KEY (campaign, person, serial)
) STRICT, WITHOUT ROWID;
