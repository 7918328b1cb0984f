"""The names that the settings know are those of the container's modules."""

from container.debugger.rules import selection
from image_classifier.settings import known_names
from image_classifier.settings.debugging import RULES
from tests.known_names import PATH, content


def test_known_names_are_up_to_date() -> None:
    assert PATH.read_text(encoding="utf-8") == content(), (
        "update it with: python -m tests.known_names"
    )


def test_every_rule_of_the_settings_has_parameters() -> None:
    assert {name for name, _ in RULES.values()} <= known_names.RULES.keys()


def test_types_of_parameters_are_those_that_the_rules_parse() -> None:
    examples = {"a whole number": "3", "a number": "0.5", "true or false": "true", "text": "x"}
    for name, rule in selection.RULES.items():
        for parameter, words in known_names.RULES[name].items():
            assert rule.parse(parameter, examples[words]) is not None


def test_values_of_variables_are_checked() -> None:
    threads = known_names.ENVIRONMENT["SAGEMAKER_CLASSIFIER_THREADS"]
    precision = known_names.ENVIRONMENT["SAGEMAKER_CLASSIFIER_PRECISION"]
    multi_model = known_names.ENVIRONMENT["SAGEMAKER_MULTI_MODEL"]

    assert [threads.rejection(text) for text in ("", "0", "4096")] == [None] * 3
    assert threads.rejection("4.5") == "must be a whole number from 0 to 4096, got '4.5'"
    assert threads.rejection("-1") == "must be a whole number from 0 to 4096, got '-1'"
    assert precision.rejection("int8") is None
    assert precision.rejection("fp16") == ("must be one of float32, bfloat16, int8, got 'fp16'")
    assert multi_model.rejection("TRUE") is None
