"""What ``consilium-simulate`` draws on the terminal: stages, rounds with sites, loss, AUROC and time left, and a
table."""

import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from server.progress import Event, round_facts
from server.report import leaks
from server.results import ComparisonRow, Estimate, RunResults, Tuning


class Screen:
    """A Watcher that draws with rich; plain lines where the output is no terminal."""

    def __init__(self) -> None:
        self.console = Console(stderr=True)
        if not self.console.is_terminal:
            self.console.width = 120
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._name, self._start = "", time.monotonic()

    def __enter__(self) -> "Screen":
        if self.console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._close_stage()
        if self.console.is_terminal:
            self._progress.stop()

    def stage(self, name: str) -> None:
        """Close the line of the last stage and open one."""
        self._close_stage()
        self._name, self._start = name, time.monotonic()
        self._task = self._progress.add_task(name, total=None, facts="")

    def count(self, done: int, of: int) -> None:
        """Fill the stage's bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=of, facts=f"{done:,} of {of:,}")

    def event(self, event: Event) -> None:
        """Draw what the ServerApp told."""
        match event["event"]:
            case "admitted":
                self._admitted(event)
            case "fold":
                self.count(int(str(event["done"])), int(str(event["of"])))
            case "round":
                self._round(event)

    def summary(self, results: RunResults, out: Path) -> None:
        """The comparison table, or the one line of a run without baselines, and where to look."""
        alone = [ComparisonRow.of("federated", results.heldout)] if results.heldout else []
        self.compare(results.comparison or alone, results.data.oracle_auroc if results.data else None)
        if results.tuning is not None:
            self._settings(results.tuning)
        alarms = [f"leak alarm, AUROC {place}: a bug until proven otherwise" for place in leaks(results)]
        for warning in [*alarms, *results.warnings]:
            self.console.print(f"note: {warning}", style="yellow", markup=False)
        overhead = results.timing.federation_overhead
        if overhead:
            self.console.print(f"federation overhead: {overhead:.2f} x local training")
        self.console.print(f"report: {out / 'report.html'}", markup=False, highlight=False)

    def compare(self, rows: list[ComparisonRow], oracle_auroc: float | None = None) -> None:
        """A line for each model."""
        table = Table("model", "AUROC (95 % CI)", "AUPRC (95 % CI)", box=None, pad_edge=False)
        if any(row.own_unit_auroc for row in rows):
            table.add_column("own unit's AUROC")
        for row in rows:
            own = [_estimate(row.own_unit_auroc)] if row.own_unit_auroc else []
            table.add_row(row.model, _estimate(row.auroc), _estimate(row.auprc), *own)
        if oracle_auroc is not None:
            table.add_row("best possible (true risk)", f"{oracle_auroc:.3f}")
        self.console.print(table)

    def _close_stage(self) -> None:
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
            self.console.print(f"{time.monotonic() - self._start:6.1f} s  {self._name}", markup=False, highlight=False)

    def _admitted(self, event: dict[str, Any]) -> None:
        self.console.print(f"          {len(event['sites'])} sites: {', '.join(event['sites'])}", markup=False)
        for site, why in event["refused"].items():
            self.console.print(f"          not admitted: {site}: {why}", style="yellow", markup=False)

    def _round(self, event: dict[str, Any]) -> None:
        facts = round_facts(event)
        if self._task is not None:
            self._progress.update(self._task, completed=event["round"], total=event["rounds"], facts=facts)
        if not self.console.is_terminal:
            self.console.print(f"          {facts}", markup=False, highlight=False)

    def _settings(self, tuning: Tuning) -> None:
        """The settings of a search, the best first."""
        table = Table(box=None, pad_edge=False)
        for name in (*tuning.parameters, "AUROC, mean of folds", "SD"):
            table.add_column(name)
        for trial in sorted(tuning.trials, key=lambda t: -(t.mean or 0.0))[:10]:
            figures = ["n/a" if value is None else f"{value:.4f}" for value in (trial.mean, trial.sd)]
            table.add_row(*(str(trial.settings[name]) for name in tuning.parameters), *figures)
        self.console.print(table)


def _estimate(estimate: Estimate) -> str:
    if estimate.value is None:
        return "not defined"
    interval = "" if estimate.low is None else f" ({estimate.low:.3f}-{estimate.high:.3f})"
    return f"{estimate.value:.3f}{interval}"
