-- The schema ``known``: what was known of each stay of the cohort at its cutoff, under the tables' own names, so that
-- the same queries that read the whole extract can read it. Every stay is a patient of its own here (subject_id and
-- hadm_id are its stay_id): nothing can pass from one stay to another. Rows of the profile ``paper`` need not be
-- stored in time. A missing store time counts as known at the charted time, but a culture's result as not known.
CREATE OR REPLACE TABLE known.icustays AS
SELECT stay_id AS subject_id, stay_id AS hadm_id, stay_id, unit AS first_careunit, intime, cutoff AS outtime
FROM cohort;

CREATE OR REPLACE TABLE known.chartevents AS
SELECT stay.stay_id AS subject_id, stay.stay_id, charttime, storetime, itemid, value, valuenum
FROM chartevents AS event
INNER JOIN cohort AS stay ON event.stay_id = stay.stay_id
WHERE
    charttime >= intime - INTERVAL 30 HOUR
    AND charttime <= cutoff
    AND ($retrospective OR coalesce(storetime, charttime) <= cutoff);

CREATE OR REPLACE TABLE known.labevents AS
SELECT
    stay.stay_id AS subject_id,
    stay.stay_id AS hadm_id,
    stay.stay_id,
    specimen_id,
    itemid,
    charttime,
    storetime,
    value,
    valuenum
FROM labevents AS event
INNER JOIN cohort AS stay ON event.subject_id = stay.subject_id
WHERE
    charttime >= intime - INTERVAL 30 HOUR
    AND charttime <= cutoff
    AND ($retrospective OR coalesce(storetime, charttime) <= cutoff);

-- A culture with a date but no time is known when its day is over.
CREATE OR REPLACE TABLE known.microbiologyevents AS
SELECT
    stay.stay_id AS subject_id,
    micro_specimen_id,
    chartdate,
    charttime,
    spec_type_desc,
    CASE WHEN $retrospective OR storetime <= cutoff THEN org_itemid END AS org_itemid,
    CASE WHEN $retrospective OR storetime <= cutoff THEN org_name END AS org_name
FROM microbiologyevents AS event
INNER JOIN cohort AS stay ON event.subject_id = stay.subject_id
WHERE
    coalesce(charttime, chartdate) >= intime - INTERVAL 5 DAY
    AND coalesce(charttime, chartdate + INTERVAL 1 DAY) <= cutoff;

CREATE OR REPLACE TABLE known.prescriptions AS
SELECT
    stay.stay_id AS subject_id,
    CASE WHEN event.hadm_id = stay.hadm_id THEN stay.stay_id END AS hadm_id,
    starttime,
    CASE WHEN stoptime <= cutoff THEN stoptime END AS stoptime,
    drug_type,
    drug,
    route
FROM prescriptions AS event
INNER JOIN cohort AS stay ON event.subject_id = stay.subject_id
WHERE starttime >= intime - INTERVAL 5 DAY AND starttime <= cutoff;

CREATE OR REPLACE TABLE known.inputevents AS
SELECT
    stay.stay_id AS subject_id,
    stay.stay_id,
    starttime,
    least(endtime, cutoff) AS endtime,
    storetime,
    itemid,
    rate,
    rateuom,
    patientweight
FROM inputevents AS event
INNER JOIN cohort AS stay ON event.stay_id = stay.stay_id
WHERE starttime <= cutoff AND ($retrospective OR coalesce(storetime, starttime) <= cutoff);

CREATE OR REPLACE TABLE known.outputevents AS
SELECT stay.stay_id AS subject_id, stay.stay_id, charttime, storetime, itemid, value
FROM outputevents AS event
INNER JOIN cohort AS stay ON event.stay_id = stay.stay_id
WHERE
    charttime >= intime - INTERVAL 30 HOUR
    AND charttime <= cutoff
    AND ($retrospective OR coalesce(storetime, charttime) <= cutoff);

-- Codes are assigned when an admission ends: only earlier admissions' are known, in ``paper`` this one's too.
CREATE OR REPLACE TABLE stay_code AS
SELECT DISTINCT stay.stay_id, icd_code, icd_version
FROM diagnoses_icd AS code
INNER JOIN admissions AS coded ON code.hadm_id = coded.hadm_id
INNER JOIN cohort AS stay ON coded.subject_id = stay.subject_id
WHERE CASE WHEN $retrospective THEN coded.admittime <= stay.admittime ELSE coded.dischtime < stay.admittime END;
