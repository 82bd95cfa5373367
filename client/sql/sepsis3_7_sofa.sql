-- sofa_hourly: the SOFA score of every ICU hour, each organ by its worst in the last 24 hours; missing counts as 0.
-- Source of the score: Vincent et al., Intensive Care Medicine 1996.
CREATE OR REPLACE TABLE sofa_hourly AS
WITH measured AS (
    SELECT *
    FROM sepsis_hour
    LEFT JOIN sepsis_hourly_oxygenation USING (stay_id, endtime)
    LEFT JOIN sepsis_hourly_lab USING (stay_id, endtime)
    LEFT JOIN sepsis_hourly_vasopressor USING (stay_id, endtime)
    LEFT JOIN sepsis_hourly_pressure USING (stay_id, endtime)
    LEFT JOIN sepsis_hourly_gcs USING (stay_id, endtime)
    LEFT JOIN sepsis_hourly_urine USING (stay_id, endtime)
),
scored AS (
    SELECT
        *,
        CASE
            WHEN pao2fio2_vent < 100 THEN 4
            WHEN pao2fio2_vent < 200 THEN 3
            WHEN least(pao2fio2_vent, pao2fio2_novent) < 300 THEN 2
            WHEN least(pao2fio2_vent, pao2fio2_novent) < 400 THEN 1
        END AS respiration,
        CASE
            WHEN platelet_min < 20 THEN 4
            WHEN platelet_min < 50 THEN 3
            WHEN platelet_min < 100 THEN 2
            WHEN platelet_min < 150 THEN 1
        END AS coagulation,
        CASE
            WHEN bilirubin_max >= 12 THEN 4
            WHEN bilirubin_max >= 6 THEN 3
            WHEN bilirubin_max >= 2 THEN 2
            WHEN bilirubin_max >= 1.2 THEN 1
        END AS liver,
        CASE
            WHEN rate_dopamine > 15 OR rate_epinephrine > 0.1 OR rate_norepinephrine > 0.1 THEN 4
            -- A recorded rate of 0 counts, as in the reference.
            WHEN rate_dopamine > 5 OR rate_epinephrine <= 0.1 OR rate_norepinephrine <= 0.1 THEN 3
            WHEN rate_dopamine > 0 OR rate_dobutamine > 0 THEN 2
            WHEN meanbp_min < 70 THEN 1
        END AS cardiovascular,
        CASE
            WHEN gcs_min < 6 THEN 4
            WHEN gcs_min < 10 THEN 3
            WHEN gcs_min < 13 THEN 2
            WHEN gcs_min < 15 THEN 1
        END AS cns,
        CASE
            WHEN creatinine_max >= 5 OR uo_24hr < 200 THEN 4
            WHEN creatinine_max >= 3.5 OR uo_24hr < 500 THEN 3
            WHEN creatinine_max >= 2 THEN 2
            WHEN creatinine_max >= 1.2 THEN 1
        END AS renal
    FROM measured
),
worst AS (
    -- The grid has no gaps: 24 rows are 24 hours.
    SELECT
        * EXCLUDE (respiration, coagulation, liver, cardiovascular, cns, renal),
        coalesce(max(respiration) OVER last_day, 0) AS respiration_24hours,
        coalesce(max(coagulation) OVER last_day, 0) AS coagulation_24hours,
        coalesce(max(liver) OVER last_day, 0) AS liver_24hours,
        coalesce(max(cardiovascular) OVER last_day, 0) AS cardiovascular_24hours,
        coalesce(max(cns) OVER last_day, 0) AS cns_24hours,
        coalesce(max(renal) OVER last_day, 0) AS renal_24hours
    FROM scored
    WINDOW last_day AS (PARTITION BY stay_id ORDER BY hr ROWS BETWEEN 23 PRECEDING AND CURRENT ROW)
)
SELECT
    stay_id,
    hr,
    endtime - INTERVAL 1 HOUR AS starttime,
    * EXCLUDE (stay_id, hr),
    respiration_24hours + coagulation_24hours + liver_24hours + cardiovascular_24hours + cns_24hours + renal_24hours
        AS sofa_24hours
FROM worst
WHERE hr >= 0;

DROP TABLE sepsis_stay_window;
DROP TABLE sepsis_hour;
DROP TABLE sepsis_hourly_oxygenation;
DROP TABLE sepsis_hourly_lab;
DROP TABLE sepsis_hourly_vasopressor;
DROP TABLE sepsis_hourly_pressure;
DROP TABLE sepsis_hourly_gcs;
DROP TABLE sepsis_hourly_urine;
