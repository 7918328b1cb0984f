"""The cases of `POST /invocations`: valid and invalid requests, and their formats."""

import time
from dataclasses import dataclass, replace

from image_classifier.platform.doctor import startup
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.payload import (
    CSV,
    JSON,
    Payload,
    candidates,
    fault_of_error,
    fault_of_format,
    invalid,
    invoke,
    is_error_body,
)
from image_classifier.platform.doctor.report import Report
from image_classifier.platform.doctor.startup import NOT_FOUND
from image_classifier.platform.doctor.stopwatch import Stopwatch
from image_classifier.platform.sandbox.http_call import CUT_OFF, NO_END, NO_RESPONSE, Response
from image_classifier.platform.sandbox.launch import Running

UNAVAILABLE = 503
FAILED_LATER = "the same request succeeded at first, and then failed"
_METHOD_NOT_ALLOWED = 405

# The first request of a server that loads its model with it, compared to later ones.
_LAZY_FACTOR = 5

_ANY_FORMAT = "application/json;q=0.9, */*;q=0.8"
_ACCEPT_REMEDY = "choose a default format, and read Accept as a list: callers may send none"

# How long a server may return 503.
_LOADING_SECONDS = 10


@dataclass(slots=True)
class AcceptedRequest:
    """A request that the server accepts, and its response; None until one is found."""

    payload: Payload | None = None
    response: Response | None = None


def check_invocations(
    examination: Examination, running: Running, accepted: AcceptedRequest
) -> None:
    """Find a valid request, and check its status and time."""
    responses: list[Response] = []
    first = 0.0
    for payload in candidates(examination):
        stopwatch = Stopwatch(running)
        response = until_available(examination, running, payload)
        first = max(first, stopwatch.seconds())
        responses.append(response)
        if response.is_success and not is_error_body(response):
            accepted.payload, accepted.response = payload, response
            break
        if running.exit_code() is not None:
            return
        if response.problem in {NO_RESPONSE, NO_END}:
            # An invalid request would have to get one, too.
            break
    report = examination.report
    if accepted.payload is None:
        _report_no_success(examination, running, payload, responses)
        return
    later = [invoke(examination, running, accepted.payload) for _ in range(2)]
    slowest = max(each.seconds for each in later)
    if all(each.is_success for each in later):
        if first > max(examination.limits.ping, _LAZY_FACTOR * slowest):
            report.fail(
                "ping-before-ready",
                "the first request took much longer than later ones: the model is loaded after "
                "/ping has returned 200",
                f"first request {first:.1f} s, later ones {slowest:.2f} s",
            )
        # Requests may still fail later: invocations-status passes at the end.
        report.accept("invocations-latency")
    elif running.exit_code() is None:
        failed = next(each for each in later if not each.is_success)
        report.fail("invocations-status", FAILED_LATER, failed)


def until_available(examination: Examination, running: Running, payload: Payload) -> Response:
    """Send a request again while the server returns 503; report that as not ready."""
    start = time.monotonic()
    first = response = invoke(examination, running, payload)
    while response.status == UNAVAILABLE and time.monotonic() - start < _LOADING_SECONDS:
        time.sleep(startup.POLL_SECONDS)
        response = invoke(examination, running, payload)
    if first.status == UNAVAILABLE and response.status != UNAVAILABLE:
        seconds = time.monotonic() - start
        examination.report.fail(
            "ping-before-ready",
            "/ping returned 200 while /invocations still returned 503",
            f"{first}; {seconds:.1f} s later status {response.status}",
        )
    return response


def check_again(examination: Examination, running: Running, accepted: AcceptedRequest) -> None:
    """Repeat the requests of a server that accepted none, some time after the first ones."""
    report = examination.report
    if accepted.payload is not None or report.failed:
        return
    for payload in candidates(examination):
        response = invoke(examination, running, payload)
        if response.is_success and not is_error_body(response):
            report.fail(
                "ping-before-ready",
                "/ping returned 200 while valid requests failed, which succeed some time later",
                response,
            )
            return


