"""The doctor: each broken server fails the case of its fault and no other, healthy ones none."""

import json
import socket
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from image_classifier.cli import main
from image_classifier.platform.doctor.cases import CASES, MULTI_MODEL, SERVE, TRANSFORM
from image_classifier.platform.doctor.diagnosis import diagnose
from image_classifier.platform.doctor.examination import Options, TimeLimits
from image_classifier.platform.doctor.report import Report
from tests.bodies import PNG
from tests.processes import free_port
from tests.zoo import servers

ZOO = servers.__file__

# Short, so that programs that hang take a second or two.
LIMITS = TimeLimits(startup=10, invocation=4, serving_grace=1, watch=0, growth=0.2)
HANGING = replace(LIMITS, invocation=1.5)
NEVER_READY, SLOW = replace(LIMITS, startup=3), replace(LIMITS, ping=0.8)

VALID = b'{"instances": [[1, 2]]}'

BROKEN = {
    "wrong_port": "port",
    "LocalOnly": "port",
    "listens_never": "port",
    "import_error": "start",
    "wrong_case": "start",
    "ends_at_once": "start",
    "becomes_daemon": "start",
    "PingFails": "ping-ready",
    "NoPing": "ping-ready",
    "UnstablePing": "ping-ready",
    "PingFailsAfterRequest": "ping-ready",
    "PingKnowsOneHost": "ping-ready",
    "SlowPing": "ping-latency",
    "SendsHeadersSlowly": "ping-latency",
    "SendsContinueForever": "ping-latency",
    "LoadsInPing": "ping-latency",
    "LoadsInFirstRequest": "ping-before-ready",
    "PingBeforeModel": "ping-before-ready",
    "NoRoute": "invocations-status",
    "TooLongContentLength": "invocations-status",
    "AcceptsEverything": "error-status",
    "ErrorsWithStatus200": "error-status",
    "ErrorsAsTextWithStatus200": "error-status",
    "ErrorsWithoutResponse": "error-status",
    "FailsLater": "invocations-status",
    "ErrorsWithStatus500": "error-status",
    "ErrorsAsText": "error-status",
    "ErrorsAsPage": "error-status",
    "ErrorsWithTraceback": "error-status",
    "DiesOfInvalid": "error-status",
    "Hangs": "invocations-latency",
    "IgnoresAccept": "accept",
    "WrongContentType": "accept",
    "NoContentType": "accept",
    "NotANumber": "accept",
    "NeedsAccept": "accept",
    "OneAtATime": "concurrency",
    "OneConnectionAtATime": "concurrency",
    "FailsTogether": "concurrency",
    "OneRequestPerConnection": "keep-alive",
    "LeavesBodiesUnread": "keep-alive",
    "OneMegabyte": "payload-size",
    "DiesOfLargeBody": "payload-size",
    "TooMuchMemory": "memory",
    "grows_at_start": "memory",
    "WritesModel": "read-only-model",
    "compiles_model": "read-only-model",
    "ignores_sigterm": "sigterm",
    "leaves_children": "sigterm",
}

NEVER_PINGED = {"SlowPing", "SendsHeadersSlowly", "SendsContinueForever"}
TOO_SLOW = {*NEVER_PINGED, "LoadsInPing", "LoadsInFirstRequest", "OneAtATime"}

# Found only if /ping is watched.
BROKEN_LATER = {
    "PingFailsLater": "ping-ready",
    "KeepsPings": "memory",
    "KeepsRequests": "memory",
    "FailsWhileItLoads": "ping-before-ready",
}

# Found only with a valid request.
BROKEN_WITH_REQUEST = {
    "AlwaysFails": "invocations-status",
    "Hangs": "invocations-latency",
    "SendsBodySlowly": "invocations-latency",
    "PingWithoutModel": "ping-before-ready",
}

BROKEN_IN_BATCH = {"NoChunks": "chunked-body", "WrongParameters": "execution-parameters"}


