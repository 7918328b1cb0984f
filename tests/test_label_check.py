"""Labels that a model contradicts, outliers, and features of pretrained networks."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from container.networks.network import SMALL, build
from image_classifier.preparation.__main__ import main
from image_classifier.preparation.linear_model import STRENGTHS, held_out_predictions
from image_classifier.preparation.pipeline import Reading, audit_source
from tests.planted import drawn, folders, save


def suspects(folder: Path, reading: Reading | None = None, kind: str = "label-suspect") -> set[str]:
    found = audit_source(folder, reading or Reading(), quiet=True)
    return {finding.path or "" for finding in found.findings if finding.kind == kind}


@pytest.mark.parametrize(("count", "dimensions"), [(40, 6), (12, 30)])
def test_predictions_are_those_of_models_fitted_without_the_image(
    count: int, dimensions: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("image_classifier.preparation.linear_model.STRENGTHS", STRENGTHS[1:2])
    random = np.random.default_rng(0)
    labels = random.integers(0, 3, count)
    features = (random.normal(size=(count, dimensions)) + labels[:, None]).astype(np.float32)

    found, _ = held_out_predictions(lambda rows: features[rows], labels)

    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    ridge = STRENGTHS[1] * (standard**2).sum() / min(count, dimensions)
    for index in range(count):
        others = np.arange(count) != index
        targets = np.eye(3)[labels]
        # The means are those of all images, of which the closed form removes one.
        known = np.hstack([standard, np.ones((count, 1))])[others]
        penalty = np.diag([ridge] * dimensions + [0.0])
        solution = np.linalg.solve(known.T @ known + penalty, known.T @ targets[others])
        assert found.predicted[index] == np.argmax([*standard[index], 1.0] @ solution)


def test_labels_of_other_classes_are_found_in_large_and_in_sampled_data(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders(tmp_path, {"ant": 40, "bee": 40, "cat": 40})
    wrong = set()
    for number in range(3):
        name = f"ant/wrong{number}.png"
        save(drawn(f"wrong{number}", "bee"), tmp_path / name)
        wrong.add(name)

    assert suspects(tmp_path) == wrong

    monkeypatch.setattr("image_classifier.preparation.linear_model.MAX_FITTED", 80)
    assert suspects(tmp_path) == wrong


def test_an_image_unlike_all_others_is_an_outlier(tmp_path: Path) -> None:
    stripes = np.zeros((64, 64, 3), np.uint8)
    stripes[:, ::4] = stripes[:, 1::4] = 255
    for number in range(30):
        for name in ("ant", "bee"):
            shade = (hash_of(name) + drawn_noise(number)).clip(0, 255).astype(np.uint8)
            save(Image.fromarray(shade), tmp_path / name / f"{number}.png")
    save(Image.fromarray(stripes), tmp_path / "ant" / "stripes.png")

    assert suspects(tmp_path, kind="outlier") == {"ant/stripes.png"}


def hash_of(name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return np.asarray(drawn("same", name), np.float64)


def drawn_noise(number: int) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return (np.asarray(drawn(number), np.float64) - 128) * 0.4


def test_features_of_pretrained_weights_replace_the_simple_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data", {"ant": 20, "bee": 20})
    save(drawn("wrong", "bee"), tmp_path / "data" / "ant" / "wrong.png")
    torch.manual_seed(0)
    torch.save(build(SMALL, 7).module.state_dict(), tmp_path / "small.pth")
    weights = ["--weights", str(tmp_path / "small.pth"), "--network"]

    reading = Reading(weights=tmp_path / "small.pth", network=SMALL)
    found = audit_source(tmp_path / "data", reading, quiet=True)
    assert [x.path for x in found.findings if x.kind == "label-suspect"] == ["ant/wrong.png"]
    unreliable = replace(found.label_check, contradicted=0.5)
    assert "a model of the network's features" in unreliable.sentence
    assert "--weights" not in unreliable.sentence

    assert main(["audit", str(tmp_path / "data"), *weights, "resnet18", "--quiet"]) == 2
    assert "holds weights of another network than resnet18" in capsys.readouterr().err


def test_weights_need_pytorch_and_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folders(tmp_path / "data", {"ant": 2, "bee": 2})
    command = ["audit", str(tmp_path / "data"), "--weights", str(tmp_path / "absent.pth")]

    assert main([*command, "--quiet"]) == 2
    assert "absent.pth does not exist" in capsys.readouterr().err

    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert main([*command, "--quiet"]) == 2
    assert "pip install 'image-classifier[local]'" in capsys.readouterr().err
