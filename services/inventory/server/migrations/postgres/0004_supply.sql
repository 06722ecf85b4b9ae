-- Clinics, stock and slots, and what slots something other than their owner changed.

-- The bookings of one day. Made apart and attached then, because that locks out nobody who books.
CREATE FUNCTION ensure_day_v1(p_day int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'booking_' || replace(p_day::text, '-', 'm');
BEGIN
    IF to_regclass(name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE booking INCLUDING ALL, CHECK (day = %s))', name, p_day);
        EXECUTE format('ALTER TABLE booking ATTACH PARTITION %I FOR VALUES IN (%s)', name, p_day);
    END IF;
END $$;

CREATE FUNCTION apply_v1(
    p_dry boolean,
    p_clinic text[], p_shard int[], p_name text[], p_district text[], p_latitude float8[], p_longitude float8[],
    p_stock_clinic int[], p_stock_vaccine text[], p_received bigint[],
    p_slot_clinic int[], p_starts_at timestamptz[], p_day int[], p_vaccine text[], p_dose int[], p_capacity int[],
    p_open boolean[], -- clinics by their place in p_clinic
    OUT o_clinics int, OUT o_added int, OUT o_changed int
) LANGUAGE plpgsql AS $$
DECLARE
    now_ timestamptz := clock_timestamp();
    touched bigint[];
    new_ids bigint[];
    below int;
    exceeded int;
BEGIN
    PERFORM set_config('synchronous_commit', 'on', true);
    -- One application at a time; nobody else writes this table.
    LOCK TABLE clinic IN SHARE ROW EXCLUSIVE MODE;
    IF NOT p_dry THEN
        PERFORM ensure_day_v1(d.day) FROM (SELECT DISTINCT unnest(p_day) AS day) d ORDER BY d.day;
    END IF;
    PERFORM 1 FROM shard WHERE shard_id = ANY (p_shard) ORDER BY shard_id FOR KEY SHARE;

    SELECT count(DISTINCT n.clinic) INTO o_clinics FROM unnest(p_clinic) n (clinic)
    WHERE NOT EXISTS (SELECT FROM clinic c WHERE c.clinic = n.clinic);
    -- The shard of a clinic that exists stays: moving one raises epochs, which an application never does.
    INSERT INTO clinic AS c (clinic, shard_id, display_name, district, latitude, longitude)
    SELECT DISTINCT ON (n.clinic) n.clinic, n.shard_id, n.display_name, n.district, n.latitude, n.longitude
    FROM unnest(p_clinic, p_shard, p_name, p_district, p_latitude, p_longitude)
        WITH ORDINALITY n (clinic, shard_id, display_name, district, latitude, longitude, at)
    ORDER BY n.clinic, n.at DESC
    ON CONFLICT (clinic) DO UPDATE SET display_name = EXCLUDED.display_name, district = EXCLUDED.district,
        latitude = EXCLUDED.latitude, longitude = EXCLUDED.longitude
    WHERE (c.display_name, c.district, c.latitude, c.longitude)
        IS DISTINCT FROM (EXCLUDED.display_name, EXCLUDED.district, EXCLUDED.latitude, EXCLUDED.longitude);

    -- Doses received only rise. Slots of a vaccine that never came have a stock of none.
    INSERT INTO stock AS s (clinic, vaccine, received)
    SELECT p_clinic[n.clinic], n.vaccine, max(n.received)
    FROM (
        SELECT * FROM unnest(p_stock_clinic, p_stock_vaccine, p_received) r (clinic, vaccine, received)
        UNION ALL SELECT v.clinic, v.vaccine, 0 FROM unnest(p_slot_clinic, p_vaccine) v (clinic, vaccine)
    ) n
    GROUP BY 1, 2 ORDER BY 1, 2
    ON CONFLICT (clinic, vaccine) DO UPDATE SET received = greatest(s.received, EXCLUDED.received);

    SELECT array_agg(l.slot_id) INTO touched FROM (
        SELECT s.slot_id
        FROM (
            SELECT DISTINCT s.slot_id
            FROM unnest(p_slot_clinic, p_starts_at, p_vaccine, p_dose) n (clinic, starts_at, vaccine, dose)
            JOIN slot s ON s.clinic = p_clinic[n.clinic] AND s.starts_at = n.starts_at AND s.vaccine = n.vaccine
                AND s.dose = n.dose
            ORDER BY s.slot_id) k
        CROSS JOIN LATERAL (SELECT s.slot_id FROM slot s WHERE s.slot_id = k.slot_id FOR NO KEY UPDATE) s) l;
    SELECT min(n.clinic) INTO below
    FROM unnest(p_slot_clinic, p_starts_at, p_vaccine, p_dose, p_capacity) n (clinic, starts_at, vaccine, dose, capacity)
    JOIN slot s ON s.clinic = p_clinic[n.clinic] AND s.starts_at = n.starts_at AND s.vaccine = n.vaccine AND s.dose = n.dose
    WHERE s.booked > n.capacity;
    WITH wanted AS (
        SELECT DISTINCT ON (1, 2, 3, 4) p_clinic[n.clinic] AS clinic, n.starts_at, n.vaccine, n.dose, n.capacity, n.open
        FROM unnest(p_slot_clinic, p_starts_at, p_vaccine, p_dose, p_capacity, p_open)
            WITH ORDINALITY n (clinic, starts_at, vaccine, dose, capacity, open, at)
        ORDER BY 1, 2, 3, 4, n.at DESC
    ), changed AS (
        UPDATE slot s SET capacity = w.capacity, open = w.open
        FROM wanted w
        WHERE s.clinic = w.clinic AND s.starts_at = w.starts_at AND s.vaccine = w.vaccine AND s.dose = w.dose
            AND (s.capacity, s.open) <> (w.capacity, w.open) AND s.booked <= w.capacity
        RETURNING s.slot_id
    )
    SELECT coalesce(array_agg(slot_id), '{}') INTO touched FROM changed;
    WITH added AS (
        INSERT INTO slot (shard_id, clinic, vaccine, dose, starts_at, day, capacity, open)
        SELECT c.shard_id, n.clinic, n.vaccine, n.dose, n.starts_at, n.day, n.capacity, n.open
        FROM (
            SELECT DISTINCT ON (1, 2, 3, 4) p_clinic[n.clinic] AS clinic, n.starts_at, n.vaccine, n.dose, n.day,
                n.capacity, n.open
            FROM unnest(p_slot_clinic, p_starts_at, p_vaccine, p_dose, p_day, p_capacity, p_open)
                WITH ORDINALITY n (clinic, starts_at, vaccine, dose, day, capacity, open, at)
            ORDER BY 1, 2, 3, 4, n.at DESC) n
        JOIN clinic c ON c.clinic = n.clinic
        ORDER BY n.clinic, n.starts_at, n.dose
        ON CONFLICT (clinic, starts_at, vaccine, dose) DO NOTHING
        RETURNING slot_id
    )
    SELECT coalesce(array_agg(slot_id), '{}') INTO new_ids FROM added;

    UPDATE stock t SET opened = o.opened
    FROM (
        SELECT k.clinic, k.vaccine, coalesce(sum(CASE WHEN s.open THEN s.capacity ELSE s.booked END), 0) AS opened
        FROM (
            SELECT p_clinic[r.clinic] AS clinic, r.vaccine FROM unnest(p_stock_clinic, p_stock_vaccine) r (clinic, vaccine)
            UNION SELECT p_clinic[v.clinic], v.vaccine FROM unnest(p_slot_clinic, p_vaccine) v (clinic, vaccine)) k
        LEFT JOIN slot s ON s.clinic = k.clinic AND s.vaccine = k.vaccine
        GROUP BY 1, 2) o
    WHERE t.clinic = o.clinic AND t.vaccine = o.vaccine AND t.opened <> o.opened;
    SELECT min(k.clinic) INTO exceeded
    FROM (
        SELECT r.clinic, r.vaccine FROM unnest(p_stock_clinic, p_stock_vaccine) r (clinic, vaccine)
        UNION SELECT v.clinic, v.vaccine FROM unnest(p_slot_clinic, p_vaccine) v (clinic, vaccine)) k
    JOIN stock t ON t.clinic = p_clinic[k.clinic] AND t.vaccine = k.vaccine
    WHERE t.opened > t.received - t.wasted - t.walk_in;
    IF below IS NOT NULL OR exceeded IS NOT NULL THEN
        RAISE EXCEPTION USING ERRCODE = 'DS002', DETAIL = p_clinic[least(below, exceeded)],
            MESSAGE = CASE WHEN below <= coalesce(exceeded, below) THEN 'BELOW_BOOKED' ELSE 'STOCK_EXCEEDED' END;
    END IF;
    o_added := cardinality(new_ids);
    o_changed := cardinality(touched);
    IF p_dry THEN
        RAISE EXCEPTION 'dry run' USING ERRCODE = 'DS003', DETAIL = format('%s %s %s', o_clinics, o_added, o_changed);
    END IF;
    INSERT INTO event (at, kind, side, shard_id, slot_id)
    SELECT now_, 'SUPPLY', true, s.shard_id, s.slot_id
    FROM unnest(new_ids || touched) k (slot_id) JOIN slot s ON s.slot_id = k.slot_id;
END $$;
