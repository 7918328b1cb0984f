"""The health check: `GET /ping`, which SageMaker sends every few seconds for the server's life."""

import time
from contextlib import closing, suppress
from dataclasses import replace

from image_classifier.platform.doctor import growth
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.payload import has_ended
from image_classifier.platform.doctor.stopwatch import Stopwatch
from image_classifier.platform.sandbox.http_call import (
    NO_END,
    NO_RESPONSE,
    Connection,
    Response,
    call,
)
from image_classifier.platform.sandbox.launch import Running

OK = 200

_PINGS = 5

# Between two pings of the watch, after those that show whether the memory grows.
_WATCH_POLL_SECONDS = 0.5

# A pause of the machine makes one ping late.
_SLOW_PINGS = 2

# Multiple of the limit to wait for a program that gets no processor.
_MAX_FACTOR = 10
_LEAST_SECONDS = 0.05

_BUSY = "no response, while other programs used the processors"

# The platform sends requests to the address of the instance.
_HOST = "169.254.180.2:8080"


def ping(
    examination: Examination,
    running: Running,
    *,
    is_starting: bool = False,
    host: str | None = None,
) -> Response:
    """Send a ping. Report a starting program that has read it and does not respond in time."""
    limit = examination.limits.ping
    stopwatch = Stopwatch(running, is_starting=is_starting)
    start, is_read = time.monotonic(), True

    def on_timeout(local_port: int) -> float:
        nonlocal is_read
        more = limit - stopwatch.seconds()
        if more > _LEAST_SECONDS and time.monotonic() - start < _MAX_FACTOR * limit:
            return more
        # What waits in the backlog of a server that still starts is unread.
        is_read = any(
            each.peer_port == local_port and not each.unread and each.inode != "0"
            for each in running.sockets() or []
        )
        is_read = is_read and not (is_starting and running.waits_for_back_end())
        return 0

    with closing(Connection(running.address, limit, on_timeout)) as connection:
        response = connection.send("GET", "/ping", headers={"Host": host} if host else None)
    if response.problem == NO_RESPONSE and stopwatch.seconds() < limit - _LEAST_SECONDS:
        return replace(response, problem=_BUSY)
    # A container that has ended leaves packets unanswered.
    if is_slow(response) and is_starting and is_read and running.exit_code() is None:
        report_slow(examination, response, f"the program read the request; {response}")
    return response


def is_slow(response: Response) -> bool:
    """Return whether a ping has got no whole response in time."""
    return response.problem in {NO_RESPONSE, NO_END}


def is_unmeasured(response: Response) -> bool:
    """Return whether a ping got no response because other programs had the processors."""
    return response.problem == _BUSY


def report_slow(examination: Examination, response: Response, evidence: str) -> None:
    """Report a ping without a response in time."""
    limit = examination.limits.ping
    message = f"GET /ping did not return within {limit:g} s"
    remedy = "send Content-Length: 0, or close the connection" if response.problem == NO_END else ""
    examination.report.fail("ping-latency", message, evidence, remedy)


class Watch:
    """Sends pings to a server that is ready, between other requests and after them."""

    def __init__(self, examination: Examination, running: Running) -> None:
        """Begin: the server has just become ready."""
        self._examination, self._running = examination, running
        self._start = time.monotonic()
        self._slow = 0

    def begin(self) -> None:
        """Send the first pings."""
        for _ in range(_PINGS):
            self.check()
        if not self._has_failed():
            self.check(_HOST)

    def check(self, host: str | None = None) -> bool:
        """Send a ping; report one that fails; return whether all have succeeded."""
        if self._running.exit_code() is not None or self._has_failed():
            return False
        seconds = time.monotonic() - self._start
        response = ping(self._examination, self._running, host=host)
        if is_unmeasured(response):
            response = ping(self._examination, self._running, host=host)
        if is_slow(response):
            self._slow += 1
            if self._slow < _SLOW_PINGS:
                return self.check(host)
            evidence = f"{response}, {seconds:.0f} s after the first 200"
            report_slow(self._examination, response, evidence)
        elif (
            not is_unmeasured(response) and response.status != OK and not self._has_ended(response)
        ):
            where = "" if host is None else f", with the header Host: {host}"
            self._examination.report.fail(
                "ping-ready",
                "GET /ping returned 200 at first, and then something else",
                f"{response}, {seconds:.1f} s after the first 200{where}",
                "" if host is None else "accept each Host: SageMaker sends none that is known",
            )
        return not self._has_failed()

    def check_growth(self) -> None:
        """Report memory that grows with each ping."""
        report, seconds = self._examination.report, self._examination.limits.growth
        if not report.is_open("memory") or not self.check():
            return
        with suppress(growth.TooSlowError):
            found = growth.measure(self._running, self._quick, seconds)
            if found is not None:
                message = "the memory grows with each GET /ping, which SageMaker sends for weeks"
                report.fail("memory", message, found)

    def finish(self) -> None:
        """Send pings until the watch is over."""
        report, seconds = self._examination.report, self._examination.limits.watch
        while time.monotonic() < self._start + seconds and self.check():
            time.sleep(_WATCH_POLL_SECONDS)
        if self._running.exit_code() is None:
            report.accept("ping-ready", "ping-latency")

    def _quick(self) -> None:
        timeout = self._examination.limits.ping
        if call(self._running.address, "GET", "/ping", timeout=timeout).status != OK:
            self.check()

    def _has_failed(self) -> bool:
        return bool(self._examination.report.failed.keys() & {"ping-ready", "ping-latency"})

    def _has_ended(self, response: Response) -> bool:
        return response.status is None and has_ended(self._running, response)
