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
    -- Nothing later than this is an input.
    CASE WHEN $retrospective THEN outtime ELSE prediction_time END AS cutoff,
    admittime,
    dischtime,
    admission_type,
    age,
    gender,
    label,
    onset_time
FROM sepsis_candidate
ORDER BY subject_id, intime, stay_id;

DROP TABLE sepsis_candidate;
