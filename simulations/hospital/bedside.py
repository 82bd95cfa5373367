"""What nurses chart: ``chartevents`` and ``outputevents`` of the synthetic hospitals.

Practice differs by unit and severity (who has an arterial line, how often temperature and consciousness are charted,
degrees Celsius or Fahrenheit), entries are missing now and then, and about one number in two thousand is a slip of the
decimal point: a pipeline has to cope with each of these in MIMIC-IV, too.
Shapes: ``SK`` stays x grid points, ``R`` rows of the table.
"""

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from simulations.hospital.course import Stays, Times
from simulations.hospital.items import CHART_UNITS
from simulations.hospital.latents import UNITS, Bools, Floats, Ints, by_unit
from simulations.hospital.mimic_csv import Column, labels
from simulations.hospital.support import HOURLY_UNTIL, STEP_AFTER, Support, four_hourly

MISSING, SLIP = 0.04, 0.0005
NUMBERS_PER_FRACTION = 60  # about one charted FiO2 in 60 is a fraction instead of a percentage
MEAN_STORE_MINUTES = 12.0

# Texts as MIMIC-IV spells them, trailing blanks included, with their valuenum.
EYES = (("None", 1), ("To Pain", 2), ("To Speech", 3), ("Spontaneously", 4))
VERBAL = (
    ("No Response", 1),
    ("Incomprehensible sounds", 2),
    ("Inappropriate Words", 3),
    ("Confused", 4),
    ("Oriented", 5),
    ("No Response-ETT", 1),
)
MOTOR = (
    ("No response", 1),
    ("Abnormal extension", 2),
    ("Abnormal Flexion", 3),
    ("Flex-withdraws", 4),
    ("Localizes Pain", 5),
    ("Obeys Commands", 6),
)
DEVICES = (
    ("None", None),
    ("Nasal cannula", None),
    ("Face tent", None),
    ("Aerosol-cool", None),
    ("High flow nasal cannula", None),
    ("Bipap mask ", None),
    ("Non-rebreather", None),
    ("Endotracheal tube", None),
    ("Tracheostomy tube", None),
)
MODES = (("CMV/ASSIST/AutoFlow", 49), ("CPAP/PSV", 11), ("CMV/ASSIST", 2), ("PSV/SBT", None))
_TEXTS: tuple[tuple[str, int | None], ...] = (*EYES, *VERBAL, *MOTOR, *DEVICES, *MODES)
_FIRST_TEXT = dict(
    zip(
        (220739, 223900, 223901, 226732, 223849),
        np.cumsum([0, len(EYES), len(VERBAL), len(MOTOR), len(DEVICES)]).tolist(),
        strict=True,
    )
)

# From which level of unawareness on a score falls below its best, step by step.
EYE_STEPS, VERBAL_STEPS, MOTOR_STEPS = (0.4, 1.2, 2.0), (-0.1, 0.8, 1.5, 2.1), (0.9, 1.5, 2.0, 2.4, 2.8)
SEDATION = 0.7
OXYGEN_STEPS = (-0.5, 0.6, 0.9, 1.2, 1.6, 1.9)


@dataclass
class _Rows:
    """Rows in the making: for each item the grid points at which it is charted, and number or text."""

    stay: list[Ints] = field(default_factory=list)
    point: list[Ints] = field(default_factory=list)
    itemid: list[Ints] = field(default_factory=list)
    number: list[Floats] = field(default_factory=list)
    text: list[Ints] = field(default_factory=list)

    def add(self, itemid: int, where_sk: Bools, number_sk: Floats, text: Ints | None = None) -> None:
        stay, point = np.nonzero(where_sk)
        self.stay.append(stay)
        self.point.append(point)
        self.itemid.append(np.full(stay.size, itemid))
        self.number.append(number_sk[stay, point])
        self.text.append(np.full(stay.size, -1) if text is None else text[stay, point])

    def add_text(self, itemid: int, where_sk: Bools, code_sk: Ints) -> None:
        code = code_sk + _FIRST_TEXT[itemid]
        numbers = np.array([np.nan if number is None else number for _, number in _TEXTS])
        self.add(itemid, where_sk, numbers[code], code)


def _best_minus(level_sk: Floats, steps: tuple[float, ...]) -> Ints:
    """Return the index of a score: the best one, less the steps that the level of unawareness has passed."""
    return len(steps) - np.searchsorted(np.array(steps), level_sk)


