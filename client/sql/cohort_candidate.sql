-- Every ICU stay with valid times, with what the inclusion rules ask about it.
-- Age at admission: MIMIC-IV's anchor age plus the years since the anchor year.
CREATE OR REPLACE TEMP TABLE sepsis_candidate AS
SELECT DISTINCT -- a patient, admission or stay that was exported twice is one
    stay.subject_id,
    stay.hadm_id,
    stay.stay_id,
    stay.first_careunit AS unit,
    stay.intime,
    stay.outtime,
    stay.intime + to_microseconds(CAST(round($hours * 3600000000) AS BIGINT)) AS prediction_time,
    CAST(patient.anchor_age + year(admission.admittime) - patient.anchor_year AS DOUBLE) AS age,
    patient.gender,
    -- Death in the ICU needs a time of death; a death without one has no known label there.
    CASE
        WHEN $label = 'in_hospital' OR admission.hospital_expire_flag = 0 THEN admission.hospital_expire_flag = 1
        ELSE admission.deathtime <= stay.outtime
    END AS label,
    admission.admittime,
    admission.dischtime,
    admission.deathtime,
    admission.admission_type,
    CAST(NULL AS TIMESTAMP) AS onset_time
FROM icustays AS stay
LEFT JOIN admissions AS admission ON stay.hadm_id = admission.hadm_id
LEFT JOIN patients AS patient ON stay.subject_id = patient.subject_id
WHERE stay.intime IS NOT NULL AND stay.outtime > stay.intime;
