"""No feature knows anything that was not known at the prediction time, and no patient's features know another patient.

Each test edits a small extract, prepares it again and compares every feature of every stay of cohort ``all_icu`` bit
for bit. (Membership of ``sepsis3`` legitimately depends on the whole stay.) A tiny real encoder stands for the notes:
the number of chunks is compared exactly, their vectors up to float16, as batches are composed anew.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from site_builders import Tables, chunks_of, prepared, read_tables, synthetic, tiny_encoder, write_tables

from shared_model.study import EARLY

TIMED = {
    "chartevents": ("charttime", ["itemid", "value", "valuenum"]),
    "labevents": ("charttime", ["itemid", "value", "valuenum", "hadm_id"]),
    "outputevents": ("charttime", ["itemid", "value"]),
    "inputevents": ("starttime", ["itemid", "rate", "rateuom", "patientweight"]),
    "prescriptions": ("starttime", ["drug", "drug_type", "route"]),
    "services": ("transfertime", ["curr_service"]),
    "microbiologyevents": ("charttime", ["micro_specimen_id", "org_itemid", "org_name", "spec_type_desc"]),
    "radiology": ("charttime", ["text"]),
    "discharge": ("charttime", ["text"]),
}
NUMBERS = {"valuenum", "rate", "patientweight"}
UNTIL_THE_RESULT_KNOWN = {"microbiologyevents": ["org_itemid", "org_name"]}  # that it was taken is known before


@dataclass(frozen=True)
class Features:
    """Of every stay, by stay id."""

    static: dict[int, np.ndarray]
    series: dict[int, np.ndarray]
    chunks: dict[int, np.ndarray]
    label: dict[int, bool]


@dataclass(frozen=True)
class Hospital:
    """The unedited extract, what its stays are, and how to look at an edited one."""

    tables: Tables
    stays: pd.DataFrame
    features: Features
    encoder: str

    def edited(self) -> Tables:
        return {name: rows.copy() for name, rows in self.tables.items()}

    def prediction_time(self, rows: pd.DataFrame) -> pd.Series:
        """Of each row's patient; NaT for patients outside the cohort."""
        return rows["subject_id"].astype(int).map(self.stays.set_index("subject_id")["prediction_time"])

    def after(self, name: str, rows: pd.DataFrame, column: str) -> pd.Series:
        """Which rows have the time of ``column`` after the prediction time."""
        return pd.to_datetime(rows[column]) > self.prediction_time(rows)


def measure(source: Path, store: Path, encoder: str) -> tuple[Features, pd.DataFrame]:
    data = prepared(source, store, encoder=encoder)
    stays = pd.read_parquet(store / "stays.parquet")
    rows = {int(stay): n for n, stay in enumerate(stays["stay_id"])}
    return Features(
        static={stay: data.static_NF[n].numpy() for stay, n in rows.items()},
        series={stay: data.series_NTC[n].numpy() for stay, n in rows.items()},
        chunks={stay: chunks_of(data, n) for stay, n in rows.items()},
        label={stay: bool(data.label_N[n]) for stay, n in rows.items()},
    ), stays


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Hospital:
    folder = tmp_path_factory.mktemp("hospital")
    encoder = tiny_encoder(folder / "encoder")
    tables = read_tables(synthetic(folder / "mimic", patients=150))
    features, stays = measure(folder / "mimic", folder / "store", encoder)
    return Hospital(tables, stays, features, encoder)


def again(hospital: Hospital, tables: Tables, folder: Path) -> Features:
    return measure(write_tables(tables, folder / "edited"), folder / "store", hospital.encoder)[0]


def changed_stays(one: Features, other: Features) -> set[int]:
    """The stays with any difference in features; both must have the same stays."""
    assert one.static.keys() == other.static.keys()
    return {stay for stay in one.static if not _same(one, other, stay)}


def _same(one: Features, other: Features, stay: int) -> bool:
    return (
        one.static[stay].tobytes() == other.static[stay].tobytes()
        and one.series[stay].tobytes() == other.series[stay].tobytes()
        and one.chunks[stay].shape == other.chunks[stay].shape
        and np.allclose(one.chunks[stay], other.chunks[stay], atol=2e-2)
    )


def scramble(rows: pd.DataFrame, columns: list[str], where: pd.Series, rng: np.random.Generator) -> None:
    """Other values of the column in the rows of ``where``; random numbers and words where there may be any."""
    for column in columns:
        held = rows[column].to_numpy()
        new = rng.choice(held, int(where.sum()))
        if column in NUMBERS:
            new = rng.uniform(0, 300, len(new)).round(2).astype(str)
        if column == "text":
            new = [" ".join(rng.choice(["sepsis", "death", "clear", "effusion"], 40)) for _ in new]
        rows.loc[where, column] = new


