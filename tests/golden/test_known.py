"""Golden examples of what is known at the cutoff and what is derived from it: tiny tables in, features out."""

from math import exp, isnan, log
from operator import itemgetter
from typing import Any

import duckdb
import pytest
from mimic_tables import Row, antibiotic, at, chart, culture, heart_rates, hospital, infusion, lab, output, patient

from client.cohort import select_cohort
from client.events import map_events
from client.known import cut_to_known
from client.windows import build_features
from shared_model.study import EARLY, Study

MINUTE = 1 / 60
PAPER = Study(profile="paper")
Known = tuple[duckdb.DuckDBPyConnection, list[dict[str, float]]]
CREATININE, SPECIMEN, PAO2, FIO2, FOLEY = 50912, 52033, 50821, 50816, 226559
EYES, VERBAL, MOTOR, DEVICE, MODE = 220739, 223900, 223901, 226732, 223849
TUBE, CANNULA, MASK = "Endotracheal tube", "Nasal cannula", "Bipap mask"
STEADY = heart_rates(0, 23)  # a score of the organs needs hours, and these begin with the first heart rate


def known(*people: dict[str, Row], study: Study = EARLY, **rows: list[Row]) -> Known:
    """The database and the static features of each stay."""
    connection = hospital(*people, **rows)
    select_cohort(connection, "all_icu", study, stays="all")
    cut_to_known(connection, study)
    map_events(connection)
    table = build_features(connection, study)[0].tolist()
    return connection, [dict(zip(study.static, row, strict=True)) for row in table]


def row_of(*people: dict[str, Row], study: Study = EARLY, **rows: list[Row]) -> dict[str, float]:
    """The static features of the first stay."""
    return {name: round(value, 4) for name, value in known(*people, study=study, **rows)[1][0].items()}


def feature(name: str, *people: dict[str, Row], study: Study = EARLY, **rows: list[Row]) -> float:
    return row_of(*people, study=study, **rows)[name]


def events(concept: str, *people: dict[str, Row], **rows: list[Row]) -> list[tuple[Any, ...]]:
    query = "SELECT charttime, round(value, 4) FROM events WHERE concept = ? ORDER BY ALL"
    return known(*people, **rows)[0].execute(query, [concept]).fetchall()


def blood_gas(hours: float, pao2: float, fio2: float) -> list[Row]:
    return [lab(SPECIMEN, hours, "ART."), lab(PAO2, hours, pao2), lab(FIO2, hours, fio2)]


def device(name: str, *hours: float, **more: Any) -> list[Row]:
    return [chart(DEVICE, hour, name, **more) for hour in hours]


def admission(number: int, start: float, end: float, subject: int = 1) -> dict[str, Row]:
    """One more admission without an ICU stay; the ICU stay's own begins at hour -5."""
    times = {"admittime": at(start), "dischtime": at(end), "hospital_expire_flag": 0}
    return {"admissions": {"subject_id": subject, "hadm_id": number} | times}


def code(icd: str, number: int, version: int = 10) -> Row:
    return {"subject_id": 1, "hadm_id": number, "icd_code": icd, "icd_version": version}


@pytest.mark.parametrize(("hours", "known_cultures"), [(23, 0), (24, 1), (30, 1)])
def test_a_culture_with_a_date_only_is_known_when_its_day_is_over(hours: float, known_cultures: int) -> None:
    rows, study = [culture(2, timed=False)], Study(prediction_hours=hours)
    assert feature("specimen_count", study=study, microbiologyevents=rows) == known_cultures


@pytest.mark.parametrize(("stored", "positive", "later"), [(20, 1, 1), (24, 1, 1), (24 + MINUTE, 0, 1), (None, 0, 1)])
def test_an_organism_counts_when_its_result_was_stored(stored: float | None, positive: int, later: int) -> None:
    grown = {"org_name": "E. COLI", "org_itemid": 80002, "storetime": None if stored is None else at(stored)}
    rows = [culture(2, **grown), culture(3, 2, storetime=at(4))]
    row = row_of(microbiologyevents=rows)
    assert (row["positive_culture"], row["specimen_count"]) == (positive, 2)  # that it was taken is known anyway
    assert feature("positive_culture", study=PAPER, microbiologyevents=rows) == later


