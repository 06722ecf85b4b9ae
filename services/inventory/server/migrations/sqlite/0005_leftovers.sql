-- Doses left at the end of a day: who asked to be called, rounds in which doses are offered, places of a drawn order.
-- A round's doses are among those that its stock has set aside (`walk_in`), and counted in `leftover`.

ALTER TABLE stock ADD COLUMN leftover INTEGER NOT NULL DEFAULT 0
    CHECK (leftover >= 0 AND leftover <= walk_in - walk_in_given);

CREATE TABLE leftover_wish (
    campaign  TEXT NOT NULL,
    person    BLOB NOT NULL CHECK (length(person) = 16),
    ticket    BLOB NOT NULL CHECK (length(ticket) = 16),
    wish      TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (campaign, person)
) STRICT, WITHOUT ROWID;

CREATE INDEX leftover_wish_joined ON leftover_wish (campaign, joined_at, person);

CREATE TABLE leftover_round (
    round       INTEGER PRIMARY KEY AUTOINCREMENT,
    clinic      TEXT NOT NULL REFERENCES clinic (clinic),
    campaign    TEXT NOT NULL,
    vaccine     TEXT NOT NULL,
    slot_id     INTEGER NOT NULL,
    doses       INTEGER NOT NULL CHECK (doses > 0),
    accepted    INTEGER NOT NULL DEFAULT 0,
    state       TEXT NOT NULL CHECK (state IN ('ANNOUNCED', 'DRAWN', 'CLOSED')),
    seed        BLOB NOT NULL CHECK (length(seed) = 32),
    commitment  BLOB NOT NULL CHECK (length(commitment) = 32),
    list_root   BLOB,
    candidates  INTEGER NOT NULL DEFAULT 0,
    from_minute INTEGER NOT NULL,
    to_minute   INTEGER NOT NULL,
    answer_ms   INTEGER NOT NULL CHECK (answer_ms > 0),
    offered_at  INTEGER NOT NULL,
    draws_at    INTEGER NOT NULL,
    closes_at   INTEGER NOT NULL,
    CHECK (accepted BETWEEN 0 AND doses)
) STRICT;

CREATE INDEX leftover_round_clinic ON leftover_round (clinic, round);
CREATE INDEX leftover_round_open ON leftover_round (round) WHERE state <> 'CLOSED';

CREATE TABLE leftover_place (
    round      INTEGER NOT NULL,
    rank       INTEGER NOT NULL,
    campaign   TEXT NOT NULL,
    person     BLOB NOT NULL CHECK (length(person) = 16),
    ticket     BLOB NOT NULL CHECK (length(ticket) = 16),
    state      TEXT NOT NULL CHECK (state IN
        ('WAITING', 'OFFERED', 'ACCEPTED', 'DECLINED', 'EXPIRED', 'LEFT', 'PASSED')),
    offered_at INTEGER,
    deadline   INTEGER,
    ended_at   INTEGER,
    PRIMARY KEY (round, rank),
    UNIQUE (campaign, person, round)
) STRICT, WITHOUT ROWID;

CREATE INDEX leftover_place_live ON leftover_place (round, state, rank) WHERE state IN ('WAITING', 'OFFERED');

-- Every change of a person, under the id its device gave it. An accepted offer stands in `request` too.
CREATE TABLE leftover_request (
    campaign   TEXT NOT NULL,
    person     BLOB NOT NULL,
    request_id BLOB NOT NULL CHECK (length(request_id) = 16),
    method     TEXT NOT NULL,
    body_hash  BLOB NOT NULL,
    answer     TEXT NOT NULL,
    at         INTEGER NOT NULL,
    PRIMARY KEY (campaign, person, request_id)
) STRICT, WITHOUT ROWID;
