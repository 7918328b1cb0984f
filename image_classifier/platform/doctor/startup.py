"""The start of a server: from its first process to the first 200 of /ping."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.health import OK, ping
from image_classifier.platform.doctor.stopwatch import Stopwatch
from image_classifier.platform.sandbox.http_call import REFUSED, Response
from image_classifier.platform.sandbox.launch import Launch, Running, StartError

POLL_SECONDS = 0.2

# Fraction of the startup time in which a server may listen on another port only, such as a back end
# that starts before its proxy.
_ELSEWHERE = 0.3

# Multiple of the startup time to wait for a server that gets no processor.
_MAX_FACTOR = 4

# A second start, with fewer restrictions, is shorter.
_RETRY_SECONDS = 20

NOT_FOUND = 404

# Environment variables with this text in the log's last lines.
_HINTS = {
    "read-only-model": r"read-only|permission denied|errno 30|erofs",
    "network": r"resol|network|connect|unreachable|urlopen|timed out|getaddrinfo|errno -[23]",
}
_FOREGROUND = "keep the server in the foreground: the container ends with its first process"
_PING_ROUTE = "add the route GET /ping, which returns 200 when the model is loaded"
_PING_REMEDIES = {
    204: "return 200: SageMaker accepts no other status",
    **dict.fromkeys((301, 302, 307, 308), "return 200 without a redirect, which is not followed"),
    **dict.fromkeys((401, 403), "return 200 without authentication: SageMaker sends no token"),
    **dict.fromkeys((404, 405), _PING_ROUTE),
}

_RELAXED = {
    "read-only-model": "with a writable /opt/ml/model",
    "network": "with a network",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Trouble:
    """Why a server did not become ready."""

    case_id: str
    message: str
    evidence: str
    remedy: str = ""


class NotReadyError(Exception):
    """The server did not become ready; `trouble` is the reason."""

    def __init__(self, trouble: Trouble) -> None:
        """State the reason."""
        super().__init__(trouble.message)
        self.trouble = trouble


@contextmanager
def server(examination: Examination, launch: Launch, seconds: float) -> Iterator[Running]:
    """Yield a server that is ready; kill it after the `with` block.

    Raises:
        NotReadyError: it did not become ready.
    """
    try:
        running = examination.target.start(launch)
    except StartError as error:
        raise NotReadyError(of_start_error(str(error), examination)) from None
    try:
        trouble = wait_until_ready(examination, running, seconds)
        if trouble:
            raise NotReadyError(trouble)
        yield running
    finally:
        running.close()


def relaxed(examination: Examination, strict: Launch, error: NotReadyError) -> Launch:
    """Report the restriction without which the server becomes ready; return that launch.

    Raises:
        NotReadyError: `error`; no restriction is the cause.
    """
    trouble = error.trouble
    for case_id, launch in relaxations(examination, strict).items():
        has_ended = trouble.case_id == "start"
        if has_ended or re.search(_HINTS[case_id], trouble.evidence, re.IGNORECASE):
            seconds = min(_RETRY_SECONDS, examination.limits.startup)
            try:
                with server(examination, launch, seconds):
                    what = "the server becomes ready"
                    report_restriction(examination, case_id, what, trouble.evidence)
                    return launch
            except NotReadyError:
                continue
    raise error


def relaxations(examination: Examination, launch: Launch) -> dict[str, Launch]:
    """Return the launch with one restriction less, by the case of the restriction."""
    launches = {}
    if launch.folders.get("model") is False:
        writable = {**launch.folders, "model": True}
        launches["read-only-model"] = replace(launch, folders=writable)
    if examination.target.is_container and not launch.has_network:
        launches["network"] = replace(launch, has_network=True)
    return launches


def report_restriction(examination: Examination, case_id: str, what: str, evidence: str) -> None:
    """Report that a restriction of SageMaker prevents something."""
    examination.report.fail(case_id, f"{what} only {_RELAXED[case_id]}", evidence)


def of_start_error(text: str, examination: Examination) -> Trouble:
    """Return why a program cannot be executed."""
    if "format error" in text.lower():
        return _of_format_error(text, examination)
    case_id = "image-entrypoint" if examination.target.is_container else "start"
    return Trouble(case_id=case_id, message="the program cannot be executed", evidence=text)


def of_end(examination: Examination, running: Running, when: str) -> Trouble:
    """Return why a program ended that should run."""
    code, line = running.exit_code(), running.last_line()
    if is_out_of_memory(running):
        limit = examination.options.memory / 2**20
        return Trouble(
            case_id="memory",
            message=f"the program was out of memory {when}, with a limit of {limit:.0f} MiB",
            evidence=f"exit code {code}; {line}",
        )
    if "exec format error" in line.lower():
        return _of_format_error(line, examination)
    return Trouble(
        case_id="start",
        message=f"the program ended {when} with exit code {code}",
        evidence=line,
        remedy=remedy_of(running.log(), examination) or (_FOREGROUND if code == 0 else ""),
    )


def is_out_of_memory(running: Running) -> bool:
    """Return whether it was killed because of its memory, or the end of its log is about that."""
    if running.ran_out_of_memory():
        return True
    pattern = r"MemoryError|bad_alloc|Cannot allocate memory|OutOfMemory|out of memory"
    return re.search(pattern, "\n".join(running.log().splitlines()[-5:])) is not None


def wait_until_ready(examination: Examination, running: Running, seconds: float) -> Trouble | None:
    """Send pings until one returns 200; return what prevented that."""
    stopwatch, end = Stopwatch(running), time.monotonic() + _MAX_FACTOR * seconds
    first_elsewhere: float | None = None
    last: Response | None = None
    while stopwatch.seconds() < seconds and time.monotonic() < end:
        if running.exit_code() is not None:
            return of_end(examination, running, "before /ping returned 200")
        response = ping(examination, running, is_starting=True)
        if response.status == OK:
            # The first process of a daemon ends about then.
            has_ended = running.wait(POLL_SECONDS) is not None
            return of_end(examination, running, "when it was ready") if has_ended else None
        if response.problem != REFUSED:
            last = response
        elif (trouble := _port_trouble(running)) is not None:
            first_elsewhere = first_elsewhere or time.monotonic()
            if time.monotonic() - first_elsewhere > seconds * _ELSEWHERE:
                return trouble
        time.sleep(POLL_SECONDS)
    if slow := examination.report.failed.get("ping-latency"):
        return Trouble(case_id="ping-latency", message=slow.message, evidence=slow.evidence)
    return _never_ready(examination, running, last, seconds)


def _of_format_error(text: str, examination: Examination) -> Trouble:
    if not examination.target.is_container:
        return Trouble(
            case_id="start",
            message="the program cannot be executed",
            evidence=text,
            remedy="begin a script with a line such as #!/usr/bin/env python",
        )
    is_foreign = "image-architecture" in examination.report.failed
    return Trouble(
        case_id="image-architecture" if is_foreign else "image-entrypoint",
        message="the program is for another processor, or a script without a first line such as "
        "#!/bin/sh",
        evidence=text,
    )


def _port_trouble(running: Running) -> Trouble | None:
    """Return on which other addresses the program listens."""
    port = running.address[1]
    listening = [each for each in running.sockets() or [] if each.is_listening]
    # The engine's DNS server listens in the container on 127.0.0.11.
    listening = [each for each in listening if each.address != "127.0.0.11"]
    if not listening:
        return None
    shown = ", ".join(sorted({f"{each.address}:{each.port}" for each in listening}))
    return Trouble(
        case_id="port",
        message=f"the server listens on {shown}, not on 0.0.0.0:{port}",
        evidence=f"connections to port {port} are refused; {running.last_line()}",
    )


def _never_ready(
    examination: Examination, running: Running, last: Response | None, seconds: float
) -> Trouble:
    line = running.last_line()
    if last is None:
        return Trouble(
            case_id="port",
            message=f"the program listened on no port within {seconds:g} s",
            evidence=f"port {running.address[1]}: connection refused; {line}",
            remedy="start the server earlier, or wait longer with --startup-timeout "
            "(SageMaker waits 480 s)",
        )
    return Trouble(
        case_id="ping-ready",
        message=f"GET /ping returned no 200 within {seconds:g} s",
        evidence=f"{last}; last line of the log: {line}",
        remedy=_PING_REMEDIES.get(last.status or 0) or remedy_of(running.log(), examination),
    )


def remedy_of(log: str, examination: Examination) -> str:
    """Return what to do about the last exception in a log; empty: the case's own remedy."""
    end = "\n".join(log.splitlines()[-20:])
    if found := re.search(r"No module named ['\"]?([\w.]+)", end):
        return f"install the package of {found[1]}, or copy the module beside the program"
    # As our server logs it.
    end = re.sub(r"\bno (\S+) in (\S*/model)\b", r"not found: \2/\1\n", end)
    if found := re.search(r"(?:No such file or directory|not found): ['\"]?([^'\"\n]+)", end):
        return _file_remedy(found[1].strip(), examination)
    if found := re.search(r"KeyError: '(SM_\w+)'", end):
        return f"read /opt/ml itself: SageMaker sets no variable {found[1]}, its toolkits do"
    if re.search(r"\bSSL\b.*HTTP_REQUEST|TLS handshake error", end):
        return "serve HTTP without TLS: SageMaker's requests are not encrypted"
    if re.search(r"Permission ?(?:Error|denied)", end, re.IGNORECASE):
        return (
            "make the file readable for all users (chmod -R a+rX), and remove USER from the "
            "Dockerfile: SageMaker runs containers as root"
        )
    return ""


def _file_remedy(missing: str, examination: Examination) -> str:
    name = missing.rpartition("/")[2]
    folder = examination.folder / "model"
    for path in folder.rglob("*"):
        if path.name != name and path.name.lower() == name.lower():
            return f"the model has {path.name}, not {name}: use the same upper and lower case"
    if "/model" in missing and examination.options.model is None:
        return "give the model's files: --model FOLDER or --model model.tar.gz"
    return f"add {name} to the model or to the container image, under this path"
