"""Each rule finds its fault, no issue in a healthy run, and reports insufficient data."""

import json
import math
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from container.classifier.errors import UserError
from container.classifier.parsing import Value
from container.debugger import sources
from container.debugger.__main__ import main
from container.debugger.reading import metric_log
from container.debugger.reading.records import Record, Records
from container.debugger.rules import selection
from container.debugger.rules.rule import INSUFFICIENT, ISSUES, NO_ISSUES, Verdict
from container.debugger.rules.selection import RULES
from image_classifier.settings import debugging

Recorded = dict[tuple[str, str], list[tuple[int, Any]]]


def normal(*shape: int, seed: int = 0) -> npt.NDArray[np.float64]:
    return np.random.default_rng(seed).normal(size=shape)


def records(tensors: Recorded, times: list[tuple[int, float]] | None = None) -> Records:
    """Make records of whole tensors; an evaluation comes after the step of its number."""
    made = {}
    for (name, mode), values in tensors.items():
        made[name, mode] = [
            Record(2 * step + (mode == "EVAL"), step, {"": partial(np.asarray, value)})
            for step, value in values
        ]
    return Records(made, times or [])


def losses(values: npt.ArrayLike, mode: str = "TRAIN", every: int = 1, first: int = 0) -> Recorded:
    series = [(first + every * i, value) for i, value in enumerate(np.asarray(values).tolist())]
    return {("CrossEntropyLoss_output_0", mode): series}


def falling(count: int = 60, noise: float = 0.05, seed: int = 0) -> npt.NDArray[np.float64]:
    steps: npt.NDArray[np.float64] = np.exp(-np.arange(count) / 15)
    return steps + noise * normal(count, seed=seed) + 0.3


def gradients(scales: Mapping[str, float], steps: int = 4) -> Recorded:
    return {
        (f"gradient/Net_{name}", "TRAIN"): [
            (step, scale * normal(50, seed=step)) for step in range(steps)
        ]
        for name, scale in scales.items()
    }


def weights(change: float) -> Recorded:
    start = normal(50)
    moved = [(step, start + step * change) for step in range(5)]
    return {("Net_conv.weight", "TRAIN"): moved, **gradients({"conv.weight": 1}, 5)}


HEALTHY_LAYERS = {f"layer{i}.weight": 0.01 * 0.7**i for i in range(10)}
VANISHED = {f"layer{i}.weight": 0.01 * 0.1 ** (2 * i) for i in range(5)}


def images(values: npt.NDArray[np.float64]) -> Recorded:
    return {("input_image", "TRAIN"): [(0, values), (1, values)]}


def photographs(mean: float, std: float) -> npt.NDArray[np.float64]:
    return np.clip(mean + std * normal(300, 3, 4, 4), -2.1, 2.6)


def labels(counts: list[int]) -> Recorded:
    return {("labels", "TRAIN"): [(0, np.repeat(np.arange(len(counts)), counts))]}


def evaluation(accuracy: float) -> Recorded:
    true = np.repeat([0, 1], 100)
    predicted = np.where(np.arange(200) % 100 < 100 * accuracy, true, 1 - true)
    steps = (1, 2, 3)
    return {
        ("labels", "EVAL"): [(step, true) for step in steps],
        ("predictions", "EVAL"): [(step, predicted) for step in steps],
    }


def activity(fractions: npt.ArrayLike, count: int = 3) -> Recorded:
    return {("relu_activity_0", "TRAIN"): [(i, np.asarray(fractions)) for i in range(count)]}


def saturated(scale: float) -> Recorded:
    return {("act_sigmoid_input_0", "TRAIN"): [(0, scale * normal(20, 8, 2, 2))]}


def ratios(values: list[float]) -> Recorded:
    return {("update_ratio/Net_conv.w", "TRAIN"): list(enumerate(values))}


def initialized(ratio: float, curve: npt.NDArray[np.float64]) -> Recorded:
    inputs = {
        (f"layer{i}.relu_input_0", "TRAIN"): [(s, ratio**i * normal(40, seed=s)) for s in (0, 1)]
        for i in range(2)
    }
    return {**inputs, **losses(curve)}


FLAT = 0.7 + 0.05 * normal(60)

