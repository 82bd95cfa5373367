"""The parts of secure aggregation: sharing, masks, sealed shares, and the sum that comes out, at every dropout."""

import secrets
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
from scipy.stats import chisquare, ks_2samp
from secure_session import Session, member, session_of, total

from shared_model.errors import ContractError, FederationError, ReleaseRefused
from shared_model.secure import shamir
from shared_model.secure.keys import agreed, own_mask, pair_mask, public_of
from shared_model.secure.protocol import Roster, Secrets, threshold, told
from shared_model.secure.ring import INTEGER_LIMIT, WORD_LIMIT, Vector
from shared_model.secure.shamir import SHARE_BYTES

P, K = 40, 6


def _vectors(session: Session, seed: int = 0) -> dict[str, Vector]:
    rng = np.random.default_rng(seed)
    return {
        name: Vector.of(rng.integers(-(2**24), 2**24, P), [int(v) ** 5 for v in rng.integers(-(10**6), 10**6, K)])
        for name in session.held
    }


def _check_sum(session: Session, survivors: list[str], helpers: list[str]) -> None:
    plain = _vectors(session)
    masked = session.masked({name: plain[name] for name in survivors})
    opened = session.opening(survivors).opened(total(masked.values()), session.told(survivors, helpers))
    assert opened.integers() == [sum(column) for column in zip(*(plain[n].integers() for n in survivors), strict=True)]
    expected = sum(plain[name].words().astype(np.int64) for name in survivors)
    np.testing.assert_array_equal(opened.words(), expected)


@pytest.mark.parametrize("sites", [2, 3, 10, 50])
def test_the_masks_cancel_in_the_sum_of_all(sites: int) -> None:
    session = session_of(sites)
    _check_sum(session, list(session.held), list(session.held))


@pytest.mark.parametrize(("sites", "lost"), [(3, 1), (10, 1), (10, 3), (50, 16)])
def test_who_shared_and_did_not_answer_is_taken_out(sites: int, lost: int) -> None:
    session = session_of(sites)
    for gone in (list(session.held)[:lost], list(session.held)[-lost:]):
        left = [name for name in session.held if name not in gone]
        _check_sum(session, left, left)


def test_who_never_shared_and_who_does_not_help_to_open_are_no_loss() -> None:
    session = session_of(10, sharers=9)
    left = list(session.held)[1:]
    assert session.least == 7 and len(left) == 8
    _check_sum(session, left, left[:7])
    _check_sum(session, left, left[1:])
    with pytest.raises(FederationError, match="unmask: 6 of at least 7 shares"):
        _check_sum(session, left, left[:6])


def test_a_sum_stays_closed_without_the_masks_of_one_that_is_missing() -> None:
    session = session_of(3)
    masked = session.masked(_vectors(session))
    survivors = list(session.held)
    opened = session.opening(survivors).opened(total(list(masked.values())[:2]), session.told(survivors, survivors))
    assert abs(opened.integers()[0]) > 2**100


@pytest.mark.parametrize(
    ("sites", "share", "least"),
    [
        (2, 0.51, 2),
        (2, 1.0, 2),
        (3, 2 / 3, 2),
        (3, 1.0, 3),
        (4, 0.51, 3),
        (6, 2 / 3, 4),
        (9, 2 / 3, 6),
        (50, 2 / 3, 34),
    ],
)
def test_more_than_half_of_the_sites_and_at_least_two_must_be_left(sites: int, share: float, least: int) -> None:
    assert threshold(sites, share) == least
    assert 2 * least > sites


@pytest.mark.parametrize("sites", [0, 1])
def test_nobody_masks_alone(sites: int) -> None:
    with pytest.raises(ContractError, match="at least 2 must take part"):
        threshold(sites, 2 / 3)


def test_the_field_is_prime() -> None:
    """Lucas and Lehmer: 2^p - 1 is prime exactly if s_(p-2) is 0, s_0 = 4 and s_(n+1) = s_n^2 - 2."""
    state = 4
    for _ in range(521 - 2):
        state = (state * state - 2) % shamir.PRIME
    assert state == 0


