"""A site runs the code that it installed, and nothing that only looks like it. On a bundle built by `flwr build`."""

import io
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace

import pytest
from builders import write_site

from client import supernode
from client.approved import COMPONENTS, identity, installed_modules, refusal
from client.supernode import Gate, Pace
from server.app_folder import stage_app
from shared_model.flower import flower_environment

Files = list[tuple[str, bytes]]


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    folder = tmp_path_factory.mktemp("bundle")
    stage_app(folder / "consilium")
    (folder / "out").mkdir()
    flwr, environment = Path(sys.executable).with_name("flwr"), flower_environment(folder / "home")
    command = [flwr, "build", "--app", folder / "consilium"]
    subprocess.run(command, cwd=folder / "out", env=environment, check=True, capture_output=True)
    [made] = (folder / "out").glob("*.fab")
    return made.read_bytes()


def files(bundle: bytes) -> Files:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return [(name, archive.read(name)) for name in archive.namelist()]


def packed(held: Files) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in held:
            archive.writestr(name, content)
    return buffer.getvalue()


def changed(bundle: bytes, name: str, old: bytes, new: bytes) -> bytes:
    assert any(n == name and old in c for n, c in files(bundle))
    return packed([(n, c.replace(old, new) if n == name else c) for n, c in files(bundle)])


def test_the_installed_app_may_run_and_its_settings_are_free(bundle: bytes) -> None:
    assert refusal(bundle, ("installed",)) is None
    assert refusal(changed(bundle, "pyproject.toml", b"rounds = 12", b"rounds = 99"), ("installed",)) is None
    assert identity(bundle) == ("consilium/consilium", "0.1.0")


@pytest.mark.parametrize(
    ("name", "code", "words"),
    [
        ("client/sneaky.py", b"", "client/sneaky.py is not in it"),
        ("sitecustomize.py", b"", "sitecustomize.py is not in it"),
        ("torch.pyc", b"", "torch.pyc is not in it"),
        ("client/release.cpython-311-x86_64-linux-gnu.so", b"", "is not in it"),
        ("client/", b"", "client/ is not in it"),
        ("../client/release.py", b"", "is not in it"),
        ("client/release.py", b"x = 1\n", "twice"),
    ],
)
@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_nothing_is_added(name: str, code: bytes, words: str, bundle: bytes) -> None:
    found = refusal(packed([*files(bundle), (name, code)]), ("installed",))
    assert found is not None and words in found


def test_nothing_is_changed_or_left_out(bundle: bytes) -> None:
    one = changed(bundle, "shared_model/atomic.py", b"whole or absent", b"whole or absent ")
    assert "shared_model/atomic.py differs" in str(refusal(one, ("installed",)))
    same_length = changed(bundle, "shared_model/atomic.py", b"whole or absent", b"whole or broken")
    assert "shared_model/atomic.py differs" in str(refusal(same_length, ("installed",)))
    without = packed([held for held in files(bundle) if held[0] != "client/release.py"])
    assert "client/release.py is missing" in str(refusal(without, ("installed",)))
    other = changed(bundle, "pyproject.toml", b"client.app:app", b"client.cli:app")
    assert "other components" in str(refusal(other, ("installed",)))
    more = changed(
        bundle, "pyproject.toml", b"[tool.flwr.app.components]", b"[tool.flwr.app.components]\nagentapp='a:b'"
    )
    assert "other components" in str(refusal(more, ("installed",)))
    for broken in (b"", b"PK", bundle[:-40], packed([])):
        assert refusal(broken, ("installed",)) is not None


def test_a_bundle_is_approved_by_its_digest_and_only_so_when_installed_is_not_listed(bundle: bytes) -> None:
    other = packed([*files(bundle), ("client/extra.py", b"")])
    assert refusal(other, ("installed", sha256(other).hexdigest().upper())) is None
    assert "not listed under release.apps" in str(refusal(bundle, ()))
    assert "not listed under release.apps" in str(refusal(bundle, (sha256(other).hexdigest(),)))


