"""A server in the sandbox, started and stopped as SageMaker does it."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.platform import containers, processes
from image_classifier.platform.sandbox.container_target import SERVING_PORT, ContainerTarget
from image_classifier.platform.sandbox.http_call import call
from image_classifier.platform.sandbox.launch import Launch, Running, StartError, Target
from image_classifier.platform.sandbox.ports import free_port
from image_classifier.platform.sandbox.process_target import ProcessTarget

# SageMaker's timeouts: of /ping, and from SIGTERM to SIGKILL.
_PING_SECONDS = 2
_GRACE_SECONDS = 30

_POLL_SECONDS = 0.2


def server(
    base_dir: Path,
    variables: Mapping[str, str],
    *,
    folders: Mapping[str, bool],
    in_container: bool,
) -> tuple[Target, Launch]:
    """Return our server in the sandbox.

    Args:
        base_dir: folder that stands for /opt/ml.
        variables: of its environment.
        folders: of `base_dir` that a container sees, and whether it may write them.
        in_container: whether it runs in a container, else as a process.

    Raises:
        UserError: packages, the engine or the container image are missing.
    """
    base_dir = base_dir.resolve()
    if in_container:
        target = ContainerTarget(containers.SERVE_IMAGE, "serve")
        launch = Launch(base_dir=base_dir, folders=folders, variables=variables, port=SERVING_PORT)
        return target, launch
    port = free_port()
    program = processes.as_process(base_dir, port, variables=variables, address="127.0.0.1")
    # The files of the model stay writable: they belong to this user.
    return ProcessTarget(program.command, cwd=program.cwd), Launch(
        base_dir=base_dir, folders={}, variables=program.variables, port=port
    )


@contextmanager
def running(target: Target, launch: Launch, seconds: float) -> Iterator[Running]:
    """Yield a server that is ready; stop it after the `with` block.

    Args:
        target: the program.
        launch: how it is started.
        seconds: how long it may take to become ready.

    Raises:
        UserError: it cannot be started, ended, or was not ready in time.
    """
    try:
        server = target.start(launch)
    except StartError as error:
        raise UserError(f"the server cannot be started: {error}") from None
    try:
        _wait_until_ready(server, seconds)
        yield server
        server.terminate()
        server.wait(_GRACE_SECONDS)
    finally:
        server.close()


def require_running(server: Running) -> None:
    """Check that a server runs.

    Raises:
        UserError: it has ended.
    """
    if (code := server.exit_code()) is not None:
        reason = "out of memory" if server.ran_out_of_memory() else server.last_line()
        raise UserError(f"the server ended with exit code {code}: {reason}")


def _wait_until_ready(server: Running, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while True:
        answer = call(server.address, "GET", "/ping", timeout=_PING_SECONDS)
        if answer.status == HTTPStatus.OK:
            return
        require_running(server)
        if time.monotonic() > deadline:
            raise UserError(
                f"the server was not ready after {seconds:g} s ({answer}): {server.last_line()}"
            )
        time.sleep(_POLL_SECONDS)
