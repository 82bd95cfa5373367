"""Where tests find the open data sets; a test that needs one skips where it is absent."""

import os
from pathlib import Path

import pytest

DATA = Path(os.environ.get("CONSILIUM_DATA", Path(__file__).parents[2] / "shared" / "data"))
MIMIC_DEMO, EICU_DEMO, PHYSIONET_2012 = "mimic-iv-demo-2.2", "eicu-demo-2.0.1", "physionet-2012"


def open_data(name: str) -> Path:
    """The folder of a data set. Skips the test where it is absent."""
    folder = DATA / name
    if not folder.is_dir():
        pytest.skip(f"no {name} at {DATA}; set CONSILIUM_DATA")
    return folder
