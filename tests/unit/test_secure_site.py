"""A site's part in secure aggregation, over real messages to its ClientApp: what it answers once, twice, and never."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from builders import patients, tiny_plan, write_site, write_store
from federation import WINDOWS, answers_of, small_config
from flwr.app import Message, RecordDict

from client.audit_chain import entries
from client.site_state import KEPT_RUNS, state_folder
from shared_model.config import RunConfig
from shared_model.messages import EVALUATE, STATISTICS, TRAIN, RoundOrder, trial_content, weights_content
from shared_model.model import build_model
from shared_model.refusal import Refusal, refusal_of
from shared_model.secure.messages import (
    SECURE,
    SECURE_KEYS,
    SECURE_SHARES,
    SECURE_UNMASK,
    Keys,
    MaskedReply,
    Purpose,
    Sealed,
    Told,
    roster_lists,
)
from shared_model.secure.protocol import Member, Roster, new_session
from shared_model.trial import THE_RUN

SITES = {"Site 1": 1, "Site 2": 2, "Site 3": 3}


class Talk:
    """One session, step by step, by hand; every answer is kept as it came."""

    def __init__(self, folder: Path, config: RunConfig, *, stays: int = 1000, sites: int = 3, **release: Any) -> None:
        self.config, self.stays, self.folder = config, stays, folder
        self.purpose = Purpose(session=new_session(), kind="statistics", round=None, trial=THE_RUN, sites=sites)
        self.nodes = {}
        for name, number in SITES.items():
            place = folder / name
            if not (place / "store").exists():
                write_store(place / "store", patients(60, seed=number, windows=WINDOWS), study=config.study)
            site = write_site(place, site=name, release={"smallest_cell": 3, **release})
            self.nodes[name] = answers_of(site, number, config)

    def again(self, **changes: Any) -> "Talk":
        """Another session of the same sites."""
        held = Talk.__new__(Talk)
        held.__dict__ |= self.__dict__
        changes = {"session": new_session(), **changes}
        held.purpose = Purpose(**{**vars(self.purpose), **changes})
        return held

    def ask(self, name: str, kind: str, content: RecordDict) -> RecordDict | Refusal:
        reply = self.nodes[name](Message(content, SITES[name], kind))
        assert isinstance(reply, Message)
        return refusal_of(reply) or reply.content

    def keys(self) -> Roster:
        found = {name: self.ask(name, SECURE_KEYS, self.purpose.content()) for name in SITES}
        self.roster = Roster(tuple(Member(name=n, stays=self.stays, **_keys(content)) for n, content in found.items()))
        return self.roster

    def share(self, name: str, roster: Roster | None = None) -> RecordDict | Refusal:
        lists = roster_lists(roster or self.roster)
        return self.ask(name, SECURE_SHARES, self.purpose.content(**lists))

    def shares(self) -> None:
        answers = {name: self.share(name) for name in SITES}
        self.sealed = {name: Sealed.read(_content(answer)).shares for name, answer in answers.items()}

    def question(self, content: RecordDict | None = None, **changed: bytes) -> RecordDict:
        """For Site 1; ``changed`` shares by the number of their sender."""
        delivered = {name: held["Site 1"] for name, held in self.sealed.items() if name != "Site 1"}
        delivered |= {f"Site {number[1:]}": share for number, share in changed.items()}
        record = Sealed(shares=delivered).content(session=self.purpose.session)[SECURE]
        return RecordDict({**(content or trial_content(THE_RUN)), SECURE: record})

    def unmask(self, *survivors: str) -> RecordDict | Refusal:
        return self.ask("Site 1", SECURE_UNMASK, self.purpose.content(survivors=sorted(survivors)))

    def files(self) -> str:
        """Everything that Site 1 keeps of the run."""
        held = sorted((self.folder / "Site 1" / "store.state").rglob("secure/*.json"))
        return "".join(path.read_text() for path in held)


def _content(answer: RecordDict | Refusal) -> RecordDict:
    assert isinstance(answer, RecordDict), answer
    return answer


def _reason(answer: RecordDict | Refusal) -> str:
    assert isinstance(answer, Refusal), sorted(answer)
    return str(answer)


def _keys(answer: RecordDict | Refusal) -> dict[str, bytes]:
    keys = Keys.read(_content(answer))
    return {"encryption": keys.encryption, "masking": keys.masking, "commitment": keys.commitment}


@pytest.fixture
def config() -> RunConfig:
    return small_config(min_sites=2, secure_aggregation=True, local_steps=1, validation_fraction=0.3)


@pytest.fixture
def talk(tmp_path: Path, config: RunConfig) -> Iterator[Talk]:
    """A session whose shares are made and delivered to nobody yet."""
    held = Talk(tmp_path, config)
    held.keys()
    held.shares()
    yield held


def _train(config: RunConfig) -> RecordDict:
    weights = dict(build_model(config.model_for(tiny_plan()), seed=0).state_dict())
    return weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan()))


def _session_for(talk: Talk, kind: str, number: int | None) -> Talk:
    other = talk.again(kind=kind, round=number)
    other.keys()
    other.shares()
    return other


def test_each_message_again_gets_the_same_answer_and_the_secrets_go_at_the_end(talk: Talk) -> None:
    assert _keys(talk.ask("Site 1", SECURE_KEYS, talk.purpose.content())) == _keys_in(talk.roster)
    assert Sealed.read(_content(talk.share("Site 1"))).shares == talk.sealed["Site 1"]
    one, two = (MaskedReply.read(_content(talk.ask("Site 1", STATISTICS, talk.question()))) for _ in range(2))
    np.testing.assert_array_equal(one.vector.limbs_K2, two.vector.limbs_K2)
    assert '"secrets"' in talk.files()
    first, second = (Told.read(_content(talk.unmask("Site 1", "Site 2"))).shares for _ in range(2))
    assert first == second and first.keys() == SITES.keys()
    assert '"secrets"' not in talk.files() and not list(talk.folder.rglob("*.masked"))
    for path in (talk.folder / "Site 1" / "store.state").rglob("secure/*.json"):
        assert path.stat().st_mode & 0o077 == 0


def _keys_in(roster: Roster) -> dict[str, bytes]:
    one = roster.of("Site 1")
    return {"encryption": one.encryption, "masking": one.masking, "commitment": one.commitment}


def test_one_unmask_request_is_answered_and_no_other(talk: Talk) -> None:
    """Both together would give the two shares of Site 3."""
    talk.ask("Site 1", STATISTICS, talk.question())
    _content(talk.unmask("Site 1", "Site 2", "Site 3"))
    assert "another sum of this session was opened" in _reason(talk.unmask("Site 1", "Site 2"))
    assert "no such session" in _reason(talk.ask("Site 1", STATISTICS, talk.question()))
    assert "no such session" in _reason(talk.share("Site 1"))
    assert "has ended" in _reason(talk.ask("Site 1", SECURE_KEYS, talk.purpose.content()))


def test_nothing_is_told_below_the_threshold_or_of_a_sum_without_this_site(talk: Talk) -> None:
    assert "has not answered in this session" in _reason(talk.unmask("Site 1", "Site 2"))
    talk.ask("Site 1", STATISTICS, talk.question())
    assert "1 of at least 2 sites answered" in _reason(talk.unmask("Site 1"))
    assert "not among those added up" in _reason(talk.unmask("Site 2", "Site 3"))
    assert "never shared" in _reason(talk.unmask("Site 1", "Site 9"))
    assert '"secrets"' in talk.files()
    _content(talk.unmask("Site 1", "Site 3"))


def test_the_sum_of_a_purpose_is_opened_for_one_list_of_sites_only(talk: Talk) -> None:
    """With all, and without Site 3: the difference would be what Site 3 sent."""
    talk.ask("Site 1", STATISTICS, talk.question())
    _content(talk.unmask("Site 1", "Site 2", "Site 3"))
    again = _session_for(talk, "statistics", None)
    again.ask("Site 1", STATISTICS, again.question())
    assert "the sum was opened before, for other sites" in _reason(again.unmask("Site 1", "Site 2"))
    _content(again.unmask("Site 1", "Site 2", "Site 3"))


def test_an_old_session_does_not_come_back(talk: Talk) -> None:
    later = _session_for(talk, "statistics", None)
    assert "held before; its keys are gone" in _reason(talk.ask("Site 1", SECURE_KEYS, talk.purpose.content()))
    assert "no such session" in _reason(talk.ask("Site 1", STATISTICS, talk.question()))
    _content(later.ask("Site 1", STATISTICS, later.question()))


def test_the_shares_are_made_for_one_roster_with_the_sites_own_keys(talk: Talk, config: RunConfig) -> None:
    one, two, three = talk.roster.members
    assert "made for another roster" in _reason(talk.share("Site 1", Roster((one, two))))
    fresh = talk.again()
    fresh.keys()
    other = talk.again()
    mixed = Roster((other.keys().members[0], *fresh.roster.members[1:]))
    assert "1 of at least 2 sites told keys" in _reason(other.share("Site 1", Roster(mixed.members[:1])))
    assert "other keys of this site" in _reason(other.share("Site 1", talk.roster))
    assert "not in the roster" in _reason(other.share("Site 1", Roster((two, three))))


def test_shares_that_were_changed_on_the_way_are_noticed(talk: Talk) -> None:
    wrong = bytearray(talk.sealed["Site 2"]["Site 1"])
    wrong[30] ^= 1
    found = _reason(talk.ask("Site 1", STATISTICS, talk.question(s2=bytes(wrong))))
    assert "ContractError: secure aggregation: the shares from Site 2" in found
    swapped = talk.sealed["Site 3"]["Site 1"]
    assert "from Site 2" in _reason(talk.ask("Site 1", STATISTICS, talk.question(s2=swapped)))


def test_one_question_is_answered_in_a_session(talk: Talk, config: RunConfig) -> None:
    """Two answers under one mask differ by what the mask should hide."""
    other = _session_for(talk, "train", 1)
    _content(other.ask("Site 1", TRAIN, other.question(_train(config))))
    weights = {
        name: tensor * 2 for name, tensor in build_model(config.model_for(tiny_plan()), seed=0).state_dict().items()
    }
    changed = weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan()))
    assert "another question was answered" in _reason(other.ask("Site 1", TRAIN, other.question(changed)))


def test_a_session_is_good_for_one_kind_and_round(talk: Talk, config: RunConfig) -> None:
    assert "another round, trial or kind" in _reason(talk.ask("Site 1", TRAIN, talk.question(_train(config))))
    other = _session_for(talk, "train", 2)
    assert "another round, trial or kind" in _reason(other.ask("Site 1", TRAIN, other.question(_train(config))))
    assert "another round, trial or kind" in _reason(other.ask("Site 1", EVALUATE, other.question(_train(config))))


def test_nothing_leaves_unmasked_in_such_a_run_and_no_mask_goes_on_without_shares(talk: Talk) -> None:
    assert "no ConfigRecord 'secure'" in _reason(talk.ask("Site 1", STATISTICS, trial_content(THE_RUN)))
    other = talk.again()
    other.keys()
    other.sealed = talk.sealed
    assert "no shares were made" in _reason(other.ask("Site 1", STATISTICS, other.question()))
    other.shares()
    alone = other.question()
    alone[SECURE] = Sealed(shares={}).content(session=other.purpose.session)[SECURE]
    assert "0 other sites share, 1 are needed" in _reason(other.ask("Site 1", STATISTICS, alone))


@pytest.mark.parametrize("sites", [0, 1])
def test_a_site_does_not_mask_alone(sites: int, tmp_path: Path, config: RunConfig) -> None:
    talk = Talk(tmp_path, config, sites=sites)
    assert "at least 2 must take part" in _reason(talk.ask("Site 1", SECURE_KEYS, talk.purpose.content()))


def test_more_examples_than_were_admitted_and_larger_changes_than_fit_are_refused(
    tmp_path: Path, config: RunConfig
) -> None:
    talk = _session_for(Talk(tmp_path, config, stays=20), "train", 1)
    found = _reason(talk.ask("Site 1", TRAIN, talk.question(_train(config))))
    assert "ReleaseRefused: update: 40 examples, this site was admitted with 20" in found
    narrow = config.model_copy(update={"secure_range": 1e-5})
    talk = _session_for(Talk(tmp_path, narrow), "train", 1)
    assert "more than secure-range = 1e-05" in _reason(talk.ask("Site 1", TRAIN, talk.question(_train(config))))


def test_the_clear_content_is_judged_and_what_left_is_recorded(tmp_path: Path, config: RunConfig) -> None:
    """Small cells first: the mask would hide them from the site's own exit."""
    few = Talk(tmp_path, config, smallest_cell=61)
    few.keys()
    few.shares()
    assert "release.smallest_cell" in _reason(few.ask("Site 1", STATISTICS, few.question()))
    talk = Talk(tmp_path, config, clip_norm=0.001)
    talk = _session_for(talk, "train", 1)
    content = _content(talk.ask("Site 1", TRAIN, talk.question(_train(config))))
    held = [entry for entry in entries(tmp_path / "Site 1" / "store.audit.jsonl") if entry["outcome"] == "released"]
    assert [entry["kind"] for entry in held[-3:]] == ["secure_keys", "secure_shares", "train"]
    assert held[-1]["clipped"] and held[-1]["norms"]["update"] <= 0.001
    assert held[-1]["keys"] == ["secure/layout", "secure/session"]
    assert sorted(content) == ["masked", "secure"]


