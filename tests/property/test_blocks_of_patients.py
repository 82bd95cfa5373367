"""However a store grows, shrinks and changes, no sum over blocks that were told of is of fewer patients than a cell."""

from collections import Counter
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from builders import patients, write_store
from hypothesis import given, settings
from hypothesis import strategies as st

from client.block_memory import blocks_in, memory_of, open_blocks
from client.block_standing import ID, Block
from shared_model.batch import PatientData
from shared_model.errors import ReleaseRefused
from shared_model.study import Study

CELL = 3
EVERYBODY = patients(160, windows=3, seed=9)
STUDY = Study(prediction_hours=3.0)
# What happens between two answers: so many patients more, these are gone, these have another value.
CHANGE = st.tuples(
    st.integers(0, 40), st.sets(st.integers(0, 159), max_size=4), st.sets(st.integers(0, 159), max_size=3)
)


def versions(first: int, changes: list[tuple[int, set[int], set[int]]]) -> list[PatientData]:
    """The store after each change; gone is gone for good, and so is a changed value."""
    size, gone, value_N = first, set(), EVERYBODY.static_NF[:, 0].clone()
    found = []
    for more, left, altered in [(0, set(), set()), *changes]:
        size, gone = min(size + more, 160), gone | left
        value_N[sorted(altered)] += 1.0
        static_NF = EVERYBODY.static_NF.clone()
        static_NF[:, 0] = value_N
        kept = torch.tensor([n for n in range(size) if n not in gone], dtype=torch.long)
        fields = {**vars(EVERYBODY), "static_NF": static_NF}
        found.append(PatientData(**fields).subset(kept))
    return found


def told_in(folder: Path, stores: list[PatientData]) -> tuple[list[Block], list[frozenset[int]]]:
    """All blocks that were made, and those that each version tells of."""
    answers = []
    for data in stores:
        store = write_store(folder / "store", data, study=STUDY)
        try:
            answers.append(frozenset(open_blocks(store, CELL).numbers))
        except ReleaseRefused:
            answers.append(frozenset())
    return blocks_in(memory_of(folder / "store").read()), answers


@settings(deadline=None, max_examples=120)
@given(st.integers(2, 120), st.lists(CHANGE, max_size=5), st.randoms(use_true_random=False))
def test_what_subtraction_leaves_is_at_least_a_cell(
    first: int, changes: list[tuple[int, set[int], set[int]]], random: np.random.Generator
) -> None:
    stores = versions(first, changes)
    with TemporaryDirectory() as folder:
        blocks, answers = told_in(Path(folder), stores)
    known: set[bytes] = set()
    for (
        block
    ) in blocks:  # why it holds: of any blocks in a sum, the youngest brings a cell of people whom none has told of
        ids = {member[:ID] for member in block.members}
        fresh = {member[:ID] for member, new in zip(block.members, block.new_P, strict=True) if new}
        assert len(fresh) >= CELL and not fresh & known
        known |= ids
    for answer in answers:  # nobody is counted twice in an answer
        members = Counter(member[:ID] for block in blocks if block.number in answer for member in block.members)
        assert set(members.values()) <= {1}
    for _ in range(30):
        factors = {block.number: random.choice((-2, -1, 0, 0, 1, 2)) for block in blocks}
        total: Counter[bytes] = Counter()
        for block in blocks:
            for member in block.members:
                total[member] += factors[block.number]
        left = sum(1 for factor in total.values() if factor)
        assert left == 0 or left >= CELL


@settings(deadline=None, max_examples=60)
@given(st.integers(20, 120), st.lists(CHANGE, min_size=1, max_size=4))
def test_a_block_that_is_told_of_is_in_the_store_as_it_was_told(
    first: int, changes: list[tuple[int, set[int], set[int]]]
) -> None:
    with TemporaryDirectory() as folder:
        store, seen = Path(folder) / "store", {}
        for data in versions(first, changes):
            write_store(store, data, study=STUDY)
            try:
                blocks = open_blocks(store, CELL)
            except ReleaseRefused:
                continue
            for number in blocks.numbers:
                inside_N = torch.from_numpy(np.flatnonzero(blocks.block_N == number))
                rows = {
                    (int(p), tuple(np.nan_to_num(row, nan=-9.0)))
                    for p, row in zip(data.patient_N[inside_N], data.static_NF[inside_N].numpy(), strict=True)
                }
                assert seen.setdefault(number, rows) == rows
