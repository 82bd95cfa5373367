-- charlson: the comorbidities of each stay by its known codes, and their weighted sum with age.
-- Sources: conditions, Quan et al., Med Care 2005; weights, Charlson et al., J Chronic Dis 1987; age points as in
-- mimic-code (one for each decade begun after 50, at most 4).
CREATE OR REPLACE TABLE charlson AS
WITH diagnosed AS (
    SELECT stay_id, list(DISTINCT condition) AS conditions
    FROM stay_condition
    GROUP BY stay_id
),
known AS (
    SELECT stay_id, age, coalesce(conditions, []) AS conditions
    FROM cohort
    LEFT JOIN diagnosed USING (stay_id)
),
flagged AS (
    SELECT
        stay_id,
        list_contains(conditions, 'myocardial_infarct')::INTEGER AS myocardial_infarct,
        list_contains(conditions, 'congestive_heart_failure')::INTEGER AS congestive_heart_failure,
        list_contains(conditions, 'peripheral_vascular_disease')::INTEGER AS peripheral_vascular_disease,
        list_contains(conditions, 'cerebrovascular_disease')::INTEGER AS cerebrovascular_disease,
        list_contains(conditions, 'dementia')::INTEGER AS dementia,
        list_contains(conditions, 'chronic_pulmonary_disease')::INTEGER AS chronic_pulmonary_disease,
        list_contains(conditions, 'rheumatic_disease')::INTEGER AS rheumatic_disease,
        list_contains(conditions, 'peptic_ulcer_disease')::INTEGER AS peptic_ulcer_disease,
        list_contains(conditions, 'mild_liver_disease')::INTEGER AS mild_liver_disease,
        list_contains(conditions, 'diabetes_without_cc')::INTEGER AS diabetes_without_cc,
        list_contains(conditions, 'diabetes_with_cc')::INTEGER AS diabetes_with_cc,
        list_contains(conditions, 'paraplegia')::INTEGER AS paraplegia,
        list_contains(conditions, 'renal_disease')::INTEGER AS renal_disease,
        list_contains(conditions, 'malignant_cancer')::INTEGER AS malignant_cancer,
        list_contains(conditions, 'severe_liver_disease')::INTEGER AS severe_liver_disease,
        list_contains(conditions, 'metastatic_solid_tumor')::INTEGER AS metastatic_solid_tumor,
        list_contains(conditions, 'aids')::INTEGER AS aids,
        CASE
            WHEN age > 80 THEN 4
            WHEN age > 70 THEN 3
            WHEN age > 60 THEN 2
            WHEN age > 50 THEN 1
            ELSE 0
        END AS age_score
    FROM known
)
SELECT
    *,
    age_score
    + myocardial_infarct
    + congestive_heart_failure
    + peripheral_vascular_disease
    + cerebrovascular_disease
    + dementia
    + chronic_pulmonary_disease
    + rheumatic_disease
    + peptic_ulcer_disease
    + 2 * paraplegia
    + 2 * renal_disease
    + 6 * aids
    -- The graver stage of one disease replaces the milder.
    + greatest(mild_liver_disease, 3 * severe_liver_disease)
    + greatest(diabetes_without_cc, 2 * diabetes_with_cc)
    + greatest(2 * malignant_cancer, 6 * metastatic_solid_tumor)
        AS charlson_score
FROM flagged
ORDER BY stay_id;
