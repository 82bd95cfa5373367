"""A site's memory of whom it told of: the same blocks for good, through growth, crashes, old copies and lost files."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest
import torch
from builders import model_sizes, patients, tiny_config, tiny_plan, write_site, write_store
from flwr.app import Context, Message, RecordDict

from client.app import app
from client.audit_chain import BLOCKS, entries, verify
from client.block_memory import blocks_in, confirmed, memory_of, open_blocks, restart
from client.block_standing import Block
from client.blocks import WAITING
from client.site import load_site
from client.task import Asked, open_trial
from shared_model.batch import PatientData
from shared_model.errors import BlocksError, ReleaseRefused, StoreError
from shared_model.messages import (
    DESCRIBE,
    EVALUATE,
    STATISTICS,
    TRAIN,
    RoundOrder,
    SiteCard,
    Statistics,
    weights_content,
)
from shared_model.model import build_model
from shared_model.packing import unpacked
from shared_model.records import serialised
from shared_model.refusal import Refusal, refusal_of
from shared_model.trial import THE_RUN

ROOT = Path(__file__).resolve().parents[2]
CELL = 10
_RANDOM = patients(200, seed=5)
_ORDER = np.argsort(_RANDOM.label_N.numpy(), kind="stable")[::-1]  # deaths first; then every third patient is one
_PLACES = np.argsort(np.concatenate([np.flatnonzero(np.arange(200) % 3 == 0), np.flatnonzero(np.arange(200) % 3 != 0)]))
EVERYBODY = _RANDOM.subset(torch.from_numpy(_ORDER[_PLACES].copy()))
KINDS = (DESCRIBE, STATISTICS, TRAIN, EVALUATE)


def first(count: int) -> PatientData:
    return EVERYBODY.subset(torch.arange(count))


def without(data: PatientData, *gone: int) -> PatientData:
    return data.subset(torch.tensor([n for n in range(len(data)) if n not in gone]))


def corrected(data: PatientData, *changed: int) -> PatientData:
    static_NF = data.static_NF.clone()
    static_NF[list(changed), 0] = 0.123
    return replace(data, static_NF=static_NF)


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """Of 150 patients, 50 of whom died: five blocks."""
    write_store(tmp_path / "store", first(150))
    return write_site(tmp_path)


def ask(site: Path, kind: str = STATISTICS, **run_config: object) -> RecordDict | Refusal:
    flat = tiny_config(**run_config).to_flat()
    context = Context(1, 7, {"site-config": str(site)}, RecordDict(), flat)
    weights = dict(build_model(model_sizes(tiny_config()), seed=0).state_dict())
    content = weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan()))
    reply = app(Message(content, dst_node_id=7, message_type=kind), context)
    return refusal_of(reply) or unpacked(reply.content)


def told(site: Path, **run_config: object) -> bytes:
    answer = ask(site, **run_config)
    assert not isinstance(answer, Refusal), answer
    return serialised(answer)


def reason(site: Path, kind: str = STATISTICS) -> str:
    answer = ask(site, kind)
    assert isinstance(answer, Refusal)
    return answer.reason


def store_of(site: Path) -> Path:
    return load_site(site).store


def made(site: Path) -> list[Block]:
    return blocks_in(memory_of(store_of(site)).read())


def test_the_same_question_gets_the_same_bytes_and_a_hairs_breadth_of_fraction_changes_nothing(site: Path) -> None:
    one = told(site, validation_fraction=0.2)
    assert told(site, validation_fraction=0.2) == told(site, validation_fraction=0.2002) == one
    memory_of(store_of(site)).cache_file.unlink()
    assert told(site, validation_fraction=0.2) == one != told(site, validation_fraction=0.4)


@pytest.mark.parametrize("more", [1, 9, 24])
def test_a_few_patients_more_change_no_answer(site: Path, more: int) -> None:
    before = [told(site, seed=seed) for seed in range(4)]
    write_store(store_of(site), first(150 + more))
    assert [told(site, seed=seed) for seed in range(4)] == before
    assert (open_blocks(store_of(site), CELL).block_N == WAITING).sum() == more


def test_enough_new_patients_make_a_block_and_the_old_ones_stay(site: Path) -> None:
    told(site)
    before = made(site)
    write_store(store_of(site), first(182))
    told(site)
    *old, new = made(site)
    assert [block.members for block in old] == [block.members for block in before]
    assert len(new.members) == 32 and new.complete and new.new_P.all() and new.number == 6
    blocks = open_blocks(store_of(site), CELL)
    assert blocks.numbers == (1, 2, 3, 4, 5, 6) and (blocks.block_N == 6).sum() == 32


def test_a_block_whose_patient_changed_is_told_of_no_longer_and_the_others_are(site: Path) -> None:
    told(site)
    place = int(open_blocks(store_of(site), CELL).block_N[3])
    for altered in (corrected(first(150), 3), without(first(150), 3)):
        write_store(store_of(site), altered)
        told(site)
        blocks = open_blocks(store_of(site), CELL)
        assert blocks.changed == (place,) and blocks.numbers == tuple(n for n in range(1, 6) if n != place)
    write_store(store_of(site), first(150))  # it was a mistake
    assert open_blocks(store_of(site), CELL).numbers == (1, 2, 3, 4, 5)


def test_a_label_and_a_note_are_part_of_what_is_known_of_a_patient(site: Path) -> None:
    told(site)
    data, embedding_ME = first(150), first(150).embedding_ME.clone()
    place = open_blocks(store_of(site), CELL).block_N
    with_note = int((data.chunk_count_N > 0).nonzero()[0])
    embedding_ME[int(data.chunk_start_N[with_note])] *= -1
    label_N = data.label_N.clone()
    label_N[7] = ~label_N[7]
    for altered, n in ((replace(data, embedding_ME=embedding_ME), with_note), (replace(data, label_N=label_N), 7)):
        write_store(store_of(site), altered)
        assert open_blocks(store_of(site), CELL).changed == (int(place[n]),)


def test_notes_that_were_embedded_anew_are_the_same_notes(site: Path) -> None:
    """Embedded in another company of texts, the last digits of an embedding differ."""
    before, data = told(site), first(150)
    again = torch.nextafter(data.embedding_ME, torch.tensor(9.0, dtype=torch.float16))
    assert (again != data.embedding_ME).all()
    write_store(store_of(site), replace(data, embedding_ME=again))
    assert told(site) == before and not open_blocks(store_of(site), CELL).changed


def test_patients_of_a_lost_block_come_back_with_enough_new_ones(site: Path) -> None:
    told(site)
    write_store(store_of(site), without(first(182), 3))
    told(site)
    block = made(site)[-1]
    assert int(block.new_P.sum()) == 32 and len(block.members) == 32 + 29 and block.complete
    blocks = open_blocks(store_of(site), CELL)
    assert (blocks.block_N == WAITING).sum() == 0 and len(blocks.numbers) == 5 and not blocks.new_N.all()
    write_store(store_of(site), first(182))  # the old block is whole again, and stays left: its patients have moved
    again = open_blocks(store_of(site), CELL)
    assert again.numbers == blocks.numbers and (again.block_N == WAITING).sum() == 1


def test_a_site_that_changes_or_shrinks_everywhere_refuses_and_says_what_to_do(site: Path) -> None:
    told(site)
    for altered in (corrected(first(150), *range(0, 150, 5)), first(40)):
        write_store(store_of(site), altered)
        for kind in KINDS:
            assert "a person at the site decides (`consilium-site blocks`)" in reason(site, kind)
    last = list(entries(load_site(site).audit_file))[-1]
    assert last["outcome"] == "refused" and "by subtraction" in last["rule"] and last["blocks"] is None


def test_a_block_without_enough_deaths_joins_the_first_that_has_them(tmp_path: Path) -> None:
    """Nobody was told who of them died, so their outcomes are new; they themselves are not."""
    write_store(tmp_path / "store", first(24))  # eight deaths
    site = write_site(tmp_path)
    answer = ask(site, DESCRIBE)
    assert not isinstance(answer, Refusal) and SiteCard.read(answer).deaths is None
    write_store(tmp_path / "store", first(60))
    answer = ask(site, DESCRIBE)
    assert not isinstance(answer, Refusal) and SiteCard.read(answer).patients == 60
    assert SiteCard.read(answer).deaths == first(60).deaths
    assert [(len(block.members), int(block.new_P.sum())) for block in made(site)] == [(24, 24), (60, 36)]


def test_of_patients_who_were_told_of_before_none_stand_in_for_new_ones(tmp_path: Path) -> None:
    """A feature that four new patients have leaves with the fourteen of a block only if ten of them are new."""
    data = first(60)
    data = replace(data, static_NF=data.static_NF.clone())
    data.static_NF[:, 1:3] = float("nan")
    data.static_NF[torch.tensor([*range(10), *range(24, 28)]), 1] = 1.0
    data.static_NF[torch.tensor([*range(4), *range(24, 34)]), 2] = 1.0
    write_store(tmp_path / "store", data.subset(torch.arange(24)))
    site = write_site(tmp_path)
    answer = ask(site)
    assert isinstance(answer, RecordDict)
    assert [Statistics.read(answer).static[n].whole.patients for n in (1, 2)] == [10, 0]
    write_store(tmp_path / "store", data)
    answer = ask(site, validation_fraction=0.0)
    assert isinstance(answer, RecordDict)
    assert [Statistics.read(answer).static[n].whole.patients for n in (1, 2)] == [0, 14]


def test_a_larger_smallest_cell_than_the_blocks_were_made_for_refuses(site: Path, tmp_path: Path) -> None:
    told(site)
    write_site(tmp_path, release={"smallest_cell": 11})
    assert "a person at the site decides" in reason(site)
    write_site(tmp_path, release={"smallest_cell": 5})
    assert told(site)
    assert open_blocks(store_of(site), 5).numbers == (1, 2, 3, 4, 5)


EVERY_FILE = ("jsonl", "head", "key", "cache")


@pytest.mark.parametrize("lost", [EVERY_FILE, ("jsonl", "head"), ("key",), ("jsonl",), ("head",)], ids="+".join)
def test_where_the_memory_is_lost_nothing_leaves_until_a_person_decides(site: Path, lost: tuple[str, ...]) -> None:
    told(site)
    for ending in lost:
        store_of(site).with_name(f"store.blocks.{ending}").unlink()
    for kind in KINDS:
        assert reason(site, kind) == "the site's memory of whom it has told of cannot be used; nothing was sent"
    aside = restart(store_of(site), "Mercy", "moved to another machine, the old answers are void")
    assert told(site)
    assert (aside is None) == (lost == EVERY_FILE)
    decision = [entry for entry in entries(load_site(site).audit_file) if entry["outcome"] == "decided"]
    assert [entry["rule"] for entry in decision] == ["moved to another machine, the old answers are void"]
    assert next(entries(memory_of(store_of(site)).path, BLOCKS))["reason"] == decision[0]["rule"]


def test_an_old_copy_of_the_memory_is_not_used(site: Path, tmp_path: Path) -> None:
    told(site)
    shutil.copytree(tmp_path, tmp_path.parent / "backup")
    write_store(store_of(site), first(182))
    told(site)
    for file in (tmp_path.parent / "backup").glob("store.blocks.*"):
        shutil.copy(file, tmp_path / file.name)
    assert reason(site) == "the site's memory of whom it has told of cannot be used; nothing was sent"
    with pytest.raises(BlocksError, match=r"older than the audit log, whose newest answer was made by its line 3"):
        open_blocks(store_of(site), CELL)


def test_a_site_that_answered_before_it_had_a_memory_asks_a_person(site: Path) -> None:
    """An earlier version, or a memory and its every trace in the audit log that are gone."""
    told(site)
    audit = load_site(site).audit_file
    stripped = [{k: v for k, v in entry.items() if k not in ("told", "blocks")} for entry in entries(audit)]
    for file in store_of(site).parent.glob("store.*.*"):
        file.unlink()
    from client.audit import AuditLog

    with AuditLog.held(audit) as log:
        for entry in stripped:
            log.append({k: v for k, v in entry.items() if k not in ("n", "time", "digest", "previous")})
    with pytest.raises(BlocksError, match="is not there, and answers left this site without it"):
        open_blocks(store_of(site), CELL)


def test_an_altered_memory_is_not_used(site: Path) -> None:
    told(site)
    memory = memory_of(store_of(site))
    memory.path.write_bytes(memory.path.read_bytes().replace(b'"number":2', b'"number":9'))
    memory.cache_file.unlink()
    assert "memory of whom it has told of cannot be used" in reason(site)
    assert verify(memory.path, memory.head_file, book=BLOCKS).problem == "line 2: not what was written"


def test_a_spoiled_cache_is_made_anew(site: Path) -> None:
    before, cache = told(site), memory_of(store_of(site)).cache_file
    for spoiled in (b"", b"PK", cache.read_bytes()[:-40]):
        cache.write_bytes(spoiled)
        assert told(site) == before


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = ["tests/unit", "tests", "."]
import torch
from flwr.supercore.task_identity import TaskIdentity
from client import block_memory, release
from client.block_memory import BlockMemory
from test_block_memory import POINTS, told

TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
torch.set_num_threads(1)

def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
def after(function):
    def ends(*args, **kwargs):
        function(*args, **kwargs); die()
    return ends

PATCHES = [
    lambda: setattr(block_memory, "_settled", die),
    lambda: setattr(block_memory, "write_private", after(block_memory.write_private)),
    lambda: setattr(BlockMemory, "append", die),
    lambda: setattr(BlockMemory, "_write_head", die),
    lambda: setattr(BlockMemory, "begin", after(BlockMemory.begin)),
    lambda: setattr(block_memory, "_keep", die),
    lambda: setattr(block_memory, "_keep", after(block_memory._keep)),
    lambda: setattr(release.AuditLog, "append", die),
    lambda: setattr(release.AuditLog, "_write_head", die),
]
for point, patch in zip(POINTS, PATCHES, strict=True):
    pid = os.fork()
    if not pid:
        patch(); told(Path(sys.argv[1]) / point / "site.yaml"); os._exit(0)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL, point
"""
POINTS = ["before", "key written", "before a line", "a line, not its head", "begun", "blocks written", "cached"]
POINTS += ["before the audit log", "in the audit log, not its head"]


