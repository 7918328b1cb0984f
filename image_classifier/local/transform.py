"""`transform --local`: classify a folder of images without an endpoint."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

from container.classifier.environment import (
    BATCH_VARIABLE,
    ERROR_RECORDS_VARIABLE,
    PAYLOAD_VARIABLE,
)
from container.classifier.errors import UserError
from container.classifier.manifest import MANIFEST
from image_classifier.local import jobs
from image_classifier.platform import batch, endpoint, processes
from image_classifier.platform.archives import extract
from image_classifier.platform.program import handle_stop_signals
from image_classifier.platform.sandbox.launch import Limits
from image_classifier.settings.settings_file import SettingsFile

FOLDER = "transform"

_STRATEGIES = {batch.SINGLE: "SINGLE_RECORD", batch.MULTI: "MULTI_RECORD"}

# Files that are named in a message.
_SHOWN = 3


def run(
    file: SettingsFile,
    folder: Path,
    source: Path,
    target: Path | None,
    *,
    archive: Path | None = None,
    container: Limits | None = None,
    is_quiet: bool = False,
    show: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Classify the files below `source`; return the folder of the results.

    Files that have a result of the same model and settings are not sent again.

    Args:
        file: the settings.
        folder: everything that the settings make on this machine.
        source: folder of images.
        target: folder of the results; None: `transform` in `folder`.
        archive: a model.tar.gz; None: the last trained model.
        container: limits of a container for the server; None: it is a process.
        is_quiet: show no progress bar.
        show: prints a line.

    Raises:
        UserError: the model is missing, the server ended, or files have no result.
        KeyboardInterrupt: SIGINT or SIGTERM stopped it.
    """
    if not source.is_dir():
        raise UserError(f"no folder {source}: --local takes a folder of images on this machine")
    target = target or folder / FOLDER
    with TemporaryDirectory(prefix="image-classifier-transform-") as scratch:
        base_dir = jobs.trained(folder) if archive is None else Path(scratch)
        if archive is not None:
            extract(archive, base_dir / "model")
        job = _job(file, base_dir / "model")
        variables = {**file.settings.endpoint.environment, **_variables(job)}
        program = endpoint.server(
            base_dir, variables, folders={"model": False}, container=container
        )
        with (
            handle_stop_signals(_stop),
            endpoint.running(*program, processes.STARTUP_SECONDS) as running,
        ):
            summary = batch.run(job, source, target, running, is_quiet=is_quiet)
    show(_described(summary))
    if summary.failed:
        shown = [f"{name}: {reason}" for name, reason in [*summary.failed.items()][:_SHOWN]]
        others = summary.kept + summary.done + len(summary.with_errors)
        raise UserError(
            f"{len(summary.failed)} of {others + len(summary.failed)} files have no result "
            f"({'; '.join(shown)}): see the files *{batch.ERROR} in {target}, and run the same "
            "command again"
        )
    return target


def _described(summary: batch.Summary) -> str:
    done, kept, with_errors = summary.done, summary.kept, summary.with_errors
    text = f"{done} {'file' if done == 1 else 'files'} classified"
    if kept:
        text += f", {kept} {'result' if kept == 1 else 'results'} of an earlier run kept"
    if with_errors:
        text += f", {len(with_errors)} with errors in their results, such as {with_errors[0]}"
    return text


def _stop() -> None:
    raise KeyboardInterrupt("the transform is stopped; the same command continues it")


def _job(file: SettingsFile, model: Path) -> batch.Job:
    transform = file.settings.transform
    manifest = model / MANIFEST
    if not manifest.is_file():
        raise UserError(f"no {MANIFEST} in the model: `train --local` writes a model")
    return batch.Job(
        content_type=transform.content_type,
        accept=transform.accept_header,
        strategy=transform.strategy,
        max_payload=transform.max_payload_mb * 2**20,
        model=hashlib.sha256(manifest.read_bytes()).hexdigest(),
    )


def _variables(job: batch.Job) -> dict[str, str]:
    """Return the environment of a transform job."""
    return {
        BATCH_VARIABLE: "true",
        "SAGEMAKER_BATCH_STRATEGY": _STRATEGIES[job.strategy],
        PAYLOAD_VARIABLE: str(job.max_payload // 2**20),
        ERROR_RECORDS_VARIABLE: "true",
    }
