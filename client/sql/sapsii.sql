-- sapsii: the points of each SAPS II component, their sum, and the probability of death in hospital it stands for.
-- Source: Le Gall et al., JAMA 1993. Branches run from most points to fewest, so the worse of minimum and maximum
-- decides; a comparison with NULL is not met, so what was not measured falls through to 0.
CREATE OR REPLACE TABLE sapsii AS
WITH comorbidity AS (
    -- One chronic disease counts, the one with the most points.
    SELECT
        stay_id,
        max(
            CASE condition
                WHEN 'aids' THEN 17
                WHEN 'hematologic_malignancy' THEN 10
                WHEN 'metastatic_cancer' THEN 9
            END
        ) AS points
    FROM stay_condition
    GROUP BY stay_id
),
scored AS (
    SELECT
        stay_id,
        CASE
            WHEN age >= 80 THEN 18
            WHEN age >= 75 THEN 16
            WHEN age >= 70 THEN 15
            WHEN age >= 60 THEN 12
            WHEN age >= 40 THEN 7
            ELSE 0
        END AS age_points,
        CASE
            WHEN heart_rate_min < 40 THEN 11
            WHEN heart_rate_max >= 160 THEN 7
            WHEN heart_rate_max >= 120 THEN 4
            WHEN heart_rate_min < 70 THEN 2
            ELSE 0
        END AS heart_rate_points,
        CASE
            WHEN sbp_min < 70 THEN 13
            WHEN sbp_min < 100 THEN 5
            WHEN sbp_max >= 200 THEN 2
            ELSE 0
        END AS sbp_points,
        CASE WHEN temperature_max >= 39 THEN 3 ELSE 0 END AS temperature_points,
        CASE
            WHEN pafi_ventilated_min < 100 THEN 11
            WHEN pafi_ventilated_min < 200 THEN 9
            WHEN pafi_ventilated_min >= 200 THEN 6
            ELSE 0
        END AS pafi_points,
        CASE
            WHEN urine_24h < 500 THEN 11
            WHEN urine_24h < 1000 THEN 4
            ELSE 0
        END AS urine_points,
        CASE
            WHEN bun_max >= 84 THEN 10
            WHEN bun_max >= 28 THEN 6
            ELSE 0
        END AS bun_points,
        CASE
            WHEN wbc_min < 1 THEN 12
            WHEN wbc_max >= 20 THEN 3
            ELSE 0
        END AS wbc_points,
        CASE WHEN potassium_min < 3 OR potassium_max >= 5 THEN 3 ELSE 0 END AS potassium_points,
        CASE
            WHEN sodium_min < 125 THEN 5
            WHEN sodium_max >= 145 THEN 1
            ELSE 0
        END AS sodium_points,
        CASE
            WHEN bicarbonate_min < 15 THEN 6
            WHEN bicarbonate_min < 20 THEN 3
            ELSE 0
        END AS bicarbonate_points,
        CASE
            WHEN bilirubin_max >= 6 THEN 9
            WHEN bilirubin_max >= 4 THEN 4
            ELSE 0
        END AS bilirubin_points,
        CASE
            -- The scale starts at 3: less is an error of charting.
            WHEN gcs_min < 3 THEN 0
            WHEN gcs_min < 6 THEN 26
            WHEN gcs_min < 9 THEN 13
            WHEN gcs_min < 11 THEN 7
            WHEN gcs_min < 14 THEN 5
            ELSE 0
        END AS gcs_points,
        coalesce(points, 0) AS comorbidity_points,
        CASE
            WHEN admission_kind IS NULL OR admission_kind = 'scheduled_surgical' THEN 0
            WHEN admission_kind = 'medical' THEN 6
            WHEN admission_kind = 'unscheduled_surgical' THEN 8
            ELSE error('sapsii_input.admission_kind is unknown: ' || admission_kind)
        END AS admission_points
    FROM sapsii_input
    LEFT JOIN comorbidity USING (stay_id)
),
summed AS (
    SELECT
        *,
        age_points
        + heart_rate_points
        + sbp_points
        + temperature_points
        + pafi_points
        + urine_points
        + bun_points
        + wbc_points
        + potassium_points
        + sodium_points
        + bicarbonate_points
        + bilirubin_points
        + gcs_points
        + comorbidity_points
        + admission_points
            AS sapsii
    FROM scored
)
SELECT
    *,
    1 / (1 + exp(7.7631 - 0.0737 * sapsii - 0.9971 * ln(sapsii + 1))) AS sapsii_prob
FROM summed
ORDER BY stay_id;
