"""Servers in containers that outlive the commands that start them.

The Docker engine keeps their state; their labels store the folder and the port. `stop` also removes
what killed commands left in the engine.
"""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING

from container.classifier.errors import UserError
from image_classifier.platform import endpoint, processes
from image_classifier.platform.containers import ENGINE_SECONDS
from image_classifier.platform.sandbox import labels
from image_classifier.platform.sandbox.container_target import connect
from image_classifier.platform.sandbox.launch import Launch, Running, SandboxError, Target
from image_classifier.platform.sandbox.process_target import kill_left

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container


def serve(target: Target, launch: Launch) -> None:
    """Start a server that continues when this process has ended; return when it is healthy.

    Raises:
        UserError: another server is starting in its folder, or the server does not become healthy
            (the message ends with its log).
    """
    log = launch.base_dir / processes.LOG_FILE

    def end_of_log(server: Running) -> str:
        log.write_text(server.log())
        return processes.end_of(log)

    with processes.starting(launch.base_dir):
        endpoint.start(target, launch, processes.STARTUP_SECONDS, end_of_log)


def stop(folder: Path) -> bool:
    """Stop the servers below a folder with SIGTERM, later SIGKILL; return whether one was running.

    What killed commands left is removed, too, also processes.

    Raises:
        UserError: the engine cannot remove a container.
    """
    was_running = False
    kill_left()
    with _engine() as client:
        for container in _containers(client):
            if labels.is_server_of(container.labels, folder):
                was_running |= container.status == "running"
                with _problems():
                    container.stop(timeout=processes.SERVING_GRACE_SECONDS)
                    _save_log(container)
            elif not labels.is_left(container.labels):
                continue
            with _problems():
                container.remove(force=True, v=True)
        for network in client.networks.list(filters=_OURS) if client else ():
            found = network.attrs["Labels"]
            if labels.is_server_of(found, folder) or labels.is_left(found):
                with _problems():
                    network.remove()
    return was_running


def port_of_server(folder: Path) -> int | None:
    """Return the port of a running server below a folder; None if none is running."""
    with _engine() as client:
        for container in _servers(client, folder):
            if container.status == "running":
                return int(container.labels[labels.PORT])
    return None


def why_ended(folder: Path) -> str | None:
    """Return the exit code of a server below a folder that has ended without `stop`."""
    with _engine() as client:
        for container in _servers(client, folder):
            state = container.attrs["State"]
            if not state["Running"]:
                memory = ", because it was out of memory" if state["OOMKilled"] else ""
                return f"exit code {state['ExitCode']}{memory}"
    return None


def save_logs(folder: Path) -> None:
    """Write the logs of the servers below a folder, so far, into their files."""
    with _engine() as client:
        for container in _servers(client, folder):
            with _problems():
                _save_log(container)


# Containers and networks of the sandbox.
_OURS = {"label": labels.STARTER}


@contextmanager
def _engine() -> Iterator["docker.DockerClient | None"]:
    """Yield the engine; None: it or the package for it is missing."""
    try:
        client = connect(ENGINE_SECONDS)
    except SandboxError:
        yield None
        return
    with closing(client):
        yield client


def _containers(client: "docker.DockerClient | None") -> "list[Container]":
    if client is None:
        return []
    found: list[Container] = client.containers.list(all=True, filters=_OURS, ignore_removed=True)
    return found


def _servers(client: "docker.DockerClient | None", folder: Path) -> "list[Container]":
    return [each for each in _containers(client) if labels.is_server_of(each.labels, folder)]


def _save_log(container: "Container") -> None:
    folder = Path(container.labels[labels.FOLDER])
    # A person may have removed it.
    if folder.is_dir():
        with (folder / processes.LOG_FILE).open("wb") as log:
            log.writelines(container.logs(stream=True, follow=False))


@contextmanager
def _problems() -> Iterator[None]:
    """Ignore that another command removes the same; report other errors of the engine.

    Raises:
        UserError: the engine reports another error.
    """
    import docker  # noqa: PLC0415 - takes a moment

    with suppress(docker.errors.NotFound):
        try:
            yield
        except docker.errors.APIError as error:
            if error.status_code == HTTPStatus.CONFLICT:
                return
            raise UserError(f"the Docker engine: {error.explanation or error}") from None
