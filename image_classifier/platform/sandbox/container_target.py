"""A container image as the program under test, through the Docker API."""

import os
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from container.classifier.errors import UserError
from image_classifier.platform.sandbox import labels, networks, process_tree, sockets
from image_classifier.platform.sandbox.launch import (
    Launch,
    Running,
    SandboxError,
    StartError,
    Target,
)

if TYPE_CHECKING:
    import docker
    from docker.models.containers import Container
    from docker.models.images import Image

SERVING_PORT = 8080

# For the rest of the output of a container that has ended.
_OUTPUT_SECONDS = 2

# Larger responses of the engine take longer.
_ENGINE_SECONDS = 60

# It copies all layers before it sends them: 7 GB take a minute or two.
_SAVE_SECONDS = 600

_OPT_ML = "/opt/ml"

# All addresses of this machine, in IPv4 and IPv6.
_ALL_ADDRESSES = ("", "0.0.0.0", "::")  # noqa: S104 - compared, not listened on


def connect(seconds: float = _ENGINE_SECONDS) -> "docker.DockerClient":
    """Connect to the Docker engine, which may take `seconds` for a response.

    Raises:
        SandboxError: the package `docker` is missing, or no engine responds.
    """
    try:
        import docker  # noqa: PLC0415 - takes a moment
    except ImportError:
        raise SandboxError(
            "container images need the package docker: in the checkout pip install .; "
            "or use no container (doctor: a command after --, --local: --processes)"
        ) from None
    try:
        environment = dict(os.environ)
        # The package, unlike the command docker, ignores the chosen context.
        context = docker.ContextAPI.get_context(environment.get("DOCKER_CONTEXT"))
        if context is not None and context.Host:
            environment.setdefault("DOCKER_HOST", context.Host)
        _require_socket(environment.get("DOCKER_HOST"))
        return docker.from_env(timeout=seconds, environment=environment, use_ssh_client=True)
    except docker.errors.DockerException as error:
        raise SandboxError(
            f"no Docker engine ({error}): start it, or use no container "
            "(doctor: a command after --, --local: --processes)"
        ) from None


def _require_socket(host: str | None) -> None:
    """Check that the engine's socket exists: the package leaves one open that it cannot connect."""
    import docker  # noqa: PLC0415 - takes a moment

    url = docker.utils.parse_host(host, sys.platform == "win32")
    path = url.removeprefix("http+unix://")
    if path != url and not Path(path).exists():
        raise docker.errors.DockerException(f"{path} does not exist")


class ContainerTarget(Target):
    """A container image; `train` or `serve` is its argument."""

    is_container = True

    def __init__(self, image: str, argument: str, entrypoint: Sequence[str] = ()) -> None:
        """Find the container image; `entrypoint` replaces its entry point.

        Raises:
            SandboxError: no Docker engine.
            UserError: the engine does not have the image.
        """
        self.client = connect()
        self._argument, self._entrypoint = argument, entrypoint
        import docker  # noqa: PLC0415 - takes a moment

        try:
            self.image: Image = self.client.images.get(image)
        except docker.errors.DockerException as error:
            raise UserError(
                f"no container image {image!r} ({error}): `docker images` lists those that exist, "
                "`docker pull` gets it from a registry; or give a command after --"
            ) from None

    def start(self, launch: Launch) -> Running:
        """Start a container.

        Raises:
            StartError: the engine cannot execute the program.
        """
        return _RunningContainer(self, launch)

    def saved(self) -> Iterator[bytes]:
        """Return the container image as `docker save` writes it."""
        image: Image = connect(_SAVE_SECONDS).images.get(self.image.id)
        return iter(image.save())

    def create(self, launch: Launch, network: str) -> "Container":
        """Create a container, without starting it."""
        from docker.types import DeviceRequest, Mount  # noqa: PLC0415 - takes a moment

        has_gpus = launch.has_gpus and "nvidia" in (self.client.info().get("Runtimes") or {})
        is_published = launch.published is not None or not networks.reaches_containers()
        ports = {f"{launch.port}/tcp": launch.published} if launch.port and is_published else {}
        endpoint = self.client.api.create_endpoint_config(aliases=[launch.host])
        return self.client.containers.create(
            self.image.id,
            [self._argument],
            entrypoint=list(self._entrypoint) or None,
            name=f"image-classifier-{uuid.uuid4().hex[:12]}",
            labels=labels.of(launch),
            environment=dict(launch.variables),
            mounts=[
                Mount(target, str(source), "bind", not is_writable)
                for target, source, is_writable in _mounts(launch)
            ],
            device_requests=[DeviceRequest(count=-1, capabilities=[["gpu"]])] if has_gpus else None,
            hostname=launch.host,
            network=network,
            networking_config={network: endpoint} if launch.host else None,
            mem_limit=launch.memory,
            # No swap in addition.
            memswap_limit=launch.memory,
            nano_cpus=None if launch.cpus is None else round(launch.cpus * 1e9),
            ports=ports,
        )


