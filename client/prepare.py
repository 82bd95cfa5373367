"""Extract to prepared store, read top to bottom: tables -> row checks -> cohort -> what was known -> events ->
features -> notes -> store.

A store is written under another name and renamed: it is whole or absent, also after Ctrl-C. What an earlier store holds
is taken over where nothing that it depends on has changed: all of it, an extracted table, the features, the embeddings
of note texts that are still the same. An interrupted preparation goes on with what it had read and embedded.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import duckdb

from client.cohort import derive_sepsis3, select_cohort
from client.encoder import resolve_encoder
from client.events import map_events
from client.extract import MimicFolder, working_database
from client.folders import Inputs, resumable_folder, share_file
from client.known import cut_to_known
from client.recipe import Manifest, Recipe, held_store, unchanged_tables
from client.row_checks import check_rows
from client.source import quoted, read_parquet
from shared_model.errors import StoreError
from shared_model.manifest import MANIFEST
from shared_model.study import EARLY, Cohort, Stays, Study

if TYPE_CHECKING:
    from client.store import Made


class Extract(Protocol):
    """Where MIMIC-IV-style tables come from: a MIMIC-IV folder (client/extract.py) or a mapping (client/mapping)."""

    @property
    def label(self) -> str:
        """How reports name it."""

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""

    @property
    def places(self) -> tuple[Path, ...]:
        """Folders that a store may not replace."""

    @property
    def flag(self) -> str:
        """TABLE.COLUMN of the cohort ``flag``, or empty."""

    def describe(self) -> Inputs:
        """What decides each table."""

    def lay(
        self, connection: duckdb.DuckDBPyConnection, folder: Path, inputs: Inputs, held: Path, unchanged: frozenset[str]
    ) -> Manifest:
        """Write the tables into ``folder``, lay views over them, and return what the manifest tells of it."""


def prepare_mimic(source: Path, store: Path, *, flag: str = "", **settings: Any) -> Manifest:
    """Prepare a MIMIC-IV folder; ``settings`` are those of ``prepare``."""
    return prepare(MimicFolder(source, flag), store, **settings)


def prepare(
    extract: Extract,
    store: Path,
    *,
    cohort: Cohort,
    study: Study = EARLY,
    stays: Stays = "first",
    encoder: str = "minilm",
    described_as: str = "",
    memory_limit: str = "4GB",
    on_stage: Callable[[str], None] = lambda stage: None,
    resumable: bool = True,
) -> Manifest:
    """Prepare an extract; returns the manifest. ``described_as`` is how reports name the source.

    Raises DataError's kinds for the source and ConfigError for the encoder; then no store is left behind, and what was
    read waits for the next try only if ``resumable``.
    """
    _check_target(store, extract.places)
    recipe = Recipe(
        source=described_as or extract.label,
        inputs=extract.describe(),
        cohort=cohort,
        study=study,
        stays=stays,
        flag=extract.flag,
        encoder=resolve_encoder(encoder),
    )
    held = held_store(store)
    if held is not None and recipe.same(held):
        on_stage("nothing has changed since this store was prepared")
        return held
    with resumable_folder(store, resumable=resumable) as building:
        return _build(recipe, extract, store, building, held, memory_limit, on_stage)


def _build(
    recipe: Recipe,
    extract: Extract,
    store: Path,
    building: Path,
    held: Manifest | None,
    memory_limit: str,
    on_stage: Callable[[str], None],
) -> Manifest:
    on_stage("reading tables")
    unchanged = unchanged_tables(held, recipe.inputs)
    with _checked_tables(extract, building, recipe.inputs, store, unchanged, memory_limit) as (connection, told):
        facts = recipe.facts() | told | {"row_checks": _row_checks(connection, building)}
        if held is not None and recipe.same_features(held):
            made = _take_over(connection, store, building, held)
        else:
            made = _make_features(connection, building, recipe, on_stage)
        return _finish(connection, store if held else None, building, recipe, made, facts, on_stage)


@contextmanager
def extract_checked(
    extract: Extract, store: Path, folder: Path, *, memory_limit: str
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Manifest]]:
    """The checked tables of an extract in a database in ``folder``, and what its manifest would tell of them; tables of
    ``store`` are used where they hold."""
    inputs = extract.describe()
    unchanged = unchanged_tables(held_store(store), inputs)
    with _checked_tables(extract, folder, inputs, store, unchanged, memory_limit) as (connection, told):
        yield connection, told | {"row_checks": _row_checks(connection, folder)}


@contextmanager
def _checked_tables(
    extract: Extract, folder: Path, inputs: Inputs, held: Path, unchanged: frozenset[str], memory_limit: str
) -> Iterator[tuple[duckdb.DuckDBPyConnection, Manifest]]:
    """A database in ``folder`` with the checked tables; what the extract tells is of before the checks."""
    with working_database(folder, memory_limit=memory_limit) as connection:
        told = extract.lay(connection, folder, inputs, held, unchanged)
        check_rows(connection, extract.flag)
        yield connection, told


def _make_features(
    connection: duckdb.DuckDBPyConnection, building: Path, recipe: Recipe, on_stage: Callable[[str], None]
) -> "Made":
    from client.store import Made
    from client.windows import build_features

    on_stage("selecting the cohort")
    if recipe.cohort == "sepsis3":
        derive_sepsis3(connection)
    flow = select_cohort(connection, recipe.cohort, recipe.study, stays=recipe.stays)
    on_stage("cutting at the prediction time")
    cut_to_known(connection, recipe.study)
    on_stage("mapping events")
    events = map_events(connection)
    connection.execute(f"COPY rejects TO {quoted(building / 'rejects' / 'events.parquet')} (FORMAT parquet)")
    on_stage("building features")
    static_NF, series_NTC = build_features(connection, recipe.study)
    checks = _checks(connection, "SELECT * FROM event_check")
    return Made(static_NF, series_NTC, {"flow": [vars(s) for s in flow], "events": events, "event_checks": checks})


def _take_over(connection: duckdb.DuckDBPyConnection, store: Path, building: Path, held: Manifest) -> "Made":
    """The features of the held store, and its stays as the table ``numbered``."""
    from client.store import held_features

    stays = read_parquet(store / "stays.parquet", ", file_row_number = true")
    connection.execute(f"CREATE TABLE numbered AS SELECT file_row_number AS n, * FROM {stays}")
    share_file(store / "rejects" / "events.parquet", building / "rejects" / "events.parquet")
    return held_features(store, held)


def _finish(
    connection: duckdb.DuckDBPyConnection,
    held: Path | None,
    building: Path,
    recipe: Recipe,
    made: "Made",
    facts: Manifest,
    on_stage: Callable[[str], None],
) -> Manifest:
    from client.notes import TEXTS, embed_notes
    from client.store import arrays_from, stays_of, write_store

    on_stage("embedding notes")
    retrospective = recipe.study.retrospective
    notes = embed_notes(
        connection, len(made.static_NF), recipe.encoder, building, held=held, retrospective=retrospective
    )
    notes.texts.to_parquet(building / TEXTS, index=False)
    stays = stays_of(connection)
    units = tuple(sorted(stays["unit"].unique()))
    return write_store(building, arrays_from(made, notes, stays, units), units, stays, recipe.study, facts | made.facts)


def _row_checks(connection: duckdb.DuckDBPyConnection, building: Path) -> list[dict[str, Any]]:
    """Keep the dropped rows, and count them with the unreadable ones by table and rule."""
    kept = quoted(building / "rejects" / "rows.parquet")
    dropped = "FROM rejected_rows WHERE action = 'dropped'"
    connection.execute(f"COPY (SELECT source, rule, row_text {dropped} ORDER BY ALL) TO {kept} (FORMAT parquet)")
    counted = "SELECT source, rule, action, count(*) AS count FROM rejected_rows GROUP BY ALL"
    kinds = ("unreadable-", "mapping-")
    for file in sorted(f for kind in kinds for f in (building / "rejects").glob(f"{kind}*.parquet")):
        name = file.stem.removeprefix("unreadable-").removeprefix("mapping-")
        counted += f" UNION ALL SELECT '{name}', rule, 'dropped', count(*) FROM {read_parquet(file)} GROUP BY ALL"
    return _checks(connection, counted)


def _checks(connection: duckdb.DuckDBPyConnection, query: str) -> list[dict[str, Any]]:
    found = connection.execute(f"SELECT source, rule, action, count FROM ({query}) ORDER BY ALL").fetchall()
    return [{"table": t, "rule": rule, "action": action, "rows": int(rows)} for t, rule, action, rows in found]


def _check_target(store: Path, places: tuple[Path, ...]) -> None:
    """Only a store may be replaced by a store."""
    for place in places:
        if store.resolve() == place.resolve() or store.resolve() in place.resolve().parents:
            raise StoreError(f"{store}: is the extract or holds it; name another folder for the store")
    if store.exists() and not (store.is_dir() and ((store / MANIFEST).is_file() or not any(store.iterdir()))):
        raise StoreError(f"{store}: exists and is no prepared store; name another folder, or remove it")
