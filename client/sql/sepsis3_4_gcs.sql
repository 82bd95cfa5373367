-- gcs: the Glasgow Coma Scale at each charted time.
-- A part not charted now takes the row before it when that is less than 6 hours old (strictly, as in the
-- reference), else the normal value. A charted total stands where no part is charted with it. An intubated patient cannot speak: the total is taken as the full 15.
CREATE OR REPLACE TABLE gcs AS
WITH part AS (
    -- A verbal score of 0 marks intubation.
    SELECT
        stay_id,
        charttime,
        max(valuenum) FILTER (WHERE concept = 'gcs_motor') AS motor,
        max(CASE WHEN trim(value) = 'No Response-ETT' THEN 0 ELSE valuenum END)
            FILTER (WHERE concept = 'gcs_verbal') AS verbal,
        max(valuenum) FILTER (WHERE concept = 'gcs_eyes') AS eyes,
        max(valuenum) FILTER (WHERE concept = 'gcs_total' AND valuenum BETWEEN 3 AND 15) AS total,
        coalesce(bool_or(concept = 'gcs_verbal' AND trim(value) = 'No Response-ETT'), false) AS intubated
    FROM chartevents
    INNER JOIN sepsis_item USING (itemid)
    WHERE concept IN ('gcs_motor', 'gcs_verbal', 'gcs_eyes', 'gcs_total') AND stay_id IS NOT NULL
    GROUP BY stay_id, charttime
),
before AS (
    SELECT
        *,
        lag(charttime) OVER in_order > charttime - INTERVAL 6 HOUR AS fresh,
        CASE WHEN fresh THEN lag(motor) OVER in_order END AS motor_before,
        CASE WHEN fresh THEN lag(verbal) OVER in_order END AS verbal_before,
        CASE WHEN fresh THEN lag(eyes) OVER in_order END AS eyes_before
    FROM part
    WINDOW in_order AS (PARTITION BY stay_id ORDER BY charttime)
)
SELECT
    stay_id,
    charttime,
    CASE
        WHEN total IS NOT NULL AND coalesce(motor, verbal, eyes) IS NULL THEN total
        WHEN verbal = 0 OR (verbal IS NULL AND verbal_before = 0) THEN 15
        WHEN verbal_before = 0 THEN coalesce(motor, 6) + coalesce(verbal, 5) + coalesce(eyes, 4)
        ELSE coalesce(motor, motor_before, 6) + coalesce(verbal, verbal_before, 5) + coalesce(eyes, eyes_before, 4)
    END AS gcs,
    coalesce(motor, motor_before) AS gcs_motor,
    coalesce(verbal, verbal_before) AS gcs_verbal,
    coalesce(eyes, eyes_before) AS gcs_eyes,
    intubated AS gcs_unable
FROM before;
