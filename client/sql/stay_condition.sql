-- stay_condition: the conditions of ``condition_prefix`` that the known codes of each stay meet. Codes may carry dots,
-- blanks and lower case.
CREATE OR REPLACE TEMP TABLE stay_condition AS
WITH code AS (
    SELECT
        stay_id,
        icd_version,
        upper(regexp_replace(icd_code, '[^A-Za-z0-9]', '', 'g')) AS code
    FROM stay_code
)
-- Every prefix has at least 3 characters: joining on them first spares comparing each code with each prefix.
SELECT stay_id, condition
FROM code
INNER JOIN condition_prefix
    ON code.icd_version = condition_prefix.icd_version
    AND left(code, 3) = left(prefix, 3)
    AND starts_with(code, prefix);
