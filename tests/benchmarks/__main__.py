"""`make bench`: the figures of the README, measured on this machine in one go. Prints tables; asserts nothing."""

import tempfile
from pathlib import Path

from rich.console import Console

from tests.benchmarks import (
    blocks,
    deployment,
    main_job,
    mapping,
    preparation,
    privacy,
    secure,
    synthetic,
    text,
    training,
)

if __name__ == "__main__":
    console = Console()
    if not console.is_terminal:
        console.width = 110
    with tempfile.TemporaryDirectory(prefix="consilium-bench-") as folder:
        console.print(synthetic.measure(Path(folder)))
        console.print(main_job.measure(Path(folder)))
        console.print(preparation.measure(Path(folder)))
        console.print(mapping.measure(Path(folder) / "mapping"))
        console.print(text.measure(Path(folder) / "text"))
        console.print(training.measure(Path(folder)))
        console.print(blocks.measure(Path(folder) / "blocks"))
        console.print(secure.measure(Path(folder)))
        console.print(privacy.measure(Path(folder)))
        console.print(deployment.measure(Path(folder) / "deployment"))
