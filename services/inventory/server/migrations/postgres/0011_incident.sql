-- When a clinic cannot serve the people it has.

CREATE TABLE incident (
    incident  uuid PRIMARY KEY,
    clinic    text COLLATE "C" NOT NULL REFERENCES clinic (clinic),
    kind      text NOT NULL CHECK (kind IN ('FRIDGE_FAILURE', 'CLOSURE', 'SUPPLY_CUT')),
    vaccine   text COLLATE "C",
    from_day  int NOT NULL,
    to_day    int NOT NULL,
    state     text NOT NULL CHECK (state IN ('OPEN', 'PLANNED', 'APPLYING', 'APPLIED')),
    plan      int NOT NULL DEFAULT 0 CHECK (plan >= 0),
    opened_at timestamptz NOT NULL,
    CHECK (kind <> 'SUPPLY_CUT' OR vaccine IS NOT NULL)
);

CREATE INDEX incident_applying ON incident (incident) WHERE state = 'APPLYING';

-- Plan 0 is who was booked when it was opened. Plans are kept: they are what was shown before somebody said yes.
CREATE TABLE incident_line (
    incident      uuid NOT NULL REFERENCES incident (incident),
    plan          int NOT NULL,
    line          int NOT NULL,
    wave          int NOT NULL,
    state         text NOT NULL CHECK (state IN ('AFFECTED', 'PLANNED', 'MOVED', 'FAILED', 'UNMOVABLE')),
    reason        text,
    campaign      text COLLATE "C" NOT NULL,
    person        bytea NOT NULL,
    serial        bigint NOT NULL,
    version       bigint NOT NULL,
    booking       uuid NOT NULL,
    code          text NOT NULL,
    dose          int NOT NULL,
    from_slot     bigint NOT NULL,
    to_slot       bigint,
    request       uuid,
    after_line    int,
    version_after bigint,
    PRIMARY KEY (incident, plan, line),
    CHECK ((state IN ('PLANNED', 'MOVED', 'FAILED')) = (to_slot IS NOT NULL AND request IS NOT NULL)),
    CHECK ((state IN ('FAILED', 'UNMOVABLE')) = (reason IS NOT NULL)),
    CHECK ((state = 'MOVED') = (version_after IS NOT NULL))
);

CREATE INDEX incident_line_planned ON incident_line (incident, plan, wave, line) WHERE state = 'PLANNED';

-- What is told of an incident, and recorded.
CREATE FUNCTION incident_view_v1(p_incident uuid) RETURNS text LANGUAGE sql AS $$
    SELECT json_build_object(
        'incident', i.incident, 'kind', i.kind, 'vaccine', i.vaccine, 'from_day', i.from_day, 'to_day', i.to_day,
        'state', i.state, 'plan', i.plan, 'opened_at', micros_v1(i.opened_at), 'affected', n.affected,
        'planned', n.planned, 'moved', n.moved, 'failed', n.failed, 'unmovable', n.unmovable,
        'held', (
            SELECT count(*) FROM slot s JOIN booking b ON b.day = s.day AND b.slot_id = s.slot_id
            WHERE s.clinic = i.clinic AND s.day BETWEEN i.from_day AND i.to_day AND NOT s.open
                AND s.starts_at > i.opened_at AND (i.vaccine IS NULL OR s.vaccine = i.vaccine) AND b.state = 'HELD'))::text
    FROM incident i
    CROSS JOIN LATERAL (
        SELECT count(*) AS affected, count(*) FILTER (WHERE l.state = 'PLANNED') AS planned,
            count(*) FILTER (WHERE l.state = 'MOVED') AS moved, count(*) FILTER (WHERE l.state = 'FAILED') AS failed,
            count(*) FILTER (WHERE l.state = 'UNMOVABLE') AS unmovable
        FROM incident_line l WHERE l.incident = i.incident AND l.plan = i.plan) n
    WHERE i.incident = p_incident
$$;