def _report_no_success(
    examination: Examination, running: Running, payload: Payload, responses: list[Response]
) -> None:
    report = examination.report
    last = responses[-1]
    disguised = next((each for each in responses if each.is_success), None)
    if disguised is not None:
        report.fail(
            "error-status", f"an error was returned with status {disguised.status}", disguised
        )
        report.skip("invocations-status", "a consequence of error-status")
    elif last.problem in {NO_RESPONSE, NO_END}:
        limit = examination.limits.invocation
        report.fail(
            "invocations-latency",
            f"POST /invocations did not return within {limit:g} s",
            f"{payload.content_type}: {last}; last line of the log: {running.last_line()}",
        )
        report.skip("invocations-status", "a consequence of invocations-latency")
    elif cut_off := next((each for each in responses if each.problem == CUT_OFF), None):
        report.fail("invocations-status", "POST /invocations returns a broken response", cut_off)
    elif all(each.status in {NOT_FOUND, _METHOD_NOT_ALLOWED} for each in responses):
        report.fail("invocations-status", "the server has no route POST /invocations", last)
    elif examination.options.request is None:
        reason = "no request in the usual formats succeeded: give --request and --content-type"
        report.skip("invocations-status", f"{reason} ({last})")
        report.skip("invocations-latency", reason)
    elif last.status == UNAVAILABLE:
        report.fail(
            "ping-before-ready", "/ping returned 200, but /invocations only returned 503", last
        )
        report.skip("invocations-status", "a consequence of ping-before-ready")
    else:
        evidence = f"{last}; last line of the log: {running.last_line()}"
        report.fail("invocations-status", "the given request did not succeed", evidence)
    reason = "no request succeeded"
    for case_id in ("invocations-latency", "accept", "chunked-body"):
        report.skip(case_id, reason)


def check_errors(examination: Examination, running: Running, accepted: AcceptedRequest) -> None:
    """Send invalid requests, and check the statuses and the bodies of their responses."""
    report = examination.report
    if report.failed.keys() & {"invocations-status", "invocations-latency"}:
        report.skip("error-status", "a consequence of the failed request")
        return
    formats: list[tuple[str, str]] = []
    responses: list[Response] = []
    for payload in _invalid_payloads(accepted.payload):
        response = invoke(examination, running, payload)
        responses.append(response)
        shown = f"{payload.content_type}, {payload.body!r}: {response}"
        if running.exit_code() is not None:
            if startup.is_out_of_memory(running):
                # An earlier request may have taken it: reported as the end of the server.
                return
            message = "an invalid request ended the server"
            report.fail("error-status", message, f"{shown}; {running.last_line()}")
        elif not response.is_success and not response.is_client_error:
            # Without a valid request, it is unknown whether this is the format's fault.
            if accepted.payload is not None:
                report.fail("error-status", "an invalid request does not get a 4xx status", shown)
        elif response.is_success and is_error_body(response):
            message = f"an error was returned with status {response.status}"
            report.fail("error-status", message, shown)
        elif response.is_client_error and (fault := fault_of_error(response)):
            formats.append((f"the body of an error {fault}", shown))
    _check_differences(report, accepted.response, responses)
    # A wrong status is worse than a wrong format.
    for message, shown in formats:
        report.fail("error-status", message, shown)
    report.accept("error-status")


def _check_differences(report: Report, valid: Response | None, responses: list[Response]) -> None:
    """Report a server that responds to all invalid requests as to the valid one.

    A server may accept any body, but then its predictions differ.
    """
    if valid is not None and all(each.is_success and each.body == valid.body for each in responses):
        message = "all invalid requests get the same prediction as the valid one"
        report.fail("error-status", message, valid)


def _invalid_payloads(valid: Payload | None) -> list[Payload]:
    payloads = list(invalid())
    if valid is None:
        return payloads
    bodies = (payloads[0], Payload(body=b"", content_type=""))
    return payloads + [replace(body, content_type=valid.content_type) for body in bodies]


def check_accept(examination: Examination, running: Running, accepted: AcceptedRequest) -> None:
    """Check the format of predictions against Accept and Content-Type."""
    if accepted.payload is None:
        return
    report = examination.report
    for accept in (JSON, CSV, "*/*", _ANY_FORMAT, ""):
        response = invoke(examination, running, replace(accepted.payload, accept=accept))
        if response.is_success and (fault := fault_of_format(response, accept, accepted.payload)):
            report.fail("accept", fault, response)
        elif accept in {_ANY_FORMAT, ""} and not response.is_success:
            # Others may be formats that the server does not have.
            what = f"with Accept: {accept}" if accept else "without the header Accept"
            if invoke(examination, running, accepted.payload).is_success:
                report.fail("accept", f"a valid request {what} fails", response, _ACCEPT_REMEDY)
    report.accept("accept")
