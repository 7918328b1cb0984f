"""The cases of a container image that is not started: processor, entry point, credentials."""

import re
import tarfile
from collections.abc import Iterator, Mapping

from image_classifier.platform.doctor.layers import SavedImage
from image_classifier.platform.doctor.report import Report
from image_classifier.platform.sandbox.container_target import ContainerTarget

ARCHITECTURE = "amd64"
MULTI_MODEL_LABEL = "com.amazonaws.sagemaker.capabilities.multi-models"

_SHELLS = {"sh", "bash", "ash", "dash"}
_INITS = {"tini", "dumb-init"}

_SECRET_NAME = re.compile(
    r"(SECRET|PASSWORD|PASSWD|PRIVATE_KEY|ACCESS_KEY|API_KEY|APIKEY|AUTH_TOKEN|(^|_)TOKEN)",
    re.IGNORECASE,
)
_SECRET_VALUE = re.compile(
    r"\b(AKIA|ASIA)[A-Z0-9]{16}\b|-----BEGIN [A-Z ]*PRIVATE KEY-----"
    r"|\bgh[pousr]_[A-Za-z0-9]{36}|\bhf_[A-Za-z0-9]{30,}|\bsk-[A-Za-z0-9_-]{32,}"
    r"|aws_secret_access_key\s*[=:]\s*\S{20,}|://[^/\s:@]+:[^/\s:@$]{3,}@",
    re.IGNORECASE,
)
_PLACEHOLDER = re.compile(r"^(|\$.*|<.*>|x+|\*+|none|null|false|true|/.*|changeme)$", re.IGNORECASE)

# Names of files with credentials, in any folder but those of packages.
_SECRET_FILE = re.compile(
    r"^(?!.*/(site-packages|dist-packages|node_modules)/).*/"
    r"(\.aws/credentials|\.ssh/id_[a-z0-9]+|\.netrc|\.pypirc|\.git-credentials"
    r"|\.docker/config\.json|\.kaggle/kaggle\.json|\.env|\.huggingface/token"
    r"|\.cache/huggingface/token)$"
)

# The engine writes a copy of all layers to its disk while they are read.
_MAX_IMAGE_BYTES = 12_000_000_000

_COMMAND_CHARACTERS = 80


class _UnreadError(Exception):
    """The layers of a container image cannot be read."""


def check(target: ContainerTarget, report: Report) -> None:
    """Check the metadata and the files of a container image."""
    config: Mapping[str, object] = target.image.attrs.get("Config") or {}
    _check_architecture(target, report)
    _check_entrypoint(config, report)
    labels = config.get("Labels")
    value = labels.get(MULTI_MODEL_LABEL) if isinstance(labels, dict) else None
    if value != "true":
        message = "SageMaker rejects the container image for multi-model endpoints"
        report.fail("image-label", message, f"label {MULTI_MODEL_LABEL} is {value!r}")
    report.accept("image-label")
    if report.is_open("image-secrets"):
        _check_secrets(target, config, report)


def _check_architecture(target: ContainerTarget, report: Report) -> None:
    attributes = target.image.attrs
    found = f"{attributes.get('Os', 'linux')}/{attributes.get('Architecture', 'unknown')}"
    if found != f"linux/{ARCHITECTURE}":
        report.fail(
            "image-architecture",
            f"the container image is for {found}, not for linux/{ARCHITECTURE}",
            f"docker image inspect: {found}",
        )
    report.accept("image-architecture")


def _check_entrypoint(config: Mapping[str, object], report: Report) -> None:
    entrypoint = config.get("Entrypoint")
    words = [str(word) for word in entrypoint] if isinstance(entrypoint, list) else []
    program = words[0].rpartition("/")[2] if words else ""
    shown = f"ENTRYPOINT is {words}"
    if program in _SHELLS and words[1:2] == ["-c"]:
        report.fail(
            "image-entrypoint",
            "the entry point is in shell form: the program gets neither `train` nor `serve`, and "
            "the shell does not pass SIGTERM on",
            shown,
        )
    elif program in _INITS:
        report.fail(
            "image-entrypoint",
            f"the entry point is {program}, which SageMaker documents as incompatible with the "
            "arguments train and serve",
            shown,
            "start the program itself; process 1 must handle SIGTERM",
        )


def _check_secrets(target: ContainerTarget, config: Mapping[str, object], report: Report) -> None:
    try:
        secret = next(_secrets(target, config), None)
    except _UnreadError as error:
        report.skip("image-secrets", f"environment and history have none, but {error}")
    else:
        if secret is not None:
            report.fail("image-secrets", "the container image contains credentials", secret)
        report.accept("image-secrets")


def _secrets(target: ContainerTarget, config: Mapping[str, object]) -> Iterator[str]:
    """Yield where credentials are, without their values.

    Raises:
        _UnreadError: the layers cannot be read.
    """
    environment = config.get("Env")
    for variable in environment if isinstance(environment, list) else []:
        name, _, value = str(variable).partition("=")
        if _SECRET_VALUE.search(value) or (
            _SECRET_NAME.search(name) and not _PLACEHOLDER.match(value)
        ):
            yield f"environment variable {name}"
    for layer in target.image.history():
        command = str(layer.get("CreatedBy", ""))
        if found := _SECRET_VALUE.search(command):
            yield f"build history: {_redacted(command, found)}"
        for name, value in re.findall(r"\b([A-Za-z_]+)=(\S+)", command):
            if _SECRET_NAME.search(name) and not _PLACEHOLDER.match(value):
                yield f"build history: the value of {name}"
    yield from _secret_files(target)


def _secret_files(target: ContainerTarget) -> Iterator[str]:
    """Yield files of all layers, also those that later layers delete.

    Raises:
        _UnreadError: the layers cannot be read.
    """
    import docker  # noqa: PLC0415 - an extra

    size = int(target.image.attrs.get("Size", 0))
    if size > _MAX_IMAGE_BYTES:
        limit = _MAX_IMAGE_BYTES / 1e9
        raise _UnreadError(f"layers of {size / 1e9:.0f} GB are not read, the limit is {limit:g} GB")
    try:
        image = SavedImage(target.saved())
        found = [file for file in image.files() if _SECRET_FILE.search(file.path)]
    except (docker.errors.DockerException, OSError, tarfile.TarError) as error:
        raise _UnreadError(f"the layers cannot be read ({error})") from error
    for file in found:
        command = image.command_of(file.layer)
        shown = "" if command is None else f", in the layer of {_without_values(command)!r}"
        yield f"file {file.path}{shown}"


def _without_values(command: str) -> str:
    """Return the start of a command of the build history, without what may be a credential."""
    text = command.removeprefix("RUN /bin/sh -c ").removeprefix("/bin/sh -c ")
    return re.sub(r"=\S+", "=...", _SECRET_VALUE.sub("...", text))[:_COMMAND_CHARACTERS]


def _redacted(command: str, found: re.Match[str]) -> str:
    start = max(found.start() - 40, 0)
    return f"{command[start : found.start()]}{found[0][:4]}..."