def test_writing_the_extract_again_changes_nothing(hospital: Hospital, tmp_path: Path) -> None:
    found = again(hospital, hospital.edited(), tmp_path)
    assert changed_stays(hospital.features, found) == set()
    assert len(found.static) > 100
    assert sum(len(chunks) for chunks in found.chunks.values()) > 100


def test_random_values_after_the_prediction_time_change_no_feature(hospital: Hospital, tmp_path: Path) -> None:
    rng, tables = np.random.default_rng(1), hospital.edited()
    for name, (time, columns) in TIMED.items():
        rows = tables[name]
        late = hospital.after(name, rows, time)
        if "storetime" in rows and name not in UNTIL_THE_RESULT_KNOWN:
            late |= hospital.after(name, rows, "storetime")
        assert late.sum() > (3 if name == "services" else 20), name
        if "storetime" in rows:  # not only a late storetime keeps a late row out: some have none, some one in time
            charted, draw = hospital.after(name, rows, time), rng.random(len(rows))
            rows.loc[charted & (draw < 0.3), "storetime"] = ""
            ahead = charted & (draw > 0.7)
            rows.loc[ahead, "storetime"] = hospital.prediction_time(rows)[ahead].astype(str)
        scramble(rows, columns, late, rng)
        if name in UNTIL_THE_RESULT_KNOWN:
            scramble(rows, UNTIL_THE_RESULT_KNOWN[name], hospital.after(name, rows, "storetime"), rng)
        for end in {"endtime", "stoptime"} & set(rows):
            ends = hospital.after(name, rows, end)
            later = hospital.prediction_time(rows)[ends] + pd.to_timedelta(rng.integers(1, 9999, ends.sum()), "min")
            rows.loc[ends, end] = later.astype(str)
    assert changed_stays(hospital.features, again(hospital, tables, tmp_path)) == set()


def test_deleting_everything_after_the_prediction_time_changes_no_feature(hospital: Hospital, tmp_path: Path) -> None:
    tables = hospital.edited()
    for name, (time, _) in TIMED.items():
        late = hospital.after(name, tables[name], time)
        if "storetime" in tables[name] and name not in UNTIL_THE_RESULT_KNOWN:
            late |= hospital.after(name, tables[name], "storetime")
        tables[name] = tables[name][~late]
    assert sum(map(len, tables.values())) < 0.7 * sum(map(len, hospital.tables.values()))
    assert changed_stays(hospital.features, again(hospital, tables, tmp_path)) == set()


def test_what_is_stored_after_the_prediction_time_is_not_seen(hospital: Hospital, tmp_path: Path) -> None:
    """One concept of each table is stored too late: it was never measured, and nothing else moves."""
    tables = hospital.edited()
    vasopressors = ["221906", "221289", "221749", "221662", "222315"]
    late = {"labevents": ["50912"], "chartevents": ["220045"], "inputevents": vasopressors, "outputevents": None}
    for name, items in late.items():
        rows = tables[name]
        moved = hospital.prediction_time(rows).notna() & (rows["itemid"].isin(items) if items else True)
        rows.loc[moved, "storetime"] = (hospital.prediction_time(rows)[moved] + pd.Timedelta(seconds=1)).astype(str)
    found = again(hospital, tables, tmp_path)
    before = np.array(list(hospital.features.static.values()))
    gone_F, gone_C = np.zeros(len(EARLY.static), bool), np.zeros(len(EARLY.series), bool)
    for concept in ("creatinine", "heart_rate", "vasopressor", "urine"):
        own_F = np.array([feature.startswith(f"{concept}_") for feature in EARLY.static])
        assert np.isfinite(before[:, own_F]).any(), concept
        gone_F |= own_F
        gone_C |= np.array([channel == concept for channel in EARLY.series])
    scores = {"sofa_score", "sapsii", "sapsii_prob"}  # they are made of what is gone
    same_F = ~gone_F & ~np.array([feature in scores for feature in EARLY.static])
    for stay in found.static:
        assert np.isnan(found.static[stay][gone_F]).all()
        assert np.isnan(found.static[stay][EARLY.static.index("sofa_score")])  # no heart rate, no hours
        assert np.isnan(found.series[stay][:, gone_C]).all()
        np.testing.assert_array_equal(found.static[stay][same_F], hospital.features.static[stay][same_F])
        np.testing.assert_array_equal(found.series[stay][:, ~gone_C], hospital.features.series[stay][:, ~gone_C])


