"""A server in the sandbox, started and stopped as SageMaker does it."""

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.platform import containers, processes
from image_classifier.platform.readiness import wait_until_ready
from image_classifier.platform.sandbox.container_target import SERVING_PORT, ContainerTarget
from image_classifier.platform.sandbox.http_call import Address
from image_classifier.platform.sandbox.launch import (
    Launch,
    Limits,
    Running,
    StartError,
    Target,
)
from image_classifier.platform.sandbox.ports import free_port
from image_classifier.platform.sandbox.process_target import ProcessTarget

# The engine's network of deployed servers.
NETWORK_VARIABLE = "IMAGE_CLASSIFIER_NETWORK"


def server(
    base_dir: Path,
    variables: Mapping[str, str],
    *,
    folders: Mapping[str, bool],
    container: Limits | None,
    published: Address | None = None,
) -> tuple[Target, Launch]:
    """Return our server in the sandbox.

    Args:
        base_dir: folder that stands for /opt/ml.
        variables: of its environment.
        folders: of `base_dir` that a container sees, and whether it may write them.
        container: limits of its container; None: it is a process.
        published: IP address and port of this machine that lead to a container, which can outlive
            this process.

    Raises:
        UserError: packages, the engine or the container image are missing.
    """
    base_dir = base_dir.resolve()
    if container is not None:
        return ContainerTarget(containers.SERVE_IMAGE, "serve"), Launch(
            base_dir=base_dir,
            folders=folders,
            variables=containers.serving_variables(variables),
            port=SERVING_PORT,
            published=published,
            network=published and (os.environ.get(NETWORK_VARIABLE) or None),
            memory=container.memory,
            cpus=container.cpus,
        )
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
    server = start(target, launch, seconds)
    try:
        yield server
        server.terminate()
        server.wait(processes.SERVING_GRACE_SECONDS)
    finally:
        server.close()


def start(
    target: Target,
    launch: Launch,
    seconds: float,
    end_of_log: Callable[[Running], str] = Running.last_line,
) -> Running:
    """Start a server, and return it when it is ready.

    Args:
        target: the program.
        launch: how it is started.
        seconds: how long it may take to become ready.
        end_of_log: returns what a message contains of its log.

    Raises:
        UserError: it cannot be started, ended, or was not ready in time.
    """
    try:
        server = target.start(launch)
    except StartError as error:
        raise UserError(f"the server cannot be started: {error}") from None

    try:
        wait_until_ready(
            server.address,
            seconds,
            why_ended=lambda: _why_ended(server, end_of_log),
            end_of_log=lambda: end_of_log(server),
        )
    except BaseException:
        server.close()
        raise
    return server


def require_running(server: Running) -> None:
    """Check that a server runs.

    Raises:
        UserError: it has ended.
    """
    if (reason := _why_ended(server, Running.last_line)) is not None:
        raise UserError(f"the server ended with {reason}")


def _why_ended(server: Running, end_of_log: Callable[[Running], str]) -> str | None:
    if (code := server.exit_code()) is None:
        return None
    return f"exit code {code}: {server.why_killed() or end_of_log(server)}"