BROKEN: dict[str, list[Recorded]] = {
    "LossNotDecreasing": [
        losses(FLAT),
        losses(np.concatenate([falling(), 5 * falling()[::-1]])),
        losses([*falling(50), *[math.nan] * 10]),
        losses(0.7 - 0.00005 * np.arange(60)),
    ],
    "Overfit": [
        losses(falling(80)) | losses([0.9, 0.6, 0.5, 0.7, 0.9, 1.2], "EVAL", every=10, first=10)
    ],
    "Overtraining": [
        losses(falling(150)) | losses([0.9, 0.5, *[0.5] * 12], "EVAL", every=10, first=10)
    ],
    "VanishingGradient": [gradients(VANISHED), gradients({"a.weight": 0, "b.weight": 0.1})],
    "ExplodingTensor": [
        gradients({"a.weight": math.inf}),
        losses([1.0, math.nan]),
        losses([1.0, 0.9]) | losses([1.0, math.nan], "EVAL"),
    ],
    "PoorWeightInitialization": [initialized(50, FLAT)],
    "DeadRelu": [activity([0, 0, 0, 0.5])],
    "SaturatedActivation": [saturated(40)],
    "WeightUpdateRatio": [ratios([math.nan, 12, 15]), ratios([0.1, 0, 0])],
    "UnchangedTensor": [weights(0)],
    "AllZero": [gradients({"a.weight": 0, "b.weight": 1})],
    "TensorVariance": [gradients({"a.weight": 1e-3})],
    "ClassImbalance": [labels([600, 20]), evaluation(0.2)],
    "Confusion": [evaluation(0.8)],
    "CheckInputImages": [
        images(np.random.default_rng(0).uniform(0, 1, (300, 3, 4, 4))),
        images(np.random.default_rng(0).uniform(0, 255, (300, 3, 4, 4))),
        images((photographs(-0.5, 0.8) - 0.45) / 0.23),
    ],
    "StalledTraining": [],
}

HEALTHY: dict[str, list[Recorded]] = {
    "LossNotDecreasing": [
        losses(falling()),
        # Most of the fall is in the first records.
        losses(0.15 + 0.85 * np.exp(-np.arange(36) / 4) + 0.03 * normal(36)),
        # It falls slowly, which ten records do not show.
        losses(0.7 - 0.0005 * np.arange(160) + 0.08 * normal(160, seed=2)),
        # Trained before: evaluation 0 comes first.
        losses(0.2 + 0.05 * normal(60), first=1)
        | {("CrossEntropyLoss_output_0", "EVAL"): [(0, 0.2), (70, 0.2)]},
    ],
    "Overfit": [
        losses(falling(80)) | losses([0.9, 0.7, 0.6, 0.6, 0.62, 0.6], "EVAL", every=10, first=10),
        # It rises and recovers.
        losses(falling(80)) | losses([0.9, 0.5, 0.9, 0.8, 0.45, 0.4], "EVAL", every=10, first=10),
        losses(falling(80)) | losses([0.9, 0.5, 0.8, 0.9, 0.45, 0.4], "EVAL", every=10, first=10),
        # Nothing is learned or memorized.
        losses(FLAT) | losses([0.7, 0.9, 1.2, 1.5], "EVAL", every=10, first=20),
        losses(0.01 * falling(80))
        | losses([0.4, 0.3, 0.25, 0.25, 0.26], "EVAL", every=10, first=10),
    ],
    "Overtraining": [
        losses(falling(150)) | losses(falling(14, 0), "EVAL", every=10, first=10),
        # It has learned nothing yet.
        losses(np.full(150, 0.7)) | losses(np.full(14, 0.7), "EVAL", every=10, first=10),
    ],
    "VanishingGradient": [
        gradients(HEALTHY_LAYERS),
        # All gradients are small, because the network has learned its images.
        gradients({name: 1e-7 * scale for name, scale in HEALTHY_LAYERS.items()}),
        gradients({"conv.bias": 1e-9, "head.weight": 0.1}),
    ],
    "ExplodingTensor": [gradients(HEALTHY_LAYERS)],
    "PoorWeightInitialization": [
        initialized(50, falling()),
        initialized(1, FLAT),
        # The initialization is good, but the learning rate is too high.
        initialized(1, FLAT)
        | {("layer2.relu_input_0", "TRAIN"): [(s, normal(40, seed=s) * 1e9**s) for s in (0, 1)]},
    ],
    "DeadRelu": [activity([0, 0.1, 0.2, 0.5])],
    "SaturatedActivation": [saturated(3)],
    "WeightUpdateRatio": [ratios([1e30, 0.01, 0.005])],
    "UnchangedTensor": [
        weights(0.01),
        # Frozen: it has no gradient.
        {("Net_conv.weight", "TRAIN"): [(i, np.ones(3)) for i in range(5)]}
        | {("Net_head.weight", "TRAIN"): [(i, [i, 1.0]) for i in range(5)]}
        | gradients({"head.weight": 1}, 5),
    ],
    "AllZero": [gradients(HEALTHY_LAYERS)],
    "TensorVariance": [gradients({"a.weight": 1})],
    "ClassImbalance": [labels([300, 290]), evaluation(0.8)],
    "Confusion": [evaluation(0.95)],
    "CheckInputImages": [images(photographs(0, 1)), images(photographs(-0.9, 0.6))],
    "StalledTraining": [],
}

