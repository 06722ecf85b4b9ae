-- What a clinic's terminal changes: stock, slots and visits. The answers are the same JSON in both backends.

ALTER TABLE stock ADD COLUMN given INTEGER NOT NULL DEFAULT 0 CHECK (given >= 0);
ALTER TABLE stock ADD COLUMN walk_in_given INTEGER NOT NULL DEFAULT 0 CHECK (walk_in_given >= 0 AND walk_in_given <= walk_in);

-- SHORTFALL: one row for each slot that was closed or made smaller, and one without a slot (0) that says how many doses
-- people are booked for and are not there.
ALTER TABLE event ADD COLUMN clinic TEXT;
ALTER TABLE event ADD COLUMN vaccine TEXT;
ALTER TABLE event ADD COLUMN doses INTEGER;

-- What became of an appointment at the clinic. No row = booked, or what the booking's own row says.
CREATE TABLE visit (
    slot_id INTEGER NOT NULL,
    booking BLOB NOT NULL CHECK (length(booking) = 16),
    state   TEXT NOT NULL CHECK (state IN ('CHECKED_IN', 'GIVEN', 'NO_SHOW')),
    lot     TEXT,
    at      INTEGER NOT NULL,
    PRIMARY KEY (slot_id, booking),
    CHECK ((state = 'GIVEN') = (lot IS NOT NULL))
) STRICT, WITHOUT ROWID;

-- Every change of a terminal, under the id it gave it.
CREATE TABLE clinic_request (
    clinic     TEXT NOT NULL REFERENCES clinic (clinic),
    request_id BLOB NOT NULL CHECK (length(request_id) = 16),
    method     TEXT NOT NULL,
    body_hash  BLOB NOT NULL,
    answer     TEXT NOT NULL,
    lot        TEXT,
    at         INTEGER NOT NULL,
    PRIMARY KEY (clinic, request_id)
) STRICT, WITHOUT ROWID;
