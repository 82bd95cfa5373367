"""A curious server's hundred runs: against a site as it is, and against one where the run chooses the patients."""

from pathlib import Path

from builders import EMBEDDING, patients, tiny_config, write_store

from simulations.differencing import VERSIONS, Opener, curious, of_the_run, of_the_site, questions
from simulations.differencing_audit import Found

PATIENTS = patients(200, notes=0, seed=2)


def _asked(folder: Path, opener: Opener) -> Found:
    def write(store: Path, data: object) -> None:
        write_store(store, data)  # type: ignore[arg-type]

    return curious(PATIENTS, write, folder, tiny_config(text_dimension=EMBEDDING), opener)


def test_a_hundred_runs_ask_in_every_way() -> None:
    asked = questions(100, seed=1)
    assert len(asked) == 100
    assert {question.version for question in asked} == set(range(len(VERSIONS)))
    assert len({question.fraction for question in asked}) == 20 and len({question.seed for question in asked}) == 11
    assert {question.trial.folds for question in asked} >= {0, 1, 3, 5}
    versions = [question.version for question in asked]
    assert versions == sorted(versions)


def test_a_hundred_runs_find_nothing_small_at_a_site(tmp_path: Path) -> None:
    found = _asked(tmp_path, of_the_site)
    assert found.answers > 250 and not found.anything
    assert (found.values, found.scores, found.inputs, found.singles) == (0, 0, 0, 0)


def test_the_same_runs_find_much_where_the_run_chooses_the_patients(tmp_path: Path) -> None:
    """As every release before blocks did: what the test above looks for is there to be found."""
    found = _asked(tmp_path, of_the_run)
    assert found.values > 10_000 and found.scores > 100 and found.inputs > 50 and found.singles > 5