def _add_pressures(rows: _Rows, rng: np.random.Generator, support: Support, round_k: Bools) -> None:
    """Chart blood pressure: arterial hourly where there is a line, else non-invasive hourly."""
    mean, pulse = support.values["mean_pressure"], support.values["pulse_pressure"]
    line = support.arterial_line[:, None]
    for systolic, diastolic, average, seen in (
        (220050, 220051, 220052, support.charted_sk & line),
        (220179, 220180, 220181, support.charted_sk & (~line | round_k)),
    ):
        seen = seen & (rng.random(seen.shape) > MISSING)
        read = np.round(mean + rng.normal(0.0, 2.0, mean.shape))
        rows.add(systolic, seen, np.round(read + 2.0 * pulse / 3.0))
        rows.add(diastolic, seen, np.maximum(np.round(read - pulse / 3.0), 10.0))
        rows.add(average, seen, read)


def _add_vitals(rows: _Rows, rng: np.random.Generator, stays: Stays, support: Support, round_k: Bools) -> None:
    """Chart heart rate, respiratory rate and saturation hourly, temperature and glucose by the round."""
    shape = support.hour_sk.shape
    for name, itemid in (("heart_rate", 220045), ("respiratory_rate", 220210), ("saturation", 220277)):
        rows.add(itemid, support.charted_sk & (rng.random(shape) > MISSING), support.values[name])
    celsius = (rng.random(shape[0]) < by_unit("celsius")[stays.latents.unit])[:, None]
    seen = support.charted_sk & (round_k | (rng.random(shape) < 0.15)) & (rng.random(shape) > MISSING)
    fahrenheit = support.values["temperature"]
    rows.add(223761, seen & ~celsius, fahrenheit)
    rows.add(223762, seen & celsius, np.round((fahrenheit - 32.0) / 1.8, 1))
    rows.add(220621, support.charted_sk & (rng.random(shape) < 0.07), support.values["glucose"])


def _add_consciousness(rows: _Rows, rng: np.random.Generator, stays: Stays, support: Support, round_k: Bools) -> None:
    """Chart the three parts of the Glasgow Coma Scale, every two hours in neurological units."""
    neuro = np.array(["Neuro" in unit.name for unit in UNITS])[stays.latents.unit][:, None]
    often = neuro & (np.arange(round_k.size) % 2 == 0)
    seen = support.charted_sk & (round_k | often) & (rng.random(support.hour_sk.shape) > MISSING)
    tube = support.ventilated_sk
    level = support.values["awareness"] + SEDATION * tube
    rows.add_text(220739, seen, _best_minus(level, EYE_STEPS))
    rows.add_text(223900, seen, np.where(tube, len(VERBAL) - 1, _best_minus(level, VERBAL_STEPS)))
    rows.add_text(223901, seen, _best_minus(level, MOTOR_STEPS))


def _add_breathing(rows: _Rows, rng: np.random.Generator, support: Support, round_k: Bools) -> None:
    """Chart the oxygen device, the ventilator mode and the inspired fraction of oxygen by the round."""
    shape, tube = support.hour_sk.shape, support.ventilated_sk
    seen = support.charted_sk & round_k & (rng.random(shape) > MISSING)
    need = support.values["oxygen_need"]
    device = np.searchsorted(np.array(OXYGEN_STEPS), need)
    device = np.where(tube, np.where(support.hour_sk > 168.0, 8, 7), device)
    rows.add_text(226732, seen, device)
    weaning = (support.ventilated_to_h[:, None] - support.hour_sk < 8.0) | (need < 0.2)
    assisted = np.where(rng.random(shape) < 0.05, 2, 0)
    rows.add_text(223849, seen & tube, np.where(weaning, np.where(rng.random(shape) < 0.05, 3, 1), assisted))
    fraction = support.values["fio2"] / np.where(rng.random(shape) * NUMBERS_PER_FRACTION < 1.0, 100.0, 1.0)
    rows.add(223835, seen & (tube | (device == 4)), fraction)


