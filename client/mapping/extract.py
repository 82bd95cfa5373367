"""An extract that a site's YAML maps: what decides its tables, and how a preparation gets them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from client.extract import MimicFolder, lay_views, share_table, tables_read
from client.folders import Inputs, share_file
from client.mapping.config import Mapping
from client.mapping.run import map_extract
from client.mapping.staging import describe_relations
from client.recipe import code_digest
from shared_model.errors import ConfigError
from shared_model.features import digest_of
from shared_model.manifest import read_manifest

if TYPE_CHECKING:
    from client.prepare import Extract
    from client.site import SiteConfig

_KEPT = "mapping-*.parquet"


def extract_of(
    site: "SiteConfig", *, memory_limit: str = "4GB", on_stage: Callable[[str], None] = lambda stage: None
) -> "Extract":
    """The extract that a site's YAML describes. Raises ConfigError where it names none."""
    if site.source is not None:
        return MimicFolder(site.source.path, site.flag)
    if site.mapping is None:
        raise ConfigError("source: absent, and so is `sources`: say where the extract lies")
    return MappedExtract(site.mapping, site.site, site.flag, memory_limit, on_stage)


@dataclass(frozen=True)
class MappedExtract:
    """Files or a database, mapped by ``mapping``. ``label`` is how reports name it."""

    mapping: Mapping
    label: str
    flag: str = ""
    memory_limit: str = "4GB"
    on_stage: Callable[[str], None] = field(default=lambda stage: None, compare=False)

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file that is read."""
        relations = describe_relations(self.mapping).values()
        return tuple(Path(file["file"]) for relation in relations for file in relation.get("files", ()))

    @property
    def places(self) -> tuple[Path, ...]:
        """Folders that a store may not replace."""
        return tuple(source.path for source in self.mapping.sources.values() if source.path is not None)

    def describe(self) -> Inputs:
        """Every table depends on all that is read, on the YAML and on this version's code. A database cannot be told
        to be unchanged, so it is read at every preparation."""
        relations = describe_relations(self.mapping)
        entry = {
            "mapping": digest_of(self.mapping.model_dump(mode="json")),
            "code": code_digest(),
            "relations": relations,
            "fresh": not any("database" in relation for relation in relations.values()),
        }
        return {table.name: entry for table in tables_read(self.flag)}

    def lay(
        self, connection: duckdb.DuckDBPyConnection, folder: Path, inputs: Inputs, held: Path, unchanged: frozenset[str]
    ) -> dict[str, Any]:
        """Map, or take the tables of the store ``held``; lay views over them; returns what the manifest tells of it."""
        tables = tables_read(self.flag)
        if unchanged == inputs.keys() and next(iter(inputs.values()))["fresh"]:
            account = self._take_over(held, folder)
        else:
            account = map_extract(
                self.mapping, folder, flag=self.flag, memory_limit=self.memory_limit, on_stage=self.on_stage
            ).as_dict()
        return {"rows": lay_views(connection, folder, tables), "mapping": account}

    def _take_over(self, held: Path, folder: Path) -> dict[str, Any]:
        for name in ("tables", "rejects"):
            (folder / name).mkdir(exist_ok=True)
        for table in tables_read(self.flag):
            share_table(held, folder, table.name)
        for file in (*held.glob(f"rejects/{_KEPT}"), *held.glob("rejects/unreadable-*.parquet")):
            share_file(file, folder / "rejects" / file.name)
        account: dict[str, Any] = read_manifest(held)["mapping"]
        return account