-- Who is booked at the slots of an incident that have not begun.
CREATE FUNCTION incident_affected_v1(p_incident uuid, p_now timestamptz)
RETURNS TABLE (
    o_booking uuid, o_code text, o_campaign text, o_person bytea, o_serial bigint, o_version bigint, o_slot bigint,
    o_visit text, o_other_day int
) LANGUAGE sql AS $$
    SELECT b.booking, b.code, b.campaign, b.person, c.serial, c.version, s.slot_id, v.state, x.day
    FROM incident i
    JOIN slot s ON s.clinic = i.clinic AND s.day BETWEEN i.from_day AND i.to_day AND s.starts_at > p_now
        AND (i.vaccine IS NULL OR s.vaccine = i.vaccine) AND NOT s.open
    JOIN booking b ON b.day = s.day AND b.slot_id = s.slot_id AND b.state = 'BOOKED'
    JOIN claim c ON c.person = b.person AND c.campaign = b.campaign AND c.state = 'BOOKED' AND c.booking = b.booking
    LEFT JOIN visit v ON v.slot_id = b.slot_id AND v.booking = b.booking
    LEFT JOIN slot x ON x.slot_id IN (c.first_slot, c.second_slot) AND x.slot_id <> s.slot_id
    WHERE i.incident = p_incident
    ORDER BY s.starts_at, b.code COLLATE "C", b.dose
$$;

