-- Changes of region. The same words and rules as in PostgreSQL.

CREATE TABLE region_change (
    campaign    TEXT NOT NULL,
    person      BLOB NOT NULL CHECK (length(person) = 16),
    serial      INTEGER NOT NULL CHECK (serial >= 1),
    from_region TEXT NOT NULL,
    to_region   TEXT NOT NULL,
    outcome     TEXT CHECK (outcome IN ('LEFT', 'STAYED')),
    began_at    INTEGER NOT NULL, -- microseconds since 1970
    ended_at    INTEGER,
    PRIMARY KEY (campaign, person, serial),
    CHECK ((outcome IS NULL) = (ended_at IS NULL))
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX region_change_open ON region_change (campaign, person) WHERE outcome IS NULL;
