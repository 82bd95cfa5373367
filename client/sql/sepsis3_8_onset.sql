-- sepsis3: suspected infection in the ICU with a 24-hour SOFA of 2 or more (its baseline taken as 0) at an hour in
-- [suspected - 48 h, suspected + 24 h]. One row a stay: the first by suspicion, antibiotic, culture and SOFA hour.
CREATE OR REPLACE TABLE sepsis3 AS
SELECT
    suspicion.subject_id,
    suspicion.stay_id,
    suspicion.antibiotic_time,
    suspicion.culture_time,
    suspicion.suspected_time,
    sofa.endtime AS sofa_time,
    sofa.sofa_24hours AS sofa_score,
    sofa.respiration_24hours AS respiration,
    sofa.coagulation_24hours AS coagulation,
    sofa.liver_24hours AS liver,
    sofa.cardiovascular_24hours AS cardiovascular,
    sofa.cns_24hours AS cns,
    sofa.renal_24hours AS renal,
    sofa.sofa_24hours >= 2 AND suspicion.suspected_infection = 1 AS sepsis3
FROM suspicion
INNER JOIN sofa_hourly AS sofa
    ON suspicion.stay_id = sofa.stay_id
    AND sofa.endtime >= suspicion.suspected_time - INTERVAL 48 HOUR
    AND sofa.endtime <= suspicion.suspected_time + INTERVAL 24 HOUR
WHERE sofa.sofa_24hours >= 2
QUALIFY row_number() OVER (
    PARTITION BY suspicion.stay_id
    ORDER BY suspected_time, antibiotic_time, culture_time, sofa_time
) = 1;