@pytest.mark.parametrize(("hours", "counted"), [(-24, 0), (-24 + MINUTE, 1), (0, 1), (24, 1), (24 + MINUTE, 0)])
def test_antibiotics_and_cultures_count_from_a_day_before_admission(hours: float, counted: int) -> None:
    given = [antibiotic(hours), antibiotic(hours, hadm_id=None, drug="Cefepime")]  # one of another admission
    row = row_of(prescriptions=given, microbiologyevents=[culture(hours)])
    assert (row["antibiotic_num"], row["specimen_count"]) == (2 * counted, counted)


@pytest.mark.parametrize(
    ("taken", "given", "first", "second"),
    [(2, 5.5, 3.5, 3.5), (9, 5.5, -3.5, 0), (2, 2 + MINUTE, 0.0167, 0.0167), (-20, 3, 23, 23)],
)
def test_periods_to_the_antibiotic_are_in_hours(taken: float, given: float, first: float, second: float) -> None:
    row = row_of(prescriptions=[antibiotic(given)], microbiologyevents=[culture(taken)])
    assert (row["cul_anti_period"], row["sus_anti_period"]) == (first, second)


def test_periods_are_those_of_the_first_suspicion_and_unknown_without_one() -> None:
    cultures, given = [culture(8, 1), culture(1, 2)], [antibiotic(9, drug="Cefepime"), antibiotic(4)]
    assert feature("cul_anti_period", prescriptions=given, microbiologyevents=cultures) == 3
    assert isnan(feature("cul_anti_period", prescriptions=given))
    assert isnan(feature("sus_anti_period", prescriptions=given, microbiologyevents=[culture(23.5 + 9, 1)]))


def test_an_antibiotic_after_the_prediction_time_makes_no_suspicion_yet() -> None:
    rows = {"prescriptions": [antibiotic(25)], "microbiologyevents": [culture(20)]}
    assert (isnan(feature("cul_anti_period", **rows)), feature("cul_anti_period", study=PAPER, **rows)) == (True, 5)


@pytest.mark.parametrize(("stored", "score"), [(6, 2), (24, 2), (24 + MINUTE, 0)])
def test_sofa_counts_a_laboratory_value_once_it_is_stored(stored: float, score: int) -> None:
    assert feature("sofa_score", chartevents=STEADY, labevents=[lab(CREATININE, 5, 2.5, storetime=at(stored))]) == score


def test_sofa_is_that_of_the_last_known_hour_with_the_worst_of_the_day_before_it() -> None:
    labs = [lab(CREATININE, -20, 5.5), lab(CREATININE, 5, 2.5), lab(CREATININE, 25, 6)]
    assert feature("sofa_score", chartevents=heart_rates(0, 1), labevents=labs) == 4
    assert feature("sofa_score", chartevents=heart_rates(0, 23, 26), labevents=labs) == 2
    assert isnan(feature("sofa_score", labevents=labs))


def test_a_charted_value_stored_late_does_not_reach_a_score() -> None:
    coma = [chart(part, 5, 1, storetime=at(25)) for part in (EYES, VERBAL, MOTOR)]
    assert feature("sofa_score", chartevents=STEADY + coma) == 0
    assert isnan(feature("gcs_min", chartevents=STEADY + coma))
    assert feature("sofa_score", study=PAPER, chartevents=STEADY + coma) == 4


def test_an_infusion_that_runs_on_counts_until_the_prediction_time() -> None:
    connection, [row] = known(chartevents=STEADY, inputevents=[infusion(221906, 20, 40, 0.2)])
    assert connection.execute("SELECT endtime FROM known.inputevents").fetchall() == [(at(24),)]
    assert row["sofa_score"] == 4
    assert feature("sofa_score", chartevents=STEADY, inputevents=[infusion(221906, 25, 40, 0.2)]) == 0


