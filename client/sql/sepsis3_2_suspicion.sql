-- culture: one row a specimen, which has one row for each organism and drug tested.
CREATE OR REPLACE TABLE culture AS
SELECT
    subject_id,
    micro_specimen_id,
    CAST(coalesce(chartdate, charttime) AS DATE) AS culture_date,
    charttime,
    coalesce(charttime, culture_date) AS culture_time,
    max(spec_type_desc) AS specimen,
    max(
        CASE
            WHEN coalesce(org_name, '') IN ('', 'CANCELLED') OR org_itemid IN (90856, 90760) THEN 0
            ELSE 1
        END
    ) AS positive_culture
FROM microbiologyevents
GROUP BY ALL;

-- suspicion: each antibiotic with the culture that makes it a suspected infection.
-- A culture in the 72 hours before the antibiotic wins over one in the 24 hours after it; the earliest wins on either
-- side. A culture with a date but no time is compared by days: 3 before, 1 after.
CREATE OR REPLACE TABLE suspicion AS
WITH numbered AS (
    SELECT
        *,
        starttime AS antibiotic_time,
        CAST(starttime AS DATE) AS antibiotic_date,
        row_number() OVER (
            PARTITION BY subject_id
            ORDER BY starttime NULLS FIRST, stoptime NULLS FIRST, antibiotic, hadm_id NULLS FIRST, stay_id NULLS FIRST
        ) AS ab_id
    FROM antibiotic
),
culture_first AS (
    SELECT numbered.subject_id, numbered.ab_id, culture.*
    FROM numbered
    INNER JOIN culture ON numbered.subject_id = culture.subject_id
    WHERE
        CASE
            WHEN culture.charttime IS NULL
                THEN antibiotic_date BETWEEN culture_date AND culture_date + INTERVAL 3 DAY
            ELSE antibiotic_time > culture.charttime AND antibiotic_time <= culture.charttime + INTERVAL 72 HOUR
        END
    QUALIFY row_number() OVER (
        PARTITION BY numbered.subject_id, numbered.ab_id
        ORDER BY culture_date, culture.charttime NULLS LAST, positive_culture DESC, micro_specimen_id
    ) = 1
),
antibiotic_first AS (
    SELECT numbered.subject_id, numbered.ab_id, culture.*
    FROM numbered
    INNER JOIN culture ON numbered.subject_id = culture.subject_id
    WHERE
        CASE
            WHEN culture.charttime IS NULL
                THEN antibiotic_date BETWEEN culture_date - INTERVAL 1 DAY AND culture_date
            ELSE antibiotic_time < culture.charttime AND antibiotic_time >= culture.charttime - INTERVAL 24 HOUR
        END
    QUALIFY row_number() OVER (
        PARTITION BY numbered.subject_id, numbered.ab_id
        ORDER BY culture_date, culture.charttime NULLS LAST, positive_culture DESC, micro_specimen_id
    ) = 1
)
SELECT
    numbered.subject_id,
    numbered.hadm_id,
    numbered.stay_id,
    numbered.ab_id,
    numbered.antibiotic,
    numbered.antibiotic_time,
    CAST(culture_first.ab_id IS NOT NULL OR antibiotic_first.ab_id IS NOT NULL AS INTEGER) AS suspected_infection,
    CASE suspected_infection WHEN 1 THEN coalesce(culture_first.culture_time, antibiotic_time) END AS suspected_time,
    coalesce(culture_first.culture_time, antibiotic_first.culture_time) AS culture_time,
    coalesce(culture_first.specimen, antibiotic_first.specimen) AS specimen,
    coalesce(culture_first.positive_culture, antibiotic_first.positive_culture) AS positive_culture
FROM numbered
LEFT JOIN culture_first
    ON numbered.subject_id = culture_first.subject_id AND numbered.ab_id = culture_first.ab_id
LEFT JOIN antibiotic_first
    ON numbered.subject_id = antibiotic_first.subject_id AND numbered.ab_id = antibiotic_first.ab_id;
