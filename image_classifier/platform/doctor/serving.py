"""The cases of a server with one model: `serve` and `transform`."""

import signal
import time
from dataclasses import replace

from container.classifier.environment import BATCH_VARIABLE, PORT_VARIABLE
from image_classifier.platform.doctor import load_settings, startup, traffic
from image_classifier.platform.doctor.cases import TRANSFORM
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.health import Watch
from image_classifier.platform.doctor.invocations import (
    AcceptedRequest,
    check_accept,
    check_again,
    check_errors,
    check_invocations,
    until_available,
)
from image_classifier.platform.doctor.payload import (
    Payload,
    candidates,
    invalid,
    invoke,
)
from image_classifier.platform.doctor.startup import NotReadyError, Trouble
from image_classifier.platform.sandbox.launch import Launch, Running
from image_classifier.platform.sandbox.networks import reaches_containers
from image_classifier.platform.sandbox.process_target import changes_in

# How long a server without a model may take to end, or to return its first status.
_NO_MODEL_SECONDS = 10


# A server with such a fault fails other cases, too, or takes too long for them.
_CAUSES = {"ping-ready", "ping-latency", "invocations-latency", "concurrency"}

_ENDED_BY_SIGTERM = 128 + signal.SIGTERM


class _RequestFailedError(Exception):
    """The given request failed, perhaps because of a restriction."""


def examine(examination: Examination) -> None:
    """Start the server as SageMaker does, and check all cases."""
    launch = launch_of(examination)
    try:
        try:
            _examine(examination, launch, is_last=not startup.relaxations(examination, launch))
        except NotReadyError as error:
            _examine(examination, startup.relaxed(examination, launch, error), is_last=True)
        except _RequestFailedError as error:
            _examine(examination, _relaxed(examination, launch, str(error)), is_last=True)
    except NotReadyError as error:
        report_trouble(examination, error.trouble)


def _relaxed(examination: Examination, launch: Launch, evidence: str) -> Launch:
    """Return the launch with which the given request succeeds, or else the same launch."""
    payload = next(candidates(examination))
    for case_id, relaxed in startup.relaxations(examination, launch).items():
        try:
            with startup.server(examination, relaxed, examination.limits.startup) as running:
                if invoke(examination, running, payload).is_success:
                    startup.report_restriction(
                        examination, case_id, "the given request succeeds", evidence
                    )
                    return relaxed
        except NotReadyError:
            continue
    return launch


def _examine(examination: Examination, launch: Launch, *, is_last: bool) -> None:
    """Check all cases with one launch.

    Raises:
        NotReadyError: the server did not become ready.
        _RequestFailedError: the given request failed, and this is not the last launch.
    """
    report = examination.report
    with (
        changes_in(examination.folder / "model") as changes,
        startup.server(examination, launch, examination.limits.startup) as running,
    ):
        if not is_last and examination.options.request is not None:
            response = until_available(examination, running, next(candidates(examination)))
            if response.status is not None and not response.is_success:
                raise _RequestFailedError(f"{response}; {running.last_line()}")
        report.accept("start", "image-entrypoint")
        accepted = _check_running(examination, running)
        check_files(examination, running)
        check_sigterm(examination, running)
    if changes and launch.folders["model"] is False:
        report.fail(
            "read-only-model",
            "the server writes into /opt/ml/model, which is read-only on SageMaker",
            f"changed: {', '.join(changes[:3])}",
        )
    limit = examination.options.p99
    if limit is not None and accepted.payload is not None:
        load_settings.measure(examination, launch, accepted.payload, limit)
    if accepted.payload is not None and examination.options.model is not None:
        _check_without_model(examination, launch, accepted.payload)
    report.accept("read-only-model", "network", "ping-before-ready")
    report.skip_rest("the server ended before")


def launch_of(examination: Examination) -> Launch:
    """Return how SageMaker starts a server."""
    target, options = examination.target, examination.options
    variables = dict(options.variables)
    if examination.role == TRANSFORM:
        variables = {BATCH_VARIABLE: "true", **variables}
    if not target.is_container:
        variables[PORT_VARIABLE] = str(options.port)
        examination.report.skip(
            "network", "a process cannot be separated from the network: use a container image"
        )
        examination.report.skip(
            "writes-outside", "a process shares the files of this machine: use a container image"
        )
    elif not reaches_containers():
        examination.report.skip(
            "network", "on this system, a server without a network cannot be reached"
        )
    return Launch(
        base_dir=examination.folder,
        folders={"model": False},
        variables=variables,
        port=8080 if target.is_container else options.port,
        memory=options.memory,
    )


def report_trouble(examination: Examination, trouble: Trouble) -> None:
    """Report why a server did not become ready; all other cases are skipped."""
    report = examination.report
    if trouble.case_id in {"ping-ready", "ping-latency"}:
        # It responded.
        report.accept("start", "image-entrypoint", "port")
    if trouble.case_id not in report.failed:
        report.fail(trouble.case_id, trouble.message, trouble.evidence, trouble.remedy)
    report.skip_rest(f"a consequence of {trouble.case_id}")