def test_oxygenation_is_an_event_of_its_sample() -> None:
    assert events("pao2fio2", chartevents=STEADY, labevents=blood_gas(10, 90, 50)) == [(at(10), 180)]
    assert (
        events("pao2fio2", chartevents=STEADY, labevents=[lab(SPECIMEN, 10, "VEN."), *blood_gas(10, 90, 50)[1:]]) == []
    )


def test_the_coma_scale_is_an_event_of_its_time_and_full_under_intubation() -> None:
    rows = [chart(EYES, 2, 3), chart(VERBAL, 2, 4), chart(MOTOR, 2, 5), chart(MOTOR, 4, 6)]
    assert events("gcs", chartevents=rows) == [(at(2), 12), (at(4), 13)]
    # An intubated patient cannot speak: the full scale.
    rows = [chart(EYES, 2, 1), chart(VERBAL, 2, "No Response-ETT", valuenum=1), chart(MOTOR, 2, 1)]
    assert events("gcs", chartevents=rows) == [(at(2), 15)]
    assert events("gcs_verbal", chartevents=rows) == [(at(2), 1)]


@pytest.mark.parametrize(("name", "level", "invasive"), [(TUBE, 4, 1), (MASK, 3, 0), (CANNULA, 1, 0), ("None", 0, 0)])
def test_a_spell_of_support_is_an_event_every_hour(name: str, level: int, invasive: int) -> None:
    rows = device(name, 2.5, 5.75)
    assert events("ventilation", chartevents=rows) == [(at(hour), level) for hour in (2.5, 3.5, 4.5, 5.5)]
    assert feature("vent_status", chartevents=rows) == invasive


def test_a_spell_is_known_as_far_as_its_rows_are_stored() -> None:
    rows = device(TUBE, 2, 3) + device(TUBE, 6, storetime=at(25))
    assert events("ventilation", chartevents=rows) == [(at(2), 4), (at(3), 4)]
    assert feature("vent_status", chartevents=device(TUBE, 6, 8, storetime=at(25))) == 0
    assert feature("vent_status", study=PAPER, chartevents=device(TUBE, 30, 32)) == 1
    assert feature("vent_status", chartevents=device(TUBE, 30, 32)) == 0


def test_at_the_hour_of_a_change_the_level_is_the_new_one() -> None:
    found = events("ventilation", chartevents=[chart(MODE, 2, "CMV"), chart(MODE, 3, "CMV"), *device(CANNULA, 4, 6)])
    assert found == [(at(2), 4), (at(3), 4), (at(4), 1), (at(5), 1), (at(6), 1)]


def test_a_change_between_supports_of_one_level_is_no_duplicate_row() -> None:
    connection, _ = known(chartevents=device(TUBE, 2, 3) + device("Trach mask", 4, 6))
    assert connection.execute("SELECT * FROM event_check").fetchall() == []


def test_without_an_earlier_coded_admission_comorbidity_is_unknown() -> None:
    stay, before = patient(1, stay=100), admission(900, -100, -50)
    for rows in ([], [code("I214", 1000)]):
        row = row_of(stay, before, diagnoses_icd=rows)
        assert isnan(row["charlson_score"]) and isnan(row["metastatic_solid_tumor"])
    assert feature("charlson_score", stay, before, diagnoses_icd=[code("I10", 900)]) == 1  # 60 years old: 1


