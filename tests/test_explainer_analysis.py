"""Clarify's analysis configuration: accepted keys and values, and errors."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

from container.classifier.errors import UserError
from image_classifier.explainer.analysis import Analysis, Report


def configuration(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Return a configuration like those of Clarify's SDK, with changes."""
    shap = {
        "use_logit": False,
        "save_local_shap_values": True,
        "num_samples": 300,
        "seed": 7,
        "image_config": {
            "model_type": "IMAGE_CLASSIFICATION",
            "num_segments": 15,
            "segment_compactness": 10,
            "feature_extraction_method": "segmentation",
            "max_objects": 3,
            "iou_threshold": 0.5,
            "context": 1.0,
        },
    }
    predictor = {
        "endpoint_name": "hands",
        "content_type": "image/jpeg",
        "accept_type": "application/json",
        "probability": "predictions",
        "label_headers": ["ant", "bee"],
    }
    return {
        "dataset_type": "application/x-image",
        "methods": {
            "shap": shap | changes.pop("shap", {}),
            "report": {"name": "mine", "title": "Ants"},
        },
        "predictor": predictor | changes.pop("predictor", {}),
    } | changes


def read(tmp_path: Path, document: object) -> Analysis:
    path = tmp_path / "analysis_config.json"
    path.write_text(json.dumps(document))
    return Analysis.read(path)


def errors(tmp_path: Path, document: object) -> str:
    """Return the message of the error that a configuration raises."""
    with pytest.raises(UserError) as raised:
        read(tmp_path, document)
    return str(raised.value)


def test_all_settings_of_images_are_read(tmp_path: Path) -> None:
    analysis = read(tmp_path, configuration())

    assert (analysis.shap.num_samples, analysis.shap.seed) == (300, 7)
    assert analysis.shap.image_config.num_segments == 15
    assert analysis.shap.image_config.segment_compactness == 10
    assert analysis.shap.save_local_shap_values
    assert analysis.methods.report == Report(name="mine", title="Ants")
    assert analysis.predictor.endpoint_name == "hands"
    assert analysis.predictor.probability == "predictions"
    assert analysis.predictor.label_headers == ("ant", "bee")


@pytest.mark.parametrize("unset", [{}, {"num_samples": None, "seed": None, "baseline": None}])
def test_defaults_are_those_of_clarify(unset: dict[str, None], tmp_path: Path) -> None:
    shap = unset | {"image_config": {"model_type": "IMAGE_CLASSIFICATION"}}

    analysis = read(tmp_path, {"methods": {"shap": shap}})

    config = analysis.shap.image_config
    assert (config.num_segments, config.segment_compactness) == (20, 5)
    assert analysis.shap.num_samples == 500
    assert analysis.predictor.content_type == "image/jpeg"
    assert analysis.predictor.accept_type == "application/json"
    assert analysis.shap.baseline is None
    assert not analysis.shap.use_logit


@pytest.mark.slow
def test_configuration_of_clarifys_sdk_is_accepted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
    # The SDK takes seconds to import.
    from sagemaker.clarify import ImageConfig, SHAPConfig  # noqa: PLC0415

    image = ImageConfig("IMAGE_CLASSIFICATION", 8, "segmentation", 5.0, 3, 0.5, 1.0)
    shap = SHAPConfig(num_samples=100, agg_method="mean_abs", seed=1, image_config=image)

    analysis = read(tmp_path, {"methods": shap.get_explainability_config()})

    assert analysis.shap.image_config.num_segments == 8
    assert (analysis.shap.num_samples, analysis.shap.seed) == (100, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shap": {"image_config": {"model_type": "OBJECT_DETECTION"}}}, "boxes"),
        ({"shap": {"image_config": {}}}, "shap.image_config.model_type is missing"),
        ({"shap": {"image_config": {"model_type": "IMAGE_CLASSIFICATION", "a": 1}}}, "known are"),
        ({"shap": {"features_to_explain": ["x"]}}, "unknown keys: features_to_explain"),
        ({"shap": {"num_samples": 20}}, "num_samples must be 32 to 1000000, got 20"),
        ({"shap": {"num_samples": "many"}}, "num_samples must be a number, got 'many'"),
        ({"shap": {"num_samples": 99.5}}, "num_samples must be a valid integer, .*, got 99.5"),
        ({"shap": {"num_samples": math.nan}}, "num_samples must be a finite number, got nan"),
        ({"shap": {"seed": math.inf}}, "seed must be a finite number, got inf"),
        ({"shap": {"seed": 10**400}}, "seed must be less than or equal to 4294967295, got 1000"),
        ({"shap": {"use_logit": "no"}}, "use_logit must be a valid boolean, got 'no'"),
        ({"shap": {"baseline": "s3://bucket/mask.png"}}, "aws s3 cp"),
        ({"shap": {"text_config": {}}}, "shap has unknown keys: text_config"),
        ({"predictor": {"content_type": "text/csv"}}, "content_type must be one of"),
        ({"predictor": {"label_headers": []}}, "list of the classes' names"),
        ({"predictor": {"probability": 1}}, "probability must be a valid string, got 1"),
        ({"predictor": {"endpont": "x"}}, "predictor has unknown keys: endpont; known are"),
        (
            {"dataset_type": "text/csv"},
            "dataset_type must be one of application/x-image, got 'text/csv'",
        ),
        ({"methods": {}}, "methods.shap is missing"),
        ({"methods": {"pdp": {}}}, "methods has unknown keys: pdp"),
        ({"methods": []}, "methods must be a JSON object"),
    ],
)
def test_error_has_key_value_and_allowed_values(
    changes: dict[str, Any], words: str, tmp_path: Path
) -> None:
    assert re.search(words, errors(tmp_path, configuration(**changes)))


def test_all_errors_are_reported_at_once(tmp_path: Path) -> None:
    changes = {"shap": {"seed": -1, "use_logit": 1}, "predictor": {"content_type": "text/csv"}}

    message = errors(tmp_path, configuration(**changes))

    assert all(key in message for key in ("shap.seed", "shap.use_logit", "predictor.content_type"))


def test_model_name_without_endpoint_name_is_rejected(tmp_path: Path) -> None:
    changed = configuration()
    changed["predictor"] = {"model_name": "m", "instance_type": "ml.m5.large"}

    assert "deploy the model and set endpoint_name" in errors(tmp_path, changed)


@pytest.mark.parametrize("name", ["../mine", "a/b", "", ".hidden", "a" * 200])
def test_report_name_is_a_file_name(name: str, tmp_path: Path) -> None:
    changed = configuration()
    changed["methods"]["report"]["name"] = name

    if name:
        assert "without a path" in errors(tmp_path, changed)
    else:
        assert read(tmp_path, changed).methods.report.name == "report"


def test_baseline_is_relative_to_the_configuration(tmp_path: Path) -> None:
    analysis = read(tmp_path, configuration(shap={"baseline": "gray.png"}))

    assert analysis.shap.baseline == tmp_path / "gray.png"


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_invalid_file_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "analysis_config.json"
    path.write_bytes(content)

    with pytest.raises(UserError, match=r"analysis_config\.json"):
        Analysis.read(path)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.json: No such file"):
        Analysis.read(tmp_path / "nowhere.json")
