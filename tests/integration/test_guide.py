"""Every block of docs/mapping.md does what the page says."""

import csv
import io
import re
from pathlib import Path

import duckdb
import pytest

from client.mapping.run import map_extract
from client.mapping.targets import TARGETS
from client.site import load_site

GUIDE = Path(__file__).resolve().parents[2] / "docs" / "mapping.md"
_BLOCK = re.compile(r"^```(csv|yaml)(?: ([^\n]+))?\n(.*?)^```$", re.MULTILINE | re.DOTALL)
Blocks = list[tuple[str, str, str]]


def sections() -> dict[str, Blocks]:
    """Heading to the blocks below it: kind, name, text."""
    _, *parts = re.split(r"^## (.+)$", GUIDE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    found = {title: _BLOCK.findall(text) for title, text in zip(parts[::2], parts[1::2], strict=True)}
    return {title: blocks for title, blocks in found.items() if any(name == "becomes" for _, name, _ in blocks)}


SECTIONS = sections()
WHOLE = SECTIONS["A whole site"]


def events(folder: Path) -> list[tuple[str, str, str]]:
    """Concept, time and value of every mapped event, as the page writes them."""
    concept = {i: name for name, target in TARGETS.items() for i in (*target.items, *target.bedside_items)}
    rows = []
    for table, time, value in (
        ("chartevents", "charttime", "coalesce(CAST(valuenum AS VARCHAR), value)"),
        ("labevents", "charttime", "CAST(valuenum AS VARCHAR)"),
        ("inputevents", "starttime", "CAST(rate AS VARCHAR)"),
        ("outputevents", "charttime", "CAST(value AS VARCHAR)"),
    ):
        query = f"SELECT itemid, strftime({time}, '%Y-%m-%d %H:%M'), {value} FROM '{folder}/tables/{table}.parquet'"
        rows += [(concept[i], at, held) for i, at, held in duckdb.sql(query).fetchall()]
    return sorted((name, at, f"{float(held):.4g}" if held[0].isdigit() else held) for name, at, held in rows)


@pytest.mark.parametrize("title", SECTIONS)
def test_a_recipe_of_the_guide(title: str, tmp_path: Path) -> None:
    for kind, name, text in WHOLE + SECTIONS[title]:
        if kind == "csv" and name != "becomes":
            file = tmp_path / "extract" / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, encoding="utf-8")
    [site] = [text for kind, _, text in WHOLE if kind == "yaml"]
    [recipe] = [text for kind, _, text in SECTIONS[title] if kind == "yaml"]
    (tmp_path / "my-site.yaml").write_text(site, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(
        site if recipe == site else f"extends: my-site.yaml\n{recipe}", encoding="utf-8"
    )
    building = tmp_path / "building"
    building.mkdir()
    account = map_extract(load_site(tmp_path / "recipe.yaml").mapping, building)
    [becomes] = [text for _, name, text in SECTIONS[title] if name == "becomes"]
    _, *expected = csv.reader(io.StringIO(becomes))
    assert events(building) == [tuple(row) for row in expected]
    assert not any(line.rejected for line in account.lines)