@pytest.mark.parametrize(
    ("start", "end", "early", "paper"),
    [(-100, -50, True, True), (-100, -5 - MINUTE, True, True), (-100, -5, False, True), (70, 90, False, False)],
)
def test_codes_are_known_when_their_admission_has_ended(start: float, end: float, early: bool, paper: bool) -> None:
    people, rows = (patient(1, stay=100), admission(900, start, end)), [code("C780", 900)]
    for study, counted in ((EARLY, early), (PAPER, paper)):
        found = feature("charlson_score", *people, study=study, diagnoses_icd=rows)
        assert found == 7 if counted else isnan(found)  # age 1, metastasis 6
    assert isnan(feature("charlson_score", patient(1, stay=100), admission(900, -9, -8, 2), diagnoses_icd=rows))


def test_the_retrospective_profile_reads_this_admissions_codes_and_the_lengths() -> None:
    row = row_of(study=PAPER, diagnoses_icd=[code("C780", 1000)])
    assert (row["charlson_score"], row["metastatic_solid_tumor"]) == (7, 1)
    assert (row["los_icu"], row["los_hospital"]) == (2.5, 2.9167)  # 60 and 70 hours
    assert not {"los_icu", "los_hospital"} & set(EARLY.static)


def ill() -> tuple[tuple[dict[str, Row], ...], dict[str, list[Row]]]:
    """A stay with points in every component of SAPS II."""
    person = patient(1, stay=100, anchor_age=72)
    person["admissions"]["admission_type"] = "EW EMER."
    service = {"services": {"subject_id": 1, "hadm_id": 1000, "transfertime": at(-5), "curr_service": "CSURG"}}
    charted = [(220045, 125), (220179, 95), (223762, 39.2), (EYES, 3), (VERBAL, 4), (MOTOR, 5)]
    measured = [(51006, 30), (51301, 21), (50971, 5.5), (50983, 146), (50882, 18), (50885, 4.5)]
    rows = {
        "chartevents": [chart(item, 2, value) for item, value in charted] + heart_rates(20) + device(TUBE, 8, 12),
        "labevents": [lab(item, 3, value) for item, value in measured] + blood_gas(10, 80, 100),
        "outputevents": [output(FOLEY, 4, 500), output(FOLEY, 20, 300)],
        "diagnoses_icd": [code("197.0", 900, 9)],
    }
    return (person, service, admission(900, -100, -50)), rows


# By Le Gall 1993: age 72; heart rate 125; systolic 95; 39.2 C; PaO2/FiO2 80 ventilated; urine 800; urea nitrogen 30;
# leukocytes 21; potassium 5.5; sodium 146; bicarbonate 18; bilirubin 4.5; coma scale 12; metastasis; unplanned surgery.
POINTS = 15 + 4 + 5 + 3 + 11 + 4 + 6 + 3 + 3 + 1 + 3 + 4 + 5 + 9 + 8


def test_sapsii_of_a_stay_by_hand() -> None:
    people, rows = ill()
    assert POINTS == 84
    probability = 1 / (1 + exp(7.7631 - 0.0737 * POINTS - 0.9971 * log(POINTS + 1)))
    row = row_of(*people, **rows)
    assert (row["sapsii"], row["sapsii_prob"]) == (POINTS, pytest.approx(probability, abs=1e-4))


def test_sapsii_is_of_the_first_24_hours_also_in_retrospect() -> None:
    people, rows = ill()
    later = {"chartevents": [*rows["chartevents"], chart(220045, 24 + MINUTE, 170)]}
    assert feature("sapsii", *people, study=PAPER, **rows | later) == POINTS
    at_last = {"chartevents": [*rows["chartevents"], chart(220045, 24, 170)]}
    assert feature("sapsii", *people, study=PAPER, **rows | at_last) == POINTS + 7 - 4


@pytest.mark.parametrize(("support", "points"), [(TUBE, 11), (MASK, 11), (CANNULA, 0)])
def test_oxygenation_counts_in_sapsii_under_ventilation(support: str, points: int) -> None:
    rows = STEADY + device(support, 8, 12)
    scored = known(chartevents=rows, labevents=blood_gas(10, 80, 100))[0]
    assert scored.execute("SELECT pafi_points FROM sapsii").fetchall() == [(points,)]


