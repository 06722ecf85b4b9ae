-- Closing buckets, the secret of a draw, and every version of a room. The same words and rules as in PostgreSQL.

ALTER TABLE room_bucket ADD COLUMN opened_at INTEGER NOT NULL DEFAULT 0; -- microseconds since 1970
-- People in earlier buckets; known when the bucket is closed.
ALTER TABLE room_bucket ADD COLUMN before_n INTEGER CHECK (before_n >= 0);

-- Closing a bucket reads this index alone.
CREATE INDEX place_by_bucket ON place (campaign, cohort, bucket, region);

CREATE TABLE room_seed (
    campaign TEXT NOT NULL,
    cohort   TEXT NOT NULL,
    seed     BLOB NOT NULL CHECK (length(seed) = 32),
    made_at  INTEGER NOT NULL,
    PRIMARY KEY (campaign, cohort)
) STRICT, WITHOUT ROWID;

CREATE TABLE room_document (
    campaign   TEXT NOT NULL,
    cohort     TEXT NOT NULL,
    version    INTEGER NOT NULL CHECK (version >= 1),
    document   TEXT NOT NULL,
    written_at INTEGER NOT NULL,
    PRIMARY KEY (campaign, cohort, version)
) STRICT, WITHOUT ROWID;
