-- cohort: the stays that passed every rule.
CREATE OR REPLACE TABLE cohort AS
SELECT
    subject_id,
    hadm_id,
    stay_id,
    unit,
    intime,
    outtime,
    prediction_time,
    age,
    gender,
    label,
    onset_time
FROM sepsis_candidate
ORDER BY subject_id, intime, stay_id;

DROP TABLE sepsis_candidate;