@pytest.mark.parametrize(
    ("kind", "service", "hours", "points"),
    [
        *(("ELECTIVE", "SURG", -5, 0), ("SURGICAL SAME DAY ADMISSION", "CSURG", -5, 0)),
        *(("EW EMER.", "NSURG", -5, 8), (None, "SURG", 24, 8)),
        *(("ELECTIVE", "MED", -5, 6), ("EW EMER.", None, -5, 6), ("EW EMER.", "SURG", 24 + MINUTE, 6)),  # not yet known
    ],
)
def test_the_first_service_tells_the_kind_of_admission(kind: Any, service: Any, hours: float, points: int) -> None:
    person = patient(1, stay=100)
    person["admissions"]["admission_type"] = kind
    rows = [(hours + MINUTE, "SURG" if service == "MED" else "MED"), (hours, service)]
    services = [{"subject_id": 1, "hadm_id": 1000, "transfertime": at(t), "curr_service": s} for t, s in rows]
    connection, _ = known(person, services=services)
    assert connection.execute("SELECT admission_points FROM sapsii").fetchall() == [(points,)]


@pytest.mark.parametrize(("hours", "urine", "points"), [(12, 800, 4), (24, 400, 11), (48, 400, 11)])
def test_urine_of_less_than_a_day_is_scaled_to_one(hours: float, urine: float, points: int) -> None:
    rows = {"chartevents": STEADY, "outputevents": [output(FOLEY, 6, 400), output(FOLEY, 30, 900)]}
    connection, _ = known(study=Study(prediction_hours=hours), **rows)
    found = connection.execute("SELECT urine_24h, urine_points FROM sapsii_input JOIN sapsii USING (stay_id)")
    assert found.fetchall() == [(urine, points)]


def test_two_stays_of_a_patient_do_not_see_each_others_later_rows() -> None:
    second = patient(1, stay=200, start=20, end=90)["icustays"] | {"hadm_id": 1000}
    labs = [lab(CREATININE, hour, value) for hour, value in ((10, 1.0), (20, 1.1), (25, 2.5), (44, 1.2), (45, 9))]
    charts = [chart(220045, 21, 100), chart(220045, 25, 120), *heart_rates(1)]
    charts += [chart(220045, 23, 60, stay_id=200), chart(220045, 40, 50, stay_id=200)]
    given = [antibiotic(22), antibiotic(26, drug="Cefepime")]
    rows = {"chartevents": charts, "labevents": labs, "prescriptions": given, "microbiologyevents": [culture(30)]}
    connection, (one, two) = known(patient(1, stay=100, end=40), {"icustays": second}, **rows)
    assert (one["creatinine_min"], one["creatinine_max"]) == (1.0, pytest.approx(1.1))
    assert (two["creatinine_min"], two["creatinine_max"]) == (pytest.approx(1.1), 2.5)
    assert (one["heart_rate_max"], two["heart_rate_max"]) == (100, 60)
    counts = ("antibiotic_num", "specimen_count", "sofa_score")
    assert ([one[name] for name in counts], [two[name] for name in counts]) == ([1, 0, 0], [2, 1, 2])
    assert (isnan(one["cul_anti_period"]), two["cul_anti_period"]) == (True, -8)
    seen = connection.execute("SELECT DISTINCT stay_id, subject_id FROM known.labevents ORDER BY ALL").fetchall()
    assert seen == [(100, 100), (200, 200)]


def test_height_weight_and_crp_are_in_their_units() -> None:
    values = itemgetter("height_last", "weight_last", "crp_max")
    imperial = [chart(226707, 2, 70), chart(226531, 2, 200), chart(227444, 2, 12.5)]
    assert values(row_of(chartevents=imperial)) == (177.8, 90.7185, 12.5)
    metric = {"chartevents": [chart(226730, 2, 178), chart(226512, 2, 80)], "labevents": [lab(50889, 2, 101)]}
    assert values(row_of(**metric)) == (178, 80, 101)
