"""DuckDB's errors quote the value that an expression failed on; ours name the place in the YAML and the kind."""

from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from client.mapping.mistakes import one_line
from shared_model.errors import ConfigError

LONGEST = 200


@contextmanager
def told_apart(where: str) -> Iterator[None]:
    """Raises ConfigError for what DuckDB says of the SQL of ``where``, which may be any key of the YAML."""
    try:
        yield
    except duckdb.OutOfMemoryException:
        raise ConfigError(f"{where}: not mapped within the memory limit; raise --memory-limit") from None
    except duckdb.BinderException as error:  # of types, before any row is read
        said = one_line(str(error).splitlines()[0].removeprefix("Binder Error: "))[:LONGEST]
        raise ConfigError(f"{where}: the expression does not fit its columns: {said}") from None
    except duckdb.IOException:
        raise ConfigError(f"{where}: the disk does not take what is written beside the store; is it full?") from None
    except duckdb.Error as error:
        raise ConfigError(
            f"{where}: an expression failed on a row ({type(error).__name__}); TRY_CAST gives NULL where CAST fails"
        ) from None
