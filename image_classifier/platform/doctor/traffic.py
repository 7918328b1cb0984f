"""Requests that servers often fail: concurrent, large, chunked, several on a connection."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from image_classifier.platform.doctor import growth, startup
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.health import OK, is_slow, is_unmeasured, ping
from image_classifier.platform.doctor.invocations import FAILED_LATER
from image_classifier.platform.doctor.payload import (
    Payload,
    has_ended,
    invalid,
    invoke,
    parse,
    send,
)
from image_classifier.platform.load import Capacity, find_capacity
from image_classifier.platform.sandbox.http_call import Connection, Response, call
from image_classifier.platform.sandbox.launch import Running

# SageMaker's limit of a real-time request.
PAYLOAD_BYTES = 6_291_456

_UNHEALTHY = "GET /ping fails in any case"

# Servers of Python's standard library queue five connections; those beyond wait a second.
PARALLEL = 4
_TOO_LARGE = 413

# Statuses of a server that has more requests than slots for them.
_BUSY = {429, 503}

_PARAMETERS = ("MaxConcurrentTransforms", "BatchStrategy", "MaxPayloadInMB")
_MAX_MEGABYTES = 100
_STRATEGIES = {"SINGLE_RECORD", "MULTI_RECORD", "SingleRecord", "MultiRecord"}

# Folders and files that programs write as a matter of course.
_USUAL = re.compile(
    r"/(tmp|var/tmp|dev|run|var/run|var/log|var/cache|proc|sys|opt/ml)(/|$)"
    # Configuration is often generated at the start, also by AWS's sagemaker-inference.
    r"|^/etc/|/var/lib/nginx"
    r"|/__pycache__|\.pyc$|/\.[^/]+|\.(log|pid|sock)$"
)


def check_keep_alive(
    examination: Examination, running: Running, payload: Payload, _alone: Response | None
) -> None:
    """Send pings and requests, valid and invalid ones, on one connection."""
    report = examination.report
    connection = Connection(running.address, examination.limits.invocation)
    rejected = list(invalid())[-1]
    # The body of a request that is rejected must be read too.
    for step in (None, payload, None, rejected, None):
        response = connection.send("GET", "/ping") if step is None else send(connection, step)
        if response.status is None and step is not None:
            # On a new connection too, perhaps.
            alone = invoke(examination, running, step)
            if alone.status is None:
                continue
        if response.status is None and has_ended(running, response):
            # Reported as the end of the server.
            return
        if step is None and response.status != OK and _is_unhealthy(examination, running):
            report.skip("keep-alive", _UNHEALTHY)
        if response.status is None or (step is None and response.status != OK):
            what = "GET /ping" if step is None else "POST /invocations"
            report.fail(
                "keep-alive",
                f"{what} failed as a later request on the same connection",
                response,
            )
            break
    # Still open, it must not keep others waiting.
    if not connection.is_closed_by_server and is_slow(ping(examination, running)):
        report.fail(
            "concurrency",
            "an open connection without a request delays GET /ping on another one",
            "the server serves one connection at a time",
        )
    connection.close()
    report.accept("keep-alive")


def _is_unhealthy(examination: Examination, running: Running) -> bool:
    """Return whether a ping fails, too, that is sent alone; it is reported later."""
    return ping(examination, running).status not in {OK, None}


def check_size(
    examination: Examination, running: Running, payload: Payload, alone: Response | None
) -> None:
    """Send the largest body that SageMaker sends to an endpoint."""
    media_type = payload.content_type if alone else "application/octet-stream"
    large = Payload(body=bytes(PAYLOAD_BYTES), content_type=media_type)
    response = invoke(examination, running, large)
    report = examination.report
    if running.exit_code() is not None and not startup.is_out_of_memory(running):
        report.fail("payload-size", "a body of 6 MiB ended the server", response)
    elif response.status == _TOO_LARGE:
        report.fail("payload-size", "a body of 6 MiB is rejected as too large", response)
    elif (
        response.status is None
        and alone is not None
        and running.exit_code() is None
        and invoke(examination, running, replace(large, body=bytes(64))).status is not None
    ):
        report.fail("payload-size", "a body of 6 MiB gets no response", response)
    elif response.status is None:
        report.skip("payload-size", "such a request, with a small body, gets no response either")
    report.accept("payload-size")


def check_concurrency(
    examination: Examination, running: Running, payload: Payload, alone: Response | None
) -> None:
    """Send requests from several clients at once, and pings meanwhile."""
    report, limit = examination.report, examination.limits.ping
    rounds = 1 if alone is None or alone.seconds > limit / PARALLEL / 4 else 4
    late: Response | None = None
    with ThreadPoolExecutor(PARALLEL) as pool:
        pending = [
            pool.submit(invoke, examination, running, payload) for _ in range(PARALLEL * rounds)
        ]
        while not all(each.done() for each in pending):
            response = ping(examination, running)
            late = late or (None if response.status == OK or is_unmeasured(response) else response)
            time.sleep(startup.POLL_SECONDS / 2)
        responses = [each.result() for each in pending]
    failed = [each for each in responses if not each.is_success and each.status not in _BUSY]
    if running.exit_code() is not None:
        return
    if late is not None and _is_unhealthy(examination, running):
        report.skip("concurrency", _UNHEALTHY)
    elif late is not None:
        report.fail(
            "concurrency",
            f"GET /ping did not return 200 within {limit:g} s while {PARALLEL} requests were "
            "processed",
            late,
        )
    elif alone is not None and failed:
        later = invoke(examination, running, payload)
        if not later.is_success and later.status not in _BUSY:
            if running.exit_code() is None:
                report.fail("invocations-status", FAILED_LATER, later)
                report.skip("concurrency", "a consequence of invocations-status")
            return
        report.fail(
            "concurrency",
            f"{len(failed)} of {len(responses)} valid requests failed when {PARALLEL} were sent at "
            "once",
            failed[0],
        )
    report.accept("concurrency")


def check_growth(examination: Examination, running: Running, valid: Payload) -> None:
    """Check that the memory does not grow with each request."""
    report = examination.report
    if not report.is_open("memory"):
        return

    def send_one() -> None:
        if running.exit_code() is None:
            invoke(examination, running, valid)

    try:
        found = growth.measure(running, send_one, examination.limits.growth)
    except growth.TooSlowError as error:
        report.skip("memory", f"{error}: too few can be sent to see a growth")
        return
    if found is not None:
        report.fail("memory", "the memory grows with each request", found)


def check_chunked(
    examination: Examination, running: Running, valid: Payload, alone: Response | None
) -> None:
    """Send a valid body in chunks, without its length."""
    if alone is None:
        return
    response = invoke(examination, running, valid, is_chunked=True)
    if not response.is_success:
        examination.report.fail(
            "chunked-body",
            "a valid request fails if its body is sent in chunks, without Content-Length",
            response,
        )
    examination.report.accept("chunked-body")


def check_execution_parameters(examination: Examination, running: Running) -> None:
    """Check the parameters that a batch transform gets from the server."""
    timeout = examination.limits.invocation
    response = call(running.address, "GET", "/execution-parameters", timeout=timeout)
    fault = _fault_of_parameters(response)
    if fault:
        examination.report.fail("execution-parameters", fault, response)
    examination.report.accept("execution-parameters")


def measure_capacity(
    examination: Examination, running: Running, valid: Payload, limit: float
) -> Capacity:
    """Find the highest rate of a valid request."""
    headers = {"Content-Type": valid.content_type, "Accept": valid.accept}
    timeout = examination.limits.invocation

    def send_one() -> Response:
        return call(
            running.address,
            "POST",
            "/invocations",
            timeout=timeout,
            body=valid.body,
            headers=headers,
        )

    return find_capacity(send_one, limit, examination.limits.load)


def unusual_files(paths: Sequence[str]) -> list[str]:
    """Return the files that are in no folder for temporary files, logs or caches."""
    # The folders above a changed file are listed too.
    return sorted(
        path
        for path in paths
        if not _USUAL.search(path) and not any(each.startswith(f"{path}/") for each in paths)
    )


def _fault_of_parameters(response: Response) -> str | None:
    if response.status is None or response.status // 100 == 5:  # noqa: PLR2004 - a server's error
        return "GET /execution-parameters fails"
    if not response.is_success:
        return None
    document = parse(response.body)
    found = document if isinstance(document, dict) else {}
    if missing := [key for key in _PARAMETERS if key not in found]:
        return f"GET /execution-parameters returns no JSON object with {missing[0]}"
    concurrent, strategy, megabytes = (found[key] for key in _PARAMETERS)
    is_valid = _is_count(concurrent, 1) and _is_count(megabytes, 0)
    if not is_valid or strategy not in _STRATEGIES:
        return "GET /execution-parameters returns a value that SageMaker does not accept"
    if concurrent * megabytes > _MAX_MEGABYTES or megabytes > _MAX_MEGABYTES:
        return f"MaxConcurrentTransforms times MaxPayloadInMB is more than {_MAX_MEGABYTES}"
    return None


def _is_count(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


CHECKS: Mapping[str, Callable[[Examination, Running, Payload, Response | None], None]] = {
    "chunked-body": check_chunked,
    "keep-alive": check_keep_alive,
    "payload-size": check_size,
    "concurrency": check_concurrency,
}
