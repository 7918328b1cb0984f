"""axe-core on a page, at two widths, in light and dark mode."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.chromium import PROGRAM, Browser, browsing
from tests.screenshots import resize

WIDTHS = (1280, 400)

SERIOUS = ("serious", "critical")

_RUN = """
axe.run().then(({violations}) => JSON.stringify(violations.map(({id, impact, nodes}) =>
    ({id, impact, nodes: nodes.slice(0, 3).map(node => node.html.slice(0, 200))}))))
"""


def check_accessibility(report: Path) -> None:
    """Check that a report has neither serious accessibility faults nor errors on the console.

    Without Chromium nothing is checked.
    """
    if PROGRAM is None:
        return
    with (
        # A process of Chromium can still write into its profile after the others have ended.
        TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        browsing(Path(folder)) as browser,
    ):
        browser.open(report.as_uri())
        assert list(faults(browser)) == []


def faults(browser: Browser) -> Iterator[str]:
    """Yield serious accessibility faults and console errors of the open page."""
    spec = importlib.util.find_spec("axe_playwright_python")
    assert spec is not None
    assert spec.origin is not None
    # The package is not imported: it needs Playwright, and only its copy of axe-core is used.
    browser.run(Path(spec.origin).with_name("axe.min.js").read_text("utf-8") + ";0")
    for width in WIDTHS:
        for scheme in ("light", "dark"):
            resize(browser, width, 900, scheme)
            evaluated = browser.command(
                "Runtime.evaluate", expression=_RUN, awaitPromise=True, returnByValue=True
            )
            assert "exceptionDetails" not in evaluated, evaluated
            for fault in json.loads(evaluated["result"]["value"]):
                if fault["impact"] in SERIOUS:
                    yield f"{width} pixels, {scheme}: {fault['id']} {fault['nodes']}"
    yield from browser.errors
