"""Hyperparameters in all encodings of SageMaker's clients."""

import dataclasses
import subprocess
import sys

import pytest

from container.classifier.errors import UserError
from container.training.hyperparameters import Hyperparameters
from tests.readme import HYPERPARAMETERS, documented_fields


def decoded(name: str, value: object) -> object:
    return getattr(Hyperparameters.from_strings({name: value}), name)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        # The generic Estimator and the tuner: str().
        ("epochs", "3", 3),
        ("epochs", "3.0", 3),
        ("epochs", "1e2", 100),
        ("learning_rate", "0.001", 0.001),
        ("learning_rate", "0.012345678901234567", 0.012345678901234567),
        ("learning_rate", "1", 1.0),
        ("learning_rate", "None", None),
        ("augment", "True", True),
        ("augment", "False", False),
        ("optimizer", "adam", "adam"),
        # With source_dir, and the frameworks' estimators: json.dumps().
        ("augment", "true", True),
        ("augment", "false", False),
        ("optimizer", '"adam"', "adam"),
        ("epochs", '"3"', 3),
        ("augment", '"True"', True),
        ("pretrained", "null", None),
        # Typed at the console.
        ("epochs", " 3 ", 3),
        ("augment", "no", False),
        ("augment", "1", True),
        ("augment", "ON", True),
        ("optimizer", "'sgd'", "sgd"),
        ("image_size", "", None),
        ("pretrained", "none", None),
        # Which selects no rules.
        ("debug_rules", "none", "none"),
        ("debug_rules", '"none"', "none"),
        ("debug_rules", "None", None),
        # Encoded twice, as pipelines do with a parameter.
        ("epochs", "'\"3\"'", 3),
        ("optimizer", '"\\"sgd\\""', "sgd"),
        # Not strings.
        ("epochs", 3, 3),
        ("augment", False, False),
        ("learning_rate", None, None),
    ],
)
def test_every_encoding_of_a_value_is_parsed(name: str, value: object, expected: object) -> None:
    found = decoded(name, value)

    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("epochs", "3.5", "epochs must be a whole number, got '3.5'"),
        ("epochs", "many", "epochs must be a whole number, got 'many'"),
        ("epochs", "nan", "epochs must be a whole number, got 'nan'"),
        ("epochs", "inf", "epochs must be a whole number, got 'inf'"),
        ("epochs", "None", "epochs must be a whole number, got 'None'"),
        ("epochs", "True", "epochs must be a whole number, got 'True'"),
        ("epochs", "[3]", "epochs must be a whole number, got '[3]'"),
        ("epochs", "0", "epochs must be 1 to 10000, got 0"),
        ("epochs", "9" * 5000, "epochs must be a whole number, got '999"),
        ("learning_rate", "fast", "learning_rate must be a number, got 'fast'"),
        ("learning_rate", "0", "learning_rate must be 1e-09 to 100.0, got 0.0"),
        ("learning_rate", "nan", "learning_rate must be 1e-09 to 100.0, got nan"),
        ("learning_rate", "1e999", "learning_rate must be 1e-09 to 100.0, got inf"),
        ("label_smoothing", "-0.1", "label_smoothing must be 0.0 to 0.9, got -0.1"),
        ("augment", "maybe", "augment must be true or false, got 'maybe'"),
        ("optimizer", "lion", "optimizer must be one of adamw, sgd, adam, muon; got 'lion'"),
        ("optimizer", "'", 'optimizer must be one of adamw, sgd, adam, muon; got "\'"'),
        (
            "objective",
            "accuracy",
            "objective must be one of val_accuracy, val_balanced_accuracy, val_f1, val_loss; got",
        ),
        ("seed", "-1", "seed must be 0 to 4294967295, got -1"),
        ("checkpoint_interval_seconds", "-1", "checkpoint_interval_seconds must be 0.0 to 86400.0"),
    ],
)
def test_wrong_type_or_value_out_of_range_is_rejected(name: str, value: str, reason: str) -> None:
    with pytest.raises(UserError) as rejection:
        decoded(name, value)

    assert str(rejection.value).startswith(reason)


def test_unknown_hyperparameters_are_rejected_with_the_known_ones() -> None:
    with pytest.raises(UserError) as rejection:
        Hyperparameters.from_strings({"lr": "0.1", "epoch": "3", "epochs": "3"})

    known = ", ".join(field.name for field in dataclasses.fields(Hyperparameters))
    assert str(rejection.value) == f"unknown hyperparameters epoch, lr; known are {known}"


@pytest.mark.parametrize(
    "name",
    [
        "_tuning_objective_metric",
        "sagemaker_estimator_class_name",
        "sagemaker_estimator_module",
        "sagemaker_program",
        "sagemaker_mpi_enabled",
        "sagemaker_s3_output",
        "default_user_module_name",
    ],
)
def test_hyperparameters_of_tuners_and_toolkits_are_ignored(name: str) -> None:
    assert Hyperparameters.from_strings({name: '"x"'}) == Hyperparameters()


def test_changes_are_the_values_that_differ_from_the_defaults() -> None:
    given = {"network": "small", "epochs": "5", "augment": "False", "learning_rate": "0.01"}

    changes = Hyperparameters.from_strings(given).changes()

    assert sorted(changes.split()) == ["augment=false", "learning_rate=0.01", "network=small"]
    assert Hyperparameters().changes() == ""


def test_every_default_is_valid() -> None:
    defaults = dataclasses.asdict(Hyperparameters())

    strings = {name: str(value) for name, value in defaults.items()}

    assert Hyperparameters.from_strings(strings) == Hyperparameters()


def test_every_field_has_a_docstring() -> None:
    fields = documented_fields(HYPERPARAMETERS, "Hyperparameters")

    assert [name for name, _, docstring in fields if not docstring] == []


def test_hyperparameters_are_checked_without_torch() -> None:
    code = "import sys, container.training.hyperparameters; print('torch' in sys.modules)"

    program = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    )

    assert program.stdout == "False\n"
