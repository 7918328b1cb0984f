"""Complete analysis runs on images whose class has a known reason."""

import json
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from container.classifier.preprocessing import Pixels
from image_classifier.explainer.__main__ import main
from tests.accessibility import check_accessibility
from tests.chromium import PROGRAM, browsing
from tests.endpoints import Behavior, Rows, patch_server
from tests.red_patch import draw, is_right, write_images
from tests.report_pages import check_report

COUNT = 4

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    write_images(folder, COUNT)
    return folder


@pytest.fixture
def behavior() -> Iterator[Behavior]:
    with patch_server() as running:
        yield running


def explain(images: Path, output: Path, behavior: Behavior, *more: str) -> int:
    command = ["explain", str(images), "--output", str(output), "--url", behavior.url, *more]
    return main(command)


def analysis_of(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / "analysis.json").read_bytes())
    return document


def config(path: Path, **shap: Any) -> str:  # noqa: ANN401 - any JSON
    """Write a configuration of few samples and return its name."""
    image = {"model_type": "IMAGE_CLASSIFICATION", "num_segments": 10}
    document = {
        "methods": {"shap": {"num_samples": 60, "image_config": image, **shap}},
        "predictor": {"content_type": "application/x-npy"},
    }
    path.write_text(json.dumps(document))
    return str(path)


def values_of(folder: Path) -> tuple[Rows, Any]:
    """Return the values (M, C) and the superpixels (H, W) in the folder of an image."""
    document = json.loads((folder / "explanation.json").read_bytes())
    segments = np.asarray(Image.open(folder / "segments.png"))
    return np.array(document["explanation"]["shapley"]), segments


