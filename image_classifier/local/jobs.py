"""`--local`: the same settings on this machine, under SageMaker's contract."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from typing import TextIO

from container.classifier.channel_names import TRAINING, find_channel
from container.classifier.environment import CACHE_DIR_VARIABLE, LIVE_VARIABLE, cache_dir
from container.classifier.errors import UserError
from container.classifier.manifest import MANIFEST
from image_classifier.local import job_inputs
from image_classifier.local.packing import BEST, MODEL, OUTPUT, pack
from image_classifier.platform import containers, deployment, opt_ml, processes, training
from image_classifier.platform.sandbox.launch import Launch, Limits, Target
from image_classifier.settings.settings_file import SettingsFile

# Trees like /opt/ml: of the training job, and of models from archives that are served.
FOLDER, DEPLOYED = "ml", "deployed"

REPORT = Path(FOLDER, "output", "data", "report.html")


def train(
    file: SettingsFile,
    folder: Path,
    *,
    from_tuning: bool,
    container: Limits | None = None,
    interrupt_after: float | None = None,
    is_quiet: bool = False,
    show: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Train in `folder`; return the model, packed as SageMaker packs one, like the reports.

    `container` limits each container of the training; None: it is a process.

    A server of the earlier model is stopped, and the earlier results are moved to `previous/`: a
    training that fails leaves nothing that could be taken for its result.

    Raises:
        UserError: a channel is missing, another training is running in the folder, or the training
            failed.
        KeyboardInterrupt: SIGINT or SIGTERM stopped the training.
    """
    channels = job_inputs.find_channels(file)
    settings = file.with_tuned(_best_hyperparameters(folder)) if from_tuning else file.settings
    hyperparameters = settings.job_hyperparameters()
    base_dir, packed, output = folder / FOLDER, folder / MODEL, folder / OUTPUT
    folders = _folders_of_hosts(file, folder, in_containers=container is not None, show=show)
    if interrupt_after is not None and len(folders) > 1:
        raise UserError("--interrupt-after needs training.instance_count = 1")
    is_stopped = Event()
    with _programs(file, folders, container, is_live=not is_quiet) as programs:
        was_running = processes.stop(base_dir)
        if deployment.stop(base_dir) or was_running:
            show("the server of the earlier model is stopped")
        opt_ml.require_no_training(base_dir)
        _keep_previous_results(folder)
        for host, tree in folders.items():
            job_inputs.prepare(tree, channels, hyperparameters, host=host, hosts=[*folders])
        exit_code = training.train(
            base_dir,
            programs[0],
            is_stopped.set,
            others=programs[1:],
            is_quiet=is_quiet,
            interrupt_after=interrupt_after,
        )
    if exit_code:
        reason = _failure(base_dir) or f"code {exit_code}"
        raise UserError(f"the training failed: {reason}{_hint_at_previous(folder)}")
    has_model = (base_dir / "model" / MANIFEST).is_file()
    if has_model:
        pack(base_dir / "model", packed)
    pack(base_dir / "output" / "data", output)
    if is_stopped.is_set():
        saved = f"{packed} has its best weights so far" if has_model else "it has no model yet"
        raise KeyboardInterrupt(f"the training is stopped: {saved}; `train --local` continues it")
    return packed


def _keep_previous_results(folder: Path) -> None:
    """Move the results of the last training to `previous/`.

    Those of a stopped training do not replace results there: it continues from its checkpoint.
    """
    previous = folder / opt_ml.PREVIOUS
    is_stopped = opt_ml.was_stopped(folder / FOLDER)
    is_kept = (folder / MODEL).is_file() and not (is_stopped and (previous / MODEL).is_file())
    for path in (folder / MODEL, folder / OUTPUT):
        if is_kept and path.is_file():
            previous.mkdir(exist_ok=True)
            path.replace(previous / path.name)
        path.unlink(missing_ok=True)


