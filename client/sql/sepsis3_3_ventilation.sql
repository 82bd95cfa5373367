-- ventilation: spells of one kind of breathing support, from charted devices and ventilator modes.
-- A spell ends when the status changes or after 14 hours without a row; a spell of a single time point is dropped.
CREATE OR REPLACE TABLE ventilation AS
WITH flow AS (
    SELECT DISTINCT stay_id, charttime
    FROM chartevents
    WHERE value IS NOT NULL AND itemid IN (SELECT itemid FROM sepsis_item WHERE concept = 'oxygen_flow')
),
device AS (
    -- The reference keeps a device only where an oxygen flow is charted at the same time, and of several devices the
    -- one stored last. A site that charts no flow at all keeps every device.
    SELECT chart.stay_id, chart.charttime, 'oxygen_device' AS concept, chart.value
    FROM chartevents AS chart
    LEFT JOIN flow ON chart.stay_id = flow.stay_id AND chart.charttime = flow.charttime
    WHERE
        chart.itemid IN (SELECT itemid FROM sepsis_item WHERE concept = 'oxygen_device')
        AND (flow.stay_id IS NOT NULL OR (SELECT count(*) FROM flow) = 0)
    QUALIFY row_number() OVER (
        PARTITION BY chart.stay_id, chart.charttime
        ORDER BY chart.storetime DESC NULLS LAST, chart.value DESC NULLS LAST
    ) = 1
),
mode AS (
    SELECT stay_id, charttime, concept, max(value) AS value
    FROM chartevents
    INNER JOIN sepsis_item USING (itemid)
    WHERE concept IN ('ventilator_mode', 'hamilton_mode')
    GROUP BY ALL
),
status_row AS (
    SELECT stay_id, charttime, arg_min(status, priority) AS status
    FROM (FROM device UNION ALL FROM mode) AS charted
    INNER JOIN sepsis_ventilation_word AS word ON charted.concept = word.concept AND trim(charted.value) = word.word
    WHERE stay_id IS NOT NULL
    GROUP BY stay_id, charttime
),
neighbour AS (
    SELECT
        *,
        lag(status) OVER in_order IS DISTINCT FROM status
        OR date_diff('hour', lag(charttime) OVER in_order, charttime) >= 14 AS starts_spell,
        lead(charttime) OVER in_order AS next_time
    FROM status_row
    WINDOW in_order AS (PARTITION BY stay_id ORDER BY charttime)
),
numbered AS (
    SELECT *, sum(CAST(starts_spell AS INTEGER)) OVER (PARTITION BY stay_id ORDER BY charttime) AS spell
    FROM neighbour
)
SELECT
    stay_id,
    min(charttime) AS starttime,
    -- A spell lasts until the next status is charted, unless that is 14 hours away or never comes.
    max(CASE WHEN date_diff('hour', charttime, next_time) < 14 THEN next_time ELSE charttime END) AS endtime,
    any_value(status) AS status
FROM numbered
GROUP BY stay_id, spell
HAVING min(charttime) <> max(charttime);
