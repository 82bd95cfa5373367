-- judged: every candidate with its value, whether it fits its concept, and the rule that was applied to it, if any.
-- A value out of range is read again in the other units that people write into the same field.
CREATE OR REPLACE TABLE judged AS
WITH own AS (
    SELECT
        candidates.*,
        isfinite(converted) AND converted >= low AND converted <= high AS in_range
    FROM candidates
    INNER JOIN ranges ON candidates.concept = ranges.concept
),
again AS (
    SELECT
        own.*,
        other.rule AS other_rule,
        own.raw * other.factor + other.shift AS other_value
    FROM own
    LEFT JOIN alternates AS other
        ON own.concept = other.concept
        AND own.in_range IS FALSE
        AND own.raw > other.above
        AND own.raw <= other.until
        AND own.raw * other.factor + other.shift BETWEEN other.low AND other.high
)
SELECT
    stay_id,
    itemid,
    concept,
    source,
    charttime,
    storetime,
    raw,
    copies,
    if(in_range, converted, other_value) AS value,
    converted IS NOT NULL AND (in_range OR other_rule IS NOT NULL) AS fits,
    CASE
        WHEN converted IS NULL THEN problem
        WHEN NOT in_range THEN coalesce(other_rule, 'outside plausible range')
    END AS rule
FROM again;