def test_a_report_stored_after_the_prediction_time_is_not_read(hospital: Hospital, tmp_path: Path) -> None:
    tables = hospital.edited()
    for name in ("radiology", "discharge"):
        rows = tables[name]
        known = hospital.prediction_time(rows).notna()
        rows.loc[known, "storetime"] = (hospital.prediction_time(rows)[known] + pd.Timedelta(seconds=1)).astype(str)
    found = again(hospital, tables, tmp_path)
    assert sum(len(chunks) for chunks in found.chunks.values()) == 0
    for stay, static in found.static.items():
        assert static.tobytes() == hospital.features.static[stay].tobytes()


def test_a_later_admission_changes_nothing_for_the_first_stay(hospital: Hospital, tmp_path: Path) -> None:
    """Every adult comes back years later with the same bedside rows, drugs, cultures and notes, doubled in value."""
    tables = hospital.edited()
    minors = tables["patients"].loc[tables["patients"]["anchor_age"].astype(int) < 18, "subject_id"]
    for name, rows in tables.items():
        if name == "patients":
            continue
        later = rows[~rows["subject_id"].isin(minors)].copy()
        for column in [c for c in rows if c.endswith(("time", "date"))]:
            moved = pd.to_datetime(later[column]) + pd.Timedelta(days=9999)
            later[column] = moved.dt.strftime("%Y-%m-%d %H:%M:%S").where(later[column] != "", "")
        for column in {"hadm_id", "stay_id", "micro_specimen_id", "specimen_id"} & set(rows):
            later[column] = later[column].map(lambda number: f"{int(number) + 500_000_000}" if number else "")
        for column in NUMBERS & set(rows):
            later[column] = later[column].map(lambda number: str(float(number) * 2) if number else "")
        tables[name] = pd.concat([later, rows])
    assert changed_stays(hospital.features, again(hospital, tables, tmp_path)) == set()


def test_how_the_stay_ends_changes_labels_and_no_feature(hospital: Hospital, tmp_path: Path) -> None:
    rng, tables = np.random.default_rng(5), hospital.edited()
    tables["patients"]["dod"] = rng.choice(["", "2300-01-01"], len(tables["patients"]))
    admissions, beds = tables["admissions"], tables["icustays"]
    own = admissions["hadm_id"].astype(int).isin(hospital.stays["hadm_id"])
    start = hospital.prediction_time(admissions)[own]
    end = (start + pd.to_timedelta(rng.integers(60, 60_000, own.sum()), "min")).dt.strftime("%Y-%m-%d %H:%M:%S")
    died = admissions.loc[own, "hospital_expire_flag"] == "0"  # whoever lived dies, and the other way round
    admissions.loc[own, "dischtime"] = end
    admissions.loc[own, "deathtime"] = end.where(died, "")
    admissions.loc[own, "hospital_expire_flag"] = died.map({True: "1", False: "0"})
    if "discharge_location" in admissions:
        admissions.loc[own, "discharge_location"] = died.map({True: "DIED", False: "HOME"})
    stayed = beds["stay_id"].astype(int).isin(hospital.stays["stay_id"])
    out = hospital.prediction_time(beds)[stayed] + pd.to_timedelta(rng.integers(1, 9999, stayed.sum()), "min")
    beds.loc[stayed, "outtime"] = out.dt.strftime("%Y-%m-%d %H:%M:%S")
    beds["los"] = "1"
    found = again(hospital, tables, tmp_path)
    assert changed_stays(hospital.features, found) == set()
    assert found.label == {stay: not label for stay, label in hospital.features.label.items()}


def _coded(hospital: Hospital, earlier: bool) -> pd.Series:
    """Which diagnosis codes are of an admission that ended before the stay's own began; or the others."""
    admissions = hospital.tables["admissions"].set_index("hadm_id")
    codes, own = hospital.tables["diagnoses_icd"], hospital.stays.set_index("subject_id")["hadm_id"].astype(str)
    begun = pd.to_datetime(codes["subject_id"].astype(int).map(own).map(admissions["admittime"]))
    ended = pd.to_datetime(codes["hadm_id"].map(admissions["dischtime"]))
    known = begun.notna()
    return known & (ended < begun if earlier else ended >= begun)


