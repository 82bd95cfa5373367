"""What a benchmark's runs say: averages over the seeds, by unit, three criteria, and a page of Markdown."""

from collections.abc import Iterable, Sequence

import numpy as np

from server.report_words import interval, number
from server.results import ComparisonRow, Estimate
from simulations.baselines import POOLED
from simulations.benchmark_results import Benchmark, Criterion, ModelSummary, UnitSummary
from simulations.crossed import Average, Crossed, HeldOut, mean_of

TARGET_AUROC, MARGIN_TO_POOLED = 0.865, 0.01
LOCAL = "local-only: "
METHOD = """Each seed holds out other patients (stratified by death), starts from other weights and shuffles otherwise.
Every model of a seed meets the same held-out patients, who are in no fit. A mean over the seeds has a 95 % interval
from resampling patients and seeds together (pigeonhole bootstrap, Owen 2007), with the same resamples for every
model. The settings, where none was given, were chosen by cross-validation among the training patients of seed 1; the
pooled and the local-only models have a learning rate and a number of passes of their own, LightGBM was not tuned."""


def summarize(benchmark: Benchmark, heldout: list[HeldOut], best: str, *, resamples: int) -> Benchmark:
    """The document with averages and criteria; ``best`` names the federated model that has to meet them."""
    crossed = Crossed(heldout, resamples=resamples, seed=0)
    found = {model: crossed.averages(model) for model in heldout[0].scores}
    units = [_unit(crossed, heldout, unit, best) for unit in np.unique(heldout[0].unit_N).tolist()]
    models = [
        ModelSummary(
            model=model,
            auroc=averages["auroc"].estimate(),
            auprc=averages["auprc"].estimate(),
            seeds=[run.auroc.value for run in benchmark.runs if run.model == model],
        )
        for model, averages in found.items()
    ]
    auroc = {model: averages["auroc"] for model, averages in found.items()}
    criteria = [_high_enough(auroc[best]), _near_pooled(auroc[best] - auroc[POOLED]), *_above_local(units)]
    return benchmark.model_copy(update={"models": models, "units": units, "criteria": criteria, "status": "complete"})


def _unit(crossed: Crossed, heldout: list[HeldOut], unit: str, best: str) -> UnitSummary:
    models = [best, *(model for model in heldout[0].scores if model.startswith(LOCAL))]
    found = {model: crossed.averages(model, unit)["auroc"] for model in models}
    here = [held.label_N[held.unit_N == unit] for held in heldout]
    nothing = Average(np.nan, np.empty(0))  # a unit too small to take part trained no model
    own = found.get(f"{LOCAL}{unit}")
    return UnitSummary(
        unit=unit,
        patients=float(np.mean([len(label_N) for label_N in here])),
        deaths=float(np.mean([label_N.sum() for label_N in here])),
        federated=found[best].estimate(),
        own_local=(own or nothing).estimate(),
        gain=(found[best] - own if own else nothing).estimate(),
        mean_local=mean_of([found[model] for model in models[1:]]).estimate(),
    )


def _high_enough(federated: Average) -> Criterion:
    return Criterion(
        criterion=f"federated AUROC at least {TARGET_AUROC}",
        met=federated.value >= TARGET_AUROC,
        found=told(federated.estimate()),
    )


def _near_pooled(difference: Average) -> Criterion:
    return Criterion(
        criterion=f"federated at least pooled less {MARGIN_TO_POOLED}",
        met=difference.value >= -MARGIN_TO_POOLED,
        found=f"federated less pooled {told(difference.estimate())}",
    )


def _above_local(units: list[UnitSummary]) -> Iterable[Criterion]:
    for words, local in (
        ("the unit's own local-only model", {u.unit: u.own_local for u in units}),
        ("the mean of the local-only models", {u.unit: u.mean_local for u in units}),
    ):
        below = [
            f"{u.unit} {number(u.federated.value)} against {number(local[u.unit].value)}"
            for u in units
            if not _above(u.federated, local[u.unit])
        ]
        yield Criterion(
            criterion=f"federated above {words} in every unit",
            met=not below,
            found=f"not in: {'; '.join(below)}" if below else f"in all {len(units)}",
        )


def _above(federated: Estimate, local: Estimate) -> bool:
    return federated.value is not None and local.value is not None and federated.value > local.value


def told(estimate: Estimate) -> str:
    """An estimate with its interval."""
    return f"{number(estimate.value)} {interval(estimate)}".strip()


def comparison_rows(benchmark: Benchmark) -> list[ComparisonRow]:
    """The averages as the screen's table takes them."""
    return [ComparisonRow(model=m.model, auroc=m.auroc, auprc=m.auprc) for m in benchmark.models]


def as_markdown(benchmark: Benchmark) -> str:
    """The tables and sentences of a complete benchmark."""
    seeds = benchmark.seeds
    models = [
        (m.model, told(m.auroc), told(m.auprc), ", ".join(number(value) for value in m.seeds)) for m in benchmark.models
    ]
    units = [
        (u.unit, f"{u.patients:.0f}", f"{u.deaths:.0f}", *map(told, (u.federated, u.own_local, u.gain, u.mean_local)))
        for u in benchmark.units
    ]
    criteria = [f"- {'met' if c.met else '**not met**'}: {c.criterion}: {c.found}" for c in benchmark.criteria]
    sections = [
        f"# {benchmark.source}: federated, pooled, alone",
        f"{benchmark.patients:,} patients, {benchmark.deaths:,} deaths; {100 * benchmark.heldout_fraction:.0f} % held"
        f" out; {len(seeds)} seed{'s' if len(seeds) > 1 else ''} ({', '.join(map(str, seeds))}); consilium"
        f" {benchmark.consilium_version}.",
        _table(("model", "AUROC (95 % CI)", "AUPRC (95 % CI)", "AUROC by seed"), models),
        "## What it had to show\n\n" + "\n".join(criteria),
        "## AUROC by unit\n\n"
        + _table(
            (
                "unit",
                "held-out patients",
                "deaths",
                "federated",
                "own local-only model",
                "gain",
                "mean of the local-only models",
            ),
            units,
        ),
        "## Method\n\n" + METHOD,
    ]
    return "\n\n".join(sections) + "\n"


def _table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    escaped = [[cell.replace("|", "\\|") for cell in row] for row in (head, ("---",) * len(head), *rows)]
    return "\n".join(f"| {' | '.join(row)} |" for row in escaped)
