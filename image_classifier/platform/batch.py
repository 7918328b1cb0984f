"""Batch transform on this machine, folder to folder, with the requests of SageMaker's service.

| file | holds |
|---|---|
| `NAME.out` | the response for the file NAME, in the same sub-folder |
| `NAME.error` | why the file has no result: the status and the body of the last response |
| `.transform.jsonl` | the finished files, so that a job that was stopped continues |
"""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from http import HTTPStatus
from pathlib import Path

from tqdm import tqdm

from container.classifier.errors import UserError
from image_classifier.platform import endpoint
from image_classifier.platform.finished_files import FinishedFiles
from image_classifier.platform.sandbox.http_call import Response, call
from image_classifier.platform.sandbox.launch import Running

SINGLE, MULTI = "SingleRecord", "MultiRecord"
RESULT, ERROR, JOURNAL = ".out", ".error", ".transform.jsonl"

# In JSON and JSON Lines; quotes in a string are escaped.
_ERROR_RECORD = b'{"error":{'

# The longest suffix, while a result is written, and the limit of usual file systems.
_PARTIAL, _MAX_NAME_BYTES = ".partial", 255

# SageMaker's defaults: of InvocationsTimeoutInSeconds, InvocationsMaxRetries, and the most that
# MaxConcurrentTransforms can be.
_TIMEOUT_SECONDS, _RETRIES, _MAX_CONCURRENT = 600, 3, 100
_PARAMETERS_SECONDS = 10

