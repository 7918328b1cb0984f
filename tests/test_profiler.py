"""Profiler files are readable by smdebug, evaluated by AWS's rules, and shown in a report."""

import contextlib
import json
import logging
import math
import re
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from container.classifier.environment import CACHE_DIR_VARIABLE
from container.classifier.errors import UserError
from container.debugger.__main__ import main
from container.debugger.profiler import profile as profiles
from container.debugger.profiler import profiler, rules, timeline
from container.debugger.profiler.profile import Profile
from container.debugger.profiler.profiler import OperatorSampler, interval_of
from container.debugger.profiler.timeline import Event, Timeline
from container.debugger.reading.records import Records
from container.debugger.report import advice, render
from container.debugger.rules.rule import (
    INSUFFICIENT,
    ISSUES,
    NO_ISSUES,
    Finding,
    Verdict,
    Violation,
)
from tests.accessibility import check_accessibility
from tests.opt_ml import make_job, train_here, write_json
from tests.report_pages import check_report


@pytest.fixture(scope="module")
def base_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base_dir = make_job(tmp_path_factory.mktemp("job"), epochs="8", debug="required")
    write_json(base_dir, "profilerconfig.json", {"ProfilingIntervalInMilliseconds": 100})
    assert train_here(base_dir, "train") == 0
    return base_dir


def test_job_times_every_step_and_its_phases(base_dir: Path) -> None:
    profile = profiles.read(base_dir / "output" / "profiler")

    steps = {event.step: event.seconds for event in profile.durations(timeline.STEP)}
    assert sorted(steps) == list(range(8 * 3))
    for name in timeline.PHASES:
        events = profile.durations(name)
        assert len(events) == len(steps)
        assert all(event.seconds <= steps[event.step] for event in events)
    assert len(profile.durations(timeline.EVALUATION)) == 8
    assert set(profile.phase_seconds()) >= {*timeline.PHASES, "other"}
    for key in (profiles.CPU, ("memory", "")):
        for series in profile.values(*key).values():
            assert ((series[:, 1] >= 0) & (series[:, 1] <= 100)).all()
    assert profile.values(*profiles.CPU)


def test_operators_of_some_steps_are_profiled(base_dir: Path) -> None:
    found = profiles.read(base_dir / "output" / "profiler").operators

    names = [operator.name for operator in found]
    assert len(set(names)) == len(names)
    assert "aten::convolution_backward" in names
    calls = [each.calls for each in found if each.name.startswith("Optimizer.step")]
    assert calls
    assert set(calls) == {profiler.STEPS}
    assert "aten::convolution_backward" in (base_dir / "output/data/debug-report.html").read_text()


def ten_steps(own: OperatorSampler) -> int:
    """Run ten steps of one addition each; return the sum."""
    count = 0
    for _ in range(10):
        with own.step(contextlib.nullcontext()):
            count += int((torch.zeros(()) + 1).item())
    return count


def test_active_torch_profiler_of_the_user_is_not_disturbed(tmp_path: Path) -> None:
    own = OperatorSampler(has_gpu=False)

    with profile(activities=[ProfilerActivity.CPU], acc_events=True) as watching:
        assert ten_steps(own) == 10
    own.write(tmp_path, "algo-1")

    (added,) = [row.count for row in watching.key_averages() if row.key == "aten::add"]
    assert added == 10
    assert not list(tmp_path.iterdir())


def test_failing_torch_profiler_only_omits_the_operator_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> None:
        message = "no profiler here"
        raise RuntimeError(message)

    monkeypatch.setattr(profile, "start", fail)
    own = OperatorSampler(has_gpu=False)

    assert ten_steps(own) == 10
    own.write(tmp_path, "algo-1")

    assert "no profiler here" in caplog.text
    assert not list(tmp_path.iterdir())


def test_smdebug_readers_read_the_files(base_dir: Path) -> None:
    from smdebug.profiler.algorithm_metrics_reader import (  # noqa: PLC0415
        LocalAlgorithmMetricsReader,
    )
    from smdebug.profiler.system_metrics_reader import (  # noqa: PLC0415
        LocalSystemMetricsReader,
    )

    root, end = str(base_dir / "output" / "profiler"), time.time() * 1e6
    framework = LocalAlgorithmMetricsReader(root)
    framework.refresh_event_file_list()
    system = LocalSystemMetricsReader(root)
    system.refresh_event_file_list()

    phases = framework.get_events(0, end)
    assert {event.event_name for event in phases} >= {timeline.STEP, *timeline.PHASES}
    assert {event.dimension for event in system.get_events(0, end)} >= {"CPUUtilization"}


