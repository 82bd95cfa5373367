"""How ill and how frail: the Charlson comorbidity index and SAPS II of every stay.

Why SQL: as for the cohort, each file of ``client/sql`` can be laid beside the table it restates, and a
surprising score can be followed to its points. The caller decides what is known when (which admissions'
codes, which hours' worst values): nothing here looks at a time.

Sources: Charlson et al., J Chronic Dis 1987;40:373 (weights); Quan et al., Med Care 2005;43:1130 (codes);
Le Gall et al., JAMA 1993;270:2957 (SAPS II); MIT-LCP/mimic-code, ``mimic-iv/concepts`` (both on MIMIC-IV).
"""

from collections.abc import Iterable

import duckdb

from client.icd_codes import CHARLSON, SAPSII_CONDITIONS, Condition
from client.queries import fill, run_query

__all__ = ["derive_charlson", "derive_sapsii"]


def derive_charlson(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the table ``charlson``, one row a stay of ``cohort``, also where no code is known.

    Reads cohort(stay_id, age in years) and stay_code(stay_id, icd_code, icd_version); codes may carry dots,
    blanks and lower case. Columns: stay_id, a 0/1 flag for each condition of Quan 2005, age_score (points,
    0 to 4; an unknown age scores 0) and charlson_score (points, weights of Charlson 1987, age included). The
    flags stand alone; in the score the graver of two stages of a disease replaces the milder one.
    """
    _meet(connection, CHARLSON)
    run_query(connection, "charlson.sql")


def derive_sapsii(connection: duckdb.DuckDBPyConnection) -> None:
    """Create the table ``sapsii`` (Le Gall 1993), one row a row of ``sapsii_input``.

    Reads stay_code as ``derive_charlson`` does, and sapsii_input: stay_id; age in years; heart_rate_min/max
    in /min; sbp_min/max in mmHg; temperature_max in Celsius; pafi_ventilated_min (PaO2/FiO2 with FiO2 as a
    fraction, only while ventilated or on CPAP) in mmHg; urine_24h in mL; bun_max in mg/dL; wbc_min/max in
    K/uL; potassium_min/max, sodium_min/max and bicarbonate_min in mmol/L; bilirubin_max in mg/dL; gcs_min in
    points; admission_kind, 'scheduled_surgical', 'unscheduled_surgical' or 'medical'. NULL, not measured,
    scores 0, and so does a Glasgow Coma Scale outside 3 to 15.

    Columns: stay_id, 15 components named ``..._points``, sapsii (0 to 163 points) and sapsii_prob (the
    probability of death in hospital). Raises duckdb.Error for any other admission_kind.
    """
    _meet(connection, SAPSII_CONDITIONS)
    run_query(connection, "sapsii.sql")


def _meet(connection: duckdb.DuckDBPyConnection, conditions: Iterable[Condition]) -> None:
    """Make the temporary table stay_condition: which of the conditions the known codes of each stay meet."""
    rows = [(condition.name, *prefix) for condition in conditions for prefix in condition.prefixes]
    fill(connection, "condition_prefix", "condition VARCHAR, icd_version INTEGER, prefix VARCHAR", rows)
    run_query(connection, "stay_condition.sql")
