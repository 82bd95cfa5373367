"""Values become events: units, numbers, times, words, owners; and where every row went."""

from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from mapped_extract import STAYS, Document, Mapped, map_files, rejected

from shared_model.errors import ConfigError, ConsiliumError, DataError

At = "2150-03-10 0{}:00:00"


def _lab(*rows: str) -> str:
    """Rows `code;value;unit` of stay 100, an hour apart."""
    return "".join(f"100;{At.format(n + 1)};{row}\n" for n, row in enumerate(rows))


def _change(**keys: object) -> Callable[[Document], None]:
    """Change keys of the events entry."""
    return lambda document: document["events"][0].update(keys)


def test_each_row_has_its_own_unit(tmp_path: Path) -> None:
    mapped = map_files(tmp_path, labs=_lab("KREA;1,5;mg/dl", "KREA;132,6;µmol/l", "KREA;2;"))
    assert mapped.values() == [1.5, round(132.6 * 0.011312, 6), 2.0]
    assert set(mapped.table("labevents")["valueuom"]) == {"mg/dL"}
    assert mapped.line("events[0]").mapped == 3


def test_a_code_may_say_its_unit_and_the_site_may_teach_one(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["events"][0]["codes"]["creatinine"] = {"code": "KREA", "unit": "umol/L"}
        document["units"] = {"creatinine": {"KE": 0.5}}

    assert map_files(tmp_path, labs=_lab("KREA;100;", "KREA;3;KE"), change=change).values() == [1.1312, 1.5]


def test_a_unit_without_a_conversion_rejects_its_rows_by_name(tmp_path: Path) -> None:
    rows = "".join(_lab("KREA;1;Knoten") for _ in range(10))
    mapped = map_files(tmp_path, labs=rows + _lab("KREA;1;mg/dl"))
    assert mapped.line("events[0]").rejected == {"unit 'Knoten' has no conversion to mg/dL (creatinine)": 10}
    assert len(rejected(mapped, "mapping-events-0")) == 10


def test_numbers_are_read_as_the_files_write_them(tmp_path: Path) -> None:
    def thousands(document: Document) -> None:
        document["sources"]["files"]["csv"]["thousands"] = "."

    assert map_files(tmp_path / "a", labs=_lab("HF;1.234,5;"), change=thousands).values("chartevents") == [1234.5]
    mapped = map_files(tmp_path / "b", labs=_lab("HF;1.234;", "HF; <88 ;", "HF;viel;", "HF;;", "HF;NaN;"))
    assert mapped.values("chartevents") == [88.0]
    line = mapped.line("events[0]")
    assert line.rejected == {"value: not a number": 3, "no value": 1}
    assert line.notes == {"a sign such as < before the number is left out": 1}


@pytest.mark.parametrize(
    ("time", "written", "read"),
    [
        ("at", "2150-03-10T01:30:00", "2150-03-10 01:30"),
        ({"column": "at", "format": "%d.%m.%Y %H:%M"}, "10.03.2150 01:30", "2150-03-10 01:30"),
        ({"column": "at", "format": ["%d.%m.%Y", "%d.%m.%Y %H:%M"]}, "10.03.2150", "2150-03-10 00:00"),
        ({"column": "at", "offset": "minutes"}, "90", "2150-03-10 01:30"),
        ({"column": "at", "offset": "minutes"}, "-30", "2150-03-09 23:30"),
        ({"column": "at", "offset": "hours"}, "1,5", "2150-03-10 01:30"),
        ({"column": "at", "offset": "days"}, "0,5", "2150-03-10 12:00"),
        ({"column": "at", "offset": "HH:MM"}, "21:30", "2150-03-10 21:30"),
        ({"column": "at", "offset": "minutes", "since": "TIMESTAMP '2150-03-10 02:00'"}, "30", "2150-03-10 02:30"),
        ({"column": "at", "zone": "Etc/UTC"}, "2150-03-10 01:30:00", "2150-03-10 02:30"),
        ("at", "2150-03-10T01:30:00Z", "2150-03-10 02:30"),
        ("at", "2150-07-10T01:30:00+00:00", "2150-07-10 03:30"),
        ("at", "2150-03-10 01:30:00-0100", "2150-03-10 03:30"),
    ],
)
def test_a_time_is_what_the_hospitals_clock_showed(time: object, written: str, read: str, tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["timezone"] = "Europe/Berlin"
        document["events"][0]["time"] = time

    mapped = map_files(tmp_path, labs=f"100;{written};KREA;1;\n", change=change)
    assert list(mapped.table("labevents")["charttime"]) == [pd.Timestamp(read)]


def test_times_with_and_without_a_zone_in_one_column_are_refused(tmp_path: Path) -> None:
    labs = "100;2150-03-10T01:00:00Z;KREA;1;\n100;2150-03-10 02:00:00;KREA;1;\n"
    with pytest.raises(DataError, match=r"^events\[0\]\.time: 1 times name a time zone and 1 do not; .*`zone`"):
        map_files(tmp_path, labs=labs, change=lambda document: document.update(timezone="Europe/Berlin"))
    with pytest.raises(ConfigError, match=r"time.* name a time zone; set `timezone`"):
        map_files(tmp_path, labs=labs.splitlines()[0] + "\n")


def test_words_stand_for_numbers_or_for_nothing(tmp_path: Path) -> None:
    words = {"code": "GCSV", "map": {"orientiert": 5, "Keine": 1, "unklar": None, "Tubus": "intubated"}}
    mapped = map_files(
        tmp_path,
        labs=_lab("GCSV; Orientiert ;", "GCSV;keine;", "GCSV;unklar;", "GCSV;Tubus;", "GCSV;4;", "GCSV;geheim;"),
        change=_change(codes={"gcs_verbal": words}),
    )
    held = mapped.table("chartevents").sort_values("charttime")
    assert list(held["valuenum"]) == [5, 1, 1, 4] and list(held["value"])[2] == "No Response-ETT"
    line = mapped.line("events[0]")
    assert line.ignored == {"value that the map takes for none": 1}
    assert line.rejected == {"value: text has no entry in map": 1}
    [(rule, row)] = rejected(mapped, "mapping-events-0")
    assert "geheim" in row and "geheim" not in rule


def test_a_state_of_support_is_a_device(tmp_path: Path) -> None:
    device = {"oxygen_device": {"code": "VENT", "map": {"1": "InvasiveVent", "0": "None"}}}
    mapped = map_files(tmp_path, labs=_lab("VENT;1;", "VENT;0;"), change=_change(codes=device))
    assert set(mapped.table("chartevents")["value"]) == {"Endotracheal tube", "None"}
    assert set(mapped.table("chartevents")["itemid"]) == {226732}


def test_two_devices_of_one_concept_stay_two_rows(tmp_path: Path) -> None:
    labs = f"100;{At.format(1)};NIBP;120;\n100;{At.format(1)};ART;120;\n"
    mapped = map_files(tmp_path, labs=labs, change=_change(codes={"sbp": ["NIBP", "ART"]}))
    assert sorted(mapped.table("chartevents")["itemid"]) == [220050, 220179]


def test_codes_by_pattern_by_loinc_and_on_purpose_ignored(tmp_path: Path) -> None:
    mapped = map_files(
        tmp_path,
        labs=_lab("heart rate (monitor);80;", "2160-0;1;", "TEST7;1;", "OTHER;1;"),
        change=_change(codes={"heart_rate": {"pattern": r"heart rate.*"}}, loinc="code", ignore=["/test\\d/"]),
    )
    assert (mapped.values("chartevents"), mapped.values("labevents")) == ([80.0], [1.0])
    assert mapped.line("events[0]").ignored == {"code that the config ignores": 1, "code that nothing maps": 1}
    assert [found.code for found in mapped.account.codes if found.concept is None and not found.ignored] == ["OTHER"]


def test_a_code_that_two_patterns_take_is_refused_by_name(tmp_path: Path) -> None:
    patterns = {"sbp": {"pattern": "bp.*"}, "dbp": {"pattern": ".*dia"}}
    with pytest.raises(ConfigError, match=r"events\[0\]\.codes: a code is mapped twice.*dbp and sbp"):
        map_files(tmp_path, labs=_lab("BP_DIA;80;"), change=_change(codes=patterns))


def test_a_rate_that_is_not_per_kg_needs_the_weight(tmp_path: Path) -> None:
    rows = ("8;µg/min;80", "8;µg/min;", "0,2;µg/kg/min;")
    drugs = "".join(f"100;{At.format(n + 1)};Noradrenalin;{row}\n" for n, row in enumerate(rows))
    drugs = "stay;at;drug;rate;unit;kg\n" + drugs
    entry = {"from": "drugs", "stay": "stay", "time": "at", "code": "drug", "value": "rate", "unit": "unit"}

    def change(document: Document) -> None:
        document["relations"]["drugs"] = {"file": "drugs.csv"}
        document["events"].append(entry | {"weight": "kg", "codes": {"norepinephrine": "Noradrenalin"}})

    mapped = map_files(tmp_path, files={"drugs.csv": drugs}, change=change)
    held = mapped.table("inputevents").sort_values("starttime")
    assert list(held["rate"]) == pytest.approx([0.1, 0.2])
    assert list(held["endtime"]) == [pd.Timestamp("2150-03-10 03:00"), pd.Timestamp("2150-03-10 09:00")]
    assert mapped.line("events[1]").rejected == {"rate is not per kg and the row has no weight": 1}


def test_a_gas_of_a_site_without_specimens_is_arterial(tmp_path: Path) -> None:
    codes = {"pao2": "PO2", "creatinine": "KREA"}
    mapped = map_files(tmp_path, labs=_lab("PO2;90;", "KREA;1;"), change=_change(codes=codes))
    labs = mapped.table("labevents")
    assert list(labs[labs["itemid"] == 52033]["value"]) == ["ART."]
    assert len(labs) == 3


def test_the_stay_follows_from_the_time_where_only_the_patient_is_known(tmp_path: Path) -> None:
    times = ("P0;2150-03-10 05", "P0;2150-03-09 20", "P0;2150-03-12 05", "P9;2150-03-10 05")
    labs = "".join(f"{time}:00:00;HF;80;\n" for time in times)
    header = {"labs.csv": "pat;at;code;value;unit\n" + labs}

    def change(document: Document) -> None:
        del document["events"][0]["stay"]
        document["events"][0]["patient"] = "pat"

    mapped = map_files(tmp_path, files=dict(header), change=change)
    assert list(mapped.table("chartevents")["stay_id"]) == [100, 100]
    line = mapped.line("events[0]")
    assert line.ignored == {"outside every ICU stay": 1}
    assert line.rejected == {"patient is not in patients": 1}


def test_rows_of_stays_that_the_site_leaves_out_are_ignored(tmp_path: Path) -> None:
    labs = f"100;{At.format(1)};HF;80;\n103;{At.format(1)};HF;81;\n999;{At.format(1)};HF;82;\n"
    change: Callable[[Document], None] = lambda document: document["relations"]["stays"].update(filter="pat <> 'P3'")  # noqa: E731
    mapped = map_files(tmp_path, labs=labs, change=change)
    line = mapped.line("events[0]")
    assert (line.mapped, line.ignored, line.rejected) == (
        1,
        {"stay left out by the site": 1},
        {"stay is not in icustays": 1},
    )


def test_plain_numbers_stay_identifiers_and_texts_become_their_own(tmp_path: Path) -> None:
    stays = map_files(tmp_path).table("icustays").sort_values("stay_id")
    assert list(stays["stay_id"]) == [100, 101, 102, 103]
    assert stays["subject_id"].nunique() == 4 and (stays["subject_id"] >= 2**62).all()


def test_an_expression_that_fails_on_a_row_tells_no_value(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as refused:
        map_files(tmp_path, labs=_lab("HF;SECRET;"), change=_change(value={"expr": "CAST(value AS INTEGER)"}))
    assert str(refused.value).startswith("events[0]: an expression failed on a row")
    assert "SECRET" not in str(refused.value)


@pytest.mark.parametrize(
    "name", ["#key", "itemid", "target", "number", "rule", "word", "code", "spec", "stay_id", "intime"]
)
def test_no_name_of_a_column_gets_in_the_way(name: str, tmp_path: Path) -> None:
    labs = f"stay;at;{name};value;unit\n100;{At.format(1)};HF;80;\n"
    mapped: Mapped | None = None
    try:
        mapped = map_files(tmp_path, files={"labs.csv": labs}, change=_change(code=name))
    except ConsiliumError as error:
        assert name.startswith("#") and name in str(error)
    assert mapped is None or mapped.values("chartevents") == [80.0]


# What goes wrong without being seen.


def test_a_unit_that_its_map_does_not_have_is_not_taken_for_another(tmp_path: Path) -> None:
    unit = {"column": "unit", "map": {"mg/dl": "mg/dL", "spoon": None}}
    labs = _lab("KREA;1;mg/dl", "KREA;90;umol/L", "KREA;9;Knoten")
    mapped = map_files(tmp_path, labs=labs, change=_change(unit=unit))
    assert mapped.values() == [1.0, round(90 * 0.011312, 6)]
    assert mapped.line("events[0]").rejected == {"unit has no conversion to mg/dL (creatinine)": 1}


def test_a_code_that_is_ignored_by_name_wins_over_a_pattern(tmp_path: Path) -> None:
    codes = {"creatinine": {"pattern": "KREA.*"}}
    change = _change(codes=codes, ignore=["KREA_TEST", "/.*/"])
    mapped = map_files(tmp_path, labs=_lab("KREA_1;1;", "KREA_TEST;9;", "HF;80;"), change=change)
    assert mapped.values() == [1.0]
    assert mapped.line("events[0]").ignored == {"code that the config ignores": 2}


def test_groups_of_digits_are_groups_or_no_number(tmp_path: Path) -> None:
    def indian(document: Document) -> None:
        document["sources"]["files"]["csv"] |= {"thousands": ",", "decimal": "."}

    labs = _lab("HF;1,234;", "HF;12,34,567.5;", "HF;38,5;", "HF;1,2345;", "HF;0,123;", "HF;1_000;")
    mapped = map_files(tmp_path, labs=labs, change=indian)
    assert mapped.values("chartevents") == [1234.0, 1234567.5]
    assert mapped.line("events[0]").rejected == {"value: not a number": 4}


@pytest.mark.parametrize(
    "written",
    [
        "2150-03-10 01:30 UTC",
        "2150-03-10 01:30 Europe/London",
        "epoch",
        "infinity",
        "10:00 - 11:00",
        "294247-01-10 01:00",
    ],
)
def test_one_time_that_is_none_rejects_its_row_alone(written: str, tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["timezone"] = "Europe/Berlin"

    mapped = map_files(tmp_path, labs=f"100;{written};HF;70;\n100;{At.format(1)};HF;80;\n", change=change)
    assert mapped.values("chartevents") == [80.0]
    assert mapped.line("events[0]").rejected == {"time: not a time": 1}


@pytest.mark.parametrize(("offset", "written"), [("minutes", "1e300"), ("HH:MM", "99999999999999999:00")])
def test_one_distance_beyond_all_times_rejects_its_row_alone(offset: str, written: str, tmp_path: Path) -> None:
    change = _change(time={"column": "at", "offset": offset})
    mapped = map_files(tmp_path, labs=f"100;{written};HF;70;\n", change=change)
    assert mapped.line("events[0]").rejected == {f"time: not a distance in {offset}": 1}


def test_a_default_does_not_swallow_what_cannot_be_read(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["tables"]["admissions"]["columns"]["hospital_expire_flag"] = {"column": "died", "default": 0}

    stays = STAYS.replace(";True\n", ";verstorben\n").replace(";False\n", ";\n")
    mapped = map_files(tmp_path, files={"stays.csv": stays}, change=change)
    assert mapped.line("tables.admissions[0]").rejected == {"hospital_expire_flag: not a number": 1}
    assert set(mapped.table("admissions")["hospital_expire_flag"]) == {0}


def test_a_column_of_few_values_takes_no_other(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["tables"]["patients"]["columns"]["gender"] = "sex"

    mapped = map_files(tmp_path, change=change)
    assert mapped.line("tables.patients[0]").rejected == {"gender: none of F, M, unknown; give it a `map`": 4}


def test_a_state_with_an_end_is_charted_until_then(tmp_path: Path) -> None:
    state = {"ventilator_mode": {"code": "VENT", "map": {"an": "InvasiveVent"}}}
    change = _change(codes=state, end={"expr": "TIMESTAMP '2150-03-10 22:00'"})
    mapped = map_files(tmp_path, labs=_lab("VENT;an;"), change=change)
    charted = mapped.table("chartevents").sort_values("charttime")
    assert [time.hour for time in charted["charttime"]] == [1, 9, 17, 22]
    assert charted["value"].nunique() == 1
    assert list(charted["storetime"].dropna()) == list(charted["charttime"][1:])


def test_an_age_without_its_year_is_the_age_at_the_first_admission(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["tables"]["patients"]["columns"] |= {"anchor_age": {"value": 60}}
        del document["tables"]["patients"]["columns"]["anchor_year"]

    assert set(map_files(tmp_path, change=change).table("patients")["anchor_year"]) == {2150}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_change(codes={"ventilator_mode": {"code": "V", "map": {"3": "banana"}}}), "does not tell 'banana'"),
        (_change(codes={"heart_rate": {"pattern": "(?=HF).*"}}), "no regular expression of DuckDB"),
    ],
)
def test_a_code_that_could_not_mean_anything_is_refused(
    change: Callable[[Document], None], said: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        map_files(tmp_path, change=change)


def test_a_row_belongs_to_the_stay_that_is_going_on_and_not_to_the_next(tmp_path: Path) -> None:
    """The six hours before a stay are its own only where the patient lay in no other."""
    stays = (
        STAYS.splitlines()[0]
        + "\n"
        + "".join(
            f"P1;F1;{stay};MICU;m;1950;2150-03-{start};2150-03-{end};False\n"
            for stay, start, end in ((1, "02 09:00:00", "03 20:00:00"), (2, "03 20:00:00", "05 00:00:00"))
        )
    )
    stays += "P2;F2;3;MICU;m;1950;2150-03-10 00:00:00;2150-03-11 00:00:00;True\n"
    labs = "stay;at;code;value;unit\n" + "".join(
        f"P1;2150-03-{at}:00:00;HF;{value};\n" for at, value in (("02 05", 70), ("03 15", 80), ("03 21", 90))
    )

    def change(document: Document) -> None:
        document["relations"]["first"] = {"from": "stays", "keep_one": {"by": "pat"}}
        for table in ("patients", "admissions"):
            document["tables"][table]["from"] = "first"
        document["events"][0]["patient"] = document["events"][0].pop("stay")

    mapped = map_files(tmp_path, files={"stays.csv": stays, "labs.csv": labs}, change=change)
    found = mapped.table("chartevents").sort_values("valuenum")
    assert list(zip(found["stay_id"], found["valuenum"], strict=True)) == [(1, 70.0), (1, 80.0), (2, 90.0)]


def test_an_age_of_nobody_is_rejected(tmp_path: Path) -> None:
    def change(document: Document) -> None:
        document["tables"]["patients"]["columns"]["anchor_age"] = "born"

    mapped = map_files(tmp_path, change=change)
    assert mapped.line("tables.patients[0]").rejected == {"anchor_age: not between 0 and 125 years": 4}


def test_a_loinc_code_may_name_its_system(tmp_path: Path) -> None:
    change = _change(codes={}, loinc="code")
    labs = _lab("LOINC:2160-0;1;", "http://loinc.org|2160-0;2;", "2160-0;3;")
    assert map_files(tmp_path, labs=labs, change=change).values() == [1.0, 2.0, 3.0]
