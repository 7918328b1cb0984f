"""Rules evaluate a running job, and files that smdebug itself recorded."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from container.debugger import sources
from container.debugger.recording.debug_session import Observer, Settings
from container.debugger.recording.live_rules import LiveRules
from container.debugger.recording.patched_smdebug import Hook, ModeKeys, forget_hook
from container.debugger.rules import selection
from container.debugger.rules.rule import INSUFFICIENT, ISSUES, NO_ISSUES
from container.debugger.rules.selection import RULES
from container.training import job
from container.training.sagemaker.environment import TrainingEnvironment
from container.training.sagemaker.stop import StopRequest
from container.training.schedule import phase
from tests.observed import Network, train
from tests.opt_ml import HYPERPARAMETERS, configure, failure, make_job, metrics, train_here


def test_stopping_rule_ends_a_job_cleanly(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rules = "LossNotDecreasing!, UnchangedTensor"
    given = {**HYPERPARAMETERS, "epochs": "30", "learning_rate": "1e-9", "debug_rules": rules}
    base_dir = make_job(tmp_path, **given)
    caplog.set_level(logging.INFO)

    job.run(TrainingEnvironment(base_dir=base_dir), StopRequest())

    assert "stopped_by_rule=LossNotDecreasing" in caplog.messages
    history = metrics(base_dir)["history"]
    assert isinstance(history, list)
    # The rule needs 30 losses, and an epoch has three.
    assert 10 <= len(history) < 20
    assert (base_dir / "model" / "manifest.json").exists()
    logged = [message for message in caplog.messages if message.startswith("debugger: Loss")]
    assert len(logged) == 1
    verdicts = json.loads((base_dir / "output/data/debug-rules.json").read_text())
    assert {each["RuleName"]: each["Status"] for each in verdicts}["LossNotDecreasing"] == ISSUES
    # As if interrupted before everything was written: a stopped training does not resume.
    job.run(TrainingEnvironment(base_dir=base_dir), StopRequest())
    assert metrics(base_dir)["history"] == history
    # Without that rule it resumes.
    configure(base_dir, {**given, "debug_rules": "UnchangedTensor"}, "training")
    job.run(TrainingEnvironment(base_dir=base_dir), StopRequest())
    assert len(metrics(base_dir)["history"]) == 30  # type: ignore[arg-type]


def test_unknown_rule_fails_the_job_at_the_start(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path, debug_rules="Overfitt")

    assert train_here(base_dir, "train") == 1

    assert failure(base_dir).startswith("unknown rule 'Overfitt'")


def test_loss_rules_run_without_recorded_tensors(
    caplog: pytest.LogCaptureFixture,
) -> None:
    live = LiveRules(selection.select("Overfit!"))

    for epoch, loss in enumerate([0.9, 0.6, 0.5, 0.7, 0.9, 1.2], start=1):
        live.add_losses(epoch, 0.9 / epoch, loss)
        live.evaluate_if_due(None)

    assert live.stopping == "Overfit"
    assert len(caplog.messages) == 1
    assert "Overfit at evaluation 5, loss" in caplog.messages[0]


def test_files_of_a_stopped_training_have_the_verdicts_of_its_report(tmp_path: Path) -> None:
    rule = "LossNotDecreasing"
    observer = Observer(
        Settings(configuration_path=tmp_path / "none.json", output_dir=tmp_path, rules=rule)
    )

    train(observer, Network(), steps=40)
    confusion = np.eye(3, dtype=np.int64)
    observer.evaluation(40, 1, 0.5, confusion, 0.5, learning_rate="rising")
    observer.close()

    reported = json.loads((tmp_path / "data" / "debug-rules.json").read_text())
    found = RULES[rule].evaluate(sources.read(tmp_path)).to_json()
    assert found["Status"] == INSUFFICIENT
    assert reported == [found]


# Fine-tuning of a trained head: a high learning rate raises the loss for a while.
RISEN = [0.3] * 10 + [0.5] * 10 + [0.6] * 10 + [0.4] * 10 + [0.2] * 20


def test_rise_counts_only_at_a_low_learning_rate(caplog: pytest.LogCaptureFixture) -> None:
    live = LiveRules(selection.select("LossNotDecreasing!"))
    live.add_losses(0, None, 0.3)
    statuses = []

    for epoch, loss in enumerate(RISEN, start=1):
        live.learning_rate = phase(epoch / (len(RISEN) + 1))
        live.add_losses(epoch, loss, 0.3)
        statuses.append({verdict.status for verdict in live.evaluate(None)})

    assert {ISSUES} not in statuses
    assert statuses[-1] == {NO_ISSUES}
    assert not caplog.messages
    assert live.stopping is None


def test_network_that_has_not_learned_is_not_trained_too_long_in_the_warm_up() -> None:
    live = LiveRules(selection.select("LossNotDecreasing,Overtraining"))
    live.learning_rate = "rising"

    for epoch in range(1, 41):
        live.add_losses(epoch, 0.7, 0.7)

    assert [verdict.status for verdict in live.evaluate(None)] == [INSUFFICIENT, NO_ISSUES]


def test_log_takes_back_an_issue_that_the_report_will_not_have(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    live = LiveRules(selection.select("LossNotDecreasing"))

    for epoch, loss in enumerate([0.7] * 30 + [0.1] * 30, start=1):
        live.add_losses(epoch, loss, 0.3)
        live.evaluate(None)

    found, gone = caplog.messages
    assert found.startswith("debugger: LossNotDecreasing at step 30, loss")
    assert gone == "debugger: LossNotDecreasing no longer finds an issue"


class Deep(nn.Sequential):
    """Sigmoid layers, in which gradients vanish."""

    def __init__(self, layers: int) -> None:
        torch.manual_seed(0)
        super().__init__(
            *[nn.Sequential(nn.Linear(16, 16), nn.Sigmoid()) for _ in range(layers)],
            nn.Linear(16, 2),
        )


@pytest.mark.parametrize(("layers", "status"), [(14, ISSUES), (1, NO_ISSUES)])
def test_rules_evaluate_records_of_the_smdebug_hook(
    tmp_path: Path, layers: int, status: str
) -> None:
    configuration = tmp_path / "debughookconfig.json"
    interval = {"CollectionParameters": {"save_interval": "1"}}
    document = {
        "LocalPath": str(tmp_path / "tensors"),
        "CollectionConfigurations": [
            {"CollectionName": name, **interval} for name in ("gradients", "losses", "weights")
        ],
    }
    configuration.write_text(json.dumps(document))
    hook = Hook.create_from_json_file(str(configuration))
    network, criterion = Deep(layers), nn.CrossEntropyLoss()
    # As a script for SageMaker's own container images does.
    hook.register_module(network)
    hook.register_loss(criterion)
    hook.set_mode(ModeKeys.TRAIN)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.5)
    random = np.random.default_rng(0)
    for _ in range(40):
        images = torch.from_numpy(random.normal(size=(16, 16))).float()
        optimizer.zero_grad()
        criterion(network(images), (images[:, 0] > 0).long()).backward()
        optimizer.step()
    hook.close()
    forget_hook()

    records = sources.read(tmp_path)

    assert RULES["VanishingGradient"].evaluate(records).status == status
    assert RULES["LossNotDecreasing"].evaluate(records).status == status
    ratios = RULES["WeightUpdateRatio"].evaluate(records)
    assert ratios.finding.datapoints > 30
