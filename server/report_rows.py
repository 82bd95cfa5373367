"""The report's forest tables: one line for each unit, group or site, on a common AUROC axis."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from server.report_words import DASH, known, undefined
from server.results import SMALLEST_SUBGROUP, Estimate, Performance, RunResults, SubgroupEvaluation

LOCAL = "local-only: "


@dataclass(frozen=True, kw_only=True)
class Column:
    """One figure of every line. ``kind`` is the style of its mark in the plot; without one it is text alone."""

    head: str
    label: str  # before the figure, where a phone has no room for the head
    kind: str = ""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One unit, group or site. ``estimates`` has one entry a column; ``words`` stand where the first has no value."""

    name: str
    patients: int | None = None
    deaths: int | None = None
    estimates: Sequence[Estimate | None] = ()
    words: str = ""
    refused: str = ""


@dataclass(frozen=True, kw_only=True)
class Forest:
    """A table whose lines share an axis; ``reference`` is its dashed line."""

    first: str
    patients: str
    columns: tuple[Column, ...]
    lines: Sequence[Line]
    reference: float | None = None

    def marks(self, line: Line) -> list[tuple[str, Estimate | None]]:
        """Kind and estimate of what is drawn of a line."""
        pairs = zip(self.columns, line.estimates, strict=False)  # a refused unit has no estimates
        return [(column.kind, estimate) for column, estimate in pairs if column.kind]

    def drawn(self, line: Line) -> bool:
        """Whether there is a dot to draw."""
        return any(known(estimate.value) for _, estimate in self.marks(line) if estimate)

    @property
    def scale(self) -> "Scale":
        """The axis that holds every mark."""
        return scale_for(estimate for line in self.lines for _, estimate in self.marks(line))


@dataclass(frozen=True, kw_only=True)
class Scale:
    """The common AUROC axis of a forest plot's rows."""

    low: float
    high: float

    def at(self, value: float) -> str:
        """Where a value lies, as a percentage of the row's width; 6 % stay free on either side."""
        inside = min(max(value, self.low), self.high)
        return f"{6 + 88 * (inside - self.low) / (self.high - self.low):.2f}%"

    def ticks(self) -> list[float]:
        """Every tenth, or every fifth where they would crowd."""
        step = 0.1 if self.high - self.low < 0.45 else 0.2
        return [self.low + step * n for n in range(int((self.high - self.low) / step + 1e-6) + 1)]


def scale_for(estimates: Iterable[Estimate | None]) -> Scale:
    """From the tenth below the lowest bound to the tenth above the highest."""
    values = [value for e in estimates if e for value in (e.value, e.low, e.high)]
    finite = [value for value in values if value is not None and math.isfinite(value)]
    low = math.floor(round(min(finite, default=0.5) * 10, 6)) / 10
    high = math.ceil(round(max(finite, default=1.0) * 10, 6)) / 10
    return Scale(low=low, high=max(high, low + 0.1))


def reference_of(performance: Performance | None) -> float | None:
    """The AUROC of all patients together, the dashed line of the forests."""
    value = performance.metrics["auroc"].value if performance and "auroc" in performance.metrics else None
    return value if known(value) else None


def unit_forest(results: RunResults) -> Forest:
    """Units of the held-out set in their order, then those that trained alone or were not admitted. On the same
    patients: the federated model, and the one that the unit trains alone."""
    local = {row.model.removeprefix(LOCAL): row for row in results.comparison if row.model.startswith(LOCAL)}
    refused = {site.site: site.reason or "no reason given" for site in results.sites if not site.admitted}
    evaluated = {unit.unit: unit for unit in (results.heldout.by_unit if results.heldout else [])}

    def line(name: str) -> Line:
        unit, alone = evaluated.get(name), local[name].own_unit_auroc if name in local else None
        if unit is None:
            return Line(name=name, estimates=(None, alone), refused=refused.get(name, ""))
        return _line(name, unit.patients, unit.deaths, (unit.auroc, alone), refused=refused.get(name, ""))

    return Forest(
        first="Unit",
        patients="Held-out patients",
        columns=(
            Column(head="Federated AUROC", label="Federated", kind="federated"),
            Column(head="Local-only AUROC", label="Local-only", kind="local"),
        ),
        lines=[line(name) for name in dict.fromkeys([*evaluated, *local, *(refused if evaluated or local else ())])],
        reference=reference_of(results.heldout),
    )


def subgroup_forest(results: RunResults) -> Forest:
    """Sex and age bands of the held-out set."""
    groups = results.heldout.subgroups if results.heldout else []
    return Forest(
        first="Group",
        patients="Held-out patients",
        columns=(
            Column(head="AUROC", label="AUROC", kind="federated"),
            Column(head="Sensitivity", label="Sensitivity"),
            Column(head="Specificity", label="Specificity"),
        ),
        lines=[
            _line(
                _group_name(g), g.patients, g.deaths, (g.auroc, g.sensitivity, g.specificity), least=SMALLEST_SUBGROUP
            )
            for g in groups
        ],
        reference=reference_of(results.heldout),
    )


def _group_name(group: SubgroupEvaluation) -> str:
    if group.name == "unknown":
        return f"{group.group.capitalize()} unknown"
    return group.name.capitalize() if group.group == "sex" else f"Age {group.name.replace('-', DASH)}"


def site_forest(results: RunResults) -> Forest:
    """The sites' own validation patients: the shared model, and, where sites personalised it, theirs."""
    sites = results.validation.sites if results.validation else []
    personal = any(site.personal_auroc for site in sites)
    columns = (
        Column(head="Shared model\u2019s AUROC" if personal else "AUROC", label="Shared", kind="federated"),
        Column(head="Personalised AUROC", label="Personalised", kind="local"),
    )
    return Forest(
        first="Site",
        patients="Validation patients",
        columns=columns if personal else columns[:1],
        lines=[
            _line(s.site, s.patients, s.deaths, (s.auroc, s.personal_auroc) if personal else (s.auroc,)) for s in sites
        ],
        reference=reference_of(results.validation),
    )


def left_out_forest(results: RunResults) -> Forest:
    """Each site, judged by a model that has never seen it and by the one that has."""
    return Forest(
        first="Site left out",
        patients="Patients",
        columns=(
            Column(head="AUROC without it", label="Without it", kind="local"),
            Column(head="AUROC with it", label="With it", kind="federated"),
        ),
        lines=[_line(s.site, s.patients, s.deaths, (s.auroc, s.inside_auroc)) for s in results.leave_one_out],
        reference=reference_of(results.validation),
    )


def _line(
    name: str, patients: int, deaths: int, estimates: Sequence[Estimate | None], *, least: int = 0, refused: str = ""
) -> Line:
    first = estimates[0]
    words = "" if first and known(first.value) else undefined(patients, deaths)
    if words and patients < least:
        words = f"fewer than {least} patients"
    return Line(name=name, patients=patients, deaths=deaths, estimates=estimates, words=words, refused=refused)