def examine(
    *command: str, role: str = SERVE, limits: TimeLimits = LIMITS, **options: object
) -> Report:
    defaults: Mapping[str, object] = {"port": free_port(), "memory": 200 * 2**20}
    chosen = Options(**{**defaults, **options})  # type: ignore[arg-type]
    return diagnose(None, command, role, options=chosen, limits=limits)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "weights.txt").write_text("1")
    return folder


@pytest.mark.parametrize(("name", "case_id"), BROKEN.items())
def test_broken_server_fails_the_case_of_its_fault(name: str, case_id: str, model: Path) -> None:
    limits = NEVER_READY if case_id in {"port", "ping-ready"} else LIMITS
    limits = SLOW if name in TOO_SLOW else limits
    limits = replace(SLOW, startup=3) if name in NEVER_PINGED else limits

    report = examine(
        sys.executable, ZOO, name, limits=limits, model=model if name == "wrong_case" else None
    )

    assert [*report.failed] == [case_id], report.text()


@pytest.mark.parametrize(("name", "case_id"), BROKEN_LATER.items())
def test_server_that_breaks_later_fails_the_case_of_its_fault(name: str, case_id: str) -> None:
    report = examine(sys.executable, ZOO, name, limits=replace(LIMITS, watch=2, growth=6))

    assert [*report.failed] == [case_id], report.text()


@pytest.mark.parametrize(("name", "case_id"), BROKEN_WITH_REQUEST.items())
def test_broken_server_fails_with_a_valid_request(name: str, case_id: str, model: Path) -> None:
    limits = HANGING if case_id == "invocations-latency" else LIMITS
    command = (sys.executable, ZOO, name)

    report = examine(
        *command, limits=limits, model=model, request=VALID, content_type="application/json"
    )

    assert [*report.failed] == [case_id], report.text()


@pytest.mark.parametrize(("name", "case_id"), BROKEN_IN_BATCH.items())
def test_broken_server_fails_in_a_batch_transform(name: str, case_id: str) -> None:
    report = examine(sys.executable, ZOO, name, role=TRANSFORM)

    assert [*report.failed] == [case_id], report.text()


MULTI_MODEL_FAULTS = {
    "Healthy": "mme-load",
    "ModelsPerWorker": "mme-load",
    "KeepsModels": "mme-unload-memory",
    "LoadsAgain": "mme-status-codes",
    "ForgetsModels": "mme-status-codes",
    "TwoModelsWithoutStatus": "mme-status-codes",
    "ListsOneModel": "mme-status-codes",
    "LoadsLater": "mme-load",
    "LoadBlocksPing": "ping-latency",
}


@pytest.mark.parametrize(("name", "case_id"), MULTI_MODEL_FAULTS.items())
def test_broken_multi_model_server_fails_the_case_of_its_fault(name: str, case_id: str) -> None:
    report = examine(sys.executable, ZOO, name, role=MULTI_MODEL, limits=SLOW)

    assert [*report.failed] == [case_id], report.text()


def test_healthy_multi_model_server_passes() -> None:
    report = examine(sys.executable, ZOO, "HealthyModels", role=MULTI_MODEL)

    assert report.failed == {}, report.text()
    assert {*report.skipped} == {"network", "writes-outside"}


@pytest.mark.parametrize("role", [MULTI_MODEL, TRANSFORM])
def test_our_server_passes(role: str, artifact: Path) -> None:
    command = (sys.executable, "-m", "container.serving", "serve")

    report = examine(
        *command,
        role=role,
        model=artifact,
        request=PNG,
        content_type="image/png",
        memory=2**31,
        limits=TimeLimits(watch=1, growth=4 if role == TRANSFORM else 1),
    )

    assert report.failed == {}, report.text()
    assert {*report.skipped} == {"network", "writes-outside"}


