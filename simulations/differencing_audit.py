"""What follows from the answers to a curious server, counted by an auditor who knows who is behind each answer.

``values``   sums of a feature over fewer patients than a cell, by subtracting two statistics, and right to the bit
``scores``   counts of fewer deaths, or survivals, than a cell, by subtracting two validations
``inputs``   single patients' inputs, read off the gradient of one step
``singles``  patients whose values follow from all statistics together, by linear algebra
"""

from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray

from client.blocks import Bools, Integers
from shared_model.batch import PatientData
from shared_model.config import RunConfig
from shared_model.distribution import ValueGrid, static_grids
from shared_model.errors import ContractError
from shared_model.fitting import plan_from
from shared_model.inputs import Inputs, Scaler
from shared_model.mergeable import Validation
from shared_model.messages import Statistics, Weights
from shared_model.plan import PreprocessingPlan

FIRST, BIAS = "static.layers.0.weight", "static.layers.0.bias"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What could be worked out of groups smaller than a cell, from so many runs' answers."""

    runs: int
    answers: int
    refused: int
    values: int
    scores: int
    inputs: int
    singles: int

    @property
    def anything(self) -> bool:
        """Whether there is any such thing."""
        return bool(self.values or self.scores or self.inputs or self.singles)


@dataclass(kw_only=True)
class Told:
    """What the site has answered. ``people`` [U] numbers patients as they were told of: with other values, another."""

    config: RunConfig
    cell: int
    people: dict[bytes, int] = field(default_factory=dict)
    level_UF: list[Integers] = field(default_factory=list)  # of each feature; -1 where not measured
    died_U: list[bool] = field(default_factory=list)
    statistics: list[tuple[list[int], Statistics]] = field(default_factory=list)
    validations: list[tuple[list[int], Validation]] = field(default_factory=list)
    answers: int = 0
    inputs: int = 0
    refused: int = 0
    plan: PreprocessingPlan | None = None

    def places(self, data: PatientData) -> list[int]:
        """Of the patients behind an answer."""
        grids, found = static_grids(), []
        for patient, static_F, died in zip(
            data.patient_N.tolist(), data.static_NF.double().numpy(), data.label_N.tolist(), strict=True
        ):
            key = f"{patient} {died} ".encode() + static_F.tobytes()
            if key not in self.people:
                self.people[key] = len(self.people)
                self.died_U.append(died)
                self.level_UF.append(_levels(static_F, [grids[name] for name in self.config.static]))
            found.append(self.people[key])
        return found

    def plan_of(self, config: RunConfig) -> PreprocessingPlan:
        """The plan that the server makes of the first statistics. Raises ContractError where there were none."""
        if self.plan is None and not self.statistics:
            raise ContractError("plan: no statistics were told")
        self.plan = self.plan or plan_from([self.statistics[0][1]], config)
        return self.plan

    def look_at_gradient(self, gradient: Weights, data: PatientData) -> None:
        """The first layer's gradient of one stay is delta x', its bias' is delta: their ratio is the stay's input."""
        self.answers += 1
        weight_HX, bias_H1 = gradient[FIRST].double(), gradient[BIAS].double()[:, None]
        telling = (bias_H1.abs() > 1e-3 * bias_H1.abs().max()).squeeze(1)
        input_HX = (weight_HX / bias_H1)[telling]
        inputs = Inputs.of(data.static_NF, data.series_NTC, Scaler(self.plan_of(self.config)))
        known_NX = torch.cat([inputs.static_NF, inputs.static_mask_NF.float()], dim=1).double()
        away_N = (known_NX - input_HX.median(dim=0).values).abs().max(dim=1).values
        self.inputs += int(away_N.min() < 1e-2)

    def found(self, runs: int) -> Found:
        """The count of everything."""
        return Found(
            runs=runs,
            answers=self.answers + len(self.statistics) + len(self.validations),
            refused=self.refused,
            values=self._values(),
            scores=self._scores(),
            inputs=self.inputs,
            singles=self._singles(),
        )

    def _members(self, answers: list[list[int]]) -> NDArray[np.int32]:
        member_AU = np.zeros((len(answers), len(self.people)), dtype=np.int32)
        for row_U, places in zip(member_AU, answers, strict=True):
            row_U[places] = 1
        return member_AU

    def _values(self) -> int:
        """Pairs of statistics and features."""
        member_AU = self._members([places for places, _ in self.statistics])
        level_UF = np.array(self.level_UF)
        measured_UF = (level_UF >= 0).astype(np.int32)
        level_UF = np.where(level_UF >= 0, level_UF, 0)
        told_AF = np.array([[held.whole.sums[1] for held in one.static] for _, one in self.statistics])
        known_AF = np.array([[held.whole.patients > 0 for held in one.static] for _, one in self.statistics])
        hits = 0
        for a in range(len(member_AU) - 1):
            differ_BU = member_AU[a] - member_AU[a + 1 :]
            group_BF = np.abs(differ_BU) @ measured_UF
            right_BF = told_AF[a] - told_AF[a + 1 :] == differ_BU @ level_UF
            hits += int((self._few(group_BF) & right_BF & known_AF[a] & known_AF[a + 1 :]).sum())
        return hits

    def _scores(self) -> int:
        """Pairs of validations and outcomes."""
        member_AU = self._members([places for places, _ in self.validations])
        died_U, hits = np.array(self.died_U), 0
        for died in (False, True):
            told_A = np.array([sum(one.positives if died else one.negatives) for _, one in self.validations])
            of_AU = member_AU[:, died_U == died]
            for a in range(len(of_AU) - 1):
                differ_BU = of_AU[a] - of_AU[a + 1 :]
                right_B = told_A[a] - told_A[a + 1 :] == differ_BU.sum(axis=1)
                known_B = (told_A[a] > 0) & (told_A[a + 1 :] > 0)
                hits += int((self._few(np.abs(differ_BU).sum(axis=1)) & right_B & known_B).sum())
        return hits

    def _singles(self) -> int:
        """Patients whose unit vector lies in the span of the statistics' members."""
        member_AU = self._members([places for places, _ in self.statistics]).astype(np.float64)
        reach_U = np.einsum("ua,au->u", np.linalg.pinv(member_AU), member_AU)
        return int((reach_U > 1 - 1e-6).sum())

    def _few(self, counts: Integers) -> Bools:
        return (counts > 0) & (counts < self.cell)


def _levels(static_F: NDArray[np.float64], grids: list[ValueGrid]) -> Integers:
    pairs = zip(static_F, grids, strict=True)
    return np.array([int(grid.levels(value)) if np.isfinite(value) else -1 for value, grid in pairs])