def test_a_process_that_is_killed_at_any_step_leaves_a_memory_that_goes_on(tmp_path: Path) -> None:
    """Real processes, killed by SIGKILL. The next answer comes from the same blocks, made once and for all."""
    for point in POINTS:
        write_store(tmp_path / point / "store", first(150))
        for file in (tmp_path / point).glob("store.blocks.*"):
            file.unlink()  # it begins without a key, as a hospital does
        write_site(tmp_path / point)
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for point in POINTS:
        site = tmp_path / point / "site.yaml"
        audit, memory = load_site(site).audit_file, memory_of(store_of(site))
        assert (audit.exists() and b'"released"' in audit.read_bytes()) == (point == POINTS[-1])
        before = [block.members for block in blocks_in(list(entries(memory.path, BLOCKS)))]
        assert bool(before) == (POINTS.index(point) >= POINTS.index("blocks written")), point
        answer = told(site)
        assert [len(block.members) for block in made(site)] == [30] * 5
        assert before in ([], [block.members for block in made(site)]), point
        assert told(site) == answer
        *_, entry = entries(audit)
        assert entry["told"] == list(memory.newest) == [2, memory.newest[1]], point  # an older copy would be noticed
        assert not verify(memory.path, memory.head_file, book=BLOCKS).problem


