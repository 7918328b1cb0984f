"""The reference and the JSON Schema of the settings file are complete and up to date."""

import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from image_classifier.settings.__main__ import DOCUMENTS
from image_classifier.settings.json_schema import json_schema
from tests.settings_files import BEGINNING, EXAMPLES, TUNING

SCHEMA = json_schema()


def rejected(text: str) -> list[str]:
    """Return the paths of the values that the JSON Schema rejects."""
    validator = jsonschema.Draft7Validator(SCHEMA)
    return sorted(error.json_path for error in validator.iter_errors(tomllib.loads(text)))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_documents_are_up_to_date(document: Path) -> None:
    assert document.read_text(encoding="utf-8") == DOCUMENTS[document](), (
        "update it with: python -m image_classifier.settings"
    )


def test_every_key_has_a_meaning() -> None:
    def unexplained(section: dict[str, Any], path: str) -> list[str]:
        found = []
        for name, value in section.get("properties", {}).items():
            if name in {"ranges", "parameters", "environment"}:
                # Their keys are names of other references.
                value = {**value, "properties": {}}  # noqa: PLW2901
            if len(value.get("description", "").split()) < 3:
                found.append(f"{path}.{name}")
            found += unexplained(value, f"{path}.{name}")
        return found

    assert unexplained(SCHEMA, "") == []
    assert unexplained(SCHEMA["$defs"]["Range"], "range") == []


def test_json_schema_is_valid_and_accepts_the_examples() -> None:
    jsonschema.Draft7Validator.check_schema(SCHEMA)

    assert [path for path in EXAMPLES.glob("*.toml") if rejected(path.read_text("utf-8"))] == []
    assert rejected(BEGINNING + TUNING) == []


@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.toml")), ids=lambda path: path.stem)
def test_examples_name_the_json_schema(example: Path) -> None:
    first, _, _ = example.read_text(encoding="utf-8").partition("\n")

    assert first.startswith("#:schema ")
    assert (example.parent / first.removeprefix("#:schema ")).resolve() in DOCUMENTS


def test_json_schema_rejects_what_check_rejects() -> None:
    wrong = """
        [aws]
        role = "my-role"
        [data]
        channels = ["trainning"]
        [training]
        spot = "yes"
        volume_gb = 0
        instance_type = "g5.xlarge"
        [hyperparameters]
        network = "resnet19"
        epochs = 0
        optimizer = "adamm"
        epoch = 3
        _tuning_objective_metric = "val_loss"
        [tuning.ranges]
        epochs = { mim = 1 }
        momentum = { min = 0.1, max = 0.9 }
        [debugger]
        rules = ["overfitt"]
        [debugger.parameters.overfit]
        patients = 3
        [endpoint]
        kind = "batch"
        [endpoint.environment]
        SAGEMAKER_CLASSIFIER_PRECISION = "fp16"
        MY_VARIABLE = "1"
        """

    assert rejected(wrong) == [
        "$",
        "$.aws.role",
        "$.data.channels[0]",
        "$.debugger.parameters.overfit",
        "$.debugger.rules[0]",
        "$.endpoint.environment.SAGEMAKER_CLASSIFIER_PRECISION",
        "$.endpoint.kind",
        "$.hyperparameters",
        "$.hyperparameters.epochs",
        "$.hyperparameters.network",
        "$.hyperparameters.optimizer",
        "$.training.instance_type",
        "$.training.spot",
        "$.training.volume_gb",
        "$.tuning.ranges",
        "$.tuning.ranges.epochs",
    ]