def test_report_has_all_sections_and_no_external_references(base_dir: Path) -> None:
    path = base_dir / "output" / "data" / "debug-report.html"
    page = path.read_text()

    check_report(page)
    check_accessibility(path)
    titles = re.findall(r"<h2>(.*?)</h2>", page)
    assert titles == [
        "Advice",
        "Training job summary",
        "System usage statistics",
        "Framework metrics summary",
        "Rules summary",
        "Analyzing the training loop",
        "Losses and tensors",
    ]
    assert "http:" not in page
    assert "https:" not in page
    assert not re.search(r"[>, ]nan\b", page)
    assert page.count("<polyline") > 10
    for name in ("OverallSystemUsage", "LowGPUUtilization", "LossNotDecreasing"):
        assert name in page


def test_command_writes_the_report_again(base_dir: Path, tmp_path: Path) -> None:
    output = tmp_path / "page.html"

    assert main(["report", str(base_dir), "--output", str(output)]) == 0

    assert "Sequential_head.weight" in output.read_text()
    assert main(["report", str(tmp_path / "nowhere")]) == 2


def test_report_without_data_states_what_is_missing() -> None:
    page = render(Records({}, []), None, [], "job")

    check_report(page)
    assert "0 of 0 rules on tensors and 0 of 11 rules on the profile found issues." in page
    assert "No rule could be evaluated" in page
    assert " rules had too little data: " in page
    assert "No phases were timed" in page
    assert "System metrics were not sampled" in page


def test_rates_of_bytes_are_in_megabytes() -> None:
    key = ("algo-1", "network", "ReceiveBytesPerSecond", "Algorithm")
    profile = Profile({key: [(0.0, 91_770_000.0), (1.0, 2e9)]})

    page = render(Records({}, []), profile, [], "job")

    assert "network received, MB/s" in page
    assert ">2000<" in page
    assert "e+0" not in page


def test_advice_lists_causes_before_consequences() -> None:
    violation = Violation(1, "a", 1, sentence="", cause="", remedy="")
    verdicts = [
        Verdict(rule=rule, finding=Finding(1, [violation]))
        for rule in ("Dataloader", "LossNotDecreasing", "VanishingGradient", "DeadRelu")
    ]

    assert [row["rule"] for row in advice(verdicts)] == [
        "DeadRelu",
        "VanishingGradient",
        "LossNotDecreasing",
        "Dataloader",
    ]


def steps(data: float, count: int = 30) -> list[Event]:
    """Return steps of 0.1 s plus `data` seconds of waiting for images."""
    events = []
    for step in range(count):
        start = 10.0 * step
        events.append(Event(timeline.STEP, start, 0.1 + data, step))
        events.append(Event(timeline.DATA, start, data, step))
        events.append(Event(timeline.FORWARD, start + data, 0.1, step))
    return events


def late_steps(count: int) -> list[Event]:
    """Return 400 ordinary steps, and `count` steps of 9 s."""
    events = steps(0.0, 400)
    for step in range(400, 400 + count):
        events += [Event(name, 1e4, 9, step) for name in (timeline.STEP, timeline.FORWARD)]
    return events


def system(
    gpus: list[float], memory: float = 20, cpu: float = 30, wait: float = 0, count: int = 1200
) -> Profile:
    """Return samples of every half second; those of GPUs have noise of 1 %."""
    times = np.arange(count) / 2
    noise = np.random.default_rng(0).normal(size=count)
    constants = {("cpu", "cpu0", "CPUUtilization"): cpu, ("cpu", "cpu0", "I/OWaitPercentage"): wait}
    for number, used in enumerate(gpus):
        constants["gpu", f"gpu{number}", "GPUUtilization"] = used
        constants["gpu", f"gpu{number}", "GPUMemoryUtilization"] = memory
    return Profile(
        {
            ("algo-1", *key): [
                (t, value + n * (key[0] == "gpu")) for t, n in zip(times, noise, strict=True)
            ]
            for key, value in constants.items()
        }
    )


def growing() -> Profile:
    profile = system([95])
    key = ("algo-1", "gpu", "gpu0", "GPUMemoryUtilization")
    profile.metrics[key] = [(t, t / 10) for t, _ in profile.metrics[key]]
    return profile


