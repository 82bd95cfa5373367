"""Suggestions for codes that nothing maps: right on MIMIC-IV's own labels, silent on the rest."""

import duckdb
import pytest
from open_data import MIMIC_DEMO, open_data

from client.mapping.suggest import suggest
from client.mapping.targets import TARGETS
from client.mapping.vocabulary import LOINC, NAMES


@pytest.mark.parametrize(
    ("code", "label", "concept"),
    [
        ("2160-0", "", "creatinine"),
        ("KREA", "", "creatinine"),
        ("X17", "Kreatinin", "creatinine"),
        ("X18", "Serum creatinine", "creatinine"),
        ("HF", "Herzfrequenz", "heart_rate"),
        ("", "Platelet Count", "platelets"),
        ("", "Bilirubin, Total", "bilirubin"),
        ("", "Non Invasive Blood Pressure mean", "mbp"),
        ("ARTERENOL", "", "norepinephrine"),
    ],
)
def test_a_known_name_or_loinc_is_suggested(code: str, label: str, concept: str) -> None:
    found = suggest(code, label)
    assert found is not None and found.concept == concept


@pytest.mark.parametrize(
    "text", ["", "K", "phosphate", "Cholesterol", "Skin Integrity", "220045", "Globulin", "Urinal"]
)
def test_what_is_something_else_gets_no_suggestion(text: str) -> None:
    assert suggest(text, text) is None


def test_a_loinc_code_and_a_name_mean_one_concept() -> None:
    codes = [code for held in LOINC.values() for code in held]
    names = [name for held in NAMES.values() for name in held]
    assert len(codes) == len(set(codes)) and len(names) == len(set(names))
    assert LOINC.keys() | NAMES.keys() <= TARGETS.keys()


def test_labels_of_mimic_get_the_concepts_that_the_dictionary_gives_them() -> None:
    folder = open_data(MIMIC_DEMO)
    concept_of = {i: t.name for t in TARGETS.values() for i in (*t.items, *t.bedside_items)}
    right = wrong = silent = strangers = 0
    for name in ("icu/d_items", "hosp/d_labitems"):
        query = f"SELECT itemid, label FROM read_csv('{folder}/{name}.csv.gz') WHERE label IS NOT NULL"
        for itemid, label in duckdb.execute(query).fetchall():
            found = suggest(str(itemid), label)
            if itemid not in concept_of:
                strangers += found is not None
            elif found is None:
                silent += 1
            else:
                right, wrong = (
                    right + (found.concept == concept_of[itemid]),
                    wrong + (found.concept != concept_of[itemid]),
                )
    assert right >= 30 and wrong <= 4, (right, wrong, silent, strangers)
    assert strangers <= 100, strangers  # of 4,000; most are the same substance in urine or another fluid