def test_two_that_ask_at_once_find_one_memory(site: Path) -> None:
    """Also with two versions of the store between them: the blocks of the first are those of the second."""
    memory_of(store_of(site)).cache_file.unlink(missing_ok=True)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: open_blocks(store_of(site), CELL), range(16)))
    assert all((one.block_N == found[0].block_N).all() for one in found)
    assert len(made(site)) == 5


def test_a_store_that_is_prepared_anew_between_two_steps_of_an_answer_is_not_mixed_up(site: Path) -> None:
    blocks = open_blocks(store_of(site), CELL)
    write_store(store_of(site), first(160))
    asked = Asked(
        content=RecordDict(), site=load_site(site), config=tiny_config(), run_id=1, occasion=None, blocks=blocks
    )  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="prepared anew while a message was answered"):
        open_trial(asked, THE_RUN)


def test_an_answer_is_not_recorded_by_a_memory_that_was_begun_anew_meanwhile(site: Path) -> None:
    blocks = open_blocks(store_of(site), CELL)
    assert confirmed(store_of(site), blocks.line) == blocks.line
    write_store(store_of(site), first(182))
    later = open_blocks(store_of(site), CELL).line
    assert confirmed(store_of(site), blocks.line) == later  # the same memory, one line on
    restart(store_of(site), "Mercy", "a test of what happens then")
    with pytest.raises(BlocksError, match="begun anew, or lost"):
        confirmed(store_of(site), blocks.line)


