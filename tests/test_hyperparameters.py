"""What a training job can be told, however SageMaker's clients say it."""

import ast
import dataclasses
import subprocess
import sys
from itertools import pairwise

import pytest

from container.classifier.errors import UserError
from container.training.hyperparameters import Hyperparameters
from tests.opt_ml import CONTAINER


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
        # A person at the console.
        ("epochs", " 3 ", 3),
        ("augment", "no", False),
        ("augment", "1", True),
        ("augment", "ON", True),
        ("optimizer", "'sgd'", "sgd"),
        ("image_size", "", None),
        ("pretrained", "none", None),
        # What is no string after all.
        ("epochs", 3, 3),
        ("augment", False, False),
        ("learning_rate", None, None),
    ],
)
def test_every_encoding_of_a_value_is_read(name: str, value: object, expected: object) -> None:
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
        ("optimizer", "'", 'optimizer must be a text, got "\'"'),
        (
            "objective",
            "accuracy",
            "objective must be one of val_accuracy, val_balanced_accuracy, val_f1, val_loss; got",
        ),
        ("seed", "-1", "seed must be 0 to 4294967295, got -1"),
        ("checkpoint_interval_seconds", "-1", "checkpoint_interval_seconds must be 0.0 to 86400.0"),
    ],
)
def test_a_value_of_another_type_or_out_of_range_is_refused(
    name: str, value: str, reason: str
) -> None:
    with pytest.raises(UserError) as refusal:
        decoded(name, value)

    assert str(refusal.value).startswith(reason)


def test_a_learning_rate_is_given_or_searched_for() -> None:
    with pytest.raises(UserError, match="learning_rate is given, and find_learning_rate=true"):
        Hyperparameters(learning_rate=0.1, find_learning_rate=True)


def test_unknown_hyperparameters_are_refused_and_the_known_ones_listed() -> None:
    with pytest.raises(UserError) as refusal:
        Hyperparameters.from_strings({"lr": "0.1", "epoch": "3", "epochs": "3"})

    known = ", ".join(field.name for field in dataclasses.fields(Hyperparameters))
    assert str(refusal.value) == f"unknown hyperparameters epoch, lr; known are {known}"


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
def test_what_tuners_and_toolkits_add_is_passed_over(name: str) -> None:
    assert Hyperparameters.from_strings({name: '"x"'}) == Hyperparameters()


def test_every_default_is_within_its_range_and_said_in_words() -> None:
    defaults = dataclasses.asdict(Hyperparameters())

    assert Hyperparameters.from_strings({k: str(v) for k, v in defaults.items()}).epochs == 5
    source = ast.parse((CONTAINER / "training" / "hyperparameters.py").read_text())
    body = next(n for n in source.body if isinstance(n, ast.ClassDef)).body
    for field, text in pairwise(body):
        if isinstance(field, ast.AnnAssign):
            assert isinstance(text, ast.Expr), ast.unparse(field)
            assert isinstance(text.value, ast.Constant)


def test_hyperparameters_are_checked_without_torch() -> None:
    code = "import sys, training.hyperparameters as h; assert 'torch' not in sys.modules; print(h)"

    program = subprocess.run(
        [sys.executable, "-c", code], cwd=CONTAINER, check=False, capture_output=True, text=True
    )

    assert program.returncode == 0, program.stderr