@pytest.mark.parametrize("allow", [["describe", "statistics", "train", "evaluate"], []])
def test_a_site_takes_part_only_if_its_yaml_says_so(allow: list[str], tmp_path: Path, config: RunConfig) -> None:
    talk = Talk(tmp_path, config, allow=allow)
    for kind in (SECURE_KEYS, SECURE_SHARES, SECURE_UNMASK):
        found = _reason(talk.ask("Site 1", kind, talk.purpose.content()))
        assert found == "ReleaseRefused: secure: does not leave this site; it must be listed under release.allow there"


def test_a_site_may_send_numbers_only_masked(tmp_path: Path) -> None:
    plain = small_config(min_sites=2, local_steps=1)
    talk = Talk(tmp_path, plain, only_masked=True)
    for kind, content in ((STATISTICS, trial_content(THE_RUN)), (TRAIN, _train(plain)), (EVALUATE, _train(plain))):
        assert "leaves this site only masked (release.only_masked)" in _reason(talk.ask("Site 1", kind, content))
    assert "the run does without" in _reason(talk.ask("Site 1", SECURE_KEYS, talk.purpose.content()))


@pytest.mark.parametrize("session", ["", "../../../etc", "0" * 31, "G" * 32, 3])
def test_a_session_is_no_path(session: object, talk: Talk) -> None:
    content = talk.purpose.content()
    content["config"]["session"] = session
    assert "'session' is" in _reason(talk.ask("Site 1", SECURE_KEYS, content))


