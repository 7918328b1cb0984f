"""Takes the screenshots of README.md: `python -m tests.screenshots [FOLDER]`.

FOLDER, by default local_test/test_dir, is the tree of a finished training on the sample images.
"""

import base64
import io
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from PIL import Image

from tests.chromium import Browser, browsing
from tests.documents import DOCS, ROOT
from tests.servers import serving

IMAGES = DOCS / "images"


def resize(browser: Browser, width: int, height: int, scheme: str = "light") -> None:
    """Set the size of the window in pixels, and the color scheme: `light` or `dark`."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.command("Emulation.setDeviceMetricsOverride", **size)
    feature = {"name": "prefers-color-scheme", "value": scheme}
    browser.command("Emulation.setEmulatedMedia", features=[feature])


def screenshot(browser: Browser) -> Image.Image:
    """Return the window's content."""
    png = base64.b64decode(browser.command("Page.captureScreenshot", format="png")["data"])
    return Image.open(io.BytesIO(png))


def main(folder: Path) -> None:
    """Write docs/images/report.png and docs/images/page.png."""
    with (
        TemporaryDirectory(ignore_cleanup_errors=True) as profile,
        browsing(Path(profile)) as browser,
        serving(folder, SAGEMAKER_CLASSIFIER_PAGE="true") as server,
    ):
        resize(browser, 1280, 900)
        browser.open((folder / "output/data/report.html").resolve().as_uri())
        _write(screenshot(browser), "report.png")
        resize(browser, 1000, 620)
        browser.open(f"http://127.0.0.1:{server.port}/")
        browser.wait_for("document.querySelector('#images button') !== null")
        browser.run("document.querySelector('#images button').click()")
        browser.wait_for("!answer.hidden && preview.naturalWidth > 0")
        _write(screenshot(browser), "page.png")


def _write(image: Image.Image, name: str) -> None:
    # 64 colors: a tenth of the bytes.
    image.convert("RGB").quantize(64).save(IMAGES / name, optimize=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else ROOT / "local_test/test_dir")
