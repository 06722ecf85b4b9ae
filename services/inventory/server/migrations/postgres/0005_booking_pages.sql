-- A confirmed, moved or cancelled appointment changes its state, which no index knows: with room on its page the new
-- version stays there, and the table's index is left alone. Tables of days that exist keep what they have.
CREATE OR REPLACE FUNCTION ensure_day_v1(p_day int) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
    name text := 'booking_' || replace(p_day::text, '-', 'm');
BEGIN
    IF to_regclass(name) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE booking INCLUDING ALL, CHECK (day = %s)) WITH (fillfactor = 60)', name, p_day);
        EXECUTE format('ALTER TABLE booking ATTACH PARTITION %I FOR VALUES IN (%s)', name, p_day);
    END IF;
END $$;
