-- Closed buckets of rooms as this region's inventories last saw them: with room_seen enough to start while etcd is away.
CREATE TABLE bucket_seen (
    campaign TEXT NOT NULL,
    cohort   TEXT NOT NULL,
    id       INTEGER NOT NULL CHECK (id >= 0),
    document TEXT NOT NULL,
    PRIMARY KEY (campaign, cohort, id)
) STRICT, WITHOUT ROWID;
