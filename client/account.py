"""What a site has authorised for one run with differential privacy: the plan, and the counts that it tells.

The ledger holds it (client/ledger.py); a message's work reads it.
"""

from dataclasses import dataclass

from shared_model.privacy import PrivacyPlan


@dataclass(frozen=True, kw_only=True)
class Account:
    """``patients`` and ``deaths`` of the training patients, as the server is told them: noised once for the whole run,
    or exact where the site's policy makes them public. Every message of the run reads the same ones."""

    plan: PrivacyPlan
    patients: int
    deaths: int
