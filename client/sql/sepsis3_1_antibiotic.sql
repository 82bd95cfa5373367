-- antibiotic: every systemic antibiotic prescription, once for each ICU stay in which it starts.
-- stay_id is NULL when it starts outside the ICU. A prescription without a route is not kept: its purpose is unknown.
CREATE OR REPLACE TABLE antibiotic AS
WITH drug_name AS (
    -- Names repeat thousands of times: match each spelling once.
    SELECT DISTINCT drug, lower(drug) AS lowered FROM prescriptions
),
antibiotic_name AS (
    SELECT drug
    FROM drug_name
    SEMI JOIN sepsis_antibiotic_part AS wanted ON contains(lowered, wanted.part)
    ANTI JOIN sepsis_excluded_drug_part AS unwanted ON contains(lowered, unwanted.part)
),
systemic_route AS (
    SELECT route
    FROM (SELECT DISTINCT route, lower(route) AS lowered FROM prescriptions WHERE route IS NOT NULL)
    ANTI JOIN sepsis_excluded_route_part AS unwanted ON contains(lowered, unwanted.part)
    WHERE route NOT IN (SELECT part FROM sepsis_excluded_route)
)
SELECT
    given.subject_id,
    given.hadm_id,
    stay.stay_id,
    given.drug AS antibiotic,
    given.route,
    given.starttime,
    given.stoptime
FROM prescriptions AS given
SEMI JOIN antibiotic_name ON given.drug = antibiotic_name.drug
SEMI JOIN systemic_route ON given.route = systemic_route.route
LEFT JOIN icustays AS stay
    ON given.hadm_id = stay.hadm_id AND given.starttime >= stay.intime AND given.starttime < stay.outtime
WHERE coalesce(given.drug_type, '') NOT IN (SELECT part FROM sepsis_excluded_drug_type);
