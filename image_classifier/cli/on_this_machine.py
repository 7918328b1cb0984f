"""The verbs with --local: the same settings on this machine."""

import argparse
import sys
from collections.abc import Mapping
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.cli import on_sagemaker, results, rules
from image_classifier.cli.on_sagemaker import Verb
from image_classifier.local import jobs, server
from image_classifier.local import transform as local_transform
from image_classifier.local.packing import MODEL
from image_classifier.platform import containers, image_code, processes
from image_classifier.platform.archives import require_archive
from image_classifier.platform.sandbox.launch import Limits
from image_classifier.sagemaker import invocation
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.logs import Line
from image_classifier.settings.settings_file import SettingsFile


def _folder_of(file: SettingsFile) -> Path:
    """Return the folder of everything that these settings make on this machine.

    Raises:
        UserError: it has results of other images.
    """
    folder = results.folder_of(file)
    jobs.require_same_data(file, folder)
    return folder


def _where(container: Limits | None) -> str:
    return (
        f"in a container of {containers.SERVE_IMAGE}" if container is not None else "as a process"
    )


def _container(image: str, arguments: argparse.Namespace) -> Limits | None:
    """Return the limits of a container of `image`, or None if the verb runs in a process.

    Warn if the container image has other code.
    """
    memory, cpus = getattr(arguments, "memory", None), getattr(arguments, "cpus", None)
    if containers.choose(image, chosen=arguments.in_containers):
        if text := image_code.warning(image):
            print(text, file=sys.stderr)
        return Limits(memory=memory, cpus=cpus)
    if memory or cpus:
        raise UserError(
            "--memory and --cpus limit containers, and this would run as a process: "
            "add --containers, or remove them"
        )
    return None


def train(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Train; return the packed model."""
    folder = results.folder_of(file)
    packed = jobs.train(
        file,
        folder,
        from_tuning=arguments.from_tuning is not None,
        container=_container(containers.TRAIN_IMAGE, arguments),
        interrupt_after=arguments.interrupt_after,
        is_quiet=arguments.quiet,
        show=aws.show,
    )
    if (report := folder / jobs.REPORT).is_file():
        aws.show(f"report: {report}")
    return packed


def tune(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Search hyperparameters; return the best model."""
    container = _container(containers.TRAIN_IMAGE, arguments)
    try:
        # Optuna takes a second to import.
        from image_classifier.local import tuning  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"{sys.executable} has no {error.name}: in the checkout run `make setup` and use "
            ".venv/bin, or pip install '.[tune]'"
        ) from None
    if container is None:
        processes.require("torch")
    folder = _folder_of(file) / "tuning"
    best = tuning.run(file, folder, aws.show, container=container, is_quiet=arguments.quiet)
    aws.show(f"best: trial {best.number}, {best.value:.5g}")
    for name, value in sorted(best.params.items()):
        aws.show(f"  {name} = {value}")
    aws.show(str(folder / tuning.PAGE))
    return folder / MODEL


def deploy(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Start the server; return its address."""
    folder, job = _folder_of(file), None if arguments.job is None else Path(arguments.job)
    port = arguments.port or server.PORT
    is_multi_model = file.settings.endpoint.kind == "multi-model"
    if job is not None and not (is_multi_model and job.is_dir()):
        require_archive(job)
    container = _container(containers.SERVE_IMAGE, arguments)
    aws.show(f"serving {_where(container)}")
    if is_multi_model:
        server.deploy_multi_model(file, folder, job, port, container=container, show=aws.show)
    else:
        server.deploy(file, folder, job, port, container=container)
    host, port = processes.client_address(port)
    return f"http://{host}:{port}"


def predict(_aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Print the predictions of the server."""
    port = arguments.port or server.port(_folder_of(file))
    model = invocation.target_model(file.settings, arguments.model)
    responses = server.predict(arguments.images, port, top=arguments.top, model=model)
    results.print_predictions(responses, arguments)
    return None


def explain(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Explain the predictions of the server."""
    port = arguments.port or server.port(_folder_of(file))
    server.require_server(port)
    return on_sagemaker.explain(aws, file, arguments, port=port)


def transform(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Classify a folder of images; return the folder of the results."""
    container = _container(containers.SERVE_IMAGE, arguments)
    aws.show(f"classifying {_where(container)}")
    return local_transform.run(
        file,
        _folder_of(file),
        Path(arguments.images),
        arguments.output,
        archive=None if arguments.job is None else Path(arguments.job),
        container=container,
        is_quiet=arguments.quiet,
        show=aws.show,
    )


def report(_aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Open the reports of the last training."""
    results.open_pages(jobs.reports(_folder_of(file)), arguments)
    return None


def logs(_aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Print the log of the last training, or of the server."""
    with jobs.open_log(_folder_of(file), of_server=arguments.endpoint) as log:
        results.print_log((Line(text.rstrip("\n")) for text in log), arguments)
    return None


def debug(_aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Evaluate the rules on the records of the last training."""
    rules.evaluate(_folder_of(file) / jobs.FOLDER, arguments)
    return None


def delete(_aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Stop the server; name the folders that stay."""
    own = results.folder_of(file)
    was_running = server.stop(own)
    contents = {
        own: "models and reports",
        jobs.cache_of(file): "decoded images of all trainings on this machine",
    }
    for folder, content in contents.items():
        if folder.is_dir() and not arguments.quiet:
            print(f"kept until you remove it: {folder} ({content})", file=sys.stderr)
    return "the server is stopped" if was_running else "no server was running"


VERBS: Mapping[str, Verb] = {
    "train": train,
    "tune": tune,
    "transform": transform,
    "report": report,
    "deploy": deploy,
    "predict": predict,
    "explain": explain,
    "logs": logs,
    "debug": debug,
    "delete": delete,
}
