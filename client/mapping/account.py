"""Where every row went: rows in = mapped + rejected + ignored, for each mapping, or it is a bug."""

from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Line:
    """One step's account. ``rejected`` and ``ignored``: rows by reason; ``notes``: mapped rows that a rule changed."""

    step: str
    source: str
    rows: int
    mapped: int
    rejected: dict[str, int] = field(default_factory=dict)
    ignored: dict[str, int] = field(default_factory=dict)
    notes: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        found = self.mapped + sum(self.rejected.values()) + sum(self.ignored.values())
        if found != self.rows:
            raise RuntimeError(f"{self.step}: {self.rows} rows in, {found} accounted for")

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and the report."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class CodeFound:
    """A local code, how often it stands in the extract, and what became of it: its concept, or None."""

    step: str
    code: str
    label: str
    rows: int
    concept: str | None = None
    ignored: bool = False


@dataclass
class Account:
    """Of a whole extract. ``absent``: relations that the extract lacks, which the config allows."""

    lines: list[Line] = field(default_factory=list)
    codes: list[CodeFound] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and the report."""
        return {
            "lines": [line.as_dict() for line in self.lines],
            "codes": [asdict(code) for code in self.codes],
            "absent": self.absent,
        }
