"""A PostgreSQL server of the test's own: on loopback, in a temporary folder, gone afterwards."""

import os
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from simulations.dialects.omop_ddl import DDL, TABLES

USER = "postgres"  # apt makes it; PostgreSQL refuses to run as root
SCHEMA = "cdm"


@contextmanager
def running_postgres() -> Iterator[str]:
    """The URL of a fresh server. Skips the test where PostgreSQL is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    binaries, password = found[-1].parent, secrets.token_hex(8)
    folder = Path(tempfile.mkdtemp(prefix="consilium-pg-"))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    try:
        _initialise(binaries, folder, password)
        options = f"-c listen_addresses=127.0.0.1 -c port={port} -c unix_socket_directories={folder} -c fsync=off"
        _as_user([binaries / "pg_ctl", "-D", folder / "data", "-w", "-o", options, "-l", folder / "log", "start"])
        yield f"postgresql://consilium:{password}@127.0.0.1:{port}/postgres"
    finally:
        if (folder / "data" / "postmaster.pid").exists():
            _as_user([binaries / "pg_ctl", "-D", folder / "data", "-w", "-m", "immediate", "stop"])
        shutil.rmtree(folder, ignore_errors=True)


def _initialise(binaries: Path, folder: Path, password: str) -> None:
    (folder / "password").write_text(password, encoding="utf-8")
    if os.geteuid() == 0:
        shutil.chown(folder, USER)
        shutil.chown(folder / "password", USER)
    options = ["-A", "scram-sha-256", "-U", "consilium", "--pwfile", folder / "password", "-E", "UTF8", "--no-sync"]
    _as_user([binaries / "initdb", "-D", folder / "data", *options])


def _as_user(command: list[object]) -> None:
    become = ["runuser", "-u", USER, "--"] if os.geteuid() == 0 else []
    done = subprocess.run([*become, *map(str, command)], capture_output=True, text=True, cwd="/")
    assert done.returncode == 0, done.stdout + done.stderr


def load_omop(url: str, folder: Path) -> None:
    """Make the tables of OMOP CDM 5.4 in the schema ``cdm`` and copy the files of ``folder`` into them."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE; CREATE SCHEMA {SCHEMA}; SET search_path = {SCHEMA}"
        )
        connection.execute(DDL)
        for name in TABLES:
            file = folder / f"{name}.csv"
            with (
                file.open("rb") as source,
                connection.cursor().copy(f"COPY {name} FROM STDIN (FORMAT csv, HEADER)") as copy,
            ):
                while part := source.read(1 << 20):
                    copy.write(part)
