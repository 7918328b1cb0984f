"""The examples have the settings of the projects that they reproduce."""

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import examples
from container.debugger.rules import selection
from image_classifier.sagemaker import training_requests
from image_classifier.settings import settings_file
from tests.opt_ml import COLORS, write_images
from tests.settings_files import EXAMPLES


def search(name: str) -> dict[str, Any]:
    """Return the search of an example's tuning job."""
    settings = settings_file.read(EXAMPLES / f"{name}.toml").settings
    assert settings.tuning
    request: dict[str, Any] = training_requests.tuning_job(settings, settings.tuning, "x")
    config: dict[str, Any] = request["HyperParameterTuningJobConfig"]
    return config


@pytest.mark.parametrize(
    ("name", "network", "fine_tuning", "endpoint"),
    [
        ("fingers", "vgg16", "none", "real-time"),
        ("dogs-resnet18", "resnet18", "none", "real-time"),
        ("dogs-resnet50", "resnet50", "staged", "multi-model"),
        ("dogs-adamw", "resnet50", "full", "asynchronous"),
        ("hurricane-cnn", "small", None, "serverless"),
    ],
)
def test_examples_have_the_networks_and_endpoints_of_their_projects(
    name: str, network: str, fine_tuning: str | None, endpoint: str
) -> None:
    settings = settings_file.read(EXAMPLES / f"{name}.toml").settings

    assert settings.hyperparameters["network"] == network
    assert settings.hyperparameters.get("fine_tuning") == fine_tuning
    assert settings.endpoint.kind == endpoint
    # No mirrored images if sides are classes.
    assert not settings.hyperparameters.get("horizontal_flip") or name.startswith("dogs")
    # The final evaluation uses data that no decision used.
    assert "test" in settings.data.channels


def test_fingers_and_hurricane_search_the_ranges_of_their_courses() -> None:
    fingers, hurricane = search("fingers"), search("hurricane-cnn")

    assert fingers["HyperParameterTuningJobObjective"] == {
        "Type": "Minimize",
        "MetricName": "val_loss",
    }
    ranges = fingers["ParameterRanges"]
    assert ranges["ContinuousParameterRanges"][0]["MinValue"] == "0.001"
    assert ranges["ContinuousParameterRanges"][0]["MaxValue"] == "0.01"
    assert ranges["CategoricalParameterRanges"][0]["Values"] == ["32", "64", "128"]
    assert ranges["IntegerParameterRanges"][0]["MaxValue"] == "5"
    ranges = hurricane["ParameterRanges"]
    assert ranges["CategoricalParameterRanges"][0]["Values"] == ["16", "64", "256", "1024"]
    assert ranges["IntegerParameterRanges"][0]["MinValue"] == "2"


def test_adamw_example_also_searches_weight_decay() -> None:
    settings = settings_file.read(EXAMPLES / "dogs-adamw.toml").settings

    assert settings.hyperparameters["optimizer"] == "adamw"
    assert settings.tuning
    assert set(settings.tuning.ranges) == {"weight_decay", "learning_rate", "epochs", "batch_size"}


@pytest.mark.parametrize("name", ["fingers", "hurricane-cnn"])
def test_the_five_rules_and_the_profiler_report_are_requested(name: str) -> None:
    settings = settings_file.read(EXAMPLES / f"{name}.toml").settings

    assert "DebugHookConfig" not in training_requests.training_job(settings, "x")
    service = settings.debugger.model_copy(update={"service": True})
    settings = settings.model_copy(update={"debugger": service})
    request: dict[str, Any] = training_requests.training_job(settings, "x", rule_image="y")

    invoked = [each["RuleConfigurationName"] for each in request["DebugRuleConfigurations"]]
    assert set(invoked) == {
        "LossNotDecreasing",
        "VanishingGradient",
        "Overfit",
        "Overtraining",
        "PoorWeightInitialization",
    }
    # The training program evaluates the same rules.
    own = selection.select(request["HyperParameters"]["debug_rules"])
    assert [rule.name for rule in own] == invoked
    profiled = [each["RuleConfigurationName"] for each in request["ProfilerRuleConfigurations"]]
    assert profiled == ["LowGPUUtilization", "ProfilerReport"]
    assert request["ProfilerConfig"]["ProfilingIntervalInMilliseconds"] == 500


@pytest.mark.slow
@pytest.mark.parametrize("name", ["dogs-resnet18", "hurricane-cnn"])
def test_example_trains_and_predicts_on_this_machine(name: str, tmp_path: Path) -> None:
    for channel, first in (("training", 0), ("validation", 4), ("test", 8)):
        write_images(tmp_path / "images" / channel, per_class=4, first=first)

    answer = examples.run(EXAMPLES / f"{name}.toml", tmp_path)

    assert answer.split()[0] in COLORS
    trained = tmp_path / ".launcher" / name / "ml"
    report = json.loads((trained / "output" / "data" / "metrics.json").read_text())
    assert report["test"]
    network = settings_file.read(EXAMPLES / f"{name}.toml").settings.hyperparameters["network"]
    assert json.loads((trained / "model" / "manifest.json").read_text())["network"] == network
