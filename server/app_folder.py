"""The Flower app as a folder: what `flwr run` sends to the SuperLink, and the SuperLink to every site."""

import shutil
from pathlib import Path

import shared_model
from shared_model.flower import APP_PACKAGES


def stage_app(folder: Path) -> None:
    """Copy the app that runs (its three packages and its pyproject) to ``folder``: what was run stays with the run."""
    root = Path(shared_model.__file__).resolve().parents[1]
    for package in APP_PACKAGES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(root / package, folder / package, ignore=ignored)
    in_wheel = Path(__file__).with_name("flower_app.toml")
    shutil.copyfile(in_wheel if in_wheel.exists() else root / "pyproject.toml", folder / "pyproject.toml")