def test_the_modules_compared_with_are_those_of_three_packages() -> None:
    assert {"client/app.py", "server/app.py", "shared_model/errors.py"} <= set(installed_modules())
    assert {name.partition("/")[0] for name in installed_modules()} == {"client", "server", "shared_model"}
    assert set(COMPONENTS) == {"serverapp", "clientapp"}


@pytest.mark.parametrize("version", ["../../tmp/x", "a/b", "", "..", "1 0"])
def test_a_bundle_cannot_say_that_it_lies_elsewhere(version: str, bundle: bytes) -> None:
    moved = changed(bundle, "pyproject.toml", b'version = "0.1.0"', f'version = "{version}"'.encode())
    with pytest.raises(ValueError, match="none"):
        identity(moved)


class Answers:
    """What Flower's connection gives: a run's record and its bundle."""

    def __init__(self, bundle: bytes, **record: str) -> None:
        self.run = SimpleNamespace(**({"fab_id": "consilium/consilium", "fab_version": "0.1.0"} | record))
        self.fab = SimpleNamespace(content=bundle, hash_str=sha256(bundle).hexdigest(), verifications={})

    @contextmanager
    def opened(self) -> Iterator[tuple[object, ...]]:
        yield (1, None, None, lambda run_id: self.run, lambda digest, run_id: self.fab, None, None, None)

    def pass_gate(self, gate: Gate) -> bool:
        with gate.connection(self.opened()) as (_, _, _, get_run, get_fab, *_others):
            get_run(5)
            fab = get_fab("", 5)
            assert fab.verifications["valid_license"]  # without it Flower would not ask the gate
            return gate.verify(fab, {"none": ""})


def test_the_gate_asks_the_sites_yaml_each_time(
    bundle: bytes, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = packed([*files(bundle), ("client/extra.py", b"")])
    gate = Gate(write_site(tmp_path), lambda fab, trusted: True, entities=False)
    assert Answers(bundle).pass_gate(gate)
    assert not Answers(other).pass_gate(gate)
    assert "refused to run what the server sent" in capsys.readouterr().err
    write_site(tmp_path, release={"apps": [sha256(other).hexdigest()]})
    assert Answers(other).pass_gate(gate)
    assert not Answers(bundle).pass_gate(gate)
    (tmp_path / "site.yaml").write_text("broken: [")
    assert not Answers(other).pass_gate(gate)


def test_a_signature_counts_only_where_signers_are_named(bundle: bytes, tmp_path: Path) -> None:
    other, site = packed([*files(bundle), ("client/extra.py", b"")]), write_site(tmp_path)

    def broken(fab: object, trusted: dict[str, str]) -> bool:
        raise KeyError("signed_at")

    assert Answers(other).pass_gate(Gate(site, lambda fab, trusted: True, entities=True))
    assert not Answers(other).pass_gate(Gate(site, lambda fab, trusted: False, entities=True))
    assert not Answers(other).pass_gate(Gate(site, broken, entities=True))


@pytest.mark.parametrize("record", [{"fab_id": "consilium/other"}, {"fab_version": "../../x"}])
def test_a_runs_record_cannot_name_another_bundle(record: dict[str, str], bundle: bytes, tmp_path: Path) -> None:
    gate = Gate(write_site(tmp_path), lambda fab, trusted: True, entities=True)
    assert not Answers(bundle, **record).pass_gate(gate)
    answers = Answers(bundle)
    answers.fab.hash_str = "0" * 64
    assert not answers.pass_gate(gate)


def test_the_supernode_asks_more_often_after_it_has_worked(monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float] = []
    now = [1000.0]
    monkeypatch.delenv(supernode.POLL, raising=False)
    monkeypatch.setattr(supernode, "time", SimpleNamespace(sleep=slept.append, monotonic=lambda: now[0]))
    pace = Pace()
    pace.sleep(3)
    pace.sleep(0.5)
    pace.sleep(3)
    now[0] += 200
    pace.sleep(3)
    assert slept == [3.0, 0.1, 0.5, 3.0]
    monkeypatch.setenv(supernode.POLL, "0.05")
    pace.sleep(3)
    assert slept[-1] == 0.05