SETTINGS: dict[str, dict[str, Value]] = {"TensorVariance": {"min_threshold": 0.01}}


def verdict(rule: str, recorded: Recorded) -> Verdict:
    return RULES[rule].evaluate(records(recorded), SETTINGS.get(rule))


@pytest.mark.parametrize(
    ("rule", "recorded"), [(rule, case) for rule, cases in BROKEN.items() for case in cases]
)
def test_rule_finds_its_fault(rule: str, recorded: Recorded) -> None:
    found = verdict(rule, recorded)

    assert found.status == ISSUES, found
    assert found.worst is not None
    assert all((found.worst.tensor, found.worst.sentence, found.worst.cause, found.worst.remedy))


@pytest.mark.parametrize(
    ("rule", "recorded"), [(rule, case) for rule, cases in HEALTHY.items() for case in cases]
)
def test_rule_finds_no_issue_in_a_healthy_run(rule: str, recorded: Recorded) -> None:
    assert verdict(rule, recorded).status == NO_ISSUES, verdict(rule, recorded)


@pytest.mark.parametrize("rule", RULES)
def test_rule_with_too_little_data_names_the_missing_data(rule: str) -> None:
    for recorded in ({}, losses([0.7]), gradients({"a.weight": 1}, steps=1)):
        found = verdict(rule, recorded)

        expected = INSUFFICIENT
        if rule in {"ExplodingTensor", "TensorVariance"} and recorded:
            # One value suffices.
            expected = found.status
        assert found.status == expected, (found, recorded)
        assert found.finding.lacks or expected == NO_ISSUES or recorded


def test_stalled_training_is_found_by_record_times() -> None:
    times = [(step, 2.0 * step) for step in range(5)] + [(5, 2000.0)]

    stalled = RULES["StalledTraining"].evaluate(records({}, times))
    steady = RULES["StalledTraining"].evaluate(records({}, times[:-1]))

    assert (stalled.status, steady.status) == (ISSUES, NO_ISSUES)
    assert stalled.worst is not None
    assert (stalled.worst.step, stalled.worst.value) == (5, 1992)


def test_noise_neither_causes_nor_hides_issues() -> None:
    def issues(curves: list[npt.NDArray[np.float64]]) -> float:
        statuses = [verdict("LossNotDecreasing", losses(curve)).status for curve in curves]
        return statuses.count(ISSUES) / len(statuses)

    assert issues([0.7 + 0.1 * normal(60, seed=seed) for seed in range(200)]) > 0.97
    assert issues([falling(noise=0.1, seed=seed) for seed in range(200)]) < 0.02


def test_defaults_are_those_that_aws_documents() -> None:
    assert RULES["LossNotDecreasing"].defaults["diff_percent"] == 0.1
    assert RULES["VanishingGradient"].defaults == {"threshold": 1e-7}
    assert RULES["Overtraining"].defaults == {
        "patience_train": 5,
        "patience_validation": 10,
        "delta": 0.01,
    }
    assert RULES["DeadRelu"].defaults["tensor_regex"] == ".*relu_output"


def test_default_selection_is_every_rule_without_required_limits() -> None:
    assert {rule.name for rule in selection.select(None)} == RULES.keys() - {
        "TensorVariance",
        "Confusion",
    }


