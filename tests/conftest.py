"""What every test starts from: one thread, reproducible examples, and a Flower identity for messages."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from builders import tiny_plan
from flwr.supercore.task_identity import TaskIdentity
from hypothesis import settings
from pieces import pytest_addoption, pytest_collection_modifyitems

from shared_model.plan import PreprocessingPlan

__all__ = ["pytest_addoption", "pytest_collection_modifyitems"]  # hooks of pytest's: `--piece k/n`

settings.register_profile("consilium", deadline=None, max_examples=40, derandomize=True, database=None)
settings.load_profile("consilium")


@pytest.fixture(autouse=True, scope="session")
def _flower_identity() -> Iterator[None]:
    """Flower asks the process which task it is before it makes a message."""
    TaskIdentity.task_id, TaskIdentity.run_id, TaskIdentity.node_id = 1, 1, 1
    torch.set_num_threads(1)
    yield


@pytest.fixture
def plan() -> PreprocessingPlan:
    """A small preprocessing plan of this version's features."""
    return tiny_plan()


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return Path(__file__).resolve().parents[1]
