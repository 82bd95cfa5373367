"""``consilium-server``: what the coordinating centre runs."""

import json
from pathlib import Path
from typing import Annotated

import typer

from server import launch_commands, run_commands
from shared_model.command import command_group, run
from shared_model.errors import RunFolderError

app = command_group("Launch a federation, run it, and look at what it produced.")
LAUNCH, RUN = "Launch a federation", "Run it"
for command in (
    launch_commands.init,
    launch_commands.start,
    launch_commands.invite,
    launch_commands.register,
    launch_commands.unregister,
    launch_commands.renew,
):
    app.command(rich_help_panel=LAUNCH)(command)
for command in (run_commands.run, launch_commands.status, run_commands.stop):
    app.command(rich_help_panel=RUN)(command)


@app.command()
def report(folder: Annotated[Path, typer.Argument(help="A run folder with results.json.", metavar="RUN")]) -> None:
    """Draw report.html again from results.json."""
    from pydantic import ValidationError

    from server.report import write_report
    from server.results import read_results

    path = folder / "results.json"
    try:
        results = read_results(path)
    except FileNotFoundError as error:
        raise RunFolderError(f"{folder}: no results.json, so it is not a run") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise RunFolderError(f"{path}: {where}: {first['msg'].lower()}") from error
    write_report(results, folder / "report.html")
    typer.echo(str(folder / "report.html"))


@app.command()
def evaluate(
    model: Annotated[Path, typer.Argument(help="A released model (RUN/model).", metavar="MODEL")],
    store: Annotated[Path, typer.Argument(help="A prepared store.", metavar="STORE")],
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples for the 95 % intervals.")] = 1000,
) -> None:
    """Apply a released model to a prepared store and print its metrics, by unit, sex and age too, as JSON; prints no
    patient's values."""
    from server.evaluation import evaluate_predictions
    from server.released import load_released
    from shared_model.batch import check_encoder, open_store
    from shared_model.inputs import Scaler
    from shared_model.manifest import check_contract, read_manifest, study_of
    from shared_model.predict import best_device, predict

    released, manifest = load_released(model), read_manifest(store)
    check_contract(store, released.plan.contract)
    data, device = open_store(store, verify=True), best_device()
    check_encoder(data, manifest["encoder"]["digest"], released.encoder)
    scores_N = predict(released.model.to(device), data, Scaler(released.plan), device)
    static, threshold = study_of(manifest).static, released.threshold
    found = evaluate_predictions(scores_N, data, threshold=threshold, resamples=bootstrap, seed=0, static=static)
    typer.echo(found.model_dump_json(indent=1, exclude={"roc", "precision_recall", "calibration"}))


@app.command()
def schema() -> None:
    """Print the JSON Schema of results.json."""
    from server.results import RunResults

    typer.echo(json.dumps(RunResults.model_json_schema(), indent=1))


def main() -> None:
    """Console script."""
    run(app)
