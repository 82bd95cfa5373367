"""The report in a real browser: it fits a phone, asks the network for nothing, and logs no error.

The page is opened from disk. Its width is read through an iframe, because headless Chromium does not make a
window narrower than about 500 px; ``srcdoc`` keeps the page in the test's origin, so its layout can be read.
"""

import contextlib
import html
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from server.report import render_report, write_report
from server.results import RunResults

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")
_BROWSER = next((path for path in map(shutil.which, _BROWSERS) if path), None)
_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND",  # nor does the browser itself reach anything
    "--hide-scrollbars",
    "--enable-logging=stderr",
    "--v=0",
)
SAMPLE = Path(__file__).parents[1] / "unit" / "report_sample.py"
_SAMPLES = runpy.run_path(str(SAMPLE))
sample_results: Callable[..., RunResults] = _SAMPLES["sample_results"]
without_heldout: Callable[..., RunResults] = _SAMPLES["without_heldout"]

pytestmark = pytest.mark.skipif(_BROWSER is None, reason=f"none of {', '.join(_BROWSERS)} is installed")


def _browse(folder: Path, page: Path, *flags: str) -> tuple[str, str]:
    """Open a page once; returns stdout and the log. The browser's whole process group ends with the call."""
    assert _BROWSER
    command = [_BROWSER, *_FLAGS, f"--user-data-dir={folder / 'profile'}", *flags, page.as_uri()]
    pipe = subprocess.PIPE
    browser = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        out, log = browser.communicate(timeout=60)
    finally:
        _end(browser)
    assert browser.returncode == 0, log[-2000:]
    return out, log


def _end(browser: "subprocess.Popen[str]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(browser.pid, signal.SIGKILL)
    browser.communicate()


def _requests(net_log: Path) -> set[str]:
    """Addresses of all network requests that a page caused; the browser's own have no origin."""
    document = json.loads(net_log.read_text(encoding="utf-8"))
    started = document["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    begun = [event.get("params", {}) for event in document["events"] if event["type"] == started]
    inside = ("file:", "data:", "chrome", "blob:", "about:")
    asked = [request for request in begun if "url" in request and not request["url"].startswith(inside)]
    return {request["url"] for request in asked if request.get("initiator") != "not an origin"}


def _png_size(path: Path) -> tuple[int, int]:
    header = path.read_bytes()[:24]
    assert header[:8] == b"\x89PNG\r\n\x1a\n"
    return int.from_bytes(header[16:20]), int.from_bytes(header[20:24])


def _in_frame(page: str, width: int) -> str:
    """A test page that shows the report at a width and says how wide its content is."""
    return f"""<!DOCTYPE html><body style="margin:0">
<iframe id="f" width="{width}" height="844" style="border:0" srcdoc="{html.escape(page)}"></iframe>
<script>
document.getElementById("f").onload = event => {{
  const inner = event.target.contentDocument, root = inner.documentElement;
  const loose = [...inner.querySelectorAll("main *")].filter(e =>
    !e.closest(".scroll") && !e.closest("svg") && e.getBoundingClientRect().right > root.clientWidth + 1);
  document.body.dataset.widths = root.scrollWidth + "/" + root.clientWidth + "/" + loose.length;
}};
</script>"""


@pytest.mark.parametrize(("width", "height"), [(390, 844), (1280, 900)])
def test_opens_without_errors_or_requests(tmp_path: Path, width: int, height: int) -> None:
    page, picture, net_log = (tmp_path / name for name in ("report.html", "report.png", "net.json"))
    write_report(sample_results(), page)
    size = f"--window-size={width},{height}"
    _, log = _browse(tmp_path, page, size, f"--screenshot={picture}", f"--log-net-log={net_log}")
    assert _png_size(picture) == (width, height)
    assert picture.stat().st_size > 10_000
    assert "CONSOLE" not in log
    assert _requests(net_log) == set()


def test_the_request_check_sees_a_request(tmp_path: Path) -> None:
    page, net_log = tmp_path / "page.html", tmp_path / "net.json"
    page.write_text('<img src="http://127.0.0.1:9/x.png"><script>console.error("seen")</script>')
    _, log = _browse(tmp_path, page, "--dump-dom", f"--log-net-log={net_log}")
    assert _requests(net_log) == {"http://127.0.0.1:9/x.png"}
    assert "CONSOLE" in log


@pytest.mark.parametrize(
    ("width", "results"),
    [(width, sample_results) for width in (320, 390, 768, 861, 1280)] + [(390, without_heldout)],
)
def test_no_sideways_scroll(tmp_path: Path, width: int, results: Callable[[], RunResults]) -> None:
    page = tmp_path / "frame.html"
    page.write_text(_in_frame(render_report(results()), width), encoding="utf-8")
    dom, _ = _browse(tmp_path, page, "--window-size=1400,900", "--dump-dom")
    found = re.search(r'data-widths="(\d+)/(\d+)/(\d+)"', dom)
    assert found
    assert found.groups() == (str(width), str(width), "0")


def test_prints(tmp_path: Path) -> None:
    page, paper = tmp_path / "report.html", tmp_path / "report.pdf"
    write_report(sample_results(), page)
    _browse(tmp_path, page, "--no-pdf-header-footer", f"--print-to-pdf={paper}")
    assert paper.read_bytes().startswith(b"%PDF")