WRONG = {
    "BatchSize": system([20]),
    "CPUBottleneck": system([3], cpu=95),
    "IOBottleneck": system([3], wait=80),
    "LowGPUUtilization": system([40]),
    "GPUMemoryIncrease": growing(),
    "LoadBalancing": system([95, 10]),
    "Dataloader": Profile({}, steps(0.4)),
    "StepOutlier": Profile({}, late_steps(11)),
    "MaxInitializationTime": Profile(
        {}, [Event(timeline.INITIALIZATION, 0, 1500, 0), Event(timeline.STEP, 1500, 1, 0)]
    ),
}
WELL = Profile(system([95, 95], memory=90, cpu=60).metrics, steps(0.001))


def status(profile: Profile) -> dict[str, str]:
    return {verdict.rule: verdict.status for verdict in rules.evaluate_all(profile)}


@pytest.mark.parametrize("rule", WRONG)
def test_profiler_rule_finds_its_fault(rule: str) -> None:
    assert status(WRONG[rule])[rule] == ISSUES


def test_well_used_machine_has_no_issues() -> None:
    assert set(status(WELL).values()) == {NO_ISSUES}


def test_recorded_steps_are_not_outliers() -> None:
    events = steps(0.01, 400)
    for step in range(0, 400, 20):
        events[3 * step] = Event(timeline.STEP, 10.0 * step, 9, step)

    assert status(Profile({}, events))["StepOutlier"] == NO_ISSUES


def test_outliers_with_little_lost_time_are_ignored() -> None:
    events = [
        Event(timeline.STEP, float(step), 0.3 if step % 80 == 0 else 0.1, step)
        for step in range(1200)
    ]

    assert status(Profile({}, events))["StepOutlier"] == NO_ISSUES


def test_gpu_rules_report_insufficient_data_without_a_gpu() -> None:
    statuses = status(Profile(system([]).metrics, steps(0.001)))

    assert statuses["LowGPUUtilization"] == statuses["BatchSize"] == INSUFFICIENT
    assert statuses["Dataloader"] == NO_ISSUES
    assert ISSUES not in statuses.values()


def test_advised_speedup_is_that_of_steps_without_waiting() -> None:
    profile = Profile({}, steps(0.3))

    (verdict,) = [each for each in rules.evaluate_all(profile) if each.rule == "Dataloader"]

    assert verdict.worst is not None
    assert verdict.worst.value == pytest.approx(0.75)
    assert "4.00 times as fast" in verdict.worst.remedy
    assert f"({CACHE_DIR_VARIABLE} names" in verdict.worst.remedy


@pytest.mark.parametrize(
    ("document", "seconds"),
    [
        (None, 0.5),
        ({"DisableProfiler": "true"}, None),
        ({"DisableProfiler": False, "ProfilingIntervalInMilliseconds": "1000"}, 1.0),
        ({"profilingIntervalInMilliseconds": 7}, 0.5),
        ({"ProfilingParameters": {"LocalPath": "__import__('os').abort()"}}, 0.5),
        ([], 0.5),
    ],
)
def test_two_settings_of_the_profiler_configuration_are_read(
    tmp_path: Path, document: object, seconds: float | None
) -> None:
    path = tmp_path / "profilerconfig.json"
    if document is not None:
        path.write_text(json.dumps(document))

    assert interval_of(path) == seconds


def test_full_disk_ends_timing_but_not_training(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "framework").touch()
    caplog.set_level(logging.WARNING)
    own = Timeline(tmp_path, "algo-1", wait_for_device=None)

    for _ in range(timeline.FILE_EVENTS):
        own.add(timeline.STEP, 0.0, 0.1)
    for number in range(9):
        own.begin_step(number)
        with own.phase(timeline.STEP):
            pass

    assert len(caplog.messages) == 1
    # Nothing is left that it would write.
    own.flush()


def test_device_is_synchronized_only_in_timed_steps(tmp_path: Path) -> None:
    waits = []
    own = Timeline(tmp_path, "algo-1", wait_for_device=lambda: waits.append(1))

    for number in range(100):
        own.begin_step(number)
        with own.phase(timeline.FORWARD):
            pass
    own.flush()

    assert len(waits) == math.ceil(100 / timeline.GPU_INTERVAL)
    assert len(profiles.read(tmp_path).events) == len(waits)


@pytest.mark.parametrize("text", ["{", "[]", '[{"ph": "X"}]', "[1]"])
def test_damaged_profile_is_rejected_with_a_clear_message(tmp_path: Path, text: str) -> None:
    path = tmp_path / "framework" / "pevents" / "2026112020" / "1_algo-1_pythontimeline.json"
    path.parent.mkdir(parents=True)
    path.write_text(text)

    with pytest.raises(UserError, match=r"is damaged|has no profile"):
        profiles.read(tmp_path)
