-- When a clinic cannot serve the people it has.

CREATE TABLE incident (
    incident  BLOB PRIMARY KEY CHECK (length(incident) = 16),
    clinic    TEXT NOT NULL REFERENCES clinic (clinic),
    kind      TEXT NOT NULL CHECK (kind IN ('FRIDGE_FAILURE', 'CLOSURE', 'SUPPLY_CUT')),
    vaccine   TEXT,
    from_day  INTEGER NOT NULL,
    to_day    INTEGER NOT NULL,
    state     TEXT NOT NULL CHECK (state IN ('OPEN', 'PLANNED', 'APPLYING', 'APPLIED')),
    plan      INTEGER NOT NULL DEFAULT 0 CHECK (plan >= 0),
    opened_at INTEGER NOT NULL,
    CHECK (kind <> 'SUPPLY_CUT' OR vaccine IS NOT NULL)
) STRICT, WITHOUT ROWID;

CREATE INDEX incident_applying ON incident (incident) WHERE state = 'APPLYING';

-- Plan 0 is who was booked when it was opened. Plans are kept: they are what was shown before somebody said yes.
CREATE TABLE incident_line (
    incident      BLOB NOT NULL REFERENCES incident (incident),
    plan          INTEGER NOT NULL,
    line          INTEGER NOT NULL,
    wave          INTEGER NOT NULL,
    state         TEXT NOT NULL CHECK (state IN ('AFFECTED', 'PLANNED', 'MOVED', 'FAILED', 'UNMOVABLE')),
    reason        TEXT,
    campaign      TEXT NOT NULL,
    person        BLOB NOT NULL,
    serial        INTEGER NOT NULL,
    version       INTEGER NOT NULL,
    booking       BLOB NOT NULL,
    code          TEXT NOT NULL,
    dose          INTEGER NOT NULL,
    from_slot     INTEGER NOT NULL,
    to_slot       INTEGER,
    request       BLOB,
    after_line    INTEGER,
    version_after INTEGER,
    PRIMARY KEY (incident, plan, line),
    CHECK ((state IN ('PLANNED', 'MOVED', 'FAILED')) = (to_slot IS NOT NULL AND request IS NOT NULL)),
    CHECK ((state IN ('FAILED', 'UNMOVABLE')) = (reason IS NOT NULL)),
    CHECK ((state = 'MOVED') = (version_after IS NOT NULL))
) STRICT, WITHOUT ROWID;

CREATE INDEX incident_line_planned ON incident_line (incident, plan, wave, line) WHERE state = 'PLANNED';