def test_rules_are_selected_by_name_or_as_sdk_json() -> None:
    document = [
        {
            "RuleConfigurationName": "Overfit",
            "RuleEvaluatorImage": "1234.dkr.ecr/rules",
            "RuleParameters": {
                "rule_to_invoke": "Overfit",
                "patience": "3",
                "action_json": '[{"name": "stoptraining"}]',
            },
        },
        {"RuleParameters": {"rule_to_invoke": "StalledTrainingRule", "threshold": "60"}},
    ]

    overfit, stalled = selection.select(json.dumps(document))
    named = selection.select("VanishingGradient, Overfit!")

    assert (overfit.name, overfit.parameters, overfit.stops) == ("Overfit", {"patience": 3}, True)
    assert (stalled.name, stalled.parameters) == ("StalledTraining", {"threshold": 60.0})
    assert [(rule.name, rule.stops) for rule in named] == [
        ("VanishingGradient", False),
        ("Overfit", True),
    ]
    assert selection.select("none") == []


def test_a_rule_may_be_named_as_in_the_settings_file() -> None:
    document = '[{"RuleParameters": {"rule_to_invoke": "stalled_training_rule"}}]'
    named = selection.select("all_zero, overfit!")

    assert [(rule.name, rule.stops) for rule in named] == [("AllZero", False), ("Overfit", True)]
    assert [rule.name for rule in selection.select(document)] == ["StalledTraining"]
    for name, (rule, _) in debugging.RULES.items():
        assert [selected.name for selected in selection.select(name)] == [
            selected.name for selected in selection.select(rule)
        ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Overfitt", "unknown rule 'Overfitt'"),
        ("[", "the rules are not JSON"),
        ("[1]", "a rule must be an object"),
        ('{"RuleParameters": {"rule_to_invoke": "Overfit", "x": "1"}}', "has no parameter 'x'"),
        ('{"RuleParameters": {"rule_to_invoke": "Overfit", "patience": "?"}}', "a whole number"),
    ],
)
def test_invalid_rule_is_rejected_with_a_clear_message(text: str, words: str) -> None:
    with pytest.raises(UserError, match=re.escape(words)):
        selection.select(text)


LOG = "\n".join(
    f"epoch={epoch} train_loss={0.9 / epoch:.4f} train_accuracy=0.5 val_loss={loss} val_f1=0.5"
    for epoch, loss in enumerate([0.9, 0.6, 0.5, 0.7, 0.9, 1.2], start=1)
)


def test_command_evaluates_a_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "log.txt"
    path.write_text(f"hyperparameters: epochs=5\n{LOG}\nbest_epoch=3 val_loss=0.5\n")

    code = main(["rules", str(path), "--rules", "Overfit,VanishingGradient"])

    out = capsys.readouterr().out
    assert code == 1
    assert out.startswith("IssuesFound       Overfit")
    assert "evaluation 6, loss: the validation loss 1.2 " in out
    assert main(["rules", str(path), "--set", "Overfit.patience=5"]) == 0


def test_command_prints_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    history = [{"train_loss": 1 / n, "val_loss": 0.5} for n in range(1, 5)]
    (tmp_path / "metrics.json").write_text(json.dumps({"history": history}))

    assert main(["rules", str(tmp_path), "--json", "--rules", "Overfit"]) == 0

    (document,) = json.loads(capsys.readouterr().out)
    assert (document["Status"], document["Datapoints"]) == ("NoIssuesFound", 4)
    assert "ratio_threshold:0.1" in document["RuleParameters"]


@pytest.mark.parametrize("content", [None, b"", b"\xff\xfe", b"{}", b'{"history": 1}', b"[" * 9999])
def test_unreadable_source_is_rejected_with_a_clear_message(
    tmp_path: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "log"
    if content is not None:
        path.write_bytes(content)

    assert main(["rules", str(path)]) == 2

    assert capsys.readouterr().err.startswith("error: ")


def test_file_outside_of_the_folder_is_not_read(tmp_path: Path) -> None:
    index = tmp_path / "index" / "000000000" / "000000000001_worker_0.json"
    index.parent.mkdir(parents=True)
    meta = {"mode": "TRAIN", "mode_step": 0, "event_file_name": "../../secret"}
    entry = {"tensorname": "a", "start_idx": 0, "length": 20}
    index.write_text(json.dumps({"meta": meta, "tensor_payload": [entry]}))

    with pytest.raises(UserError, match="outside of the folder"):
        sources.read(tmp_path)


def test_losses_of_a_log_are_those_of_its_last_run(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_text("epoch=1 train_loss=3 val_loss=4\nepoch=1 train_loss=1 val_loss=2\n")

    read = metric_log.read(path)

    assert [point.value for point in read.losses("TRAIN")] == [1]
    assert [point.value for point in read.losses("EVAL")] == [2]