# The response to a payload of images in base64 is smaller.
_MAX_RESPONSE_BYTES = 200_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Job:
    """What is sent to the server, and what the results depend on."""

    content_type: str
    accept: str

    strategy: str
    """SINGLE: a file is a request. MULTI: its lines are, as many as fit into a request."""

    max_payload: int
    """Bytes of a request's body."""

    model: str
    """Identifies the model: results of another one are replaced."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Summary:
    """What a job has done with each file."""

    kept: int
    """Files with a prediction of an earlier, interrupted job."""

    done: int
    """Files with a new prediction."""

    with_errors: Sequence[str]
    """Results, new and earlier ones, that hold an error instead of a prediction."""

    failed: Mapping[str, str]
    """Why a file has no result, by its name."""


class _RejectedError(Exception):
    """A file has no result; the text is the reason."""


def run(
    job: Job, source: Path, target: Path, server: Running, *, is_quiet: bool = False
) -> Summary:
    """Send the files below a folder that have no result yet; write the results into another.

    Hidden files are left out.

    Args:
        job: equal to that of an earlier call to continue it.
        source: folder.
        target: folder, which is created.
        server: is ready.
        is_quiet: show no progress bar.

    Raises:
        UserError: there is no file, the folders overlap, or the server ended.
    """
    source, target = source.resolve(), target.resolve()
    if target == source or source in target.parents:
        raise UserError(f"{target} is in {source}: choose a folder outside of it for the results")
    names = sorted(_names(source))
    if not names:
        raise UserError(f"no files in {source}: expected a folder of images")
    target.mkdir(parents=True, exist_ok=True)
    failed = {}
    with (
        FinishedFiles(target / JOURNAL, asdict(job)) as finished,
        ThreadPoolExecutor(_concurrency(server, job)) as pool,
    ):
        left = [
            name
            for name in names
            if not (finished.has(name, source / name) and _path(target, name, RESULT).is_file())
        ]
        try:
            outcomes = pool.map(
                lambda name: (name, _transform(job, source, target, name, server)), left
            )
            # None: draw the bar only on a terminal.
            off = is_quiet or None
            with tqdm(outcomes, total=len(left), unit=" files", disable=off) as bar:
                for name, reason in bar:
                    if reason is None:
                        finished.add(name, source / name)
                    else:
                        failed[name] = reason
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            if isinstance(error, KeyboardInterrupt):
                # Ends the requests, which can take minutes.
                server.close()
            raise
    return _summary(target, names, left, failed)


def _summary(
    target: Path, names: Sequence[str], left: Sequence[str], failed: Mapping[str, str]
) -> Summary:
    results = {name: _path(target, name, RESULT) for name in names if name not in failed}
    errors = [name for name, path in results.items() if _ERROR_RECORD in path.read_bytes()]
    predicted = results.keys() - errors
    return Summary(
        kept=len(predicted - set(left)),
        done=len(predicted & set(left)),
        with_errors=[f"{name}{RESULT}" for name in errors],
        failed=failed,
    )


def _names(source: Path) -> Iterator[str]:
    for folder, folders, files in os.walk(source, followlinks=True):
        above = {Path(folder).resolve(), *Path(folder).resolve().parents}
        folders[:] = [
            # A link to a folder above would be followed for ever.
            name
            for name in folders
            if not name.startswith(".") and Path(folder, name).resolve() not in above
        ]
        for name in files:
            if not name.startswith("."):
                yield str(Path(folder, name).relative_to(source))


def _concurrency(server: Running, job: Job) -> int:
    """Return the number of concurrent requests that the server accepts."""
    response = call(server.address, "GET", "/execution-parameters", timeout=_PARAMETERS_SECONDS)
    try:
        wanted = (
            int(json.loads(response.body)["MaxConcurrentTransforms"]) if response.is_success else 1
        )
    except (ValueError, LookupError, TypeError):
        wanted = 1
    # SageMaker limits the bodies of concurrent requests to 100 MB in total.
    return max(1, min(wanted, _MAX_CONCURRENT * 2**20 // job.max_payload))


def _transform(job: Job, source: Path, target: Path, name: str, server: Running) -> str | None:
    """Write the result of one file, or else the reason why it has none, which is returned."""
    if len(os.fsencode(_path(target, name, _PARTIAL).name)) > _MAX_NAME_BYTES:
        return f"the name is too long for a file NAME{RESULT}"
    result, error = _path(target, name, RESULT), _path(target, name, ERROR)
    result.parent.mkdir(parents=True, exist_ok=True)
    try:
        parts = [_send(job, body, server) for body in _bodies(job, source / name)]
    except (_RejectedError, OSError) as problem:
        reason = f"cannot be read: {problem.strerror}" if isinstance(problem, OSError) else problem
        result.unlink(missing_ok=True)
        error.write_text(f"{reason}\n", errors="backslashreplace")
        return str(reason)
    partial = _path(target, name, _PARTIAL)
    partial.write_bytes(b"".join(parts))
    partial.replace(result)
    error.unlink(missing_ok=True)
    return None


def _bodies(job: Job, path: Path) -> Iterator[bytes]:
    """Yield the bodies of a file's requests.

    Raises:
        _RejectedError: a file, or one of its lines, is too large.
    """
    limit = job.max_payload
    if job.strategy == SINGLE:
        if path.stat().st_size > limit:
            raise _RejectedError(f"the file has more than {limit // 2**20} MB (max_payload_mb)")
        yield path.read_bytes()
        return
    lines: list[bytes] = []
    size = 0
    with path.open("rb") as file:
        while line := file.readline(limit + 2):
            if len(line) > limit + 1:
                raise _RejectedError(f"a line has more than {limit // 2**20} MB (max_payload_mb)")
            if lines and size + len(line) > limit:
                yield b"".join(lines)
                lines, size = [], 0
            if line.strip():
                lines.append(line)
                size += len(line)
    if lines:
        yield b"".join(lines)


def _send(job: Job, body: bytes, server: Running) -> bytes:
    """Return the response to one request.

    Raises:
        _RejectedError: the server rejects it, or responds with errors only.
        UserError: the server has ended.
    """
    headers = {"Content-Type": job.content_type, "Accept": job.accept}
    response = Response(seconds=0)
    for _ in range(1 + _RETRIES):
        response = call(
            server.address,
            "POST",
            "/invocations",
            timeout=_TIMEOUT_SECONDS,
            body=body,
            headers=headers,
            max_bytes=_MAX_RESPONSE_BYTES,
        )
        if response.status == HTTPStatus.OK:
            return response.body if job.strategy == SINGLE else _lines(body, response.body)
        endpoint.require_running(server)
        if response.status is not None and response.status < HTTPStatus.INTERNAL_SERVER_ERROR:
            # The same request would be rejected again.
            break
    raise _RejectedError(str(response))


def _lines(request: bytes, response: bytes) -> bytes:
    """Return a response in lines, which ends with a line feed, as `AssembleWith=Line` writes it.

    Raises:
        _RejectedError: the numbers of lines of the request and the response differ.
    """
    response = response.rstrip(b"\n") + b"\n"
    sent, received = len(request.rstrip(b"\n").split(b"\n")), response.count(b"\n")
    if sent != received:
        raise _RejectedError(f"{sent} lines were sent, and {received} were received")
    return response


def _path(target: Path, name: str, suffix: str) -> Path:
    return target / f"{name}{suffix}"