class _RunningContainer(Running):
    def __init__(self, target: ContainerTarget, launch: Launch) -> None:
        import docker  # noqa: PLC0415 - takes a moment

        self.memory_limit = launch.memory
        self._remove_network: Callable[[], None] = lambda: None
        self._copy_output: Callable[[], None] = lambda: None
        try:
            network, self._remove_network = networks.attach(target.client, launch)
            self._container = target.create(launch, network)
        except docker.errors.DockerException as error:
            self._remove_network()
            raise StartError(_message(error)) from error
        try:
            if launch.output is not None:
                self._copy_output = _copy(self._container, *launch.output)
            self._container.start()
            self._container.reload()
        except docker.errors.DockerException as error:
            self.close()
            raise StartError(_message(error)) from error
        self.address = self._find_address(launch.port or 0)

    def exit_code(self) -> int | None:
        state = self._state()
        if state["Status"] in {"created", "running", "paused"}:
            return None
        return int(state["ExitCode"])

    def log(self) -> str:
        return bytes(self._container.logs()).decode(errors="backslashreplace")

    def terminate(self) -> None:
        with _ignored_errors():
            self._container.kill("SIGTERM")

    def kill(self) -> None:
        with _ignored_errors():
            self._container.kill("SIGKILL")

    def close(self) -> None:
        with _ignored_errors():
            self._container.remove(force=True, v=True)
        self._copy_output()
        self._remove_network()

    def ran_out_of_memory(self) -> bool:
        return bool(self._state()["OOMKilled"])

    def memory(self) -> int | None:
        usage = self._container.stats(stream=False, one_shot=True)["memory_stats"]
        # Without the cache of files, as `docker stats` does.
        cache = usage.get("stats", {}).get("inactive_file", 0)
        return int(usage["usage"]) - cache if "usage" in usage else None

    def ignores_sigterm(self) -> bool:
        return process_tree.ignores(self._state()["Pid"], signal.SIGTERM)

    def programs(self) -> set[str]:
        return set(process_tree.names(self._pids()))

    def cpu_waits(self) -> Mapping[str, float]:
        return process_tree.cpu_waits(self._pids())

    def sockets(self) -> list[sockets.Socket] | None:
        found = sockets.of_processes([self._state()["Pid"]], own_network=True)
        if found is None:
            # The engine runs on another machine, or its processes belong to another user.
            with _ignored_errors():
                result = self._container.exec_run(["cat", "/proc/net/tcp", "/proc/net/tcp6"])
                lines = result.output.decode(errors="replace").splitlines()
                rows = "\n".join(line for line in lines if line.split()[:1][0][:1].isdigit())
                found = list(sockets.parse(f"header\n{rows}"))
        return found

    def waits_for_back_end(self) -> bool:
        pid = self._state()["Pid"]
        return sockets.has_unaccepted([pid], SERVING_PORT, own_network=True)

    def changed_files(self) -> list[str]:
        changes = self._container.diff() or []
        # Kind 2 is a file that was removed.
        return [change["Path"] for change in changes if change["Kind"] != 2]  # noqa: PLR2004

    def _find_address(self, port: int) -> tuple[str, int]:
        settings = self._container.attrs["NetworkSettings"]
        for published in (settings.get("Ports") or {}).values():
            if published:
                host, host_port = published[0]["HostIp"], int(published[0]["HostPort"])
                return ("127.0.0.1" if host in _ALL_ADDRESSES else host, host_port)
        addresses = [each["IPAddress"] for each in settings["Networks"].values()]
        return (next(filter(None, addresses), ""), port)

    def _pids(self) -> list[int]:
        pid = self._state()["Pid"]
        return process_tree.descendants(pid) if pid else []

    def _state(self) -> dict[str, Any]:
        self._container.reload()
        return dict(self._container.attrs["State"])


def _mounts(launch: Launch) -> Iterator[tuple[str, Path, bool]]:
    """Yield the path in the container, the folder, and whether it is writable."""
    for name, is_writable in launch.folders.items():
        yield f"{_OPT_ML}/{name}", launch.base_dir / name, is_writable
    for folder, is_writable in launch.mounts.items():
        yield str(folder), folder, is_writable


def _copy(container: "Container", stdout: int, stderr: int) -> Callable[[], None]:
    """Copy the output of a container to file descriptors; return what waits for the end of it."""
    # Until the end of the container, although the caller may close its own.
    descriptors = os.dup(stdout), os.dup(stderr)
    pieces = container.attach(stream=True, logs=True, demux=True)

    def copy() -> None:
        try:
            for both in pieces:
                for piece, descriptor in zip(both, descriptors, strict=True):
                    if piece:
                        os.write(descriptor, piece)
        except BrokenPipeError:
            # The reader has ended.
            pass
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return lambda: thread.join(_OUTPUT_SECONDS)


def _message(error: Exception) -> str:
    return str(getattr(error, "explanation", None) or error)


@contextmanager
def _ignored_errors() -> Iterator[None]:
    import docker  # noqa: PLC0415 - takes a moment

    with suppress(docker.errors.DockerException):
        yield
