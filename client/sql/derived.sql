-- The static features that are no statistic of a concept, one row a stay in the order of ``numbered``; their names and
-- meanings are declared in shared_model/features.py.
WITH antibiotics AS (
    SELECT stay.stay_id, count(DISTINCT given.antibiotic) AS antibiotic_num
    FROM known.antibiotic AS given
    INNER JOIN cohort AS stay ON given.subject_id = stay.stay_id
    WHERE given.starttime > stay.intime - INTERVAL 1 DAY
    GROUP BY stay.stay_id
),
cultures AS (
    SELECT
        stay.stay_id,
        count(DISTINCT taken.micro_specimen_id) AS specimen_count,
        max(taken.positive_culture) AS positive_culture
    FROM known.culture AS taken
    INNER JOIN cohort AS stay ON taken.subject_id = stay.stay_id
    WHERE taken.culture_time > stay.intime - INTERVAL 1 DAY
    GROUP BY stay.stay_id
),
suspected AS (
    SELECT
        subject_id AS stay_id,
        date_diff('minute', culture_time, antibiotic_time) / 60 AS cul_anti_period,
        date_diff('minute', suspected_time, antibiotic_time) / 60 AS sus_anti_period
    FROM known.suspicion
    WHERE suspected_infection = 1
    QUALIFY row_number() OVER (PARTITION BY subject_id ORDER BY suspected_time, antibiotic_time, ab_id) = 1
),
organs AS (
    SELECT stay_id, arg_max(sofa_24hours, hr) AS sofa_score FROM known.sofa_hourly GROUP BY stay_id
),
coded AS (
    SELECT DISTINCT stay_id FROM stay_code
),
ventilated AS (
    SELECT DISTINCT stay_id FROM known.ventilation WHERE status = 'InvasiveVent'
)
SELECT
    least(stay.age, 91) AS age,
    stay.gender = 'M' AS male,
    coalesce(stay.admission_type LIKE '%EMER%' OR stay.admission_type = 'URGENT', false) AS emergency,
    sofa_score,
    sapsii,
    sapsii_prob,
    -- Without an earlier coded admission nothing is known, which is not the same as no disease.
    CASE WHEN coded.stay_id IS NOT NULL THEN charlson_score END AS charlson_score,
    CASE WHEN coded.stay_id IS NOT NULL THEN metastatic_solid_tumor END AS metastatic_solid_tumor,
    ventilated.stay_id IS NOT NULL AS vent_status,
    coalesce(antibiotic_num, 0) AS antibiotic_num,
    coalesce(specimen_count, 0) AS specimen_count,
    coalesce(positive_culture, 0) AS positive_culture,
    cul_anti_period,
    sus_anti_period,
    date_diff('minute', stay.intime, stay.outtime) / 1440 AS los_icu,
    date_diff('minute', stay.admittime, stay.dischtime) / 1440 AS los_hospital
FROM numbered AS stay
LEFT JOIN antibiotics ON stay.stay_id = antibiotics.stay_id
LEFT JOIN cultures ON stay.stay_id = cultures.stay_id
LEFT JOIN suspected ON stay.stay_id = suspected.stay_id
LEFT JOIN organs ON stay.stay_id = organs.stay_id
LEFT JOIN ventilated ON stay.stay_id = ventilated.stay_id
LEFT JOIN sapsii ON stay.stay_id = sapsii.stay_id
LEFT JOIN charlson ON stay.stay_id = charlson.stay_id
LEFT JOIN coded ON stay.stay_id = coded.stay_id
ORDER BY stay.n;
