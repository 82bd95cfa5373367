"""Under patient-level privacy a patient's place follows from the patient alone; the ranked split does not have that."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from builders import patients, write_store
from hypothesis import given, settings
from hypothesis import strategies as st

from shared_model.batch import PatientData, open_independently, split_independently

IDS = st.lists(st.integers(0, 2**62), min_size=2, max_size=30, unique=True)


def of(ids: list[int], stays: int = 1) -> PatientData:
    data = patients(stays * len(ids), windows=1)
    return replace(data, patient_N=torch.tensor(ids).repeat_interleave(stays))


def places(data: PatientData, fraction: float, key: str) -> dict[int, int]:
    """0 for the first group, 1 for the second, of every patient; a patient in both would be lost."""
    groups = split_independently(data, fraction, key=key)
    held = [(p, group) for group, stays in enumerate(groups) for p in set(data.patient_N[stays].tolist())]
    assert len(held) == len(dict(held)) and sum(map(len, groups)) == len(data)
    return dict(held)


@settings(max_examples=60, deadline=None)
@given(ids=IDS, fraction=st.floats(0, 0.99), key=st.text(max_size=5), stays=st.integers(1, 3), data=st.data())
def test_a_patient_more_or_less_moves_no_other(
    ids: list[int], fraction: float, key: str, stays: int, data: st.DataObject
) -> None:
    whole = places(of(ids, stays), fraction, key)
    gone = data.draw(st.sampled_from(ids))
    others = [p for p in data.draw(st.permutations(ids)) if p != gone]
    assert places(of(others), fraction, key) == {p: place for p, place in whole.items() if p != gone}


def test_about_the_fraction_is_split_off_and_another_key_splits_otherwise() -> None:
    data = of(list(range(4000)))
    one, two = (places(data, 0.15, f"validation:{seed}") for seed in (1, 2))
    assert abs(sum(one.values()) - 600) < 5 * np.sqrt(4000 * 0.15 * 0.85)
    both = sum(one[p] and two[p] for p in one)
    assert abs(both - 90) < 5 * np.sqrt(90)
    assert set(places(data, 0.0, "k").values()) == {0}


def test_a_store_opens_split_so(tmp_path: Path) -> None:
    data = patients(200, windows=24)
    store = write_store(tmp_path / "store", data)
    expected = split_independently(data, 0.15, key="validation:7")
    found = open_independently(store, 0.15, seed=7)
    assert [f.patient_N.tolist() for f in found] == [data.patient_N[stays].tolist() for stays in expected]
