-- oxygenation: PaO2/FiO2 of every arterial sample, and whether it was taken under invasive ventilation.
-- FiO2 is the sample's own, else the latest charted one of the 4 hours before it; in percent.
CREATE OR REPLACE TABLE oxygenation AS
WITH gas AS (
    SELECT
        subject_id,
        charttime,
        max(trim(value)) FILTER (WHERE concept = 'specimen_type') AS specimen,
        max(valuenum) FILTER (WHERE concept = 'pao2') AS pao2,
        max(
            CASE
                WHEN valuenum > 20 AND valuenum <= 100 THEN valuenum
                WHEN valuenum > 0.2 AND valuenum <= 1 THEN valuenum * 100
            END
        ) FILTER (WHERE concept = 'fio2') AS fio2
    FROM labevents
    INNER JOIN sepsis_item USING (itemid)
    WHERE concept IN ('specimen_type', 'pao2', 'fio2')
    GROUP BY subject_id, specimen_id, charttime
    HAVING specimen = 'ART.' AND pao2 IS NOT NULL
),
charted AS (
    SELECT
        subject_id,
        charttime,
        max(
            CASE
                WHEN valuenum >= 20 AND valuenum <= 100 THEN valuenum
                WHEN valuenum > 0.2 AND valuenum <= 1 THEN valuenum * 100
            END
        ) AS fio2
    FROM chartevents
    WHERE itemid IN (SELECT itemid FROM sepsis_item WHERE concept = 'charted_fio2')
    GROUP BY subject_id, charttime
    HAVING fio2 IS NOT NULL
),
ratio AS (
    SELECT
        gas.subject_id,
        gas.charttime,
        100 * gas.pao2 / coalesce(
            gas.fio2,
            CASE WHEN charted.charttime >= gas.charttime - INTERVAL 4 HOUR THEN charted.fio2 END
        ) AS pao2fio2
    FROM gas
    ASOF LEFT JOIN charted ON gas.subject_id = charted.subject_id AND gas.charttime >= charted.charttime
),
in_stay AS (
    SELECT stay_id, charttime, pao2fio2
    FROM ratio
    INNER JOIN icustays AS stay ON ratio.subject_id = stay.subject_id
    WHERE
        charttime >= stay.intime - INTERVAL 1 MONTH
        AND charttime <= stay.outtime + INTERVAL 1 MONTH
        AND pao2fio2 IS NOT NULL
),
invasive AS (
    SELECT stay_id, starttime, endtime FROM ventilation WHERE status = 'InvasiveVent'
)
-- Spells of one stay do not overlap: the last one that began before the sample decides.
SELECT
    in_stay.stay_id,
    in_stay.charttime,
    pao2fio2,
    coalesce(in_stay.charttime <= invasive.endtime, false) AS ventilated
FROM in_stay
ASOF LEFT JOIN invasive ON in_stay.stay_id = invasive.stay_id AND in_stay.charttime >= invasive.starttime;

-- The worst of each hour, apart for samples under invasive ventilation and others.
CREATE OR REPLACE TEMP TABLE sepsis_hourly_oxygenation AS
SELECT
    stay_id,
    sepsis_hour_end(charttime) AS endtime,
    min(pao2fio2) FILTER (WHERE ventilated) AS pao2fio2_vent,
    min(pao2fio2) FILTER (WHERE NOT ventilated) AS pao2fio2_novent
FROM oxygenation
GROUP BY ALL;
