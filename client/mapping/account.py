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


@dataclass(frozen=True, kw_only=True)
class Refused:
    """A code of a concept of whose rows many were rejected, with the rule that most of them broke."""

    step: str
    code: str
    concept: str
    rows: int
    rejected: int
    rule: str

    @property
    def share(self) -> float:
        """Rejected rows of all that have the code."""
        return self.rejected / self.rows

    @property
    def sentence(self) -> str:
        """For the report."""
        named = f"{self.code} " if self.code else ""
        of = f"{self.rejected:,} of {self.rows:,}"
        return f"{self.step}.codes.{self.concept}: {named}{of} rows are rejected, most often: {self.rule}"


@dataclass
class Account:
    """Of a whole extract. ``absent``: relations that the extract lacks, which the config allows; ``unread``: those that
    nothing reads."""

    lines: list[Line] = field(default_factory=list)
    codes: list[CodeFound] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """For the manifest and the report."""
        return {
            "lines": [line.as_dict() for line in self.lines],
            "codes": [asdict(code) for code in self.codes],
            "absent": self.absent,
            "refused": [asdict(one) for one in self.refused],
            "unread": self.unread,
        }

    @property
    def unmapped(self) -> list[CodeFound]:
        """Codes that the config neither maps nor ignores."""
        return [code for code in self.codes if code.concept is None and not code.ignored]

    @classmethod
    def of(cls, told: dict[str, Any]) -> "Account":
        """An account from ``as_dict``."""
        return cls(
            lines=[Line(**line) for line in told["lines"]],
            codes=[CodeFound(**code) for code in told["codes"]],
            absent=told["absent"],
            refused=[Refused(**one) for one in told["refused"]],
            unread=told["unread"],
        )
