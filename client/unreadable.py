"""Lines of a text file that DuckDB could not read as rows, from the tables in which it keeps them."""

import duckdb

from shared_model.errors import UnreadableTableError

# One row a line, under its first fault. DuckDB's message names the wanted type, and the value, which stays out.
UNREADABLE_ROWS = r"""SELECT (SELECT any_value(parse_filename(file_path)) FROM csv_scan AS s
        WHERE s.file_id = e.file_id) AS file_name, line, any_value(csv_line) AS row_text, arg_min(
        CASE WHEN error_type = 'CAST'
             THEN column_name || ': not ' || coalesce(
                 nullif(regexp_extract(error_message, 'to ''([A-Z]+)''', 1), ''), 'of the schema''s type')
             ELSE lower(CAST(error_type AS VARCHAR)) END, column_idx) AS rule
    FROM csv_error AS e GROUP BY file_id, line"""


def refuse_open_quote(connection: duckdb.DuckDBPyConnection, where: str) -> None:
    """A quote that is never closed swallows all lines after it. Raises UnreadableTableError with the line."""
    several = r"contains(rtrim(csv_line, e'\r\n '), e'\n')"
    query = f"SELECT min(line) FROM csv_error WHERE error_type = 'UNQUOTED VALUE' AND {several}"
    [(line,)] = connection.execute(query).fetchall()
    if line is not None:
        raise UnreadableTableError(f"{where}: a quote that is opened in line {line:,} is never closed")
