"""Clarify's analysis configuration: what is taken from it, and what is refused by name."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from container.classifier.errors import UserError
from image_classifier.explainer.analysis import Analysis


def document(**changes: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON
    """Clarify's own example, as its SDK writes it."""
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


def test_everything_that_a_configuration_says_of_images_is_taken() -> None:
    analysis = Analysis.from_json(document())

    assert (analysis.num_samples, analysis.seed, analysis.num_segments) == (300, 7, 15)
    assert analysis.segment_compactness == 10
    assert analysis.save_local_shap_values
    assert (analysis.report_name, analysis.report_title) == ("mine", "Ants")
    assert analysis.predictor.endpoint_name == "hands"
    assert analysis.predictor.probability == "predictions"
    assert analysis.predictor.label_headers == ("ant", "bee")


def test_what_is_left_out_has_clarifys_defaults() -> None:
    shap = {"image_config": {"model_type": "IMAGE_CLASSIFICATION"}}

    analysis = Analysis.from_json({"methods": {"shap": shap}})

    assert (analysis.num_segments, analysis.segment_compactness) == (20, 5)
    assert analysis.num_samples == 500
    assert analysis.predictor.content_type == "image/jpeg"
    assert analysis.predictor.accept_type == "application/json"
    assert analysis.baseline is None
    assert not analysis.use_logit


@pytest.mark.slow
def test_what_clarifys_own_sdk_writes_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAGEMAKER_SUPPRESS_V2_WARNING", "1")
    # The SDK takes seconds to import.
    from sagemaker.clarify import ImageConfig, SHAPConfig  # noqa: PLC0415

    image = ImageConfig("IMAGE_CLASSIFICATION", 8, "segmentation", 5.0, 3, 0.5, 1.0)
    shap = SHAPConfig(num_samples=100, agg_method="mean_abs", seed=1, image_config=image)

    analysis = Analysis.from_json({"methods": shap.get_explainability_config()})

    assert (analysis.num_segments, analysis.num_samples, analysis.seed) == (8, 100, 1)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"shap": {"image_config": {"model_type": "OBJECT_DETECTION"}}}, "boxes"),
        ({"shap": {"image_config": {}}}, "model_type must be IMAGE_CLASSIFICATION, got None"),
        ({"shap": {"image_config": {"model_type": "IMAGE_CLASSIFICATION", "a": 1}}}, "known are"),
        ({"shap": {"features_to_explain": ["x"]}}, "images are explained as a whole"),
        ({"shap": {"num_samples": 20}}, "num_samples must be 32 to 1e\\+06, got 20"),
        ({"shap": {"num_samples": "many"}}, "whole number, got 'many'"),
        ({"shap": {"num_samples": 99.5}}, "whole number, got 99.5"),
        ({"shap": {"num_samples": math.nan}}, "whole number, got nan"),
        ({"shap": {"seed": math.inf}}, "whole number, got inf"),
        ({"shap": {"seed": 10**400}}, "whole number, got 1000"),
        ({"shap": {"use_logit": "no"}}, "true or false, got 'no'"),
        ({"shap": {"baseline": "s3://bucket/mask.png"}}, "aws s3 cp"),
        ({"shap": {"text_config": {}}}, "unknown in shap: text_config"),
        ({"predictor": {"content_type": "text/csv"}}, "content_type must be one of"),
        ({"predictor": {"label_headers": []}}, "list of the classes' names"),
        ({"predictor": {"probability": 1}}, "must be a text, got 1"),
        ({"predictor": {"endpont": "x"}}, "unknown in predictor: endpont; known are"),
        ({"dataset_type": "text/csv"}, "dataset_type must be application/x-image"),
        ({"methods": {}}, "methods.shap is missing"),
        ({"methods": {"pdp": {}}}, "unknown in methods: pdp"),
        ({"methods": []}, "methods must be a JSON object"),
    ],
)
def test_what_is_not_possible_is_refused_in_a_sentence(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words):
        Analysis.from_json(document(**changes))


def test_a_model_name_alone_is_for_clarifys_service() -> None:
    changed = document()
    changed["predictor"] = {"model_name": "m", "instance_type": "ml.m5.large"}

    with pytest.raises(UserError, match="deploy the model and give endpoint_name"):
        Analysis.from_json(changed)


@pytest.mark.parametrize("name", ["../mine", "a/b", "", ".hidden", "a" * 200])
def test_the_report_stays_in_its_folder(name: str) -> None:
    changed = document()
    changed["methods"]["report"]["name"] = name

    if name:
        with pytest.raises(UserError, match="without a path"):
            Analysis.from_json(changed)
    else:
        assert Analysis.from_json(changed).report_name == "report"


def test_a_baseline_is_found_from_the_configurations_folder_on(tmp_path: Path) -> None:
    path = tmp_path / "analysis_config.json"
    path.write_text(json.dumps(document(shap={"baseline": "gray.png"})))

    assert Analysis.read(path).baseline == tmp_path / "gray.png"


@pytest.mark.parametrize("content", [b"{", b"[]", b"\xff", b"[" * 100_000])
def test_a_file_that_is_no_configuration_is_named(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "analysis_config.json"
    path.write_bytes(content)

    with pytest.raises(UserError, match=r"analysis_config\.json"):
        Analysis.read(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot read .*nowhere\.json: No such file"):
        Analysis.read(tmp_path / "nowhere.json")