def test_explanation_finds_the_known_reason(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    assert explain(images, tmp_path / "out", behavior) == 0

    for number in range(COUNT):
        folder = tmp_path / f"out/explanations_shap/patch/{number:02}.png"
        values, segments = values_of(folder)
        assert is_right(values[:, 1], segments, draw(number)[1])
        np.testing.assert_allclose(values[:, 0], -values[:, 1], atol=1e-9)
    found = analysis_of(tmp_path / "out")
    assert found["faithfulness"]["deletion_better_than_random"] == COUNT
    assert found["faithfulness"]["insertion_better_than_random"] == COUNT


def test_results_have_heat_maps_and_values_per_class(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    settings = config(tmp_path / "analysis_config.json", save_local_shap_values=True)
    assert explain(images, tmp_path / "out", behavior, "--config", settings) == 0

    found = analysis_of(tmp_path / "out")
    assert [image["file"] for image in found["images"]] == [
        f"patch/{number:02}.png" for number in range(COUNT)
    ]
    for image in found["images"]:
        assert image["true_label"] == image["predicted_label"] == "patch"
        local = image["local_shap_values"]["patch"]
        assert len(local) == image["segments"]
        gained = image["scores"]["patch"] - image["expected_values"]["patch"]
        assert sum(local) == pytest.approx(gained)
        for name in ("none", "patch"):
            with Image.open(tmp_path / "out" / image["heat_maps"][name]) as heat_map:
                assert heat_map.size == (64, 64)
    assert found["explanations"]["kernel_shap"]["patch"]["mean_score"] > 0.9


def test_files_of_one_name_have_results_of_their_own(
    images: Path, tmp_path: Path, behavior: Behavior, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "00.png"
    shutil.copy(images / "patch/01.png", other)
    third = shutil.copy(other, tmp_path / "00-3.png")
    options = ["--output", f"{tmp_path}/out", "--url", behavior.url]
    options += ["--config", config(tmp_path / "analysis_config.json")]

    assert main(["explain", f"{images}/patch/00.png", str(third), str(other), *options]) == 0

    found = analysis_of(tmp_path / "out")["images"]
    assert [image["file"] for image in found] == ["00.png", "00-3.png", "00-2.png"]
    assert f"{images}/patch/00.png, {third}, {other}" in (tmp_path / "out/report.html").read_text()
    assert main(["explain", str(images), str(other), *options]) == 1
    assert f"{images} is not a file: name images, or a single" in capsys.readouterr().err


def test_superpixels_that_raise_the_score_are_red_and_others_blue(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    explain(images / "patch/00.png", tmp_path / "out", behavior)

    image = analysis_of(tmp_path / "out")["images"][0]
    _, where = draw(0)
    inner = np.zeros_like(where)
    rows, columns = np.nonzero(where)
    inner[rows.min() + 5 : rows.max() - 4, columns.min() + 5 : columns.max() - 4] = True
    red, blue = (
        np.asarray(Image.open(tmp_path / "out" / image["heat_maps"][name]), dtype=int)
        for name in ("patch", "none")
    )
    assert (blue[inner].mean(axis=0)[2] - blue[inner].mean(axis=0)[0]) > 80
    assert (red[inner].mean(axis=0)[0] - red[inner].mean(axis=0)[2]) > 80


def test_failed_analysis_continues_after_finished_images(
    images: Path, tmp_path: Path, behavior: Behavior, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = config(tmp_path / "analysis_config.json")
    behavior.fails_after = 20
    assert explain(images, tmp_path / "out", behavior, "--config", settings) == 1
    assert "the model broke" in capsys.readouterr().err
    finished = sorted((tmp_path / "out").rglob("explanation.json"))
    assert 0 < len(finished) < COUNT
    times = [path.stat().st_mtime_ns for path in finished]

    behavior.fails_after = None
    assert explain(images, tmp_path / "out", behavior, "--config", settings) == 0

    assert [path.stat().st_mtime_ns for path in finished] == times
    assert len(analysis_of(tmp_path / "out")["images"]) == COUNT


def test_finished_image_costs_one_evaluation(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    settings = config(tmp_path / "analysis_config.json")
    explain(images, tmp_path / "out", behavior, "--config", settings)
    before, first = analysis_of(tmp_path / "out"), behavior.images

    explain(images, tmp_path / "out", behavior, "--config", settings)

    assert behavior.images - first == 3 + COUNT
    assert analysis_of(tmp_path / "out") == before


def test_other_model_or_settings_start_from_scratch(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    path = tmp_path / "analysis_config.json"
    explain(images, tmp_path / "out", behavior, "--config", config(path))
    first = analysis_of(tmp_path / "out")

    explain(images, tmp_path / "out", behavior, "--config", config(path, seed=5))
    other_seed = analysis_of(tmp_path / "out")
    behavior.probabilities = lambda images: np.tile([0.25, 0.75], (len(images), 1))
    explain(images, tmp_path / "out", behavior, "--config", config(path, seed=5))
    other_model = analysis_of(tmp_path / "out")

    areas = [
        [image["deletion_area"] for image in found["images"]]
        for found in (first, other_seed, other_model)
    ]
    assert areas[0] != areas[1]
    assert areas[2] == [pytest.approx(0.75)] * COUNT


def test_same_seed_gives_the_same_analysis(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    settings = config(tmp_path / "analysis_config.json")
    for name in ("first", "second"):
        explain(images, tmp_path / name, behavior, "--config", settings)

    assert analysis_of(tmp_path / "first") == analysis_of(tmp_path / "second")


def test_stop_signal_ends_the_analysis(
    images: Path, tmp_path: Path, behavior: Behavior, capsys: pytest.CaptureFixture[str]
) -> None:
    answered, stopped = behavior.probabilities, threading.Event()

    def stopping(images: Pixels) -> Rows:
        with behavior.lock:
            if behavior.images > 100 and not stopped.is_set():
                stopped.set()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
        return answered(images)

    behavior.probabilities = stopping
    settings = config(tmp_path / "analysis_config.json")

    assert explain(images, tmp_path / "out", behavior, "--config", settings) == 130

    assert stopped.is_set()
    assert "the same command continues after the finished images" in capsys.readouterr().err
    assert not (tmp_path / "out/analysis.json").exists()


def test_unreadable_image_is_named_and_left_out(
    images: Path, tmp_path: Path, behavior: Behavior, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images/patch/00.png").write_bytes(b"no image")
    settings = config(tmp_path / "analysis_config.json")

    assert explain(tmp_path / "images", tmp_path / "out", behavior, "--config", settings) == 0

    assert "left out patch/00.png: not an image" in capsys.readouterr().err
    found = analysis_of(tmp_path / "out")
    assert [image["file"] for image in found["unreadable"]] == ["patch/00.png"]
    assert len(found["images"]) == COUNT - 1


def test_files_that_are_not_used_are_named(
    images: Path, tmp_path: Path, behavior: Behavior, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(images, tmp_path / "images")
    (tmp_path / "images/scan.psd").write_bytes(b"8BPS\0\1")
    (tmp_path / "images/patch/@eaDir").mkdir()
    (tmp_path / "images/patch/@eaDir/00.png").write_bytes(b"no image")
    settings = config(tmp_path / "analysis_config.json")

    assert explain(tmp_path / "images", tmp_path / "out", behavior, "--config", settings) == 0

    assert "left out scan.psd: training does not read PSD" in capsys.readouterr().err
    found = analysis_of(tmp_path / "out")
    assert [image["file"] for image in found["unreadable"]] == ["scan.psd"]
    assert len(found["images"]) == COUNT


def test_results_inside_the_image_folder_are_not_explained(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    shutil.copytree(images, tmp_path / "here")
    settings = config(tmp_path / "analysis_config.json")
    for _ in range(2):
        assert explain(tmp_path / "here", tmp_path / "here", behavior, "--config", settings) == 0

    assert len(analysis_of(tmp_path / "here")["images"]) == COUNT


def test_missing_images_are_reported(
    tmp_path: Path, behavior: Behavior, capsys: pytest.CaptureFixture[str]
) -> None:
    assert explain(tmp_path, tmp_path / "out", behavior) == 1
    assert "no images in" in capsys.readouterr().err
    assert explain(tmp_path / "nowhere", tmp_path / "out", behavior) == 1
    assert "there is no" in capsys.readouterr().err


def test_uniform_image_with_few_superpixels_is_explained(
    tmp_path: Path, behavior: Behavior
) -> None:
    # The folder's name is a class.
    path = tmp_path / "patch" / "plain.png"
    path.parent.mkdir()
    Image.new("RGB", (9, 30), "red").save(path)

    assert explain(path, tmp_path / "out", behavior) == 0

    image = analysis_of(tmp_path / "out")["images"][0]
    assert image["predicted_label"] == image["true_label"] == "patch"


def test_baseline_replaces_hidden_superpixels(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    Image.new("RGB", (5, 5), (215, 25, 30)).save(tmp_path / "red.png")
    settings = config(tmp_path / "analysis_config.json", baseline="red.png")

    assert explain(images, tmp_path / "out", behavior, "--config", settings) == 0

    # The baseline alone is red everywhere.
    expected = analysis_of(tmp_path / "out")["explanations"]["kernel_shap"]["patch"]
    assert expected["expected_value"] > 0.9
    page = (tmp_path / "out/report.html").read_text("utf-8")
    assert page.count("for this class: there is little to explain") == COUNT


def test_log_odds_add_up(images: Path, tmp_path: Path, behavior: Behavior) -> None:
    settings = config(
        tmp_path / "analysis_config.json", use_logit=True, save_local_shap_values=True
    )
    explain(images, tmp_path / "out", behavior, "--config", settings)

    for image in analysis_of(tmp_path / "out")["images"]:
        ends = np.array([image["scores"]["patch"], image["expected_values"]["patch"]])
        odds = np.log(ends / (1 - ends))
        assert sum(image["local_shap_values"]["patch"]) == pytest.approx(odds[0] - odds[1])


def test_random_weights_change_the_explanation(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    settings = config(tmp_path / "analysis_config.json")

    def brightness(images: Pixels) -> Rows:
        light = images.astype(float).mean(axis=(1, 2, 3)) / 255
        return np.stack([1 - light, light], axis=1)

    with patch_server(Behavior(probabilities=brightness)) as other:
        more = ("--config", settings, "--randomized-url", other.url)
        assert explain(images, tmp_path / "random", behavior, *more) == 0
    more = ("--config", settings, "--randomized-url", behavior.url)
    assert explain(images, tmp_path / "same", behavior, *more) == 0

    random, same = (
        analysis_of(tmp_path / name)["faithfulness"]["randomized_rank_correlation"]
        for name in ("random", "same")
    )
    assert same == pytest.approx(1)
    assert random < 0.6


@pytest.mark.skipif(PROGRAM is None, reason="there is no Chromium: apt-get install chromium")
def test_report_is_self_contained_and_escapes_names(
    images: Path, tmp_path: Path, behavior: Behavior
) -> None:
    names = ["none", HOSTILE]
    behavior.answer = lambda rows: {"predictions": rows.tolist(), "class_names": names}
    folder = tmp_path / "images" / "<b>bold"
    shutil.copytree(images / "patch", folder)
    settings = config(tmp_path / "analysis_config.json")
    assert explain(tmp_path / "images", tmp_path / "out", behavior, "--config", settings) == 0

    with browsing(tmp_path) as browser:
        browser.open((tmp_path / "out/report.html").as_uri())
        text = browser.run("document.body.innerText")
        shown = browser.run("[...document.images].filter((i) => i.naturalWidth > 0).length")
        pages = [url for url in browser.requested if not url.startswith("data:")]

    check_accessibility(tmp_path / "out/report.html")
    page = check_report((tmp_path / "out/report.html").read_text("utf-8"))
    assert f"Data{tmp_path / 'images'}" in re.sub(r"\s", "", page.text)
    assert browser.errors == []
    assert pages == [(tmp_path / "out/report.html").as_uri()]
    assert shown == 4 * COUNT
    assert HOSTILE in text
    assert "<b>bold" in text
    assert re.search(r"of 4\b", text)
