"""Every error a user can cause, in one tree.

::

    ConsiliumError               one line: what, which value, which rule, which file to edit
    +-- ConfigError              a run-config, site config or command-line value
    +-- DataError                a source file or table
    |   +-- NotAMimicFolderError   no hosp/ and icu/ below the folder
    |   +-- MissingTableError      a required table is absent
    |   +-- MissingColumnError     a required column is absent or renamed
    |   +-- UnreadableTableError   truncated, not gzip, not UTF-8, a value that is not of its type
    |   +-- EmptyCohortError       no stay passes the inclusion rules
    |   +-- StoreError             a prepared store is absent, partial, altered or of another contract
    +-- ContractError            two sides do not hold the same plan, model or message shape
    +-- UpdateRejected           the server's guard leaves a site's update out of a round
    +-- ReleaseRefused           a site's policy keeps a reply from leaving
    +-- AuditError               a site's audit log is not what was written
    +-- BlocksError              a site's memory of whom it told of is lost, old or not what was written
    +-- PrivacyError             a run's or a site's privacy setting breaks a rule
    |   +-- BudgetExceeded         a site's epsilon cap does not allow what is asked
    |   +-- LedgerError            a site's privacy ledger is not what was written
    +-- FederationError          the federation itself cannot go on (no site admitted, no reply)
    +-- RunFolderError           a run folder exists, or is not a run

The commands print ``str(error)`` and exit with status 2; a traceback that reaches a user is a bug.
Messages never contain a patient's values.
"""


def printable(text: str, *, keep: str = "") -> str:
    """What is no sign that a terminal prints is written as an escape, but for ``keep``: a text may come from a foreign
    file."""
    signs = (c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)
    return "".join(signs)


class ConsiliumError(Exception):
    """Base of all errors a user can cause."""


class ConfigError(ConsiliumError):
    """A configuration value breaks a rule."""


class DataError(ConsiliumError):
    """A source file or table breaks a rule."""


class NotAMimicFolderError(DataError):
    """The folder does not have MIMIC-IV's layout."""


class MissingTableError(DataError):
    """A required table is absent."""


class MissingColumnError(DataError):
    """A required column is absent."""


class UnreadableTableError(DataError):
    """A table cannot be read to its end."""


class EmptyCohortError(DataError):
    """No stay passes the inclusion rules."""


class StoreError(DataError):
    """A prepared store is absent, partial, altered or of another contract."""


class ContractError(ConsiliumError):
    """Two sides do not hold the same contract."""


class UpdateRejected(ConsiliumError):  # noqa: N818 - the field's word for it
    """The server's guard leaves a site's update out of a round."""


class ReleaseRefused(ConsiliumError):  # noqa: N818 - the field's word for it is a refusal
    """A site's release policy keeps a reply from leaving."""


class AuditError(ConsiliumError):
    """A site's audit log is not what was written."""


class BlocksError(ConsiliumError):
    """A site's memory of whom it told of is lost, old or not what was written."""


class PrivacyError(ConsiliumError):
    """A setting of differential privacy breaks a rule."""


class BudgetExceeded(PrivacyError):  # noqa: N818 - the field's word for it
    """A site's epsilon cap does not allow what is asked."""


class LedgerError(PrivacyError):
    """A site's privacy ledger is not what was written."""


class FederationError(ConsiliumError):
    """The federation cannot go on."""


class RunFolderError(ConsiliumError):
    """A run folder exists already, or is not one."""