def test_any_threshold_of_shares_give_the_secret_and_fewer_do_not() -> None:
    secret = secrets.token_bytes(32)
    shares = dict(enumerate(shamir.split(secret, 3, 5), start=1))
    for chosen in combinations(shares, 3):
        assert shamir.combine({place: shares[place] for place in chosen}) == secret
    assert shamir.combine(shares) == secret
    for chosen in combinations(shares, 2):
        with pytest.raises(ValueError, match="no secret"):  # but for one time in 2^265
            shamir.combine({place: shares[place] for place in chosen})


@pytest.mark.parametrize("secret", [bytes(32), b"\xff" * 32, bytes(31) + b"\x01"])
def test_secrets_keep_their_leading_zeros(secret: bytes) -> None:
    assert shamir.combine(dict(enumerate(shamir.split(secret, 2, 2), start=1))) == secret


@pytest.mark.parametrize("shares", [{}, {0: bytes(SHARE_BYTES)}, {1: bytes(5)}, {1: b"\xff" * SHARE_BYTES}])
def test_what_is_no_share_is_refused(shares: dict[int, bytes]) -> None:
    with pytest.raises(ValueError, match="no shares"):
        shamir.combine(shares)


def test_a_share_that_was_changed_on_the_way_is_refused_by_name() -> None:
    session = session_of(3)
    sealed = session.seats["S00"].share_out(session.least)["S01"]
    receiver = session.seats["S01"]
    for place in (0, 20, len(sealed) - 1):
        changed = bytearray(sealed)
        changed[place] ^= 1
        with pytest.raises(ContractError, match="the shares from S00: it was not sealed for this"):
            receiver.unsealed({"S00": bytes(changed)})
    with pytest.raises(ContractError, match="from S00"):
        receiver.unsealed({"S00": b""})


def test_a_share_is_read_by_its_receiver_from_its_sender_in_its_session_only() -> None:
    session = session_of(3)
    sealed = session.seats["S00"].share_out(session.least)["S01"]
    assert session.seats["S01"].unsealed({"S00": sealed})
    for seat, sender in (
        (session.seats["S02"], "S00"),
        (session.seats["S01"], "S02"),
        (replace(session.seats["S01"], session="0" * 32), "S00"),
    ):
        with pytest.raises(ContractError, match="not sealed for this"):
            seat.unsealed({sender: sealed})


def test_a_wrong_share_at_the_end_opens_nothing() -> None:
    session = session_of(3)
    for survivors in (["S00", "S01", "S02"], ["S00", "S01"]):
        masked = session.masked({name: _vectors(session)[name] for name in survivors})
        answers = session.told(survivors, survivors)
        answers["S00"]["S02"] = secrets.token_bytes(SHARE_BYTES - 1).rjust(SHARE_BYTES, b"\0")
        with pytest.raises(FederationError, match="the shares of S02 do not fit what it told"):
            session.opening(survivors).opened(total(masked.values()), answers)


def test_a_site_tells_one_of_the_two_shares_of_each_and_none_below_the_threshold() -> None:
    held = session_of(4).held["S00"]
    answer = told(held, ["S00", "S01", "S03"], 3)
    assert answer == {name: held[name].masking if name == "S02" else held[name].seed for name in held}
    with pytest.raises(ReleaseRefused, match="2 of at least 3 sites answered"):
        told(held, ["S00", "S01"], 3)
    for survivors in (["S00", "S00", "S01"], ["S00", "S01", "S09"]):
        with pytest.raises(ContractError, match="survivor"):
            told(held, survivors, 2)


def test_a_roster_has_every_site_and_every_key_once() -> None:
    one, two = (member("s", name, Secrets.new()) for name in ("A", "B"))
    Roster((one, two))
    for wrong in (
        (two, one),
        (one, one),
        (one, replace(two, masking=one.masking)),
        (one, replace(two, encryption=two.masking)),
        (one, replace(two, masking=b"short")),
        (one, replace(two, stays=0)),
    ):
        with pytest.raises(ContractError, match="roster"):
            Roster(wrong)


