-- Closed buckets of rooms as this region's inventories last saw them: with room_seen enough to start while etcd is away.
CREATE TABLE bucket_seen (
    campaign text COLLATE "C" NOT NULL,
    cohort   text COLLATE "C" NOT NULL,
    id       bigint NOT NULL CHECK (id >= 0),
    document text NOT NULL,
    PRIMARY KEY (campaign, cohort, id)
);
