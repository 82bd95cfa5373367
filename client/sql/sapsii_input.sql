-- sapsii_input: the worst of the first 24 hours of each stay, as far as it was known. NULL: not measured.
-- Oxygenation counts under invasive and non-invasive ventilation only. Urine is scaled up to 24 hours where the
-- prediction comes earlier.
CREATE OR REPLACE TABLE sapsii_input AS
WITH day_one AS (
    SELECT
        stay_id,
        min(value) FILTER (WHERE concept = 'heart_rate') AS heart_rate_min,
        max(value) FILTER (WHERE concept = 'heart_rate') AS heart_rate_max,
        min(value) FILTER (WHERE concept = 'sbp') AS sbp_min,
        max(value) FILTER (WHERE concept = 'sbp') AS sbp_max,
        max(value) FILTER (WHERE concept = 'temperature') AS temperature_max,
        sum(value) FILTER (WHERE concept = 'urine') AS urine,
        max(value) FILTER (WHERE concept = 'bun') AS bun_max,
        min(value) FILTER (WHERE concept = 'wbc') AS wbc_min,
        max(value) FILTER (WHERE concept = 'wbc') AS wbc_max,
        min(value) FILTER (WHERE concept = 'potassium') AS potassium_min,
        max(value) FILTER (WHERE concept = 'potassium') AS potassium_max,
        min(value) FILTER (WHERE concept = 'sodium') AS sodium_min,
        max(value) FILTER (WHERE concept = 'sodium') AS sodium_max,
        min(value) FILTER (WHERE concept = 'bicarbonate') AS bicarbonate_min,
        max(value) FILTER (WHERE concept = 'bilirubin') AS bilirubin_max,
        min(value) FILTER (WHERE concept = 'gcs') AS gcs_min
    FROM events
    INNER JOIN cohort USING (stay_id)
    WHERE charttime > intime AND charttime <= intime + INTERVAL 24 HOUR
    GROUP BY stay_id
),
supported AS (
    SELECT gas.stay_id, min(gas.pao2fio2) AS pafi_ventilated_min
    FROM known.oxygenation AS gas
    INNER JOIN cohort USING (stay_id)
    WHERE
        gas.charttime > intime
        AND gas.charttime <= intime + INTERVAL 24 HOUR
        AND (gas.ventilated OR EXISTS (
            SELECT 1
            FROM known.ventilation AS spell
            WHERE
                spell.stay_id = gas.stay_id
                AND spell.status = 'NonInvasiveVent'
                AND gas.charttime BETWEEN spell.starttime AND spell.endtime
        ))
    GROUP BY gas.stay_id
),
service AS (
    SELECT cohort.stay_id, arg_min(curr_service, {'at': transfertime, 'service': curr_service}) AS first_service
    FROM services
    INNER JOIN cohort USING (hadm_id)
    WHERE transfertime <= cutoff
    GROUP BY cohort.stay_id
)
SELECT
    cohort.stay_id,
    cohort.age,
    day_one.* EXCLUDE (stay_id, urine),
    urine * 24 / least(24, date_diff('second', intime, cutoff) / 3600) AS urine_24h,
    pafi_ventilated_min,
    CASE
        WHEN first_service NOT LIKE '%SURG%' OR first_service IS NULL THEN 'medical'
        WHEN admission_type IN ('ELECTIVE', 'SURGICAL SAME DAY ADMISSION') THEN 'scheduled_surgical'
        ELSE 'unscheduled_surgical'
    END AS admission_kind
FROM cohort
LEFT JOIN day_one ON cohort.stay_id = day_one.stay_id
LEFT JOIN supported ON cohort.stay_id = supported.stay_id
LEFT JOIN service ON cohort.stay_id = service.stay_id;
