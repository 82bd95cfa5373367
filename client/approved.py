"""Which code a site runs. The server sends it with every run, so a release policy inside it would protect nothing.

By default a bundle must be the installed consilium, byte for byte: the site checked that when it installed it. Besides
the modules it may hold only Flower's own files, as a compiled or a data file could replace a module.
"""

import re
import tomllib
import zipfile
from collections.abc import Sequence
from functools import cache
from hashlib import sha256
from io import BytesIO
from pathlib import Path
from typing import Any

import shared_model
from shared_model.flower import APP_PACKAGES

INSTALLED = "installed"
COMPONENTS = {"serverapp": "server.app:app", "clientapp": "client.app:app"}
PYPROJECT, MANIFEST = "pyproject.toml", ".info/CONTENT"
LARGEST_PYPROJECT = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]*")


def refusal(fab: bytes, apps: Sequence[str]) -> str | None:
    """Why a bundle may not run here; None when it may. ``apps``: the site's `release.apps`."""
    digest = sha256(fab).hexdigest()
    if digest in (app.lower() for app in apps):
        return None
    if INSTALLED not in apps:
        return f"bundle {digest} is not listed under release.apps"
    difference = _difference(fab)
    return None if difference is None else f"bundle {digest} is not the installed version: {difference}"


def identity(fab: bytes) -> tuple[str, str]:
    """Publisher/name and version that the bundle gives itself: where Flower unpacks it. Raises ValueError when they
    could name another folder."""
    try:
        with zipfile.ZipFile(BytesIO(fab)) as archive:
            document = _pyproject(archive)
        parts = [
            document["tool"]["flwr"]["app"]["publisher"],
            *(document["project"][key] for key in ("name", "version")),
        ]
    except (zipfile.BadZipFile, KeyError, TypeError, NotImplementedError, RuntimeError, OSError) as error:
        raise ValueError("is no Flower app bundle") from error
    if not all(isinstance(part, str) and _NAME.fullmatch(part) for part in parts):
        raise ValueError("its publisher, name or version is none")
    return f"{parts[0]}/{parts[1]}", parts[2]


@cache
def installed_modules() -> dict[str, bytes]:
    """The modules of the installed packages, by their path in a bundle."""
    root = Path(shared_model.__file__).resolve().parents[1]
    paths = (path for package in APP_PACKAGES for path in (root / package).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


def _difference(fab: bytes) -> str | None:
    """The first thing in which a bundle is not the installed app."""
    try:
        with zipfile.ZipFile(BytesIO(fab)) as archive:
            return _other_files(archive.infolist()) or _other_code(archive) or _other_components(archive)
    except (zipfile.BadZipFile, ValueError, KeyError, TypeError, NotImplementedError, RuntimeError, OSError):
        return "it is no Flower app bundle"


def _other_files(held: Sequence[zipfile.ZipInfo]) -> str | None:
    names, wanted = [info.filename for info in held], {*installed_modules(), PYPROJECT, MANIFEST}
    if extra := sorted(set(names) - wanted):
        return f"{extra[0]} is not in it"
    if missing := sorted(wanted - set(names)):
        return f"{missing[0]} is missing"
    return "a file is in it twice" if len(names) > len(wanted) else None


def _other_code(archive: zipfile.ZipFile) -> str | None:
    for name, code in installed_modules().items():
        if archive.getinfo(name).file_size != len(code) or archive.read(name) != code:
            return f"{name} differs"
    return None


def _other_components(archive: zipfile.ZipFile) -> str | None:
    found = _pyproject(archive)["tool"]["flwr"]["app"]["components"]
    return None if found == COMPONENTS else "it starts other components"


def _pyproject(archive: zipfile.ZipFile) -> dict[str, Any]:
    """Raises KeyError where there is none, ValueError where it is not readable."""
    if archive.getinfo(PYPROJECT).file_size > LARGEST_PYPROJECT:
        raise ValueError("too large")
    return tomllib.loads(archive.read(PYPROJECT).decode("utf-8"))
