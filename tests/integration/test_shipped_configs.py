"""The configs of site_configs/ against the real eICU demo and PhysioNet 2012: counts, labels and single values."""

import csv
import gzip
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest
from open_data import EICU_DEMO, PHYSIONET_2012, open_data
from safetensors.numpy import load_file

from client.mapping.extract import extract_of
from client.prepare import prepare
from client.site import load_site
from shared_model.manifest import TENSORS, study_of

REGIONS = {"midwest": 807, "south": 738, "west": 606, "northeast": 159}  # stays; 210 more are of no known region
UNITS = {"coronary": 1, "cardiac-surgery": 2, "medical": 3, "surgical": 4}
LEFT_OUT = "stay left out by the site"
ABSENT = ["lab", "vital_periodic", "nurse_charting"]


@dataclass(frozen=True)
class Prepared:
    """A store with what a test asks about it."""

    path: Path
    manifest: dict[str, Any]

    def table(self, name: str) -> pd.DataFrame:
        return pd.read_parquet(self.path / "tables" / f"{name}.parquet")

    @property
    def stays(self) -> pd.DataFrame:
        return pd.read_parquet(self.path / "stays.parquet").set_index("stay_id", drop=False)

    @property
    def static(self) -> pd.DataFrame:
        """Static features by stay."""
        features = load_file(self.path / TENSORS)["static_NF"]
        return pd.DataFrame(features, index=self.stays.index, columns=list(study_of(self.manifest).static))

    def series(self, stay: int) -> pd.DataFrame:
        """Windows of one stay, a column a concept."""
        features = load_file(self.path / TENSORS)["series_NTC"]
        return pd.DataFrame(features[self.stays.index.get_loc(stay)], columns=list(study_of(self.manifest).series))

    def line(self, step: str) -> dict[str, Any]:
        return next(line for line in self.manifest["mapping"]["lines"] if line["step"] == step)

    def reading(self, relation: str) -> dict[str, Any]:
        """The account of what reads a relation."""
        uses = [line for line in self.manifest["mapping"]["lines"] if not line["step"].startswith("relations.")]
        return next(line for line in uses if line["source"] == relation)


def prepare_shipped(root: Path, name: str, data: Path, folder: Path) -> Prepared:
    """Prepare a shipped config, with its data and its store elsewhere and without an encoder."""
    shipped = root / "site_configs" / f"{name}.yaml"
    [source] = load_site(shipped).sources
    document = {"extends": str(shipped), "store": str(folder / name), "sources": {source: {"path": str(data)}}}
    config = folder / f"{name}.yaml"
    config.write_text(json.dumps(document), encoding="utf-8")
    site = load_site(config)
    manifest = prepare(
        extract_of(site), site.store, cohort=site.cohort, study=site.study, stays=site.stays, encoder="none"
    )
    return Prepared(site.store, manifest)


def assert_every_row_is_accounted_for(store: Prepared) -> None:
    lines = store.manifest["mapping"]["lines"]
    for line in lines:
        gone = sum(line["rejected"].values()) + sum(line["ignored"].values())
        assert line["rows"] == line["mapped"] + gone, line["step"]
    passed = {line["step"].removeprefix("relations."): line["mapped"] for line in lines}
    for line in lines:
        if not line["step"].startswith("relations."):
            assert line["rows"] == passed[line["source"]], line["step"]


# ---- eICU


@pytest.fixture(scope="module")
def eicu_data() -> Path:
    return open_data(EICU_DEMO)


