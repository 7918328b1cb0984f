"""The HTML page about a data set: complete offline, and file names in it cannot run code."""

from pathlib import Path

import pytest

from image_classifier.preparation.page import histogram
from image_classifier.preparation.pipeline import Reading, audit_source
from tests.accessibility import check_accessibility
from tests.chromium import PROGRAM, Browser, browsing
from tests.planted import drawn, planted, save
from tests.report_pages import check_report


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("page")
    found = planted(folder / "data", count=2)
    hostile = "<img src=x onerror=alert(1)>"
    found.image(f"{hostile}.png", b"nothing", hostile)
    for number in range(3):
        save(drawn(f"h{number}"), folder / "data" / f"h{number}.png")
        found.rows.append((f"h{number}.png", hostile, "train", ""))
    found.write_manifest()
    reading = Reading(manifests=[Path("labels.csv")], columns={"group": "patient"})
    audit_source(folder / "data", reading, page_path=folder / "page.html", quiet=True)
    return folder / "page.html"


def test_page_is_one_of_the_reports(page: Path) -> None:
    check_accessibility(page)
    found = check_report(page.read_text("utf-8"))

    assert str(page.parent) in found.text


@pytest.mark.skipif(not PROGRAM, reason="needs Chromium")
def test_page_is_complete_offline_without_browser_errors(page: Path, tmp_path: Path) -> None:
    with browsing(tmp_path) as browser:
        browser.command("Network.emulateNetworkConditions", **OFFLINE)
        browser.open(page.as_uri())

        assert browser.errors == []
        assert [address for address in browser.requested if not address.startswith("data:")] == [
            page.as_uri()
        ]
        assert browser.run("[...document.images].every(image => image.naturalWidth > 0)")
        assert browser.run("document.images.length") > 80
        assert "data" in browser.text("h1")
        assert "exact copy across splits: 2" in headings(browser)
        assert "effect" not in browser.text("header")
        assert "validation images" in browser.text("header")
        assert "<img src=x onerror" in browser.text("body")
        # Fits the window of a phone.
        browser.command(
            "Emulation.setDeviceMetricsOverride",
            width=390,
            height=800,
            deviceScaleFactor=1,
            mobile=True,
        )
        assert browser.run("document.documentElement.scrollWidth") <= 390


def headings(browser: Browser) -> str:
    found: str = browser.run(
        "[...document.querySelectorAll('summary')].map(s => s.innerText).join()"
    )
    return found


OFFLINE = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}


def test_histogram_counts_all_values() -> None:
    bars = histogram([1, 2, 2, 9], (0, 10))

    assert sum(bar.count for bar in bars) == 4
    assert max(bar.height for bar in bars) == 1
    assert [(bar.label, bar.count) for bar in histogram([128, 128])] == [("128", 2)]
    assert histogram([]) == []