def _add_sizes(rows: _Rows, rng: np.random.Generator, support: Support) -> None:
    """Chart weight and height at admission and the weight about daily."""
    shape, n = support.hour_sk.shape, support.weight_kg.size
    first = np.zeros(shape, dtype=bool)
    first[:, 0] = support.charted_sk[:, 0]
    weight = np.broadcast_to(support.weight_kg[:, None], shape)
    rows.add(226512, first & (rng.random((n, 1)) < 0.93), weight)
    rows.add(226730, first & (rng.random((n, 1)) < 0.55), np.broadcast_to(support.height_cm[:, None], shape))
    daily = (support.hour_sk // 1 % 24 == 8) & (rng.random(shape) < 0.7)
    gained = np.round(weight + 0.5 * np.sqrt(support.hour_sk) * rng.normal(0.6, 0.5, (n, 1)), 1)
    rows.add(224639, support.charted_sk & daily, gained)


def _stored(rng: np.random.Generator, charttime: Times) -> Times:
    """Return times a few minutes later, when the entry was saved."""
    minutes = rng.exponential(MEAN_STORE_MINUTES, charttime.size).astype("timedelta64[m]")
    return np.asarray(charttime + minutes)


def chartevents(rng: np.random.Generator, stays: Stays, support: Support) -> dict[str, Column]:
    """Return the table's columns, sorted by stay, time and item."""
    rows, round_k = _Rows(), four_hourly(support.hour_sk.shape[1]).astype(bool)
    _add_vitals(rows, rng, stays, support, round_k)
    _add_pressures(rows, rng, support, round_k)
    _add_consciousness(rows, rng, stays, support, round_k)
    _add_breathing(rows, rng, support, round_k)
    _add_sizes(rows, rng, support)
    stay, point, itemid = (np.concatenate(part) for part in (rows.stay, rows.point, rows.itemid))
    order = np.lexsort((itemid, point, stay))
    stay, point, itemid = stay[order], point[order], itemid[order]
    number, text = np.concatenate(rows.number)[order], np.concatenate(rows.text)[order]
    slipped = (text < 0) & (rng.random(number.size) < SLIP) & (itemid != 226512)
    return _chart_columns(
        rng,
        stays,
        support,
        stay=stay,
        point=point,
        itemid=itemid,
        number=np.where(slipped, number * 10, number),
        text=text,
    )


def _chart_columns(
    rng: np.random.Generator,
    stays: Stays,
    support: Support,
    *,
    stay: Ints,
    point: Ints,
    itemid: Ints,
    number: Floats,
    text: Ints,
) -> dict[str, Column]:
    charttime = support.time_sk[stay, point]
    items = np.array(sorted(CHART_UNITS))
    written = pa.array(number, from_pandas=True).cast(pa.string())
    spoken = labels([words for words, _ in _TEXTS], text)
    return {
        "subject_id": stays.subject_id[stay],
        "hadm_id": stays.hadm_id[stay],
        "stay_id": stays.stay_id[stay],
        "charttime": charttime,
        "storetime": _stored(rng, charttime),
        "itemid": itemid,
        "value": pc.if_else(pa.array(text >= 0), spoken, written),
        "valuenum": number,
        "valueuom": labels([CHART_UNITS[item] for item in items.tolist()], np.searchsorted(items, itemid)),
        "warning": np.zeros(stay.size, dtype=np.int64),
    }


def outputevents(rng: np.random.Generator, stays: Stays, support: Support) -> dict[str, Column]:
    """Return urine: hourly by catheter, else what was voided in four hours; a few bladders are irrigated."""
    shape, round_k = support.hour_sk.shape, four_hourly(support.hour_sk.shape[1]).astype(bool)
    interval = np.where(np.arange(shape[1]) < HOURLY_UNTIL, 1.0, float(STEP_AFTER))
    made = support.values["urine_rate"] * interval
    seen = support.charted_sk & (rng.random(shape) > MISSING)
    irrigated = seen & round_k & (rng.random((shape[0], 1)) < 0.008)
    irrigant = np.where(irrigated, 1000.0, 0.0)
    catheter = seen & support.catheter[:, None]
    voided = seen & ~support.catheter[:, None] & round_k & (rng.random(shape) < 0.75)
    rows = _Rows()
    rows.add(226559, catheter, np.round(made + irrigant))
    rows.add(226560, voided, np.round(made / interval * 4.0))
    rows.add(227488, catheter & irrigated, irrigant)
    stay, point, itemid = (np.concatenate(part) for part in (rows.stay, rows.point, rows.itemid))
    order = np.lexsort((itemid, point, stay))
    stay, point = stay[order], point[order]
    charttime = support.time_sk[stay, point]
    return {
        "subject_id": stays.subject_id[stay],
        "hadm_id": stays.hadm_id[stay],
        "stay_id": stays.stay_id[stay],
        "charttime": charttime,
        "storetime": _stored(rng, charttime),
        "itemid": itemid[order],
        "value": np.concatenate(rows.number)[order],
        "valueuom": labels(["ml"], np.zeros(stay.size, dtype=np.int64)),
    }