@pytest.fixture(scope="module")
def eicu(root: Path, eicu_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare_shipped(root, "eicu-crd", eicu_data, tmp_path_factory.mktemp("eicu"))


@pytest.fixture(scope="module")
def thin_eicu(eicu_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All patients, with the first rows of the large tables."""
    folder = tmp_path_factory.mktemp("thin-eicu")
    for file in eicu_data.glob("*.csv.gz"):
        if file.name.startswith(("patient", "hospital", "apache")):
            shutil.copy(file, folder / file.name)
        else:
            with gzip.open(file, "rt") as source, gzip.open(folder / file.name, "wt") as target:
                target.writelines(line for _, line in zip(range(500), source, strict=False))
    return folder


@pytest.fixture(scope="module")
def patient(eicu_data: Path) -> pd.DataFrame:
    return raw(eicu_data, "patient").set_index("patientunitstayid", drop=False).rename_axis(None)


def raw(folder: Path, name: str) -> pd.DataFrame:
    return pd.read_csv(folder / f"{name}.csv.gz")


def alone(patient: pd.DataFrame) -> pd.DataFrame:
    """Stays of the patients with one admission: which stay is their first is told without the invented dates."""
    admissions = patient.groupby("uniquepid")["patienthealthsystemstayid"].transform("nunique")
    return patient[admissions == 1].sort_values(["hospitaladmitoffset", "patientunitstayid"], ascending=[False, True])


def test_eicu_has_every_row_of_its_files(eicu: Prepared, eicu_data: Path) -> None:
    assert_every_row_is_accounted_for(eicu)
    assert eicu.manifest["mapping"]["absent"] == ABSENT
    cells = {"vitalAperiodic": 3, "apacheApsVar": 18}  # columns that become rows
    relations = {
        "vitalAperiodic": "vital_aperiodic",
        "apacheApsVar": "apache_day",
        "respiratoryCharting": "respiration",
    }
    relations |= {"patient": "patient", "medication": "medication", "intakeOutput": "output", "note": "note"}
    for file, relation in relations.items():
        text = f"read_csv('{eicu_data / file}.csv.gz', all_varchar = true, quote = '\"', delim = ',')"
        rows = duckdb.sql(f"SELECT count(*) FROM {text}").fetchall()[0][0]
        assert eicu.line(f"relations.{relation}")["rows"] == rows * cells.get(file, 1), file


def test_eicu_rejects_only_what_cannot_be_used(eicu: Prepared) -> None:
    rejected = {line["step"]: line["rejected"] for line in eicu.manifest["mapping"]["lines"] if line["rejected"]}
    rates = rejected.pop("events[9]")
    assert rejected == {"tables.patients[0]": {"no anchor_age": 3}, "tables.diagnoses_icd[0]": {"no icd_version": 34}}
    assert sum(n for rule, n in rates.items() if "'ml/hr' has no conversion" in rule) == 3204
    assert sum(n for rule, n in rates.items() if "'unknown' has no conversion" in rule) == 1030  # Norepinephrine ()


def test_eicu_has_all_stays_admissions_and_deaths(eicu: Prepared, patient: pd.DataFrame) -> None:
    stays, admissions = eicu.table("icustays"), eicu.table("admissions")
    assert (len(stays), len(admissions), len(eicu.table("patients"))) == (2520, 2174, 1838)
    died = stays.merge(admissions, on="hadm_id")["hospital_expire_flag"] == 1
    assert died.sum() == (patient["hospitaldischargestatus"] == "Expired").sum() == 212
    assert admissions["hospital_expire_flag"].isna().sum() == 25  # nobody wrote how it ended
    assert (admissions["deathtime"].notna() == (admissions["hospital_expire_flag"] == 1)).all()
    lengths = (stays["outtime"] - stays["intime"]).dt.total_seconds() / 60
    assert (lengths.to_numpy() == patient.loc[stays["stay_id"], "unitdischargeoffset"].to_numpy()).all()


def test_eicu_keeps_the_order_of_unit_stays_and_invents_no_overlap(eicu: Prepared, patient: pd.DataFrame) -> None:
    stays = eicu.table("icustays").merge(patient, left_on="stay_id", right_index=True)
    in_order = stays[stays["unitdischargeoffset"] > 0].sort_values(["hadm_id", "intime"])
    assert not (in_order.groupby("hadm_id")["unitvisitnumber"].diff() < 0).any()
    assert (stays["intime"].dt.strftime("%H:%M") == stays["unitadmittime24"].str[:5]).mean() > 0.8  # else by seconds
    admissions = eicu.table("admissions").sort_values(["subject_id", "admittime"])
    before = admissions.groupby("subject_id")[["dischtime", "deathtime"]].shift()
    assert (admissions["admittime"] < before["dischtime"]).sum() == 1  # of 333; one patient had eleven in a year
    assert ((admissions["admittime"] > before["deathtime"]) & admissions["deathtime"].isna()).sum() == 0


def test_eicu_cohort_is_what_plain_pandas_selects(eicu: Prepared, patient: pd.DataFrame) -> None:
    assert (eicu.manifest["stays"], eicu.manifest["deaths"]) == (1225, 107)
    candidates = alone(patient)
    age = candidates["age"].replace("> 89", "91").astype(float)
    within = candidates["unitdischargeoffset"] > candidates["hospitaladmitoffset"]
    valid = (candidates["unitdischargeoffset"] > 0) & within & (candidates["hospitaldischargeoffset"] > 0)
    known = candidates["hospitaldischargestatus"].notna()
    first = candidates[valid & known & (age >= 18)].drop_duplicates("uniquepid")
    died = first["hospitaldischargestatus"] == "Expired"
    in_unit = first["unitdischargestatus"] == "Expired"
    end = first["hospitaldischargeoffset"].where(~in_unit, first["unitdischargeoffset"])
    chosen = first[(first["unitdischargeoffset"] >= 1440) & ~(died & (end <= 1440))]
    store = eicu.stays[eicu.stays["stay_id"].isin(candidates["patientunitstayid"])]
    assert set(store["stay_id"]) == set(chosen["patientunitstayid"])
    assert len(store) > 1000
    labels = store["label"].loc[chosen["patientunitstayid"]].to_numpy()
    assert (labels == (chosen["hospitaldischargestatus"] == "Expired").to_numpy()).all()
    ages = eicu.static["age"].loc[chosen["patientunitstayid"]].to_numpy()
    assert (ages == age.loc[chosen.index].to_numpy()).all()
    assert (store["unit"].loc[chosen.index] == chosen["unittype"]).all()


def test_eicu_first_day_values_reach_the_features_of_every_stay_that_has_one(eicu: Prepared, eicu_data: Path) -> None:
    apache = raw(eicu_data, "apacheApsVar").set_index("patientunitstayid").replace(-1, np.nan)
    names = {"creatinine": "creatinine_max", "bun": "bun_max", "wbc": "wbc_min", "bilirubin": "bilirubin_max"}
    names |= {"hematocrit": "hematocrit_min", "ph": "ph_min", "pao2": "pao2_min", "pco2": "paco2_max"}
    static = eicu.static
    both = static.index.intersection(apache.index)
    assert len(both) > 1000
    for column, feature in names.items():
        np.testing.assert_array_equal(static.loc[both, feature], apache.loc[both, column].astype("float32"))
    ratio = (100 * apache["pao2"] / apache["fio2"]).loc[both]
    np.testing.assert_allclose(static.loc[both, "pao2fio2_min"], ratio, rtol=1e-6)


def test_eicu_lacks_only_what_its_absent_tables_would_give(eicu: Prepared) -> None:
    static = eicu.static
    empty = {name.rpartition("_")[0] for name in static.columns[static.isna().all()]}
    assert empty == {
        *("lactate", "platelets", "hemoglobin", "potassium", "chloride", "bicarbonate", "aniongap", "inr", "crp"),
        *("pct", "albumin", "alp", "alt", "ast", "magnesium"),
    }
    assert static["sbp_mean"].notna().mean() > 0.95


def test_a_creatinine_and_a_noradrenaline_of_eicu_end_to_end(
    eicu: Prepared, eicu_data: Path, patient: pd.DataFrame
) -> None:
    stay = 1056051
    entered = eicu.stays.loc[stay, "intime"]
    events = eicu.table("labevents")
    [event] = events[
        (events["subject_id"] == eicu.stays.loc[stay, "subject_id"]) & (events["itemid"] == 50912)
    ].to_dict("records")
    assert (event["valuenum"], event["valueuom"]) == (0.8, "mg/dL")
    assert event["charttime"] == entered + pd.Timedelta(hours=24)
    assert eicu.static.loc[stay, "creatinine_max"] == np.float32(0.8)

    stay = 1008970  # its rates are in mcg/min, its weight stands with the patient: 144.7 kg
    given = raw(eicu_data, "infusiondrug")
    given = given[(given["patientunitstayid"] == stay) & (given["drugname"] == "Norepinephrine (mcg/min)")]
    rates = eicu.table("inputevents")
    rates = rates[(rates["stay_id"] == stay) & (rates["itemid"] == 221906)].sort_values("starttime")
    assert len(rates) == len(given)
    hour = rates[
        rates["starttime"] == eicu.table("icustays").set_index("stay_id").loc[stay, "intime"] + pd.Timedelta("1h")
    ]
    [first] = hour.to_dict("records")
    assert first["rate"] == pytest.approx(8 / 144.7)
    assert (first["rateuom"], first["patientweight"]) == ("mcg/kg/min", 144.7)
    assert patient.loc[stay, "admissionweight"] == 144.7


def test_eicu_codes_of_both_versions_stand_apart(eicu: Prepared, eicu_data: Path) -> None:
    codes = eicu.table("diagnoses_icd").groupby("icd_version")["icd_code"]
    assert set(codes.groups) == {9, 10}
    given = raw(eicu_data, "diagnosis")["icd9code"].dropna().str.split(", *")
    assert sum(map(len, codes.groups.values())) == sum(map(len, given)) - 34
    assert {"401.9", "E980.2", "V62.84"} <= set(codes.get_group(9))
    assert {"I10", "E87.0", "R65.21"} <= set(codes.get_group(10))


def test_eicu_ventilation_comes_from_devices_settings_and_airways(eicu: Prepared, eicu_data: Path) -> None:
    apache = raw(eicu_data, "apacheApsVar").set_index("patientunitstayid")
    static = eicu.static
    both = static.index.intersection(apache.index)
    told = apache.loc[both, "vent"] == 1
    share = static.loc[both, "vent_status"].groupby(told).mean()
    assert share[True] > 0.5 > 0.1 > share[False]  # a quarter of the ventilated have no respiratory charting at all
    assert set(static["ventilation_max"].dropna()) == {0, 1, 2, 3, 4}


@pytest.mark.parametrize("region", REGIONS)
def test_a_region_of_eicu_is_a_site_and_the_others_are_ignored(
    region: str, root: Path, thin_eicu: Path, patient: pd.DataFrame, tmp_path: Path
) -> None:
    store = prepare_shipped(root, f"eicu-{region}", thin_eicu, tmp_path)
    assert_every_row_is_accounted_for(store)
    hospitals = raw(thin_eicu, "hospital").set_index("hospitalid")["region"]
    mine = patient[patient["hospitalid"].map(hospitals).str.lower() == region]
    assert len(mine) == REGIONS[region] == len(store.table("icustays"))
    assert set(store.table("icustays")["stay_id"]) == set(mine["patientunitstayid"])
    first_day = store.reading("apache_day")
    apache = (
        raw(thin_eicu, "apacheApsVar").set_index("patientunitstayid").iloc[:, 1:].drop(columns=["vent", "dialysis"])
    )
    values = apache.drop(columns=["intubated", "meds", "urine", "albumin"]).ne(-1).sum(axis=1)
    assert first_day["mapped"] == values[values.index.isin(mine.index)].sum()
    assert first_day["ignored"] == {LEFT_OUT: values[~values.index.isin(mine.index)].sum()}
    assert first_day["rejected"] == {}
    assert not any(
        "is not in icustays" in rule for line in store.manifest["mapping"]["lines"] for rule in line["rejected"]
    )


LAB = (
    "labid,patientunitstayid,labresultoffset,labtypeid,labname,labresult,labresulttext,labmeasurenamesystem,"
    "labmeasurenameinterface,labresultrevisedoffset"
)
PERIODIC = (
    "vitalperiodicid,patientunitstayid,observationoffset,temperature,sao2,heartrate,respiration,cvp,etco2,"
    "systemicsystolic,systemicdiastolic,systemicmean,pasystolic,padiastolic,pamean,st1,st2,st3,icp"
)
CHARTING = (
    "nursingchartid,patientunitstayid,nursingchartoffset,nursingchartentryoffset,nursingchartcelltypecat,"
    "nursingchartcelltypevallabel,nursingchartcelltypevalname,nursingchartvalue"
)


def write_rows(file: Path, header: str, rows: list[tuple[object, ...]]) -> None:
    with gzip.open(file, "wt", newline="") as target:
        writer = csv.writer(target)
        writer.writerow(header.split(","))
        writer.writerows((number, *row) for number, row in enumerate(rows))


@pytest.fixture(scope="module")
def full_eicu(root: Path, thin_eicu: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    """The demo with a few rows of the three tables that the full release has, in its format."""
    folder = tmp_path_factory.mktemp("full-eicu")
    data = Path(shutil.copytree(thin_eicu, folder / "data"))
    stay = 1056051
    lab = [
        (stay, 300, 1, "creatinine", 1.9, "1.9", "mg/dL", "mg/dL", 330),
        (stay, 1430, 1, "creatinine", 7.7, "7.7", "mg/dL", "mg/dL", 1500),  # not reported within the day
        (stay, 120, 4, "lactate", 4.2, "4.2", "mmol/L", "", 121),
        (stay, 60, 3, "platelets x 1000", 88, "88", "K/mcL", "", 70),
        (stay, 60, 3, "WBC x 1000", 21.5, "21.5", "K/mcL", "K/UL", 70),
        (stay, 60, 3, "Hgb", 9.1, "9.1", "g/dL", "", 70),
        (stay, 60, 1, "potassium", 5.6, "5.6", "mmol/L", "mEq/L", 70),
        (stay, 60, 1, "HCO3", 17, "17", "", "mEq/L", 70),  # the unit of the interface, where the system's is empty
        (stay, 60, 1, "anion gap", 21, "21", "", "", 70),
        (stay, 90, 1, "CRP", 12.5, "12.5", "mg/dL", "", 95),  # 125 mg/L
        (stay, 90, 3, "PT - INR", 1.7, "1.7", "ratio", "", 95),
        (stay, 200, 4, "bedside glucose", 381, "381", "mg/dL", "", 200),
        (stay, 400, 7, "paO2", 80, "80", "mm Hg", "", 410),
        (stay, 400, 7, "FiO2", 50, "50", "%", "", 410),
        (stay, 400, 7, "pH", 7.21, "7.21", "", "Units", 410),
        (stay, 400, 1, "total protein", 6.1, "6.1", "g/dL", "", 410),  # known, and not wanted
        (stay, 410, 1, "sodium", 139, "139", "furlongs", "", 420),
        (999, 400, 1, "sodium", 139, "139", "mmol/L", "", 410),
    ]
    write_rows(data / "lab.csv.gz", LAB.upper(), lab)  # the case of a header does not matter
    none = [""] * 7
    periodic = [
        (stay, 65, 38.4, 91, 132, 28, "", "", 101, 55, 70, *none),
        (stay, 70, "", 93, 128, "", "", "", "", "", "", *none),
    ]
    write_rows(data / "vitalPeriodic.csv.gz", PERIODIC, periodic)
    gcs, o2 = ("Scores", "Glasgow coma score"), ("Vital Signs", "O2 Admin Device", "O2 Admin Device")
    charting = [
        (stay, 600, 610, *gcs, "Eyes", "2"),
        (stay, 600, 610, *gcs, "Motor", "4"),
        (stay, 600, 610, *gcs, "Verbal", "Unable to score due to medication"),
        (stay, 660, 660, "Vital Signs", "Temperature", "Temperature (F)", "102.2"),  # 39 degrees Celsius
        (stay, 700, 700, *o2, "BiPAP"),
        (stay, 760, 760, *o2, "bi-pap"),
        (stay, 900, 900, *o2, "Ventilator"),
        (stay, 960, 960, *o2, "vent"),
        (stay, 1100, 1100, *o2, "venturi mask"),
        (stay, 1160, 1160, *o2, "magic"),
        (stay, 700, 700, "Scores", "Pain Score/Goal", "Pain Score", "3"),
    ]
    write_rows(data / "nurseCharting.csv.gz", CHARTING, charting)
    return prepare_shipped(root, "eicu-crd", data, folder)


def test_the_tables_of_the_full_release_are_mapped(full_eicu: Prepared) -> None:
    assert_every_row_is_accounted_for(full_eicu)
    assert full_eicu.manifest["mapping"]["absent"] == []
    lab, periodic, charting = (full_eicu.reading(relation) for relation in ABSENT)
    assert lab["mapped"] == 15
    assert lab["ignored"] == {"code that the config ignores": 1}
    assert set(lab["rejected"].values()) == {1}
    assert set(lab["rejected"]) == {"stay is not in icustays", "unit has no conversion to mmol/L (sodium)"}
    assert (periodic["mapped"], periodic["rejected"]) == (9, {})
    assert (charting["mapped"], charting["rejected"]) == (8, {})


def test_the_tables_of_the_full_release_reach_the_features(full_eicu: Prepared) -> None:
    static = full_eicu.static.loc[1056051]
    expected = {
        "creatinine_max": 1.9,
        "creatinine_min": 0.8,  # APACHE's
        "lactate_max": 4.2,
        "platelets_min": 88,
        "wbc_max": 21.5,
        "hemoglobin_min": 9.1,
        "potassium_max": 5.6,
        "bicarbonate_min": 17,
        "aniongap_max": 21,
        "crp_max": 125,
        "inr_max": 1.7,
        "glucose_max": 381,
        "pao2_min": 80,
        "pao2fio2_min": 160,
        "ph_min": 7.21,
        "temperature_max": 39,
        "heart_rate_max": 132,
        "spo2_min": 91,
        "gcs_min": 11,  # eyes 2, motor 4, and the normal value for what could not be scored
        "ventilation_max": 4,
        "vent_status": 1,
    }
    assert static[list(expected)].to_dict() == pytest.approx(expected, rel=1e-6)
    series = full_eicu.series(1056051)
    assert series.loc[1, ["heart_rate", "spo2", "sbp", "temperature"]].tolist() == pytest.approx([130, 92, 101, 38.4])
    assert series.loc[[12, 15], "ventilation"].tolist() == [3, 4]
    assert series.loc[1, "platelets"] == 88
    assert series["creatinine"].dropna().tolist() == [pytest.approx(1.9)]


# ---- PhysioNet 2012


@pytest.fixture(scope="module")
def challenge_data() -> Path:
    return open_data(PHYSIONET_2012)


@pytest.fixture(scope="module")
def challenge(root: Path, challenge_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Prepared:
    return prepare_shipped(root, "physionet-2012", challenge_data, tmp_path_factory.mktemp("physionet"))


@pytest.fixture(scope="module")
def measured(challenge_data: Path) -> pd.DataFrame:
    return pd.concat(pd.read_csv(challenge_data / f"set-{letter}.csv.gz") for letter in "ab")


@pytest.fixture(scope="module")
def records(challenge_data: Path, measured: pd.DataFrame) -> pd.DataFrame:
    """Age, ICUType and outcome of every stay."""
    outcomes = pd.concat(pd.read_csv(challenge_data / f"outcomes-{letter}.csv") for letter in "ab")
    static = measured[measured["Parameter"].isin(["Age", "ICUType"])].pivot(
        index="RecordID", columns="Parameter", values="Value"
    )
    return static.join(outcomes.set_index("RecordID")["In-hospital_death"])


def test_physionet_has_every_stay_with_its_label(challenge: Prepared, records: pd.DataFrame) -> None:
    assert_every_row_is_accounted_for(challenge)
    assert (len(records), records["In-hospital_death"].sum()) == (8000, 1122)
    adults = records[records["Age"] >= 18]
    stays = challenge.stays
    assert set(stays["stay_id"]) == set(adults.index)
    assert (stays["label"].loc[adults.index] == (adults["In-hospital_death"] == 1)).all()
    rates = stays.groupby("unit")["label"].mean().mul(100).to_dict()
    assert rates == pytest.approx(
        {
            "Coronary Care Unit": 13.1,
            "Cardiac Surgery Recovery Unit": 4.6,
            "Medical ICU": 19.2,
            "Surgical ICU": 14.7,
        },
        abs=0.05,
    )


def test_physionet_values_reach_the_features(challenge: Prepared, measured: pd.DataFrame) -> None:
    static = challenge.static
    for parameter, concept, (low, high) in (
        ("Creatinine", "creatinine", (0, 28)),
        ("Platelets", "platelets", (5, 1200)),
        ("Lactate", "lactate", (0, 50)),
        ("HR", "heart_rate", (0, 300)),
    ):
        mine = measured[(measured["Parameter"] == parameter) & measured["Value"].between(low, high)]
        expected = mine.groupby("RecordID")["Value"].agg(["min", "max"]).reindex(static.index).astype("float32")
        for statistic in {"min", "max"} & {name.rpartition("_")[2] for name in static if name.startswith(concept)}:
            np.testing.assert_array_equal(static[f"{concept}_{statistic}"], expected[statistic])
    assert challenge.series(132540)["creatinine"].dropna().to_dict() == pytest.approx({2: 0.8, 14: 1.2, 41: 1.3})
    fraction = measured[(measured["Parameter"] == "FiO2") & (measured["RecordID"] == 132540)]["Value"].max()
    assert static.loc[132540, "fio2_max"] == pytest.approx(100 * fraction)


def test_physionet_rejects_only_empty_values(challenge: Prepared, measured: pd.DataFrame) -> None:
    events = challenge.reading("measured")
    ignored = {
        "Cholesterol",
        "TroponinI",
        "TroponinT",
        "Age",
        "Gender",
        "ICUType",
    }
    wanted = measured[~measured["Parameter"].isin({*ignored, "RecordID"})]
    assert events["mapped"] == (wanted["Value"] != -1).sum()
    assert events["rejected"] == {"no value": (wanted["Value"] == -1).sum()}
    assert events["ignored"] == {"code that the config ignores": len(measured) - len(wanted)}


@pytest.mark.parametrize("unit", UNITS)
def test_a_care_unit_of_physionet_is_a_site_and_the_others_are_ignored(
    unit: str, root: Path, challenge_data: Path, records: pd.DataFrame, tmp_path: Path
) -> None:
    chosen = records.groupby("ICUType").head(60).index
    data = tmp_path / "data"
    data.mkdir()
    for letter in "ab":
        shutil.copy(challenge_data / f"outcomes-{letter}.csv", data)
        rows = pd.read_csv(challenge_data / f"set-{letter}.csv.gz", dtype=str)
        rows[rows["RecordID"].astype(int).isin(chosen)].to_csv(data / f"set-{letter}.csv.gz", index=False)
    store = prepare_shipped(root, f"physionet-2012-{unit}", data, tmp_path)
    assert_every_row_is_accounted_for(store)
    mine = records.loc[chosen].query(f"ICUType == {UNITS[unit]} and Age >= 18")
    assert set(store.stays["stay_id"]) == set(mine.index)
    assert (store.stays["label"].loc[mine.index] == (mine["In-hospital_death"] == 1)).all()
    events = store.reading("measured")
    assert events["ignored"][LEFT_OUT] > 10_000
    assert set(events["rejected"]) <= {"no value"}
    unwanted = store.table("chartevents")["stay_id"].map(records["ICUType"]) != UNITS[unit]
    assert not unwanted.any()
