-- The onset of sepsis: the time of the suspected infection that the SOFA score confirmed.
UPDATE sepsis_candidate
SET onset_time = sepsis3.suspected_time
FROM sepsis3
WHERE sepsis_candidate.stay_id = sepsis3.stay_id;
