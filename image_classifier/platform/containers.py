"""Training and serving in the two container images.

A job's folder and its channels are mounted under their paths on this machine, so that links,
messages and logs are the same in a container and outside of it.
"""

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path

from container.classifier.environment import (
    BASE_DIR_VARIABLE,
    CACHE_DIR_VARIABLE,
    PAGE_VARIABLE,
    PORT_VARIABLE,
    cache_dir,
)
from container.classifier.errors import UserError
from image_classifier.platform.sandbox import networks
from image_classifier.platform.sandbox.container_target import ContainerTarget, connect
from image_classifier.platform.sandbox.launch import (
    Launch,
    Limits,
    SandboxError,
    Target,
)

TRAIN_IMAGE, SERVE_IMAGE = "image-classifier-train", "image-classifier-serve"

# The default of --containers and --processes.
CHOICE_VARIABLE = "IMAGE_CLASSIFIER_LOCAL"
CHOICES: Mapping[str, bool | None] = {"": None, "containers": True, "processes": False}

# Files that the container writes belong to the owner of the job's folder.
_AS_OWNER = Path(__file__).with_name("as_owner.sh")

# For the engine's response.
ENGINE_SECONDS = 20


def choose(image: str, *, chosen: bool | None) -> bool:
    """Return whether a program runs in a container of `image`.

    By default it does if an engine runs that has the container image.

    Args:
        image: its name.
        chosen: True for --containers, False for --processes, None for neither.

    Raises:
        UserError: containers are chosen but impossible, or the variable has another value.
    """
    if chosen is None:
        text = os.environ.get(CHOICE_VARIABLE, "")
        if text not in CHOICES:
            raise UserError(f"{CHOICE_VARIABLE} is {text!r}: expected containers or processes")
        chosen = CHOICES[text]
    if chosen is False:
        return False
    try:
        with closing(connect(ENGINE_SECONDS)) as client:
            images = client.images.list(name=image)
    except SandboxError:
        if chosen is None:
            return False
        raise
    if not images and chosen:
        raise UserError(
            f"no container image {image}: `docker compose build` in a checkout creates it; "
            "or use --processes"
        )
    return bool(images)


def training(
    base_dir: Path,
    channels: Iterable[Path],
    variables: Mapping[str, str],
    *,
    has_network: bool,
    limits: Limits,
) -> tuple[Target, Launch]:
    """Return a training job in a container of the sandbox.

    Args:
        base_dir: the job's folder, which stands for /opt/ml.
        channels: folders of images, mounted read-only.
        variables: environment variables of the program.
        has_network: whether it may download pretrained weights.
        limits: of the container.

    Raises:
        UserError: the engine or the container image is missing.
    """
    base_dir = base_dir.resolve()
    # Shared with other jobs, also those in plain processes.
    cache = cache_dir()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    mounts = {base_dir: True, cache.resolve(): True}
    launch = Launch(
        base_dir=base_dir,
        folders={},
        mounts={**mounts, **{channel.resolve(): False for channel in channels}},
        variables={
            **{name: os.environ[name] for name in _passed_names()},
            **variables,
            BASE_DIR_VARIABLE: str(base_dir),
            CACHE_DIR_VARIABLE: str(cache.resolve()),
            "TORCH_HOME": f"{cache.resolve()}/torch",
        },
        has_network=has_network,
        has_gpus=True,
        memory=limits.memory,
        cpus=limits.cpus,
    )
    entrypoint = ("sh", "-c", _AS_OWNER.read_text(), "--", "python", "-m", "container.training")
    return ContainerTarget(TRAIN_IMAGE, "train", entrypoint), launch


@contextmanager
def training_on_hosts(
    folders: Mapping[str, Path],
    channels: Collection[Path],
    variables: Mapping[str, str],
    *,
    has_network: bool,
    limits: Limits,
) -> Iterator[Sequence[tuple[Target, Launch]]]:
    """Yield the programs of a training job on one or several hosts, the first one first.

    Several have a network of their own, in which they find each other by name.

    Args:
        folders: the folder of each host, which stands for its /opt/ml, by the host's name.
        channels: folders of images, mounted read-only.
        variables: environment variables of the programs.
        has_network: whether they may download pretrained weights.
        limits: of each container.

    Raises:
        UserError: the engine or the container image is missing.
    """
    programs = [
        training(folder, channels, variables, has_network=has_network, limits=limits)
        for folder in folders.values()
    ]
    if len(programs) == 1:
        yield programs
        return
    with closing(connect()) as client, networks.of_hosts(client, programs[0][1]) as network:
        yield [
            (target, replace(launch, host=host, network=network))
            for host, (target, launch) in zip(folders, programs, strict=True)
        ]


def serving_variables(variables: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a server in a container, with these variables.

    The page on `/` is on. The sandbox chooses the folder and the port, which are SageMaker's.
    """
    passed = {name: os.environ[name] for name in _passed_names()}
    chosen = {PAGE_VARIABLE: "true", **passed, **variables}
    return {k: v for k, v in chosen.items() if k not in {BASE_DIR_VARIABLE, PORT_VARIABLE}}


def _passed_names() -> set[str]:
    """Return the names of the variables of this process that containers get too."""
    names = {key for key in os.environ if key.startswith("SAGEMAKER_")}
    return names | ({"OMP_NUM_THREADS", "OMP_WAIT_POLICY"} & os.environ.keys())
