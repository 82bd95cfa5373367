"""Options that several commands of ``consilium-simulate`` share, and what their values mean."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shared_model.errors import ConfigError
from shared_model.overrides import setting_pairs

if TYPE_CHECKING:
    from client.site import SiteConfig
    from shared_model.config import Scalar
    from simulations.sources import Source

DEFAULT_PATIENTS = 16_000
DATA, TRAINING, RUN = "What to simulate", "How to train", "The run"

MimicOption = Annotated[
    Path | None,
    typer.Option(help="A MIMIC-IV folder (hosp/, icu/, optionally note/; csv.gz or Parquet).", rich_help_panel=DATA),
]
SyntheticOption = Annotated[
    int | None,
    typer.Option(
        help="Generate this many synthetic patients instead; 16000 unless --mimic is given.", rich_help_panel=DATA
    ),
]
SiteOption = Annotated[
    Path | None,
    typer.Option(
        help="Or a site's YAML: its extract, through its mapping; its cohort, study and encoder unless given here.",
        metavar="SITE.yaml",
        rich_help_panel=DATA,
    ),
]
EncoderOption = Annotated[
    str, typer.Option(help="Note encoder: minilm, none, a folder, or a Hugging Face id.", rich_help_panel=DATA)
]
HeldoutOption = Annotated[
    float, typer.Option(min=0.01, max=0.9, help="Share of patients held out for the server.", rich_help_panel=DATA)
]
SmallestCellOption = Annotated[
    int, typer.Option(min=1, help="A unit with fewer training patients takes no part.", rich_help_panel=DATA)
]
RoundsOption = Annotated[int | None, typer.Option(help="Federated rounds.", rich_help_panel=TRAINING)]
SeedOption = Annotated[int, typer.Option(min=0, help="Seed of everything random.", rich_help_panel=TRAINING)]
SettingsOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any other run-config key; repeatable.", rich_help_panel=TRAINING),
]
OutOption = Annotated[Path, typer.Option(help="Run folder.", rich_help_panel=RUN)]
ReplaceOption = Annotated[bool, typer.Option(help="Run again into an existing run folder.", rich_help_panel=RUN)]


def source_of(mimic: Path | None, synthetic: int | None, *, seed: int, site: "SiteConfig | None" = None) -> "Source":
    """The one source that was named; synthetic patients where none was. Raises ConfigError for two."""
    from simulations.sources import Mimic, Site, Synthetic

    named = {"--mimic": mimic, "--synthetic": synthetic, "--site": site}
    if len(given := [option for option, value in named.items() if value is not None]) > 1:
        raise ConfigError(f"{' and '.join(given)}: give one of them")
    if site is not None:
        return Site(site)
    return Mimic(mimic) if mimic is not None else Synthetic(DEFAULT_PATIENTS if synthetic is None else synthetic, seed)


def overrides_of(settings: list[str] | None, rounds: int | None) -> "dict[str, Scalar]":
    """``--set KEY=VALUE`` pairs with YAML scalars, and ``--rounds``. Raises ConfigError for a pair without '='."""
    pairs = setting_pairs(settings or [])
    return pairs if rounds is None else pairs | {"rounds": rounds}


def unless_given(
    context: typer.Context, site: "SiteConfig | None", chosen: dict[str, Any], study: "dict[str, Scalar]"
) -> "tuple[dict[str, Any], dict[str, Scalar]]":
    """Cohort and study of a site's YAML, but for what the command line says. A cohort and its flag go together."""
    if site is None:
        return chosen, study
    sources = {name: context.get_parameter_source(name) for name in (*chosen, *study)}
    given = {name for name, source in sources.items() if source is not None and source.name != "DEFAULT"}
    if given & {"cohort", "flag"}:
        given |= {"cohort", "flag"}
    of_site = {name.replace("_", "-"): value for name, value in site.study.model_dump().items()}
    return (
        {name: value if name in given else getattr(site, name) for name, value in chosen.items()},
        of_site | {name: value for name, value in study.items() if name in given},
    )
