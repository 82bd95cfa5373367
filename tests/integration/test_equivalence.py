"""The same patients as MIMIC-IV files, as a German export and as OMOP in PostgreSQL: one cohort, the same features.

Tolerance: 1e-6 of the value. Numbers make the round trip through another unit, so their last bits differ; a mean of a
window can differ in the fourth decimal, to which it is rounded, so values also pass within 1.5e-4.

OMOP has no place for the time at which a value was stored, so there the MIMIC-IV files are read without it too.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest
from open_data import MIMIC_DEMO, open_data
from postgres import load_omop, running_postgres

from client.mapping.columns import MACROS
from client.mapping.extract import extract_of
from client.prepare import prepare, prepare_mimic
from client.site import SiteConfig, load_site
from client.source import find_tables
from shared_model.batch import open_store
from shared_model.study import Cohort
from simulations.dialects.german import write_german
from simulations.dialects.omop import write_omop
from simulations.synthetic import write_hospitals

CONFIGS = Path(__file__).resolve().parents[2] / "site_configs"
RELATIVE, ABSOLUTE = 1e-6, 1.5e-4
NOT_STORED = {"chartevents", "labevents", "inputevents", "outputevents", "radiology", "discharge"}
COHORTS: tuple[Cohort, ...] = ("all_icu", "sepsis3")


@pytest.fixture(scope="module", params=["synthetic", "demo"])
def mimic(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A MIMIC-IV folder."""
    if request.param == "demo":
        return open_data(MIMIC_DEMO)
    folder = tmp_path_factory.mktemp("synthetic") / "mimic"
    write_hospitals(folder, patients=120, seed=5, workers=1)
    return folder


@pytest.fixture(scope="module")
def german(mimic: Path, tmp_path_factory: pytest.TempPathFactory) -> SiteConfig:
    """The German export, and its shipped config."""
    folder = tmp_path_factory.mktemp("german") / "export"
    write_german(mimic, folder)
    site = load_site(CONFIGS / "german-csv.yaml")
    sources = {"export": site.sources["export"].model_copy(update={"path": folder})}
    return site.model_copy(update={"sources": sources})


@pytest.fixture(scope="module")
def omop(mimic: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[SiteConfig]:
    """A PostgreSQL server with the patients in OMOP form, and its shipped config."""
    folder = tmp_path_factory.mktemp("omop") / "cdm"
    write_omop(mimic, folder)
    with running_postgres() as url, pytest.MonkeyPatch.context() as patch:
        load_omop(url, folder)
        patch.setenv("OMOP_URL", url)
        yield load_site(CONFIGS / "omop-cdm-5.4.yaml")


@pytest.mark.parametrize("cohort", COHORTS)
def test_a_german_export_gives_the_same_stays_and_features(
    mimic: Path, german: SiteConfig, cohort: Cohort, tmp_path: Path
) -> None:
    _compare(mimic, german, cohort, tmp_path, lambda stay: f"ITS-{stay}")


@pytest.mark.parametrize("cohort", COHORTS)
def test_omop_in_postgresql_gives_the_same_stays_and_features(
    mimic: Path, omop: SiteConfig, cohort: Cohort, tmp_path: Path
) -> None:
    _without_storing_times(mimic, tmp_path / "mimic")
    _compare(tmp_path / "mimic", omop, cohort, tmp_path, str)


def _without_storing_times(mimic: Path, out: Path) -> None:
    for name, file in find_tables(mimic).items():
        target = out / file.relative_to(mimic).parent / f"{name}.parquet"
        target.parent.mkdir(parents=True, exist_ok=True)
        emptied = "REPLACE (NULL AS storetime)" if name in NOT_STORED else ""
        rows = f"read_csv('{file}', all_varchar = true, quote = '\"', escape = '\"')"
        with duckdb.connect() as connection:
            connection.execute(f"COPY (SELECT * {emptied} FROM {rows}) TO '{target}' (FORMAT parquet)")


def _compare(mimic: Path, site: SiteConfig, cohort: Cohort, folder: Path, name: Callable[[int], str]) -> None:
    prepare_mimic(mimic, folder / "native", cohort=cohort, encoder="none")
    manifest = prepare(extract_of(site), folder / "mapped", cohort=cohort, encoder="none")
    native, mapped = (pd.read_parquet(folder / which / "stays.parquet") for which in ("native", "mapped"))
    with duckdb.connect() as connection:
        connection.execute(MACROS)
        ids = [connection.execute("SELECT local_id(?)", [name(s)]).fetchall()[0][0] for s in native["stay_id"]]
    mapped["onset_time"], native["onset_time"] = (pd.to_datetime(t["onset_time"]) for t in (mapped, native))
    order = mapped.reset_index().set_index("stay_id").loc[ids, "index"].to_numpy()
    assert len(mapped) == len(native) > 20
    for column in ("unit", "intime", "outtime", "onset_time", "label"):
        assert mapped[column].iloc[order].astype(str).tolist() == native[column].astype(str).tolist(), column
    held, other = open_store(folder / "native"), open_store(folder / "mapped")
    _same(held.static_NF.numpy(), other.static_NF.numpy()[order], _names(manifest, "static"))
    _same(held.series_NTC.numpy(), other.series_NTC.numpy()[order], _names(manifest, "series"))


def _names(manifest: dict[str, object], kind: str) -> tuple[str, ...]:
    from shared_model.manifest import study_of

    return tuple(getattr(study_of(manifest), kind))


def _same(native: np.ndarray, mapped: np.ndarray, names: tuple[str, ...]) -> None:
    """Equal within the tolerance, and missing in the same places; the message names features, never values."""
    close = np.isclose(mapped, native, rtol=RELATIVE, atol=ABSOLUTE, equal_nan=True)
    differing = (~close).reshape(-1, len(names)).sum(axis=0)
    assert {n: int(count) for n, count in zip(names, differing, strict=True) if count} == {}
    assert np.isfinite(native).reshape(-1, len(names)).any(axis=0).sum() > len(names) // 2