def test_damaged_files_let_nothing_out(talk: Talk) -> None:
    [path] = (talk.folder / "Site 1" / "store.state").rglob(f"{talk.purpose.session}.json")
    path.write_text(json.dumps({"purpose": 1})[:-3])
    assert "are damaged; nothing was sent" in _reason(talk.ask("Site 1", STATISTICS, talk.question()))


def test_a_resumed_run_is_not_forgotten_for_younger_ones_and_the_oldest_are(tmp_path: Path, config: RunConfig) -> None:
    folders = {}
    for number, name in enumerate(["resumed", *(f"later-{n}" for n in range(KEPT_RUNS))]):
        folders[name] = state_folder(tmp_path / "Site 1" / "store", name)
        (folders[name] / "secure").mkdir(parents=True)
        os.utime(folders[name], (number, number))
    talk = Talk(tmp_path, config.model_copy(update={"name": "resumed"}))
    talk.keys()
    assert '"secrets"' in talk.files() and not folders["later-0"].exists() and folders["later-1"].exists()


def test_the_masked_answer_is_not_larger_than_the_site_allows(tmp_path: Path, config: RunConfig) -> None:
    talk = Talk(tmp_path, config, largest_megabytes=0.05)  # in the clear it is smaller: small counts are short there
    talk.keys()
    talk.shares()
    assert "release.largest_megabytes allows 0.05" in _reason(talk.ask("Site 1", STATISTICS, talk.question()))