def test_a_clock_that_is_set_back_changes_nothing(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = told(site)

    class Past(datetime):
        @classmethod
        def now(cls, tz: object = None) -> datetime:
            return datetime(1999, 1, 1, tzinfo=UTC)

    monkeypatch.setattr("client.chained_log.datetime", Past)
    write_store(store_of(site), first(151))
    assert told(site) == before
    write_store(store_of(site), first(182))
    assert told(site)
    assert [entry["n"] for entry in memory_of(store_of(site)).read()] == [1, 2, 3, 4]
    assert len(made(site)) == 6


def test_the_memory_names_nobody_and_is_small(tmp_path: Path) -> None:
    data = first(200)
    for name in ("one", "two"):
        write_store(tmp_path / name, data)
        for file in tmp_path.glob(f"{name}.blocks.*"):
            file.unlink()
        open_blocks(tmp_path / name, CELL)
    members = [
        {member for block in blocks_in(memory_of(tmp_path / name).read()) for member in block.members}
        for name in ("one", "two")
    ]
    assert len(members[0]) == len(members[1]) == 200 and not members[0] & members[1]  # keys of their own
    memory = memory_of(tmp_path / "one")
    assert memory.key_file.stat().st_mode & 0o077 == 0 and len(memory.key) == 32
    plain = {blake2b(str(p).encode(), digest_size=16).digest() for p in data.patient_N.tolist()}
    assert not plain & {member[:16] for member in members[0]}
    assert memory.path.stat().st_size + memory.cache_file.stat().st_size < 64 * 200 + 5000


def test_an_answer_on_record_names_its_blocks_and_the_memorys_line(site: Path) -> None:
    told(site, validation_fraction=0.2)
    [entry] = entries(load_site(site).audit_file)
    training, validation = entry["blocks"]
    assert sorted(training + validation) == [1, 2, 3, 4, 5] and len(validation) == 1
    assert entry["told"] == list(memory_of(store_of(site)).newest)


def test_an_exact_answer_that_is_not_of_blocks_does_not_leave(site: Path) -> None:
    from client.release import occasion_of, release
    from client.statistics import local_statistics
    from shared_model.messages import trial_content
    from shared_model.study import EARLY

    whole, sent = local_statistics(first(150), EARLY), trial_content(THE_RUN)
    held = load_site(site)
    asked = Asked(
        content=sent, site=held, config=tiny_config(), run_id=1,
        occasion=occasion_of("statistics", sent, tiny_config().to_flat(), 1),
    )  # fmt: skip
    with pytest.raises(ReleaseRefused, match="was not made of blocks of patients"):
        release(replace(whole, parts=((whole, whole),)), asked)
    with pytest.raises(ReleaseRefused, match="were not made block by block"):
        release(whole, replace(asked, blocks=open_blocks(held.store, CELL)))
