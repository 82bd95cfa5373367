"""Sums over sites under masks are the sums in the clear: integers exactly, weights to the quantisation."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from secure_session import session_of, total

from shared_model.errors import ReleaseRefused
from shared_model.secure.encoding import (
    LEAST_PRECISION,
    error_of,
    from_integers,
    scale_for,
    to_integers,
    to_mean,
    to_words,
)
from shared_model.secure.ring import INTEGER_LIMIT, WORD_LIMIT, Vector

BIG = st.integers(-(INTEGER_LIMIT // 4), INTEGER_LIMIT // 4 - 1)
RANGE = 8.0


@given(st.lists(st.tuples(BIG, BIG), min_size=2, max_size=4), st.data())
@settings(max_examples=25)
def test_big_signed_integers_add_up_exactly(rows: list[tuple[int, int]], data: st.DataObject) -> None:
    session = session_of(len(rows), 0.51)
    plain = {name: Vector.of(np.zeros(0, np.int64), row) for name, row in zip(session.held, rows, strict=True)}
    survivors = data.draw(
        st.lists(st.sampled_from(list(session.held)), min_size=session.least, unique=True), label="survivors"
    )
    masked = session.masked({name: plain[name] for name in survivors})
    opened = session.opening(survivors).opened(total(masked.values()), session.told(survivors, survivors))
    assert opened.integers() == [sum(plain[name].integers()[n] for name in survivors) for n in range(2)]


SITES = st.lists(
    st.tuples(
        st.integers(1, 60_000),
        st.lists(st.floats(-RANGE, RANGE), min_size=3, max_size=3),
        st.integers(0, 5_000),
    ),
    min_size=2,
    max_size=6,
)


@given(SITES)
def test_mean_weights_are_right_to_the_quantisation_and_the_sum_never_wraps(
    sites: list[tuple[int, list[float], int]],
) -> None:
    """A site was admitted with some stays more than it trains on."""
    admitted, examples = sum(n + more for n, _, more in sites), sum(n for n, _, _ in sites)
    scale = scale_for(admitted, RANGE, len(sites))
    words = [to_words(np.array(delta), n, scale, RANGE) for n, delta, _ in sites]
    summed = sum(words)
    assert int(np.abs(summed).max()) < WORD_LIMIT
    found = to_mean(summed.astype(np.int32), examples, scale)
    mean = sum(n * np.array(delta) for n, delta, _ in sites) / examples
    bound = error_of(scale, examples, len(sites))
    assert float(np.abs(found - mean).max()) <= bound * (1 + 1e-6) + 1e-12


@pytest.mark.parametrize("sites", [2, 10, 50])
def test_the_largest_updates_of_all_sites_at_once_fit(sites: int) -> None:
    scale = scale_for(1000 * sites, RANGE, sites)
    words = to_words(np.array([RANGE, -RANGE]), 1000, scale, RANGE) * sites
    assert int(np.abs(words).max()) < WORD_LIMIT
    assert error_of(scale, 1000 * sites, sites) < LEAST_PRECISION


@pytest.mark.parametrize("delta", [RANGE * 1.0001, -RANGE * 1.0001, float("nan"), float("inf")])
def test_a_weight_that_moved_too_far_is_refused(delta: float) -> None:
    with pytest.raises(ReleaseRefused, match=r"more than secure-range = 8 in the round"):
        to_words(np.array([0.0, delta]), 10, scale_for(100, RANGE, 2), RANGE)


COUNTS = st.lists(st.integers(-(2**40), 2**40), min_size=4, max_size=4)
RECORDS = st.fixed_dictionaries(
    {"bins": COUNTS, "patients": st.integers(1, 10**6)}, optional={"deaths": st.integers(0, 10**5)}
)


@given(st.lists(st.tuples(RECORDS, st.lists(st.integers(-(10**33), 10**33), min_size=2, max_size=2)), min_size=2))
def test_a_content_and_its_optional_parts_add_up(sites: list[tuple[dict[str, object], list[int]]]) -> None:
    """Of a site that withholds its deaths the layout is that of the others."""
    coded = [
        to_integers({"metrics": record, "sums": {"sums": [str(number) for number in sums]}}) for record, sums in sites
    ]
    assert len({layout for layout, _ in coded}) == 1
    found = from_integers(coded[0][0], [sum(column) for column in zip(*(numbers for _, numbers in coded), strict=True)])
    metrics = found.records["metrics"]
    telling = [record for record, _ in sites if "deaths" in record]
    assert metrics["patients"] == sum(record["patients"] for record, _ in sites)
    assert metrics["bins"] == [sum(column) for column in zip(*(record["bins"] for record, _ in sites), strict=True)]
    assert found.records["sums"]["sums"] == [str(sum(c)) for c in zip(*(sums for _, sums in sites), strict=True)]
    assert metrics.get("deaths") == (sum(record["deaths"] for record in telling) if telling else None)
    assert found.weights["deaths"] == sum(record["patients"] for record in telling)


@given(st.lists(st.tuples(st.integers(1, 9999), st.floats(0, 100) | st.none()), min_size=1, max_size=5))
def test_a_mean_loss_is_that_of_the_sites_that_tell_theirs(sites: list[tuple[int, float | None]]) -> None:
    coded = [
        to_integers({"metrics": {"round": 1, "num-examples": n, **({} if loss is None else {"train-loss": loss})}})
        for n, loss in sites
    ]
    found = from_integers(coded[0][0], [sum(column) for column in zip(*(numbers for _, numbers in coded), strict=True)])
    telling = [(n, loss) for n, loss in sites if loss is not None]
    if not telling:
        assert "train-loss" not in found.records["metrics"]
        return
    expected = sum(n * loss for n, loss in telling) / sum(n for n, _ in telling)
    assert found.records["metrics"]["train-loss"] == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("value", ["a name", [1, "2"], True, [[1]], str(INTEGER_LIMIT)])
def test_what_cannot_be_added_up_does_not_leave(value: object) -> None:
    with pytest.raises(ReleaseRefused, match="added up"):
        to_integers({"metrics": {"patients": 3, "other": value}})
