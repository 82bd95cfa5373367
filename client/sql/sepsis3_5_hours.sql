-- The hour grid of a stay and what was measured in each hour (start, end].
-- The grid runs from 24 hours before the first heart rate to the hour of the last one, on full clock hours; hour 0
-- ends at or after the first heart rate. A stay without heart rate has no grid and so no SOFA.
CREATE OR REPLACE TEMP MACRO sepsis_hour_end(t) AS date_trunc('hour', t - INTERVAL 1 MICROSECOND) + INTERVAL 1 HOUR;

CREATE OR REPLACE TEMP TABLE sepsis_stay_window AS
SELECT
    stay.subject_id,
    stay.hadm_id,
    stay.stay_id,
    min(chart.charttime) AS first_heart_rate,
    date_diff('hour', first_heart_rate, max(chart.charttime)) AS last_hr,
    sepsis_hour_end(first_heart_rate) AS hour_zero_end,
    hour_zero_end - INTERVAL 25 HOUR AS window_start,
    hour_zero_end + to_hours(last_hr) AS window_end
FROM icustays AS stay
INNER JOIN chartevents AS chart
    ON stay.stay_id = chart.stay_id
    -- A mistyped year must not make a grid of centuries.
    AND chart.charttime > stay.intime - INTERVAL 1 MONTH
    AND chart.charttime < stay.outtime + INTERVAL 1 MONTH
WHERE chart.itemid IN (SELECT itemid FROM sepsis_item WHERE concept = 'heart_rate')
GROUP BY stay.subject_id, stay.hadm_id, stay.stay_id;

CREATE OR REPLACE TEMP TABLE sepsis_hour AS
SELECT stay_id, hr, hour_zero_end + to_hours(hr) AS endtime
FROM (SELECT *, unnest(generate_series(-24, last_hr)) AS hr FROM sepsis_stay_window);

-- Mean arterial pressure: several readings at one time are averaged first.
CREATE OR REPLACE TEMP TABLE sepsis_hourly_pressure AS
WITH reading AS (
    SELECT stay_id, charttime, avg(valuenum) AS pressure
    FROM chartevents
    WHERE
        itemid IN (SELECT itemid FROM sepsis_item WHERE concept = 'mean_pressure')
        AND valuenum > 0
        AND valuenum < 300
    GROUP BY stay_id, charttime
)
SELECT stay_id, sepsis_hour_end(charttime) AS endtime, min(pressure) AS meanbp_min
FROM reading
GROUP BY ALL;

CREATE OR REPLACE TEMP TABLE sepsis_hourly_gcs AS
SELECT stay_id, sepsis_hour_end(charttime) AS endtime, min(gcs) AS gcs_min
FROM gcs
GROUP BY ALL;

-- Laboratory values join by patient and time: rows of the emergency department have no hadm_id. For comparisons they
-- can be held to the admission, as in the reference.
CREATE OR REPLACE TEMP TABLE sepsis_hourly_lab AS
WITH sample AS (
    SELECT
        subject_id,
        hadm_id,
        charttime,
        max(valuenum) FILTER (WHERE concept = 'platelets') AS platelets,
        max(valuenum) FILTER (WHERE concept = 'bilirubin') AS bilirubin,
        max(valuenum) FILTER (WHERE concept = 'creatinine' AND valuenum <= 150) AS creatinine
    FROM labevents
    INNER JOIN sepsis_item USING (itemid)
    WHERE concept IN ('platelets', 'bilirubin', 'creatinine') AND valuenum > 0
    GROUP BY subject_id, hadm_id, specimen_id, charttime
)
SELECT
    stay_id,
    sepsis_hour_end(charttime) AS endtime,
    min(platelets) AS platelet_min,
    max(bilirubin) AS bilirubin_max,
    max(creatinine) AS creatinine_max
FROM sample
INNER JOIN sepsis_stay_window AS stay ON sample.subject_id = stay.subject_id
WHERE
    charttime > window_start
    AND charttime <= window_end
    AND (sample.hadm_id = stay.hadm_id OR NOT (SELECT labs_of_admission FROM sepsis_setting))
GROUP BY ALL;

-- Urine: the total of the current and the 23 hours before, scaled to 24 hours. It counts only when the collections
-- observed 22 to 30 hours together, the first one since the first heart rate. Irrigant that went in is subtracted.
CREATE OR REPLACE TEMP TABLE sepsis_hourly_urine AS
WITH collected AS (
    SELECT
        stay_id,
        charttime,
        sum(CASE WHEN concept = 'irrigant_in' AND value > 0 THEN -value ELSE value END) AS volume
    FROM outputevents
    INNER JOIN sepsis_item USING (itemid)
    WHERE concept IN ('urine', 'irrigant_in')
    GROUP BY stay_id, charttime
),
timed AS (
    SELECT
        stay_id,
        charttime,
        volume,
        date_diff('second', coalesce(lag(charttime) OVER in_order, first_heart_rate), charttime) AS seconds
    FROM collected
    INNER JOIN sepsis_stay_window USING (stay_id)
    WINDOW in_order AS (PARTITION BY stay_id ORDER BY charttime)
),
day_total AS (
    SELECT
        stay_id,
        charttime,
        sum(volume) OVER last_day AS volume,
        round(CAST(sum(seconds) OVER last_day / 3600 AS DECIMAL(18, 6)), 2) AS hours
    FROM timed
    WINDOW last_day AS (
        PARTITION BY stay_id
        ORDER BY charttime
        RANGE BETWEEN INTERVAL 23 HOUR PRECEDING AND CURRENT ROW
    )
)
SELECT stay_id, sepsis_hour_end(charttime) AS endtime, max(volume / CAST(hours AS DOUBLE) * 24) AS uo_24hr
FROM day_total
WHERE hours BETWEEN 22 AND 30
GROUP BY ALL;

-- Vasopressors: a rate counts in the hours whose end lies in (infusion start, infusion end].
-- Norepinephrine in mg/kg/min is a slip of the unit when the weight is 1, and a thousandth otherwise.
CREATE OR REPLACE TEMP TABLE sepsis_hourly_vasopressor AS
WITH infusion AS (
    SELECT
        stay_id,
        concept,
        starttime,
        endtime,
        CASE
            WHEN concept = 'norepinephrine' AND rateuom = 'mg/kg/min' AND patientweight IS DISTINCT FROM 1
                THEN rate * 1000
            ELSE rate
        END AS dose
    FROM inputevents
    INNER JOIN sepsis_item USING (itemid)
    WHERE concept IN ('norepinephrine', 'epinephrine', 'dopamine', 'dobutamine')
),
covered AS (
    SELECT
        stay_id,
        concept,
        dose,
        unnest(
            generate_series(
                greatest(date_trunc('hour', starttime) + INTERVAL 1 HOUR, window_start),
                least(date_trunc('hour', endtime), window_end),
                INTERVAL 1 HOUR
            )
        ) AS hour_end
    FROM infusion
    INNER JOIN sepsis_stay_window USING (stay_id)
)
SELECT
    stay_id,
    hour_end AS endtime,
    max(dose) FILTER (WHERE concept = 'norepinephrine') AS rate_norepinephrine,
    max(dose) FILTER (WHERE concept = 'epinephrine') AS rate_epinephrine,
    max(dose) FILTER (WHERE concept = 'dopamine') AS rate_dopamine,
    max(dose) FILTER (WHERE concept = 'dobutamine') AS rate_dobutamine
FROM covered
GROUP BY ALL;
