"""What a site spends at most of its patients' privacy, as its YAML says it under ``privacy``.

The unit is the patient. Caps count all runs ever, at the site's own ``delta`` and by RDP, which composes runs of any
settings (shared_model/privacy.py); the ledger (client/ledger.py) holds what was spent.
"""

from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from client.mapping.steps import Strict
from client.policy import Kind
from shared_model.errors import PrivacyError

if TYPE_CHECKING:
    from shared_model.config import RunConfig

Epsilon = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Caps(Strict):
    """The site's epsilons. Without any, every run is the federation's to choose."""

    total: Epsilon | None = Field(default=None, description="largest epsilon of all runs together; unless given, any")
    projects: dict[str, Epsilon] | None = Field(
        default=None,
        description="largest epsilon of each project (privacy.project of a run); if given, others spend nothing",
    )
    delta: float = Field(default=1e-5, gt=0, lt=1, description="delta of these epsilons; below 1 / training patients")
    public_counts: bool = Field(
        default=False, description="how many training patients there are, and deaths, is public: told without noise"
    )

    @property
    def any(self) -> bool:
        """Whether the site has promised its patients anything."""
        return self.total is not None or self.projects is not None

    def limit(self, project: str) -> float | None:
        """The largest epsilon of a project; None where it has none."""
        return None if self.projects is None else self.projects.get(project, 0.0)


def check_unit(caps: Caps, config: "RunConfig", kind: Kind) -> None:
    """Raises PrivacyError where a site with a cap would answer without noise."""
    harmless = kind.startswith("secure_") or (kind == "describe" and caps.public_counts)
    if caps.any and config.privacy_unit != "patient" and not harmless:
        raise PrivacyError(
            f"privacy.unit = {config.privacy_unit}: this site has a privacy budget, and without noise its epsilon would"
            " be infinite; it takes part in runs with privacy.unit patient"
        )
