"""Writing 20,000 synthetic patients: time and peak memory of the whole process tree's largest process."""

import resource
import subprocess
import sys
import time
from pathlib import Path

from rich.table import Table

PATIENTS = 20_000
_CODE = """
import sys; from pathlib import Path
from simulations.synthetic import write_hospitals
if __name__ == "__main__":
    write_hospitals(Path(sys.argv[1]), patients=int(sys.argv[2]), seed=1)
"""


def measure(folder: Path) -> Table:
    """One run in a process of its own (the generator starts workers, which need a script to import)."""
    script = folder / "write.py"
    script.write_text(_CODE)
    start = time.monotonic()
    subprocess.run([sys.executable, str(script), str(folder / "hospitals"), str(PATIENTS)], check=True)
    seconds = time.monotonic() - start
    gigabytes = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    size = sum(f.stat().st_size for f in (folder / "hospitals").rglob("*") if f.is_file()) / 1e6
    table = Table(title=f"synthetic hospitals, {PATIENTS:,} patients", title_justify="left")
    for column in ("figure", "measured", "aim"):
        table.add_column(column)
    table.add_row("seconds", f"{seconds:.0f}", "< 120")
    table.add_row("peak memory of the largest process, GB", f"{gigabytes:.2f}", "< 4")
    table.add_row("written, MB compressed", f"{size:.0f}", "")
    return table
