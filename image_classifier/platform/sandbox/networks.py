"""The Docker network of a program in the sandbox."""

import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from image_classifier.platform.sandbox import labels
from image_classifier.platform.sandbox.launch import Launch, SandboxError

if TYPE_CHECKING:
    import docker

# Network option of a container whose port is published: its packets to other machines have an
# address that they cannot respond to.
_WITHOUT_ROUTE = {"com.docker.network.bridge.enable_ip_masquerade": "false"}


def reaches_containers() -> bool:
    """Return whether this machine can connect to ports that are not published.

    It cannot on Docker Desktop.
    """
    return sys.platform == "linux"


def attach(client: "docker.DockerClient", launch: Launch) -> tuple[str, Callable[[], None]]:
    """Return the name of the network of a program, and what removes it afterwards.

    Raises:
        docker.errors.DockerException: the engine cannot create it.
    """
    if launch.network is not None:
        return launch.network, lambda: None
    is_reached = launch.published is not None or reaches_containers()
    if launch.has_network or (launch.port is not None and not is_reached):
        return "bridge", lambda: None
    if launch.port is None:
        return "none", lambda: None
    # This machine can connect to an internal network, but no port of it can be published.
    return _create(client, launch, is_internal=launch.published is None)


@contextmanager
def of_hosts(client: "docker.DockerClient", launch: Launch) -> Iterator[str]:
    """Yield the name of a network in which the hosts of a job find each other by name.

    It has no route to other machines unless the launch `has_network`.

    Raises:
        SandboxError: the engine cannot create it.
    """
    import docker  # noqa: PLC0415 - takes a moment

    try:
        name, remove = _create(client, launch, is_internal=not launch.has_network)
    except docker.errors.DockerException as error:
        raise SandboxError(f"no Docker network for the hosts of the job: {error}") from None
    try:
        yield name
    finally:
        remove()


def _create(
    client: "docker.DockerClient", launch: Launch, *, is_internal: bool
) -> tuple[str, Callable[[], None]]:
    network = client.networks.create(
        f"image-classifier-{uuid.uuid4().hex[:12]}",
        driver="bridge",
        internal=is_internal,
        options={} if launch.has_network else _WITHOUT_ROUTE,
        labels=labels.of(launch),
    )

    def remove() -> None:
        import docker  # noqa: PLC0415 - takes a moment

        with suppress(docker.errors.DockerException):
            network.remove()

    return str(network.name), remove