def test_a_site_does_not_sit_down_under_keys_that_are_not_its_own() -> None:
    session = session_of(3)
    seat = session.seats["S01"]
    seat.check()
    for field in ("masking", "encryption", "seed"):
        with pytest.raises(ContractError, match="other keys of this site"):
            replace(seat, secrets=replace(seat.secrets, **{field: secrets.token_bytes(32)})).check()


def test_keys_are_of_one_pair_session_and_purpose() -> None:
    a, b, c = (secrets.token_bytes(32) for _ in range(3))
    assert agreed(a, public_of(b), "s", "x") == agreed(b, public_of(a), "s", "x")
    others = [agreed(a, public_of(c), "s", "x"), agreed(a, public_of(b), "t", "x"), agreed(a, public_of(b), "s", "y")]
    assert len({agreed(a, public_of(b), "s", "x"), *others}) == 4
    with pytest.raises(ContractError, match="a public key that is none"):
        agreed(a, bytes(32), "s", "x")  # of low order: every private key agrees to the same


def test_what_the_server_sees_of_one_site_is_uniform_whatever_it_hides() -> None:
    """Bytes of masked words and integers against the uniform distribution, and of two plaintexts against each other.
    An unmasked vector fails both."""
    session, size = session_of(2), 20_000
    seat = session.seats["S00"]
    low = Vector.of(np.zeros(size, dtype=np.int64), [0] * 500)
    high = Vector.of(np.full(size, WORD_LIMIT - 1), [INTEGER_LIMIT - 1] * 500)
    seen = [_bytes(seat.masked(plain, session.held)) for plain in (low, high)]
    for raw in seen:
        assert chisquare(np.bincount(raw, minlength=256)).pvalue > 1e-6
    words = [seat.masked(plain, session.held).words_P for plain in (low, high)]
    fresh = session_of(2)
    words.append(fresh.seats["S00"].masked(low, fresh.held).words_P)
    assert ks_2samp(words[0], words[2]).pvalue > 1e-6 and ks_2samp(words[1], words[2]).pvalue > 1e-6
    assert not np.array_equal(words[0], words[2])  # fresh keys, another mask
    assert chisquare(np.bincount(_bytes(high), minlength=256)).pvalue < 1e-6


def test_each_of_the_two_masks_hides_alone() -> None:
    """The server may learn a site's seed, or its pairwise masks: its answer, here zero, stays under the other."""
    session, size = session_of(2), (20_000, 0)
    seat = session.seats["S00"]
    masked = seat.masked(Vector.of(np.zeros(size[0], dtype=np.int64), []), session.held)
    own = own_mask(seat.secrets.seed, seat.session, size)
    pair = pair_mask(seat.secrets.masking, seat.roster.of("S01").masking, seat.session, size)
    for left in (masked - own, masked - pair):
        assert chisquare(np.bincount(_bytes(left), minlength=256)).pvalue > 1e-6
    assert not (masked - own - pair).words().any()


def test_numbers_that_do_not_fit_are_refused_and_never_wrap() -> None:
    for words, integers in (
        ([WORD_LIMIT], []),
        ([-WORD_LIMIT - 1], []),
        ([], [INTEGER_LIMIT]),
        ([], [-INTEGER_LIMIT - 1]),
    ):
        with pytest.raises(ValueError, match="does not fit"):
            Vector.of(np.array(words, dtype=np.int64), integers)
    edge = Vector.of(np.array([WORD_LIMIT - 1, -WORD_LIMIT]), [INTEGER_LIMIT - 1, -INTEGER_LIMIT])
    assert edge.words().tolist() == [WORD_LIMIT - 1, -WORD_LIMIT]
    assert edge.integers() == [INTEGER_LIMIT - 1, -INTEGER_LIMIT]
    with pytest.raises(ContractError, match=r"vectors of \(2, 2\) and \(1, 0\) numbers"):
        edge + Vector.of(np.array([1]), [])


def _bytes(vector: Vector) -> "np.ndarray[tuple[int], np.dtype[np.uint8]]":
    return np.frombuffer(vector.words_P.tobytes() + np.ascontiguousarray(vector.limbs_K2).tobytes(), dtype=np.uint8)
