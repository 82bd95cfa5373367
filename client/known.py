"""What was known of each stay at its cutoff, as a database of its own: the schema ``known``.

Why: a score of the first day must not see the second. Instead of writing every rule twice, the rows that were known
are put under the tables' own names and the same queries read them (client/sql/known.sql says how each table is cut).
"""

import duckdb

from client.cohort import derive_sepsis3
from client.queries import run_query
from shared_model.study import Study


def cut_to_known(connection: duckdb.DuckDBPyConnection, study: Study) -> None:
    """Create the schema ``known`` for the stays in ``cohort``, with antibiotics, cultures, suspicion, ventilation, GCS,
    oxygenation and SOFA derived from nothing else, and ``stay_code``, the diagnosis codes known for each stay."""
    connection.execute("CREATE SCHEMA known")
    run_query(connection, "known.sql", retrospective=study.retrospective)
    connection.execute("SET search_path = 'known,main'")
    try:
        derive_sepsis3(connection)
    finally:
        connection.execute("SET search_path = 'main'")
