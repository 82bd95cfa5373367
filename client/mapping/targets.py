"""What a local code can be mapped to: every measured concept, and where its MIMIC-IV-style row goes.

Why apart from ``shared_model.concepts``: the concepts are the contract of a federation; how a site finds them in its
own extract (LOINC, the names that people write) is help for the mapping and may grow without a new contract.
"""

from dataclasses import dataclass
from typing import Literal

from client import sepsis_rules
from client.mapping.vocabulary import LOINC
from shared_model import concepts

Table = Literal["chartevents", "labevents", "inputevents", "outputevents"]


@dataclass(frozen=True, kw_only=True)
class Target:
    """A concept as a destination. ``items``: MIMIC item ids of ``table`` that take values in ``unit`` as they are.

    ``word``: the value is a word (a device, a ventilator mode), not a number. ``bedside_items``: the items of
    chartevents for a laboratory concept that is also charted.
    """

    name: str
    table: Table
    items: tuple[int, ...]
    unit: str = ""
    word: bool = False
    bedside_items: tuple[int, ...] = ()

    @property
    def loinc(self) -> tuple[str, ...]:
        """LOINC codes that mean it."""
        return LOINC.get(self.name, ())


def _measured(concept: concepts.Concept) -> Target:
    table: Table = "labevents" if concept.lab else "chartevents"
    chart = tuple(i for i in concept.chart if i not in concept.conversions)
    lab = tuple(i for i in concept.lab if i not in concept.conversions)
    return Target(
        name=concept.name, table=table, items=lab or chart, unit=concept.unit, bedside_items=chart if lab else ()
    )


def _infusion(name: str, unit: str) -> Target:
    itemid = {"phenylephrine": 221749, "vasopressin": 222315}.get(name) or sepsis_rules.INPUT_ITEMS[name][0]
    return Target(name=name, table="inputevents", items=(itemid,), unit=unit)


def _charted(name: str, *, unit: str = "", word: bool = False) -> Target:
    return Target(name=name, table="chartevents", items=sepsis_rules.CHART_ITEMS[name], unit=unit, word=word)


_PER_WEIGHT = "mcg/kg/min"
_OTHERS: tuple[Target, ...] = (
    *(
        _infusion(name, _PER_WEIGHT)
        for name in ("norepinephrine", "epinephrine", "phenylephrine", "dopamine", "dobutamine")
    ),
    _infusion("vasopressin", "units/hour"),
    Target(name="urine", table="outputevents", items=sepsis_rules.OUTPUT_ITEMS["urine"], unit="mL"),
    Target(name="irrigant_in", table="outputevents", items=sepsis_rules.OUTPUT_ITEMS["irrigant_in"], unit="mL"),
    _charted("gcs_total", unit="points"),
    _charted("oxygen_device", word=True),
    _charted("oxygen_flow", unit="L/min"),
    _charted("ventilator_mode", word=True),
    _charted("hamilton_mode", word=True),
    Target(name="fio2_sample", table="labevents", items=sepsis_rules.LAB_ITEMS["fio2"], unit="%"),
    Target(name="specimen_type", table="labevents", items=sepsis_rules.LAB_ITEMS["specimen_type"], word=True),
)

TARGETS: dict[str, Target] = {t.name: t for t in (*map(_measured, concepts.CONCEPTS), *_OTHERS)}
