"""The cases of a container image that is not started: processor, entry point, credentials."""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from image_classifier.platform.doctor.report import Report
from image_classifier.platform.sandbox.container_target import ContainerTarget
from image_classifier.platform.sandbox.launch import Launch

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

# Names of files with credentials in the folders below.
_SECRET_FILES = (
    ".aws/credentials",
    ".ssh/id_rsa",
    ".ssh/id_ed25519",
    ".netrc",
    ".pypirc",
    ".git-credentials",
    ".docker/config.json",
    ".kaggle/kaggle.json",
    ".env",
    ".huggingface/token",
    ".cache/huggingface/token",
)
_FOLDERS = ("", "/root", "/app", "/opt/program", "/opt/ml", "/opt/ml/code", "/home")

# Larger files contain no credentials.
_MAX_FILE_BYTES = 100_000


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
    secret = next(_secrets(target, config), None)
    if secret is not None:
        report.fail("image-secrets", "the container image contains credentials", secret)
    report.accept("image-secrets")


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


def _secrets(target: ContainerTarget, config: Mapping[str, object]) -> Iterator[str]:
    """Yield where credentials are, without their values."""
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
    yield from _secret_files(target, str(config.get("WorkingDir") or ""))


def _secret_files(target: ContainerTarget, folder: str) -> Iterator[str]:
    import docker  # noqa: PLC0415 - an extra

    container = target.create(Launch(base_dir=Path("/"), folders={}), "none")
    try:
        for parent in dict.fromkeys((*_FOLDERS, folder.rstrip("/"))):
            for name in _SECRET_FILES:
                try:
                    pieces, _ = container.get_archive(f"{parent}/{name}")
                except docker.errors.DockerException:
                    continue
                if _has_content(pieces):
                    yield f"file {parent}/{name}"
    finally:
        container.remove(force=True, v=True)


def _has_content(pieces: Iterator[bytes]) -> bool:
    content = b""
    for piece in pieces:
        content += piece
        if len(content) > _MAX_FILE_BYTES:
            return False
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        return any(member.isfile() and member.size for member in archive)


def _redacted(command: str, found: re.Match[str]) -> str:
    start = max(found.start() - 40, 0)
    return f"{command[start : found.start()]}{found[0][:4]}..."
