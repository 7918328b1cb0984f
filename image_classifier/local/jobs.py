"""`--local`: the same settings on this machine, under SageMaker's contract."""

import http.client
import json
import shutil
import socket
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from container.classifier.environment import (
    CACHE_DIR_VARIABLE,
    MULTI_MODEL_VARIABLE,
    cache_dir,
)
from container.classifier.errors import UserError
from container.classifier.manifest import MANIFEST
from container.classifier.media_types import TARGET_MODEL
from image_classifier.local import trial
from image_classifier.local.packing import BEST, MODEL, pack
from image_classifier.local.stopped import StoppedError
from image_classifier.platform import containers, opt_ml, processes, router, training
from image_classifier.platform.archives import extract
from image_classifier.sagemaker import invocation, prediction
from image_classifier.settings.inference import Endpoint
from image_classifier.settings.section import to_strings
from image_classifier.settings.settings_file import SettingsFile

# Trees like /opt/ml: of the training job, and of models from archives that are served.
FOLDER, DEPLOYED = "ml", "deployed"

# Folder of the models of a multi-model endpoint, by default.
MODELS = "models"

PORT = 8080


def train(
    file: SettingsFile,
    folder: Path,
    *,
    from_tuning: bool,
    in_container: bool = False,
    is_quiet: bool = False,
    show: Callable[[str], None] = lambda _text: None,
) -> Path:
    """Train in `folder`; return the model, packed as SageMaker packs one.

    A server of the earlier model is stopped, and that model is removed: a training that fails
    leaves nothing that could be taken for its result.

    Raises:
        UserError: a channel is missing, or the training failed.
        StoppedError: SIGINT or SIGTERM stopped the training.
    """
    channels = trial.find_channels(file)
    hyperparameters = file.settings.job_hyperparameters()
    if from_tuning:
        best = folder / "tuning" / BEST
        if not best.is_file():
            raise UserError(f"no {best}: `tune --local` first")
        hyperparameters |= to_strings(json.loads(best.read_text("utf-8"))["hyperparameters"])
    base_dir, packed = folder / FOLDER, folder / MODEL
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
        )
        show(f"training in a container of {containers.TRAIN_IMAGE}")
    else:
        program = training.as_process(base_dir, environment=file.settings.training.environment)
    if processes.stop(base_dir):
        show("the server of the earlier model is stopped")
    packed.unlink(missing_ok=True)
    trial.prepare(base_dir, channels, hyperparameters)
    is_stopped = Event()
    exit_code = training.train(base_dir, program, is_stopped.set, is_quiet=is_quiet)
    if exit_code:
        raise UserError(f"the training failed: {_failure(base_dir) or f'code {exit_code}'}")
    has_model = (base_dir / "model" / MANIFEST).is_file()
    if has_model:
        pack(base_dir / "model", packed)
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
    names = (FOLDER, DEPLOYED) if of_server else (FOLDER,)
    file_name = processes.LOG_FILE if of_server else training.LOG_FILE
    paths = [path for name in names if (path := folder / name / file_name).is_file()]
    if not paths:
        verb = "deploy" if of_server else "train"
        raise UserError(f"no {file_name} in {folder}: `{verb} --local` first")
    newest = max(paths, key=lambda path: path.stat().st_mtime)
    return newest.open(encoding="utf-8", errors="backslashreplace")


def deploy(
    file: SettingsFile,
    folder: Path,
    archive: Path | None,
    port: int,
    *,
    in_container: bool = False,
) -> None:
    """Serve a model on this machine until `delete --local`; by default the last trained one.

    Raises:
        UserError: the model is missing, the last training failed, or the server does not become
            healthy.
    """
    if archive is None:
        base_dir = trained(folder)
    else:
        base_dir = folder / DEPLOYED
        opt_ml.create(base_dir)
        extract(archive, base_dir / "model")
    variables = file.settings.endpoint.environment
    if in_container:
        program = containers.serving(base_dir, port, processes.bind_address(), variables)
    else:
        program = processes.as_process(base_dir, port, variables=variables)
    stop(folder)
    processes.serve(base_dir, port, program)


def deploy_many_models(
    file: SettingsFile,
    folder: Path,
    source: Path | None,
    port: int,
    *,
    in_container: bool = False,
    show: Callable[[str], None] = lambda _text: None,
) -> None:
    """Serve the models in a folder, each on request, until `delete --local`.

    Args:
        file: the settings.
        folder: everything that the settings make on this machine.
        source: folder of models, `NAME.tar.gz`; or one of them, or None for the last trained one,
            which is copied into the folder `models`.
        port: TCP port of this machine.
        in_container: whether the server runs in a container.
        show: prints a line.

    Raises:
        UserError: the model is missing, the last training failed, or the server does not become
            healthy.
    """
    if source is not None and not source.exists():
        raise UserError(f"no {source}: --job names a folder of models, or a model.tar.gz")
    models = folder / MODELS
    if source is not None and source.is_dir():
        models = source
    else:
        models.mkdir(parents=True, exist_ok=True)
        if source is None:
            pack(trained(folder) / "model", models / f"{file.settings.name}.tar.gz")
        elif source.resolve() != (copy := models.resolve() / source.name):
            shutil.copyfile(source, copy)
    base_dir = folder / DEPLOYED
    opt_ml.create(base_dir)
    stop(folder)
    variables = {**file.settings.endpoint.environment, MULTI_MODEL_VARIABLE: "true"}
    program = router.program(base_dir, models, port, variables, in_container=in_container)
    processes.serve(base_dir, port, program)
    names = [str(path.relative_to(models)) for path in sorted(models.rglob("*.tar.gz"))]
    for name in names:
        show(f"model {name}")
    if not names:
        show(f"no model in {models} yet: copy NAME.tar.gz there")


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


def stop(folder: Path) -> bool:
    """Stop the server; return whether one was running."""
    # A list, so that both are stopped.
    was_running = [processes.stop(folder / name) for name in (FOLDER, DEPLOYED)]
    return any(was_running)


def port(folder: Path) -> int:
    """Return the port of the running server, or the default port.

    Raises:
        UserError: a server is starting.
    """
    ports = (processes.port_of_server(folder / name) for name in (FOLDER, DEPLOYED))
    return next(filter(None, ports), PORT)


def predict(
    images: Sequence[Path], port: int, *, top: int | None = None, model: str | None = None
) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Yield every image with the local server's response: the `top` classes or all of them.

    `model` is one of a multi-model endpoint's models.

    Raises:
        UserError: an image cannot be read, no server responds, or the server rejects an image.
    """
    for image in images:
        body, media_type = prediction.read_image(image, Endpoint())
        headers = {"Content-Type": media_type, "Accept": invocation.accept(top)}
        if model is not None:
            headers[TARGET_MODEL] = model
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
            try:
                connection.request("POST", "/invocations", body, headers)
                response = connection.getresponse().read()
            except OSError as error:
                raise _no_server(port, error) from None
        yield image, invocation.decode_response(response)


def require_server(port: int) -> None:
    """Check that a local server accepts connections.

    Raises:
        UserError: it does not.
    """
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except OSError as error:
        raise _no_server(port, error) from None


def _no_server(port: int, error: OSError) -> UserError:
    return UserError(f"no server responds on port {port} ({error}): `deploy --local` first")


def _failure(base_dir: Path) -> str | None:
    """Return the first line of the last training's failure, if it failed."""
    failure = base_dir / opt_ml.FAILURE
    return failure.read_text(errors="replace").splitlines()[0] if failure.is_file() else None
