"""``consilium-site ledger``: what a privacy officer asks of what runs with differential privacy have spent."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared_model.command import command_group
from shared_model.errors import BudgetExceeded, ConfigError

if TYPE_CHECKING:
    from client.ledger import Spending
    from client.site import SiteConfig
    from shared_model.config import RunConfig

app = command_group("Tell what runs have spent of the patients' privacy, and what is left.")
Config = Annotated[Path, typer.Argument(help="The site's YAML file.", metavar="SITE.yaml")]
Json = Annotated[bool, typer.Option("--json", help="As JSON.")]
BROKEN, DOES_NOT_FIT = 1, 1


@app.command()
def show(config: Config, json: Json = False) -> None:
    """Tell each run's epsilon, spent and set aside, and the totals beside the site's caps; all at the site's delta."""
    from client.ledger import spendings

    site = _site(config)
    runs = spendings(site.ledger_file)
    told = [_of_run(held, site.privacy.delta) for held in runs.values()]
    totals = _totals(site, list(runs.values()))
    if json:
        _tell_json({"delta": site.privacy.delta, "runs": told, "totals": totals})
        return
    if not told:
        typer.echo("no run has spent anything at this site")
    else:
        keys = ("run", "project", "state", "patients", "deaths", "epsilon", "spent", "left", "answers")
        _tell_table(tuple("authorised" if key == "epsilon" else key for key in keys), told, keys)
    _tell_table(("epsilon of", "spent", "with open runs", "cap"), totals, ("of", "spent", "committed", "cap"))
    typer.echo(f"at delta {site.privacy.delta:g}, by RDP; patients and deaths as the run was told them")


@app.command()
def verify(
    config: Config,
    expect: Annotated[str, typer.Option(help="A digest that an earlier `verify` told; it must be in it.")] = "",
) -> None:
    """Read the whole ledger and find any line that was changed, taken out, put in, moved or cut off, or a ledger that
    is older than the audit log.

    Exit status 1 where there is one. Keep the digest that this tells in another place: who restores ledger, head and
    audit log together leaves no other trace.
    """
    from client.audit_chain import LEDGER
    from client.audit_chain import verify as verify_log
    from client.ledger import Ledger, behind, spendings

    site = _site(config)
    ledger = Ledger(site.ledger_file)
    found = verify_log(ledger.path, ledger.head_file, expect.strip().lower(), LEDGER)
    if problem := found.problem or behind(ledger.path, site.audit_file):
        typer.echo(f"{ledger.path}: {problem}", err=True)
        raise typer.Exit(BROKEN)
    where = f"; the digest that was expected is line {found.found}'s" if expect else ""
    count = len(spendings(ledger.path))
    typer.echo(f"{ledger.path}: whole, {found.count} entries of {count} runs{where}\nlast digest: {found.digest}")


@app.command()
def close(config: Config, run: Annotated[str, typer.Argument(help="The run's name, or its Flower id.")]) -> None:
    """End a run at this site: it gets nothing more, and what it has not spent is free for others."""
    from client.ledger import Ledger

    with Ledger.of(_site(config)) as ledger:
        held = ledger.runs.get(run)
        if held is None or held.closed:
            known = ", ".join(name for name, one in ledger.runs.items() if not one.closed) or "none"
            raise ConfigError(f"run {run!r}: is not open at this site; open runs: {known}")
        freed = _of_run(held, ledger.caps.delta)
        ledger.close(run)
    typer.echo(f"closed: {run}; it has spent epsilon {freed['spent']:.4g} of {freed['epsilon']:.4g}")


