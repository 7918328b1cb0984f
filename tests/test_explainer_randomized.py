"""Explanations of this project's server, and of the same network with shuffled weights."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container.classifier.artifact import Artifact
from image_classifier.explainer.__main__ import main
from tests.artifacts import random_pixels
from tests.servers import Server, serving


def test_model_and_shuffled_weights_are_served_and_explained(
    server: Server, artifact: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(3):
        Image.fromarray(random_pixels(seed=10 + number)).save(images / f"{number}.png")
    assert main(["randomize", str(artifact), str(tmp_path / "shuffled/model")]) == 0

    with serving(tmp_path / "shuffled") as shuffled:
        url, other_url = (f"http://127.0.0.1:{running.port}" for running in (server, shuffled))
        command = ["explain", str(images), "--output", str(tmp_path / "out"), "--url", url]
        assert main([*command, "--randomized-url", other_url]) == 0

    found = json.loads((tmp_path / "out/analysis.json").read_bytes())
    assert [image["file"] for image in found["images"]] == ["0.png", "1.png", "2.png"]
    assert list(found["images"][0]["scores"]) == ["cat", "dog", "Übergröße"]
    assert abs(found["faithfulness"]["randomized_rank_correlation"]) < 0.9


def test_shuffling_keeps_classes_and_preprocessing(artifact: Path, tmp_path: Path) -> None:
    assert main(["randomize", str(artifact), str(tmp_path / "model"), "--seed", "3"]) == 0

    before, after = Artifact.read(artifact), Artifact.read(tmp_path / "model")
    assert after.manifest.class_names == before.manifest.class_names
    assert after.manifest.preprocessing == before.manifest.preprocessing
    before_rows, after_rows = (
        np.array([answer.probabilities for answer in model.golden_answers])
        for model in (before, after)
    )
    assert np.abs(before_rows - after_rows).max() > 0.01


def test_folder_that_is_not_empty_is_rejected(
    artifact: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")

    assert main(["randomize", str(artifact), str(tmp_path)]) == 1
    assert "is not empty: name a new folder" in capsys.readouterr().err


def test_missing_artifact_is_reported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["randomize", str(tmp_path), str(tmp_path / "new")]) == 1
    assert "is this an artifact of our training container image" in capsys.readouterr().err
