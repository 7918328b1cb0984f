"""`--local`: the same settings on this machine, under SageMaker's contract."""

import json
from collections.abc import Callable
from pathlib import Path
from threading import Event
from typing import TextIO

from container.classifier.environment import (
    CACHE_DIR_VARIABLE,
    cache_dir,
)
from container.classifier.errors import UserError
from container.classifier.manifest import MANIFEST
from image_classifier.local import trial
from image_classifier.local.packing import BEST, MODEL, OUTPUT, pack
from image_classifier.local.stopped import StoppedError
from image_classifier.platform import containers, deployment, opt_ml, processes, training
from image_classifier.platform.sandbox.launch import NO_LIMITS, Limits
from image_classifier.settings.section import to_strings
from image_classifier.settings.settings_file import SettingsFile

# Trees like /opt/ml: of the training job, and of models from archives that are served.
FOLDER, DEPLOYED = "ml", "deployed"


def train(
    file: SettingsFile,
    folder: Path,
    *,
    from_tuning: bool,
    in_container: bool = False,
    limits: Limits = NO_LIMITS,
    interrupt_after: float | None = None,
    is_quiet: bool = False,
    show: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Train in `folder`; return the model, packed as SageMaker packs one, like the reports.

    A server of the earlier model is stopped, and that model is removed: a training that fails
    leaves nothing that could be taken for its result.

    Raises:
        UserError: a channel is missing, another training is running in the folder, or the training
            failed.
        StoppedError: SIGINT or SIGTERM stopped the training.
    """
    channels = trial.find_channels(file)
    hyperparameters = file.settings.job_hyperparameters()
    if from_tuning:
        hyperparameters |= _best_hyperparameters(folder)
    base_dir, packed, output = folder / FOLDER, folder / MODEL, folder / OUTPUT
    if in_container:
        program = containers.training(
            base_dir,
            channels.values(),
            {
                **training.job_variables(),
                **({} if is_quiet else containers.live_variables()),
                **file.settings.training.environment,
            },
            has_network=trial.has_network(file),
            limits=limits,
        )
        show(f"training in a container of {containers.TRAIN_IMAGE}")
    else:
        program = training.as_process(base_dir, environment=file.settings.training.environment)
    # A list, so that both ways are stopped.
    if any([processes.stop(base_dir), deployment.stop(base_dir)]):
        show("the server of the earlier model is stopped")
    opt_ml.require_no_training(base_dir)
    packed.unlink(missing_ok=True)
    output.unlink(missing_ok=True)
    trial.prepare(base_dir, channels, hyperparameters)
    is_stopped = Event()
    exit_code = training.train(
        base_dir, program, is_stopped.set, is_quiet=is_quiet, interrupt_after=interrupt_after
    )
    if exit_code:
        raise UserError(f"the training failed: {_failure(base_dir) or f'code {exit_code}'}")
    has_model = (base_dir / "model" / MANIFEST).is_file()
    if has_model:
        pack(base_dir / "model", packed)
    pack(base_dir / "output" / "data", output)
    if is_stopped.is_set():
        saved = f"{packed} has its best weights so far" if has_model else "it has no model yet"
        raise StoppedError(f"the training is stopped: {saved}; `train --local` continues it")
    return packed


def report_line(folder: Path) -> str:
    """Return a line with the path of the last training's report; empty without one."""
    report = folder / FOLDER / "output" / "data" / "report.html"
    return f"report: {report}" if report.is_file() else ""


def reports(folder: Path) -> list[Path]:
    """Return the report pages of the last training.

    Raises:
        UserError: no page exists.
    """
    pages = sorted((folder / FOLDER / "output" / "data").glob("*.html"))
    if not pages:
        raise UserError(f"no report in {folder}: `train --local` first")
    return pages


def open_log(folder: Path, *, of_server: bool) -> TextIO:
    """Open the log of the last training, or of the server.

    Raises:
        UserError: it does not exist.
    """
    if of_server:
        deployment.save_logs(folder)
    names = (FOLDER, DEPLOYED) if of_server else (FOLDER,)
    file_name = processes.LOG_FILE if of_server else training.LOG_FILE
    paths = [path for name in names if (path := folder / name / file_name).is_file()]
    if not paths:
        verb = "deploy" if of_server else "train"
        raise UserError(f"no {file_name} in {folder}: `{verb} --local` first")
    newest = max(paths, key=lambda path: path.stat().st_mtime)
    return newest.open(encoding="utf-8", errors="backslashreplace")


def trained(folder: Path) -> Path:
    """Return the job's folder with the last trained model.

    Raises:
        UserError: the last training failed, or there was none.
    """
    base_dir = folder / FOLDER
    if reason := _failure(base_dir):
        raise UserError(f"the last training failed: {reason}; fix it, then `train --local`")
    if not (base_dir / "model" / MANIFEST).is_file():
        raise UserError(f"no model in {base_dir / 'model'}: `train --local` first")
    return base_dir


def cache_of(file: SettingsFile) -> Path:
    """Return the folder of decoded images of the trainings without containers."""
    chosen = file.settings.training.environment.get(CACHE_DIR_VARIABLE)
    return Path(chosen) if chosen else cache_dir()


def _best_hyperparameters(folder: Path) -> dict[str, str]:
    best = folder / "tuning" / BEST
    if not best.is_file():
        raise UserError(f"no {best}: `tune --local` first")
    return to_strings(json.loads(best.read_text("utf-8"))["hyperparameters"])


def _failure(base_dir: Path) -> str | None:
    """Return the first line of the last training's failure, if it failed."""
    failure = base_dir / opt_ml.FAILURE
    return failure.read_text(errors="replace").splitlines()[0] if failure.is_file() else None
