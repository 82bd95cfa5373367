"""A store of another encoder's width is told with both numbers and the key to set, before a model meets it."""

import json
from pathlib import Path

import pytest
from builders import EMBEDDING, MemoryGrid, model_sizes, patients, tiny_config, tiny_plan, write_site, write_store
from flwr.app import Context, Message, RecordDict
from typer.testing import CliRunner

from client.app import app
from server.app import federate
from server.cli import app as server_cli
from server.progress import Progress
from server.released import save_model
from shared_model.batch import check_text_width
from shared_model.errors import ContractError
from shared_model.manifest import MANIFEST, read_manifest
from shared_model.messages import DESCRIBE, EVALUATE, STATISTICS, TRAIN, RoundOrder, SiteCard, weights_content
from shared_model.model import build_model
from shared_model.refusal import refusal_of

WIDTH = 768
TOLD = f"text-dimension: the model reads note embeddings of {WIDTH} numbers, the prepared store's have {EMBEDDING};"
ACCOUNT = {
    "source": "made",
    "cohort": "all_icu",
    "rules_version": "test",
    "flow": [],
    "row_checks": [],
    "event_checks": [],
}


def test_a_model_of_the_stores_width_and_any_model_of_a_store_without_notes_fit() -> None:
    check_text_width(patients(), EMBEDDING)
    check_text_width(patients(notes=0), WIDTH)


@pytest.mark.parametrize("kind", [DESCRIBE, STATISTICS, TRAIN, EVALUATE])
def test_a_site_refuses_a_run_of_another_width(kind: str, tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(60))
    reply = _ask(kind, tmp_path)
    refusal = refusal_of(reply)
    assert refusal is not None
    assert refusal.kind == "ContractError"
    assert refusal.reason.startswith(TOLD)
    assert f"set text-dimension = {EMBEDDING} in the run-config" in refusal.reason


def test_a_site_without_notes_takes_part_in_any_run(tmp_path: Path) -> None:
    write_store(tmp_path / "store", patients(60, notes=0))
    assert SiteCard.read(_ask(DESCRIBE, tmp_path).content).patients > 0
    assert refusal_of(_ask(TRAIN, tmp_path)) is None


def _ask(kind: str, folder: Path) -> Message:
    config = tiny_config(text_dimension=WIDTH)
    node = {"site-config": str(write_site(folder))}
    context = Context(run_id=1, node_id=7, node_config=node, state=RecordDict(), run_config=config.to_flat())
    weights = dict(build_model(model_sizes(config), seed=0).state_dict())
    content = weights_content(weights, RoundOrder(round=1, learning_rate=1e-3, plan=tiny_plan()))
    return app(Message(content, dst_node_id=7, message_type=kind), context)


def test_a_federation_with_a_heldout_set_of_another_width_does_not_start(tmp_path: Path) -> None:
    store = write_store(tmp_path / "heldout", patients(60))
    (store / MANIFEST).write_text(json.dumps(read_manifest(store) | ACCOUNT))
    config = tiny_config(text_dimension=WIDTH, heldout=str(store), output=str(tmp_path / "out"))
    with pytest.raises(ContractError, match=TOLD):
        federate(MemoryGrid({}), config, Progress(tmp_path / "out"))


@pytest.mark.parametrize(
    ("notes", "encoder", "refused"), [({}, "e", False), ({}, "f", True), ({"notes": 0}, "f", False)]
)
def test_a_released_model_reads_notes_of_its_own_encoder_alone(
    tmp_path: Path, notes: dict[str, int], encoder: str, refused: bool
) -> None:
    """The same width is not enough; a store without notes fits every model."""
    sizes = model_sizes(tiny_config())
    weights = dict(build_model(sizes, seed=0).state_dict())
    save_model(tmp_path / "model", weights, tiny_plan(), sizes, threshold=0.5, encoder=encoder * 64)
    store = write_store(tmp_path / "store", patients(60, **notes))
    found = CliRunner().invoke(server_cli, ["evaluate", str(tmp_path / "model"), str(store), "--bootstrap", "0"])
    if refused:
        assert isinstance(found.exception, ContractError)
        assert "embedded by encoder eeeeeeeeeeee, the model was trained with ffffffffffff" in str(found.exception)
    else:
        assert found.exit_code == 0, found.exception
