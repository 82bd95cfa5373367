"""Where the patients of a simulation come from: a MIMIC-IV folder, the synthetic hospitals, or a site's YAML."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from client.extract import MimicFolder
from client.mapping.extract import extract_of
from client.prepare import Extract
from client.site import SiteConfig
from simulations.synthetic import write_hospitals


@dataclass(frozen=True)
class Patients:
    """An extract to prepare, how reports call it, and where the true risk of its stays lies, if anybody knows it."""

    extract: Extract
    described_as: str
    truth: Path | None = None


class Source(Protocol):
    """Opened once a run; what it opens may be prepared for several studies."""

    @property
    def task(self) -> str:
        """What opening it does, for the reader of the progress."""

    def open(self, folder: Path, *, flag: str, on_progress: Callable[[int, int], None]) -> Patients:
        """Its patients. ``folder`` takes what has to be written, ``flag`` is the column of the cohort ``flag``."""


@dataclass(frozen=True)
class Mimic:
    """A MIMIC-IV folder."""

    folder: Path
    task = "checking the MIMIC-IV folder"

    def open(self, folder: Path, *, flag: str, on_progress: Callable[[int, int], None]) -> Patients:
        """Raises DataError's kinds where it is no such folder."""
        extract = MimicFolder(self.folder, flag)
        extract.describe()
        return Patients(extract, self.folder.resolve().name)


@dataclass(frozen=True)
class Synthetic:
    """So many synthetic patients, whose true risk is known."""

    patients: int
    seed: int
    task = "writing synthetic hospitals"

    def open(self, folder: Path, *, flag: str, on_progress: Callable[[int, int], None]) -> Patients:
        """Writes them into ``folder``, unless a run that goes on has them there."""
        if not folder.exists():
            write_hospitals(folder, patients=self.patients, seed=self.seed, on_progress=on_progress)
        told = f"synthetic, {self.patients:,} patients, seed {self.seed}"
        return Patients(MimicFolder(folder, flag), told, folder / "truth.parquet")


@dataclass(frozen=True)
class Site:
    """The extract of a hospital's YAML, through its mapping."""

    config: SiteConfig
    task = "checking the site's extract"

    def open(self, folder: Path, *, flag: str, on_progress: Callable[[int, int], None]) -> Patients:
        """Raises ConfigError and DataError's kinds where an extract or a file of it is absent."""
        extract = extract_of(self.config.model_copy(update={"flag": flag}))
        extract.describe()
        return Patients(extract, self.config.site)