def _folders_of_hosts(
    file: SettingsFile, folder: Path, *, in_containers: bool, show: Callable[[str], None]
) -> Mapping[str, Path]:
    """Return a folder like /opt/ml for each host of a training job, by the host's name."""
    count = file.settings.training.instance_count
    if count > 1 and not in_containers:
        show(f"training on one host: {count} hosts need --containers")
        count = 1
    if in_containers:
        number = "a container" if count == 1 else f"{count} containers"
        show(f"training in {number} of {containers.TRAIN_IMAGE}")
    names = [f"algo-{number}" for number in range(2, count + 1)]
    return {
        opt_ml.FIRST_HOST: folder / FOLDER,
        **{name: folder / "hosts" / name for name in names},
    }


@contextmanager
def _programs(
    file: SettingsFile, folders: Mapping[str, Path], container: Limits | None, *, is_live: bool
) -> Iterator[Sequence[tuple[Target, Launch]]]:
    """Yield the training programs of all hosts, the first one first."""
    environment = file.settings.training.environment
    if container is None:
        yield [training.as_process(folders[opt_ml.FIRST_HOST], environment=environment)]
        return
    # The stderr of the container, with the progress, is copied to this one.
    live = {LIVE_VARIABLE: "true"} if is_live and sys.stderr.isatty() else {}
    variables = {**training.job_variables(), **live, **environment}
    has_network, channels = job_inputs.has_network(file), job_inputs.find_channels(file).values()
    with containers.training_on_hosts(
        folders, channels, variables, has_network=has_network, limits=container
    ) as programs:
        yield programs


def reports(folder: Path) -> list[Path]:
    """Return the report pages of the last training.

    Raises:
        UserError: no page exists.
    """
    pages = sorted((folder / FOLDER / "output" / "data").glob("*.html"))
    if not pages:
        require_success(folder)
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
    require_success(folder)
    base_dir = folder / FOLDER
    if not (base_dir / "model" / MANIFEST).is_file():
        hint = _hint_at_previous(folder)
        raise UserError(f"no model in {base_dir / 'model'}: `train --local` first{hint}")
    return base_dir


def require_success(folder: Path) -> None:
    """Check that the last training, if there was one, did not fail.

    Raises:
        UserError: it failed.
    """
    if reason := _failure(folder / FOLDER):
        hint = _hint_at_previous(folder)
        raise UserError(f"the last training failed: {reason}; fix it, then `train --local`{hint}")


def require_same_data(file: SettingsFile, folder: Path) -> None:
    """Check that results in the folder are of the images of the settings.

    Raises:
        UserError: they are of another `data.local`.
    """
    channels = (folder / FOLDER / opt_ml.DATA).glob("*")
    links = {path.name: path for path in channels if path.is_symlink()}
    name = find_channel(TRAINING, links)
    data = file.local_data
    # Without a model the last training failed: an earlier one can be served with `--job`.
    if data is None or name is None or not (folder / MODEL).is_file():
        return
    images = links[name].resolve()
    # Images that do not exist may have been moved. A channel can be a link.
    if images.is_dir() and images not in {path.resolve() for path in data.glob("*")}:
        raise UserError(
            f"{folder} has the results of a training on {images}, and data.local is {data}: "
            f"`train --local` first, or change `name` in {file.path}"
        )


def _hint_at_previous(folder: Path) -> str:
    """Return the end of a message that names the earlier model; empty without one."""
    model = folder / opt_ml.PREVIOUS / MODEL
    return f"; the earlier model is {model}, for `deploy --local --job`" if model.is_file() else ""


def cache_of(file: SettingsFile) -> Path:
    """Return the folder of decoded images of the trainings without containers."""
    chosen = file.settings.training.environment.get(CACHE_DIR_VARIABLE)
    return Path(chosen) if chosen else cache_dir()


def _best_hyperparameters(folder: Path) -> dict[str, object]:
    best = folder / "tuning" / BEST
    if not best.is_file():
        raise UserError(f"no {best}: `tune --local` first")
    hyperparameters: dict[str, object] = json.loads(best.read_text("utf-8"))["hyperparameters"]
    return hyperparameters


def _failure(base_dir: Path) -> str | None:
    """Return the first line of the last training's failure, if it failed."""
    failure = base_dir / opt_ml.FAILURE
    return failure.read_text(errors="replace").splitlines()[0] if failure.is_file() else None