CREATE FUNCTION incident_open_v1(
    p_clinic text, p_request uuid, p_hash bytea, p_incident uuid, p_kind text, p_vaccine text, p_from int, p_to int,
    p_now timestamptz,
    OUT o_answer text, OUT o_repeated boolean, OUT o_slots bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
BEGIN
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    END IF;
    PERFORM 1 FROM stock WHERE clinic = p_clinic AND (p_vaccine IS NULL OR vaccine = p_vaccine)
    ORDER BY vaccine FOR NO KEY UPDATE;
    -- Who books at one of them at this moment comes before, and is listed, or after, and finds it closed.
    PERFORM 1 FROM slot WHERE clinic = p_clinic AND day BETWEEN p_from AND p_to AND starts_at > p_now
        AND (p_vaccine IS NULL OR vaccine = p_vaccine)
    ORDER BY slot_id FOR NO KEY UPDATE;
    WITH closed AS (
        UPDATE slot SET open = false WHERE clinic = p_clinic AND day BETWEEN p_from AND p_to AND starts_at > p_now
            AND (p_vaccine IS NULL OR vaccine = p_vaccine) AND open
        RETURNING slot_id)
    SELECT coalesce(array_agg(slot_id ORDER BY slot_id), '{}') INTO o_slots FROM closed;
    PERFORM clinic_restock_v1(p_clinic, k.vaccine)
    FROM stock k WHERE k.clinic = p_clinic AND (p_vaccine IS NULL OR k.vaccine = p_vaccine);
    INSERT INTO incident (incident, clinic, kind, vaccine, from_day, to_day, state, opened_at)
    VALUES (p_incident, p_clinic, p_kind, p_vaccine, p_from, p_to, 'OPEN', p_now);
    INSERT INTO incident_line (incident, plan, line, wave, state, campaign, person, serial, version, booking, code, dose,
        from_slot)
    SELECT p_incident, 0, a.at, 0, 'AFFECTED', a.o_campaign, a.o_person, a.o_serial, a.o_version, a.o_booking, a.o_code,
        s.dose, a.o_slot
    FROM incident_affected_v1(p_incident, p_now)
        WITH ORDINALITY a (o_booking, o_code, o_campaign, o_person, o_serial, o_version, o_slot, o_visit, o_other_day, at)
    JOIN slot s ON s.slot_id = a.o_slot;
    o_answer := incident_view_v1(p_incident);
    PERFORM clinic_events_v1('SUPPLY', o_slots);
    PERFORM clinic_record_v1(p_clinic, p_request, 'open_incident', p_hash, o_answer, NULL);
END $$;

-- Locks an incident of the clinic; one change of it at a time.
CREATE FUNCTION incident_begin_v1(p_clinic text, p_request uuid, p_hash bytea, p_incident uuid,
    OUT o_answer text, OUT o_state text, OUT o_plan int
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
BEGIN
    SELECT * INTO b FROM clinic_begin_v1(p_clinic, p_request, p_hash);
    o_answer := b.o_answer;
    IF o_answer IS NOT NULL THEN
        RETURN;
    END IF;
    SELECT state, plan INTO o_state, o_plan FROM incident WHERE incident = p_incident AND clinic = p_clinic FOR UPDATE;
    IF NOT FOUND THEN
        PERFORM refuse_v1('INCIDENT_UNKNOWN');
    END IF;
END $$;

-- `p_to`, `p_line_request` and `p_after` are null where a line has none; `p_reason` where it has a target.
CREATE FUNCTION incident_plan_v1(
    p_clinic text, p_request uuid, p_hash bytea, p_incident uuid,
    p_campaign text[], p_person bytea[], p_serial bigint[], p_version bigint[], p_booking uuid[], p_code text[],
    p_dose int[], p_from bigint[], p_to bigint[], p_line_request uuid[], p_reason text[], p_wave int[], p_after int[],
    OUT o_answer text, OUT o_repeated boolean, OUT o_slots bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
BEGIN
    o_slots := '{}';
    SELECT * INTO b FROM incident_begin_v1(p_clinic, p_request, p_hash, p_incident);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    ELSIF b.o_state = 'APPLYING' THEN
        PERFORM refuse_v1('PLAN_IN_PROGRESS');
    END IF;
    UPDATE incident SET plan = b.o_plan + 1, state = 'PLANNED' WHERE incident = p_incident;
    INSERT INTO incident_line (incident, plan, line, wave, state, reason, campaign, person, serial, version, booking, code,
        dose, from_slot, to_slot, request, after_line)
    SELECT p_incident, b.o_plan + 1, l.at, l.wave, CASE WHEN l.to_slot IS NULL THEN 'UNMOVABLE' ELSE 'PLANNED' END,
        l.reason, l.campaign, l.person, l.serial, l.version, l.booking, l.code, l.dose, l.from_slot, l.to_slot, l.request,
        l.after_line
    FROM unnest(p_campaign, p_person, p_serial, p_version, p_booking, p_code, p_dose, p_from, p_to, p_line_request,
            p_reason, p_wave, p_after)
        WITH ORDINALITY l (campaign, person, serial, version, booking, code, dose, from_slot, to_slot, request, reason, wave,
            after_line, at);
    o_answer := incident_view_v1(p_incident);
    PERFORM clinic_record_v1(p_clinic, p_request, 'preview_plan', p_hash, o_answer, NULL);
END $$;

CREATE FUNCTION incident_apply_v1(
    p_clinic text, p_request uuid, p_hash bytea, p_incident uuid, p_plan int,
    OUT o_answer text, OUT o_repeated boolean, OUT o_slots bigint[]
) LANGUAGE plpgsql AS $$
DECLARE
    b record;
BEGIN
    o_slots := '{}';
    SELECT * INTO b FROM incident_begin_v1(p_clinic, p_request, p_hash, p_incident);
    o_answer := b.o_answer;
    o_repeated := o_answer IS NOT NULL;
    IF o_repeated THEN
        RETURN;
    ELSIF b.o_plan = 0 OR b.o_plan <> p_plan THEN
        PERFORM refuse_v1('PLAN_STALE', 'plan', format('the last one is %s', b.o_plan));
    ELSIF b.o_state = 'APPLYING' THEN
        PERFORM refuse_v1('PLAN_IN_PROGRESS');
    ELSIF b.o_state = 'APPLIED' THEN
        PERFORM refuse_v1('PLAN_APPLIED');
    END IF;
    UPDATE incident SET state = CASE WHEN EXISTS (
            SELECT FROM incident_line l WHERE l.incident = p_incident AND l.plan = p_plan AND l.state = 'PLANNED')
        THEN 'APPLYING' ELSE 'APPLIED' END
    WHERE incident = p_incident;
    o_answer := incident_view_v1(p_incident);
    PERFORM clinic_record_v1(p_clinic, p_request, 'apply_plan', p_hash, o_answer, NULL);
END $$;

-- Notes what came of lines; an incident whose lines were all tried is applied. What is settled stays so.
CREATE FUNCTION incident_settle_v1(
    p_incident uuid[], p_plan int[], p_line int[], p_reason text[], p_version bigint[]
) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    PERFORM 1 FROM incident WHERE incident = ANY (p_incident) ORDER BY incident FOR UPDATE;
    UPDATE incident_line l SET state = CASE WHEN s.reason IS NULL THEN 'MOVED' ELSE 'FAILED' END, reason = s.reason,
        version_after = s.version
    FROM unnest(p_incident, p_plan, p_line, p_reason, p_version) s (incident, plan, line, reason, version)
    WHERE l.incident = s.incident AND l.plan = s.plan AND l.line = s.line AND l.state = 'PLANNED';
    UPDATE incident i SET state = 'APPLIED'
    WHERE i.incident = ANY (p_incident) AND i.state = 'APPLYING' AND NOT EXISTS (
        SELECT FROM incident_line l WHERE l.incident = i.incident AND l.plan = i.plan AND l.state = 'PLANNED');
END $$;
