"""The laws of docs/DESIGN.md, read from the syntax tree of every module."""

import ast
import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.common.config import flatten_dict

from shared_model.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("server", "client", "shared_model", "simulations")
TRAVEL = ("server", "client", "shared_model")
SIBLINGS = {
    "shared_model": {"shared_model"},
    "client": {"client", "shared_model"},
    "server": {"server", "shared_model"},
    "simulations": set(PACKAGES),
}
# Library -> the only places that may import it; a folder ends with a slash.
LIBRARIES = {
    "pandas": ("client/", "simulations/", "server/report.py"),
    "duckdb": ("client/", "simulations/"),
    "opacus": ("client/privatize.py", "client/ledger.py", "shared_model/privacy.py"),
    "flwr": (
        "client/app.py",
        "client/fleet.py",
        "client/site.py",
        "client/supernode.py",
        "shared_model/messages.py",
        "shared_model/packing.py",
        "shared_model/records.py",
        "shared_model/refusal.py",
        "shared_model/secure/messages.py",
        "server/app.py",
        "server/admission.py",
        "server/statistics.py",
        "server/rounds.py",
        "server/secure.py",
        "server/summed.py",
        "server/tuning.py",
        "server/strategies/",
        "server/exchange.py",
        "server/node_of_key.py",
        "server/superlink.py",
    ),
}
HEAVY = ("torch", "transformers", "sklearn", "opacus", "matplotlib", "ray")
LONGEST, EXCUSE = 300, "# Over 300 lines: "


def _modules(*packages: str) -> dict[str, ast.Module]:
    """Syntax trees by path from the root, with slashes."""
    paths = [path for package in packages for path in sorted((ROOT / package).rglob("*.py"))]
    return {path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8")) for path in paths}


MODULES = _modules(*PACKAGES)


def _imports(nodes: Iterator[ast.AST]) -> Iterator[str]:
    """Dotted names of imported modules; ``from a import b`` also gives ``a.b``, which may be a module."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, "relative imports hide what a module depends on"
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _imported_roots(tree: ast.Module) -> set[str]:
    return {name.partition(".")[0] for name in _imports(ast.walk(tree))}


def _at_import_time(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """Statements that run when a module is imported: no function bodies, no ``if TYPE_CHECKING``."""
    for statement in body:
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        if isinstance(statement, ast.If) and "TYPE_CHECKING" in ast.unparse(statement.test):
            yield from _at_import_time(statement.orelse)
            continue
        yield statement
        for handler in getattr(statement, "handlers", []):
            yield from _at_import_time(handler.body)
        for field in ("body", "orelse", "finalbody"):
            yield from _at_import_time(getattr(statement, field, []))


def _may_import(path: str, places: tuple[str, ...]) -> bool:
    return any(path.startswith(place) if place.endswith("/") else path == place for place in places)


def test_the_law_reader_sees_the_packages_and_their_imports() -> None:
    assert all(any(path.startswith(f"{package}/") for path in MODULES) for package in PACKAGES)
    assert {"flwr", "shared_model", "client"} <= _imported_roots(MODULES["client/app.py"])
    tree = ast.parse(
        "import a.b\nif TYPE_CHECKING:\n    import c\nelse:\n    import d\ndef f():\n    import e\ntry:\n    import g\n"
        "except ImportError:\n    import j\nclass K:\n    from h import i"
    )
    assert set(_imports(_at_import_time(tree.body))) == {"a.b", "d", "g", "h", "h.i", "j"}


@pytest.mark.parametrize("path", MODULES)
def test_a_package_imports_only_the_siblings_it_may(path: str) -> None:
    allowed = SIBLINGS[path.partition("/")[0]]
    assert _imported_roots(MODULES[path]) & (set(PACKAGES) | {"tests"}) <= allowed, path


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_library_is_imported_only_where_it_belongs(library: str) -> None:
    users = [path for path, tree in MODULES.items() if library in _imported_roots(tree)]
    assert [path for path in users if not _may_import(path, LIBRARIES[library])] == []


def test_no_file_is_over_300_lines_without_a_written_reason() -> None:
    long = []
    for path in MODULES:
        lines = (ROOT / path).read_text(encoding="utf-8").splitlines()
        excused = any(line.startswith(EXCUSE) and len(line) > len(EXCUSE) + 10 for line in lines)
        if len(lines) > LONGEST and not excused:
            long.append(f"{path}: {len(lines)}")
    assert long == []


def test_no_module_is_called_utils() -> None:
    assert [path for path in MODULES if Path(path).stem in ("utils", "util", "helpers", "misc")] == []


def test_nothing_prints() -> None:
    calls = [
        f"{path}:{node.lineno}"
        for path, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("print", "breakpoint")
    ]
    assert calls == []


def test_the_client_app_imports_heavy_libraries_only_through_the_messages() -> None:
    """In a deployment every message starts a fresh process; what only a handler needs is imported there."""
    guilty, seen, pending = [], {"shared_model.messages"}, ["client.app"]
    while pending:
        module = pending.pop()
        path = f"{module.replace('.', '/')}.py"
        if module in seen or path not in MODULES:
            continue
        seen.add(module)
        names = set(_imports(_at_import_time(MODULES[path].body)))
        guilty += [f"{path}: {name}" for name in names if name.partition(".")[0] in HEAVY]
        pending += names
    assert {"client.release", "client.site", "shared_model.errors"} <= seen  # the walk does walk
    assert guilty == []


def _loaded_after(module: str, watched: tuple[str, ...]) -> list[str]:
    code = f"import sys, {module}\nsys.stdout.write(' '.join(m for m in {watched!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    return done.stdout.split()


def test_importing_the_client_app_loads_no_library_that_flower_does_not_need() -> None:
    assert _loaded_after("client.app", tuple(name for name in HEAVY if name != "torch")) == []


@pytest.mark.parametrize("package", ["client", "server", "simulations"])
def test_a_command_line_starts_without_heavy_libraries(package: str) -> None:
    assert _loaded_after(f"{package}.cli", (*HEAVY, "duckdb", "pandas", "flwr", "typer")) == ["typer"]


def test_run_config_in_pyproject_is_the_default_run_config() -> None:
    """Flower refuses an override of a key that is not there."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert flatten_dict(document["tool"]["flwr"]["app"]["config"]) == RunConfig().to_flat()


def test_the_bundle_that_travels_holds_the_three_packages_and_nothing_else(tmp_path: Path) -> None:
    app, out = tmp_path / "consilium", tmp_path / "out"
    out.mkdir()
    for package in PACKAGES:
        shutil.copytree(ROOT / package, app / package, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", ".gitignore"):
        shutil.copyfile(ROOT / name, app / name)
    for stray in ("client/patients.csv", "server/results.json", "shared_model/notes.md", "stray.py", "tests/test_a.py"):
        (app / stray).parent.mkdir(exist_ok=True)
        (app / stray).write_text("stray = 1\n", encoding="utf-8")

    flwr = Path(sys.executable).with_name("flwr")
    environment = os.environ | {"FLWR_HOME": str(tmp_path / "home"), "FLWR_TELEMETRY_ENABLED": "0"}
    done = subprocess.run([flwr, "build", "--app", app], cwd=out, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    [bundle] = out.glob("*.fab")
    with zipfile.ZipFile(bundle) as archive:
        held = {name for name in archive.namelist() if not name.startswith(".info/")}
    assert held == {"pyproject.toml", *_modules(*TRAVEL)}
    assert bundle.stat().st_size < 1_250_000
