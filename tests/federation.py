"""A federation in memory for tests: every node is the real ClientApp with a small store of its own on disk, and every
message passes Flower's real serialisation."""

from pathlib import Path

from builders import Answer, MemoryGrid, over_the_wire, patients, tiny_config, write_site, write_store
from flwr.app import Context, Message, RecordDict

from client.app import app
from shared_model.config import RunConfig
from shared_model.packing import unpacked

WINDOWS = 3
STUDY = {"prediction_hours": float(WINDOWS)}


def small_config(**settings: object) -> RunConfig:
    """Three hourly windows, and a model small enough for a unit test."""
    return tiny_config(**(STUDY | {"rounds": 2, "min_sites": 1} | settings))


def small_federation(
    folder: Path, config: RunConfig, *, sizes: tuple[int, ...] = (90, 120), cell: int = 3, **data: float
) -> MemoryGrid:
    """One site a size, with random patients whose label can be learned; a store that is there already is kept."""
    return MemoryGrid({n: _node(folder / f"site{n}", n, s, config, cell, data) for n, s in enumerate(sizes, start=1)})


def _node(place: Path, number: int, size: int, config: RunConfig, cell: int, data: dict[str, float]) -> Answer:
    if not (place / "store").exists():
        write_store(place / "store", patients(size, seed=number, windows=WINDOWS, **data), study=config.study)
    return answers_of(write_site(place, site=f"Site {number}", release={"smallest_cell": cell}), number, config)


def answers_of(site: Path, number: int, config: RunConfig) -> Answer:
    """The real ClientApp of a site's YAML, as a node of a MemoryGrid."""
    context = Context(1, number, {"site-config": str(site)}, RecordDict(), config.to_flat())

    def answer(message: Message) -> Message:
        content = over_the_wire(message.content)
        sent = Message(content, dst_node_id=number, message_type=message.metadata.message_type)
        return Message(unpacked(over_the_wire(app(sent, context).content)), reply_to=message)

    return answer
