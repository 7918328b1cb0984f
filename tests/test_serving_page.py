"""The web page at `/`, in a real browser with the real server."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from container.classifier.report_page import read_stylesheet
from container.serving.http.page import golden_images
from tests.accessibility import faults
from tests.artifacts import encode, random_pixels, write_artifact
from tests.bodies import JPEG, PNG
from tests.chromium import PROGRAM, Browser, browsing
from tests.screenshots import resize
from tests.servers import Server, serving

HOSTILE = "<img src=x onerror=\"document.title='taken'\">"

needs_browser = pytest.mark.skipif(
    PROGRAM is None, reason="needs Chromium: apt-get install chromium"
)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    base_dir = tmp_path_factory.mktemp("ml")
    write_artifact(base_dir / "model", class_names=("cat", HOSTILE, "Übergröße"))
    variables = {"SAGEMAKER_CLASSIFIER_PAGE": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}
    with serving(base_dir, **variables) as running:
        yield running


@pytest.fixture(scope="module")
def shared_browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("chromium")) as running:
        yield running


@pytest.fixture
def browser(shared_browser: Browser, server: Server) -> Browser:
    # Pending events of the previous test arrive before this response.
    shared_browser.run("0")
    shared_browser.requested.clear()
    shared_browser.errors.clear()
    shared_browser.open(f"http://127.0.0.1:{server.port}/")
    return shared_browser


def shares(browser: Browser) -> list[float]:
    return [float(share) for share in re.findall(r"([\d.]+) %", browser.text("#classes"))]


@needs_browser
def test_page_has_no_serious_accessibility_fault(browser: Browser, tmp_path: Path) -> None:
    assert list(faults(browser)) == []

    image = tmp_path / "image.png"
    image.write_bytes(PNG)
    browser.drop("#dropzone", image)
    browser.wait_for("!answer.hidden && preview.naturalWidth === 50")
    assert list(faults(browser)) == []
    resize(browser, 1280, 900)


@needs_browser
def test_dropped_image_is_shown_with_bars_of_probabilities(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    image = tmp_path / "image.png"
    image.write_bytes(PNG)

    browser.drop("#dropzone", image)
    browser.wait_for("!answer.hidden && preview.naturalWidth === 50")

    response = server.invoke(PNG)
    assert response.status == 200
    found = shares(browser)
    assert found == sorted(found, reverse=True)
    assert sum(found) == pytest.approx(100, abs=0.2)
    for name in ("cat", HOSTILE, "Übergröße"):
        assert name in browser.text("#classes")
    widths = browser.run(
        "[...document.querySelectorAll('.bar')].map((bar) => parseFloat(bar.style.width))"
    )
    assert widths == pytest.approx(found, abs=0.06)
    assert browser.text("#problem") == ""
    assert browser.run("document.title") == "Image classifier"
    assert browser.run("document.querySelectorAll('img:not(#images img)').length") == 1


@needs_browser
def test_chosen_images_are_predicted_one_after_another(browser: Browser, tmp_path: Path) -> None:
    for name, data in (("a.jpg", JPEG), ("b.png", PNG)):
        image = tmp_path / name
        image.write_bytes(data)
        browser.choose("#file", image)
        browser.wait_for("!answer.hidden")

        assert len(shares(browser)) == 3
        assert " ms" in browser.text("#status")


@needs_browser
@pytest.mark.parametrize(
    ("data", "words", "message"),
    [
        (PNG[: len(PNG) // 2], "cannot be read as an image", "the image is damaged"),
        (b"some text", "PNG, WebP, GIF and BMP are supported", "not an image of a known format"),
        (b"", "The file is empty", "the body is empty"),
        (bytes(2 * 2**20), "too large", "the body is larger than 1 MB"),
    ],
)
def test_damaged_file_is_explained(
    browser: Browser, tmp_path: Path, data: bytes, words: str, message: str
) -> None:
    broken = tmp_path / "holiday.jpg"
    broken.write_bytes(data)

    browser.drop("#dropzone", broken)
    browser.wait_for("!problem.hidden")

    assert words in browser.text("#problem")
    assert f"holiday.jpg: {message}" in browser.text("#problem")
    assert browser.text("#answer") == ""
    assert browser.text("#status") == ""


@needs_browser
def test_valid_file_is_predicted_after_a_damaged_one(browser: Browser, tmp_path: Path) -> None:
    for name, data, shown in (("broken.png", b"?", "problem"), ("good.png", PNG, "answer")):
        (tmp_path / name).write_bytes(data)
        browser.drop("#dropzone", tmp_path / name)
        browser.wait_for(f"!{shown}.hidden")

    assert browser.text("#problem") == ""


@needs_browser
def test_examples_are_predicted(browser: Browser, server: Server) -> None:
    browser.wait_for("images.children.length === 3")

    browser.run("images.children[1].click()")
    browser.wait_for("!answer.hidden && preview.naturalWidth > 0")

    example = server.get("/examples/1").body
    found = json.loads(server.invoke(example).body)["predictions"][0]["ranking"]
    assert shares(browser)[0] == pytest.approx(100 * found[0]["probability"], abs=0.06)
    assert browser.run("[...known.children].map((item) => item.textContent)") == [
        "cat",
        HOSTILE,
        "Übergröße",
    ]
    assert browser.errors == []


@needs_browser
@pytest.mark.parametrize("width", [400, 1280])
def test_page_fits_the_window(browser: Browser, width: int) -> None:
    size = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.command("Emulation.setDeviceMetricsOverride", **size)
    browser.wait_for("images.children.length === 3")

    assert browser.run("document.documentElement.scrollWidth") <= width
    browser.command("Emulation.clearDeviceMetricsOverride")


def test_examples_are_the_golden_images(server: Server) -> None:
    document = json.loads(server.get("/examples").body)

    assert document["class_names"] == ["cat", HOSTILE, "Übergröße"]
    assert document["images"] == ["examples/0", "examples/1", "examples/2"]
    for number, url in enumerate(document["images"]):
        response = server.get(f"/{url}")
        assert response.status == 200
        assert response.body == encode(random_pixels(seed=number))
        assert response.headers["Content-Type"] == "application/octet-stream"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
    for path in ("/examples/3", "/examples/-1", "/examples/../manifest.json", "/examples/0.png"):
        assert server.get(path).status == 404


def test_links_among_the_golden_images_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "golden").mkdir()
    (tmp_path / "golden" / "0.png").write_bytes(PNG)
    (tmp_path / "golden" / "1.png").symlink_to("/etc/passwd")
    (tmp_path / "golden" / "answers.json").write_text("[]")

    assert golden_images(tmp_path) == [tmp_path / "golden" / "0.png"]
    assert golden_images(tmp_path / "nowhere") == []


@needs_browser
def test_page_sends_requests_only_to_this_server(
    browser: Browser, server: Server, tmp_path: Path
) -> None:
    (tmp_path / "image.png").write_bytes(PNG)
    browser.drop("#dropzone", tmp_path / "image.png")
    browser.wait_for("!answer.hidden")

    ours = (f"http://127.0.0.1:{server.port}/", "blob:", "data:")
    assert [address for address in browser.requested if not address.startswith(ours)] == []
    assert f"http://127.0.0.1:{server.port}/invocations" in browser.requested
    assert browser.errors == []


@needs_browser
def test_page_is_accessible_to_screen_readers_and_keyboards(
    browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "image.png").write_bytes(PNG)
    browser.drop("#dropzone", tmp_path / "image.png")
    browser.wait_for("!answer.hidden")

    nodes = browser.command("Accessibility.getFullAXTree")["nodes"]
    named = [
        (node["role"]["value"], node["name"]["value"])
        for node in nodes
        if not node["ignored"] and node.get("name", {}).get("value")
    ]
    headings = [name for role, name in named if role == "heading"]
    assert headings == ["Image classifier", "Examples", "3 classes"]
    buttons = [name for role, name in named if role == "button"]
    assert "choose one" in buttons[0]
    assert buttons[1:] == [f"Classify example {number}" for number in (1, 2, 3)]
    assert ("image", "Your image") in named
    assert ("region", "Classes") in named
    assert ("complementary", "Model") in named
    # The keyboard reaches the file input, and its focus is visible.
    browser.run("file.focus()")
    assert browser.run("document.activeElement === file")
    assert browser.run("getComputedStyle(dropzone).outlineStyle") == "solid"


def test_page_is_one_file_with_a_strict_content_security_policy(server: Server) -> None:
    response = server.get("/")
    text = response.body.decode()

    assert response.status == 200
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    assert response.headers["X-Content-Type-Options"] == "nosniff"
    policy = response.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert text.count("<script") == 1
    assert not re.search(r"(?:src|href)=\"(?!data:,)", text)
    assert "http" not in text
    assert read_stylesheet() in text


def test_page_is_off_by_default(artifact: Path, tmp_path: Path) -> None:
    shutil.copytree(artifact, tmp_path / "model")
    with serving(tmp_path) as server:
        for path in ("/", "/examples", "/examples/0"):
            assert server.get(path).status == 404