def test_server_that_needs_a_model_names_the_option() -> None:
    report = examine(sys.executable, ZOO, "wrong_case")

    assert report.failed["start"].remedy.startswith("give the model's files: --model")


def test_our_server_without_a_model_names_what_is_missing() -> None:
    report = examine(sys.executable, "-m", "container.serving", "serve", memory=2**31)

    assert "no manifest.json in " in report.failed["start"].evidence
    assert report.failed["start"].remedy.startswith("give the model's files: --model")


HEALTHY = {
    "http.server": (sys.executable, ZOO, "Healthy"),
    "flask": (sys.executable, "-m", "gunicorn", "--threads=4", "tests.zoo.flask_app:app"),
    "fastapi": (sys.executable, "-m", "uvicorn", "--host=0.0.0.0", "tests.zoo.fastapi_app:app"),
    "large responses": (sys.executable, ZOO, "LargeResponses"),
    "errors without a body": (sys.executable, ZOO, "ErrorsWithoutBody"),
    "ends before its children": (sys.executable, ZOO, "ends_before_children"),
    "tornado": (sys.executable, "-m", "tests.zoo.tornado_app"),
    "slow start": (sys.executable, "-m", "gunicorn", "tests.zoo.slow_start:app"),
}


@pytest.mark.parametrize("name", HEALTHY)
def test_healthy_server_passes(name: str) -> None:
    port = free_port()
    options = {"gunicorn": [f"--bind=0.0.0.0:{port}"], "uvicorn": [f"--port={port}"]}
    command = [*HEALTHY[name], *options.get(HEALTHY[name][2], [])]

    report = examine(*command, port=port, limits=replace(LIMITS, serving_grace=20))

    assert report.failed == {}, report.text()
    assert {"start", "port", "ping-ready", "concurrency", "sigterm"} <= {*report.passed}


def test_command_that_does_not_exist_or_is_not_executable(tmp_path: Path) -> None:
    script = tmp_path / "serve"
    script.write_text("#!/bin/sh\n")

    for path in (script, tmp_path / "missing"):
        report = examine(str(path))

        assert [*report.failed] == ["start"]
        assert str(path) in report.failed["start"].evidence
        assert all("consequence" in reason for reason in [*report.skipped.values()][2:])


def test_report_as_json_and_junit(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    junit = tmp_path / "reports/junit.xml"
    options = ("--port", str(free_port()), "--json", "--junit", str(junit), "--skip", "network")

    with pytest.raises(SystemExit) as end:
        main(["doctor", *options, "--", sys.executable, ZOO, "import_error"])

    assert end.value.code == 1
    document = json.loads(capsys.readouterr().out)
    (failure,) = document["failed"]
    assert failure["id"] == "start"
    assert "no_such_package" in failure["evidence"]
    assert failure["remedy"].startswith("install the package of no_such_package")
    assert failure["page"] == "docs/how-to/health-check.md#start"
    suite = ET.fromstring(junit.read_text())  # noqa: S314 - our own file
    assert suite.attrib["failures"] == "1"
    assert int(suite.attrib["tests"]) == sum(map(len, document.values()))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give either a container image, or a command after --"),
        (["no-such-image-of-doctor"], "no "),
        (["--skip", "pong", "--", "true"], "unknown case 'pong'"),
        (["--model", "missing", "--", "true"], "no file or folder missing"),
        (["--model", str(Path(__file__)), "--", "true"], "neither a folder nor a .tar.gz"),
        (["--request", "missing", "--", "true"], "missing: No such file or directory"),
    ],
)
def test_what_cannot_be_examined_exits_with_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["doctor", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_port_in_use_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = str(listener.getsockname()[1])

        assert main(["doctor", "--port", port, "--", "true"]) == 2

    assert f"port {port} is in use" in capsys.readouterr().err


def test_ids_are_stable() -> None:
    assert len(CASES) == len({*CASES})
    assert all(case.checks and case.remedy and case.roles for case in CASES.values())
