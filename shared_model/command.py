"""How every console script behaves: a good --help, one line for a user's mistake, honest exit statuses."""

import signal
import sys
from types import FrameType
from typing import NoReturn

import typer

from shared_model.errors import ConsiliumError, printable

INTERRUPTED = 130


def command_group(help_text: str | None = None, *, needs_command: bool = True) -> typer.Typer:
    """A Typer group with the habits all ours share."""
    return typer.Typer(
        add_completion=False,
        no_args_is_help=needs_command,
        help=help_text,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
        pretty_exceptions_enable=False,
    )


def run(command: typer.Typer, *, interrupted: str = "interrupted") -> NoReturn:
    """Run a command group. Exit status 2 for a user's mistake, 130 after Ctrl-C or SIGTERM."""
    asked_to_stop: list[int] = []

    def stop(signum: int, frame: FrameType | None) -> None:
        asked_to_stop.append(signum)
        raise KeyboardInterrupt

    for signum in (signal.SIGINT, signal.SIGTERM):
        signal.signal(signum, stop)
    try:
        status = command(standalone_mode=False) or 0
    except BaseException as error:
        if asked_to_stop:  # libraries turn the interrupt into errors of their own
            status = INTERRUPTED
        elif isinstance(error, ConsiliumError):
            _end(f"error: {error}", 2)
        elif isinstance(error, BrokenPipeError):  # nobody reads on
            sys.stderr.close()
            sys.exit(1)
        elif isinstance(error, OSError):
            _end(f"error: {f'{error.filename}: ' if error.filename else ''}{error.strerror or error}", 2)
        elif isinstance(error, Exception) and hasattr(error, "show"):  # click's usage errors show themselves
            error.show()
            status = 2
        else:
            raise
    if asked_to_stop:
        _end(interrupted, INTERRUPTED)
    sys.exit(status)


def _end(text: str, status: int) -> NoReturn:
    typer.echo(printable(text, keep="\n"), err=True)
    sys.exit(status)