@app.command()
def cost(
    config: Config,
    epsilon: Annotated[float, typer.Option(help="The run's privacy.epsilon.")],
    rounds: Annotated[int, typer.Option(help="Its rounds.")],
    batch_size: Annotated[int, typer.Option(help="Its batch-size.")],
    delta: Annotated[float, typer.Option(help="Its privacy.delta.")] = 1e-5,
    accountant: Annotated[str, typer.Option(help="Its privacy.accountant: prv or rdp.")] = "prv",
    local_epochs: Annotated[int, typer.Option(help="Its local-epochs.")] = 1,
    local_steps: Annotated[int, typer.Option(help="Its local-steps; 0: local-epochs decide.")] = 0,
    validation_fraction: Annotated[float, typer.Option(help="Its validation-fraction.")] = 0.15,
    project: Annotated[str, typer.Option(help="Its privacy.project.")] = "",
    json: Json = False,
) -> None:
    """Tell what a planned run would cost at this site's delta, and whether it fits. Spends nothing.

    Exit status 1 where it does not fit. The run itself reckons with the count of patients that it is told.
    """
    from shared_model.config import RunConfig, Scalar

    site = _site(config)
    settings: dict[str, Scalar] = {
        "rounds": rounds,
        "batch-size": batch_size,
        "local-epochs": local_epochs,
        "local-steps": local_steps,
        "validation-fraction": validation_fraction,
        "privacy.unit": "patient",
        "privacy.epsilon": epsilon,
        "privacy.delta": delta,
        "privacy.accountant": accountant,
        "privacy.project": project,
    }
    told = _cost(site, RunConfig.from_flat(settings))
    if json:
        _tell_json(told)
    else:
        typer.echo(
            f"epsilon {told['epsilon']:.4g} at the site's delta {site.privacy.delta:g}: noise {told['noise']:.4g} in"
            f" {told['steps']} steps at rate {told['rate']:.4g}"
        )
        typer.echo("it fits" if told["fits"] else f"it does not fit: {told['why']}")
    if not told["fits"]:
        raise typer.Exit(DOES_NOT_FIT)


def _site(config: Path) -> "SiteConfig":
    from client.site import load_site

    return load_site(config, for_training=True)


def _cost(site: "SiteConfig", config: "RunConfig") -> dict[str, Any]:
    from client.ledger import check_caps, spendings
    from shared_model.batch import open_independently
    from shared_model.budget import plan_of
    from shared_model.privacy import epsilon_of

    patients = open_independently(site.store, config.validation_fraction, seed=config.seed)[0].patients
    plan, why = plan_of(config, patients, public_counts=site.privacy.public_counts), ""
    try:
        check_caps(site.privacy, spendings(site.ledger_file), "planned", config.privacy_project, plan.mechanisms)
    except BudgetExceeded as error:
        why = str(error)
    training = plan.training
    held = {"noise": training.noise_multiplier, "steps": training.steps, "rate": training.sample_rate}
    return {"epsilon": epsilon_of(plan.mechanisms, site.privacy.delta), **held, "fits": not why, "why": why}


def _of_run(held: "Spending", delta: float) -> dict[str, Any]:
    """``left``: how far the spent epsilon is below the one set aside. Epsilons do not simply add up."""
    from shared_model.privacy import epsilon_of

    spent, whole = epsilon_of(held.spent, delta), epsilon_of(held.committed, delta)
    state = "closed" if held.closed else "open" if held.plan is not None else "not authorised"
    return {
        **{key: getattr(held, key) for key in ("run", "run_id", "project", "patients", "deaths")},
        "state": state,
        "epsilon": whole if held.plan is None else epsilon_of(held.plan.mechanisms, delta),
        "spent": spent,
        "left": whole - spent,
        "answers": len(held.charges),
    }


def _totals(site: "SiteConfig", runs: list["Spending"]) -> list[dict[str, Any]]:
    """Of all runs, and of each project that has a cap or a run."""
    from client.ledger import committed
    from shared_model.privacy import epsilon_of

    caps = site.privacy
    rows = [("all runs", runs, caps.total)]
    for project in sorted({held.project for held in runs} | set(caps.projects or ())):
        of_it = [held for held in runs if held.project == project]
        rows.append((f"project {project!r}", of_it, caps.limit(project)))
    return [
        {
            "of": what,
            "spent": epsilon_of([one for held in of_it for one in held.spent], caps.delta),
            "committed": epsilon_of(committed(of_it), caps.delta),
            "cap": limit,
        }
        for what, of_it, limit in rows
    ]


def _tell_json(told: object) -> None:
    import json

    typer.echo(json.dumps(told, sort_keys=True))


def _tell_table(titles: tuple[str, ...], rows: list[dict[str, Any]], keys: tuple[str, ...]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(*titles)
    for row in rows:
        table.add_row(*(escape(_cell(row[key])) for key in keys))
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # else a run's number is cut off in what is piped
    console.print(table)


def _cell(value: object) -> str:
    return "none" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)