def check_sigterm(examination: Examination, running: Running) -> None:
    """Stop the server, and check that it ends in time with all of its processes."""
    report, grace = examination.report, examination.limits.serving_grace
    if not report.is_open("sigterm"):
        return
    if running.exit_code() is not None:
        return
    deadline = time.monotonic() + grace
    running.terminate()
    if running.wait(grace) is None:
        report.fail(
            "sigterm",
            f"the server still runs {grace:g} s after SIGTERM, and SageMaker kills it",
            f"last line of the log: {running.last_line()}",
        )
        return
    # As process 1, one that handles SIGTERM ends them all, and one that does not ignores it.
    is_unhandled = running.exit_code() == _ENDED_BY_SIGTERM
    # Workers may finish their requests; SageMaker kills all processes after the same time.
    while is_unhandled and running.left_processes() and time.monotonic() < deadline:
        time.sleep(startup.POLL_SECONDS)
    if is_unhandled and (left := running.left_processes()):
        report.fail(
            "sigterm",
            "the first process does not handle SIGTERM, and its child processes keep running",
            f"{left} processes still run {grace:g} s after SIGTERM",
        )
    report.accept("sigterm")


def _check_running(examination: Examination, running: Running) -> AcceptedRequest:
    report, accepted = examination.report, AcceptedRequest()
    watch = Watch(examination, running)
    check_address(examination, running)
    watch.begin()
    for check in (check_invocations, check_errors, check_accept):
        check(examination, running, accepted)
        watch.check()
        if _has_ended(examination, running, accepted):
            return accepted
    _check_traffic(examination, running, accepted, watch)
    if not _CAUSES & report.failed.keys():
        watch.check_growth()
        if accepted.payload is not None:
            traffic.check_growth(examination, running, accepted.payload)
    _measure_load(examination, running, accepted.payload)
    watch.finish()
    if not _has_ended(examination, running, accepted):
        check_again(examination, running, accepted)
        report.accept("memory", "invocations-status")
    return accepted


def _measure_load(examination: Examination, running: Running, valid: Payload | None) -> None:
    limit, loads = examination.options.p99, examination.report.loads
    if limit is None:
        return
    if valid is None or running.exit_code() is not None:
        loads[""] = "not measured: no request succeeded; give --request and --content-type"
    else:
        loads[""] = traffic.measure_capacity(examination, running, valid, limit)


def _check_traffic(
    examination: Examination, running: Running, accepted: AcceptedRequest, watch: Watch
) -> None:
    report, valid = examination.report, accepted.payload
    payload = valid or next(iter(invalid()))
    if examination.role == TRANSFORM:
        traffic.check_execution_parameters(examination, running)
    for case_id, check in traffic.CHECKS.items():
        for cause in _CAUSES & report.failed.keys():
            report.skip(case_id, f"a consequence of {cause}")
        if report.is_open(case_id) and running.exit_code() is None:
            check(examination, running, payload, accepted.response)
            watch.check()


def check_address(examination: Examination, running: Running) -> None:
    """Check that other machines can connect to the server."""
    port = running.address[1]
    listening = [each for each in running.sockets() or [] if each.is_listening]
    addresses = [each for each in listening if each.port == port]
    if addresses and not any(each.is_reachable for each in addresses):
        examination.report.fail(
            "port",
            f"the server listens on {addresses[0].address}, which only programs in the same "
            "container can connect to",
            f"{addresses[0].address}:{port}",
        )
    examination.report.accept("port")


def check_files(examination: Examination, running: Running) -> None:
    """Check where the server has written files."""
    report = examination.report
    if report.is_open("writes-outside"):
        files = traffic.unusual_files(running.changed_files())
        if files:
            report.fail(
                "writes-outside",
                "the server writes files that are not in /tmp",
                ", ".join(files[:3]),
            )
        report.accept("writes-outside")


def _check_without_model(examination: Examination, launch: Launch, valid: Payload) -> None:
    """Check that /ping does not return 200 without a model, if predictions then fail."""
    empty = examination.folder / "without"
    (empty / "model").mkdir(parents=True)
    relaunch = replace(launch, base_dir=empty)
    silent = examination.without_report()
    try:
        with startup.server(silent, relaunch, _NO_MODEL_SECONDS) as running:
            response = invoke(examination, running, valid)
            if not response.is_success:
                examination.report.fail(
                    "ping-before-ready",
                    "/ping returns 200 without a model, and predictions fail",
                    f"with an empty /opt/ml/model, POST /invocations: {response}",
                )
    except NotReadyError:
        return


def _has_ended(examination: Examination, running: Running, accepted: AcceptedRequest) -> bool:
    """Report a server that ended although requests were all it got; return whether it did."""
    if running.exit_code() is None:
        return False
    trouble = startup.of_end(examination, running, "while it served requests")
    if trouble.case_id == "start" and "payload-size" in examination.report.failed:
        trouble = replace(trouble, case_id="payload-size")
    elif trouble.case_id == "start":
        # Without a valid request, those that were sent are probably invalid.
        is_valid = accepted.payload is not None or examination.options.request is not None
        is_valid = is_valid and "error-status" not in examination.report.failed
        case_id = "invocations-status" if is_valid else "error-status"
        trouble = replace(trouble, case_id=case_id, remedy="")
    report_trouble(examination, trouble)
    return True