def test_codes_of_this_and_of_later_admissions_change_nothing(hospital: Hospital, tmp_path: Path) -> None:
    """They are assigned at discharge. Every one becomes a metastatic tumour, which no score could overlook."""
    tables, late = hospital.edited(), _coded(hospital, earlier=False)
    assert late.sum() > 100
    tables["diagnoses_icd"].loc[late, ["icd_code", "icd_version"]] = ["C787", "10"]
    assert changed_stays(hospital.features, again(hospital, tables, tmp_path)) == set()


def test_codes_of_earlier_admissions_are_known(hospital: Hospital, tmp_path: Path) -> None:
    tables, early = hospital.edited(), _coded(hospital, earlier=True)
    tables["diagnoses_icd"].loc[early, ["icd_code", "icd_version"]] = ["C787", "10"]
    found = again(hospital, tables, tmp_path)
    coded = hospital.stays["subject_id"].astype(str).isin(tables["diagnoses_icd"].loc[early, "subject_id"])
    assert 3 < coded.sum() < len(coded)
    tumour = EARLY.static.index("metastatic_solid_tumor")
    for stay, known in zip(hospital.stays["stay_id"], coded, strict=True):
        assert found.static[stay][tumour] == 1 if known else np.isnan(found.static[stay][tumour])


@pytest.mark.parametrize("remove", [False, True], ids=["changed", "removed"])
def test_one_patients_rows_reach_no_other_patient(remove: bool, hospital: Hospital, tmp_path: Path) -> None:
    rng, tables = np.random.default_rng(6), hospital.edited()
    noted = [stay for stay, chunks in hospital.features.chunks.items() if len(chunks)]
    chosen = hospital.stays[hospital.stays["stay_id"].isin(noted)].iloc[10]
    for name, (_, columns) in TIMED.items():
        own = tables[name]["subject_id"] == str(chosen["subject_id"])
        if remove:
            tables[name] = tables[name][~own]
        else:
            scramble(tables[name], [c for c in columns if c != "hadm_id"], own, rng)
    assert changed_stays(hospital.features, again(hospital, tables, tmp_path)) == {int(chosen["stay_id"])}


def test_patients_admitted_on_the_same_day_do_not_mix(hospital: Hospital, tmp_path: Path) -> None:
    """De-identified patients live in different years, which would hide a join by time alone; here nobody does."""
    tables = hospital.edited()
    stays = hospital.stays.set_index("subject_id")
    shift = pd.Timestamp("2150-06-01") - stays["intime"].dt.normalize()  # SOFA's hours are those of the clock
    admitted = pd.to_datetime(tables["admissions"].set_index("hadm_id")["admittime"])
    own = admitted[stays["hadm_id"].astype(str)].set_axis(stays.index)
    years = (own + shift).dt.year - own.dt.year
    for rows in tables.values():
        by = rows["subject_id"].astype(int).map(shift)
        for column in [c for c in rows if c.endswith(("time", "date"))]:
            moved = (pd.to_datetime(rows[column]) + by).dt.strftime("%Y-%m-%d %H:%M:%S")
            rows[column] = moved.where(moved.notna(), rows[column])
        if "anchor_year" in rows:  # so that ages stay as they were
            moved = rows["anchor_year"].astype(int) + rows["subject_id"].astype(int).map(years).fillna(0).astype(int)
            rows["anchor_year"] = moved.astype(str)
    assert changed_stays(hospital.features, again(hospital, tables, tmp_path)) == set()


def test_these_tests_would_see_a_change_before_the_prediction_time(hospital: Hospital, tmp_path: Path) -> None:
    """The power of the comparison: of every patient one table loses its early rows, and most features move."""
    tables, names = hospital.edited(), sorted(set(TIMED) - {"discharge"})
    turn = {str(subject): n % len(names) for n, subject in enumerate(hospital.stays["subject_id"])}
    for number, name in enumerate(names):
        rows = tables[name]
        early = hospital.prediction_time(rows).notna() & ~hospital.after(name, rows, TIMED[name][0])
        tables[name] = rows[~(early & (rows["subject_id"].map(turn) == number))]
    moved = changed_stays(hospital.features, again(hospital, tables, tmp_path))
    by_table = pd.Series(turn).map(dict(enumerate(names)))
    changed = hospital.stays["stay_id"].isin(moved).set_axis(hospital.stays["subject_id"].astype(str))
    share = changed.groupby(by_table).mean()
    assert (share[["chartevents", "labevents", "outputevents"]] > 0.9).all(), share
    assert (share[["microbiologyevents", "prescriptions", "radiology"]] > 0.25).all(), share
    assert share["inputevents"] > 0, share  # vasopressors are for a few
