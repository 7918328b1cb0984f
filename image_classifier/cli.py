"""Train, tune, deploy and use image classifiers, on SageMaker or on this machine."""

import argparse
import json
import sys
import webbrowser
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from container.classifier.errors import UserError
from image_classifier.sagemaker import (
    clarify,
    cost,
    deployment,
    prediction,
    reports,
    resources,
    training,
)
from image_classifier.sagemaker.aws import Answer, Aws
from image_classifier.settings import settings_file
from image_classifier.settings.settings_file import SettingsFile

PROGRAM = "python -m image_classifier"

# Folder of everything that runs on this machine.
LOCAL_RUNS = Path(".launcher")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a verb; return 0, or 1 after printing the reason on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        file = settings_file.read(arguments.settings)
        aws = Aws(
            region=file.settings.aws.region or None,
            is_dry=arguments.dry_run,
            show=(lambda _text: None) if arguments.quiet else partial(print, flush=True),
        )
        verb, _ = _VERBS[arguments.verb]
        run = _run_locally if arguments.local and not aws.is_dry else verb
        result = run(aws, file, arguments)
    except UserError as error:
        print(f"{PROGRAM}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        hint = "; jobs on SageMaker continue: `status` lists them, `delete` stops them"
        print(f"{PROGRAM}: stopped{'' if arguments.local else hint}", file=sys.stderr)
        return 130
    # The last line of stdout, for scripts.
    if result is not None and not aws.is_dry:
        print(result)
    return 0


def _run_locally(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Run a verb on this machine; return the result to print."""
    # Optuna takes a second to import.
    from image_classifier.local import jobs, tuning  # noqa: PLC0415

    folder = LOCAL_RUNS / file.settings.name
    result: object = None
    match arguments.verb:
        case "train":
            result = jobs.train(file, folder, from_tuning=arguments.from_tuning is not None)
        case "tune":
            best = tuning.run(file, folder / "tuning", aws.show)
            aws.show(f"best: trial {best.number}, {best.value:.5g}")
            for name, value in sorted(best.params.items()):
                aws.show(f"  {name} = {value}")
            aws.show(str(folder / "tuning" / tuning.PAGE))
            result = folder / "tuning" / tuning.MODEL
        case "deploy":
            archive = None if arguments.job is None else Path(arguments.job)
            port = arguments.port or jobs.PORT
            jobs.deploy(folder, archive, port)
            result = f"http://127.0.0.1:{port}"
        case "predict":
            port = arguments.port or jobs.port(folder)
            _print_predictions(jobs.predict(arguments.images, port), arguments)
        case "explain":
            result = _explain(aws, file, arguments, port=arguments.port or jobs.port(folder))
        case "report":
            _open_pages(jobs.reports(folder), arguments)
        case "delete":
            result = "the server is stopped" if jobs.stop(folder) else "no server was running"
    return result


def _check(_aws: Aws, file: SettingsFile, _arguments: argparse.Namespace) -> object:
    return f"{file.path}: no mistakes"


def _train(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    return training.train(aws, file, from_tuning=arguments.from_tuning, wait=arguments.wait)


def _tune(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    return training.tune(aws, file, wait=arguments.wait)


def _deploy(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    return deployment.deploy(aws, file, job=arguments.job, wait=arguments.wait)


def _predict(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    answers = prediction.predict(aws, file, arguments.images, model=arguments.model)
    _print_predictions(answers, arguments)
    return None


def _print_predictions(
    answers: Iterable[tuple[Path, Answer]], arguments: argparse.Namespace
) -> None:
    for image, answer in answers:
        print(json.dumps(answer) if arguments.json else prediction.format_line(image, answer))


def _transform(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    return prediction.transform(aws, file, arguments.images, job=arguments.job, wait=arguments.wait)


def _explain(
    aws: Aws, file: SettingsFile, arguments: argparse.Namespace, port: int | None = None
) -> object:
    images, classes = arguments.images, arguments.clarify
    if classes is not None:
        return clarify.explain(aws, file, images, classes, job=arguments.job, wait=arguments.wait)
    # scikit-image takes a second to import.
    from image_classifier.sagemaker import explanation  # noqa: PLC0415

    return explanation.explain(
        aws,
        file,
        Path(images),
        LOCAL_RUNS / file.settings.name / "explanations",
        port=port,
        model=arguments.model,
        is_quiet=arguments.quiet,
    )


def _report(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    folder = LOCAL_RUNS / file.settings.name / "reports"
    _open_pages(reports.fetch(aws, file, folder, job=arguments.job), arguments)
    return None


def _open_pages(pages: Iterable[Path], arguments: argparse.Namespace) -> None:
    for page in pages:
        print(page)
        if not arguments.no_open:
            webbrowser.open(page.resolve().as_uri())


def _status(aws: Aws, file: SettingsFile, _arguments: argparse.Namespace) -> object:
    found = "\n".join(map(str, resources.find(aws, file.settings)))
    return found or f"{file.settings.name} has no resources on SageMaker"


def _delete(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    if arguments.local:
        # A dry run, see main.
        print("would stop the server on this machine, if it runs")
        return None
    file.require("delete")
    found = [item for item in resources.find(aws, file.settings) if item.is_deletable]
    objects = [] if arguments.keep_output else resources.outputs(aws, file.settings)
    for resource in found:
        print(f"{'stop' if resource.is_job else 'delete'} {resource}")
    if objects:
        print(f"delete {len(objects)} objects in {file.settings.output}/, models included")
    if not found and not objects:
        print(f"{file.settings.name} has nothing to delete")
        return None
    if not (aws.is_dry or arguments.yes):
        _confirm()
    resources.delete(aws, file.settings, found, objects)
    return None


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise UserError("no terminal to confirm on: add --yes")
    if input("delete all of these? [y/N] ").strip().lower() not in {"y", "yes"}:
        sys.exit("nothing was deleted")


def _cost(_aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    return "\n".join(cost.estimate(file.settings, arguments.hours))


# Returns the result to print, or None if everything is printed already.
_Verb = Callable[[Aws, SettingsFile, argparse.Namespace], object]

_VERBS: dict[str, tuple[_Verb, str]] = {
    "check": (_check, "list the mistakes in the settings file"),
    "train": (_train, "run a training job"),
    "tune": (_tune, "search hyperparameters; print the best job and its hyperparameters"),
    "deploy": (_deploy, "create an endpoint for a trained model, or update it"),
    "predict": (_predict, "send images to the endpoint"),
    "transform": (_transform, "classify a folder of images on S3 without an endpoint"),
    "explain": (_explain, "show which parts of images led to the predictions"),
    "report": (_report, "download a training job's reports and open them"),
    "status": (_status, "list all resources"),
    "delete": (_delete, "list all resources, then delete them"),
    "cost": (_cost, "estimate the cost of the settings"),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=PROGRAM, description=__doc__)
    # Of verbs without these options.
    parser.set_defaults(local=False, dry_run=False)
    subparsers = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    for name, (_, help_text) in _VERBS.items():
        subparsers.add_parser(name, help=help_text)

    def add(verbs: str, name: str, help_text: str, **options: Any) -> None:  # noqa: ANN401 - argparse's
        for verb in verbs.split():
            subparsers.choices[verb].add_argument(name, help=help_text, **options)

    def flag(verbs: str, name: str, help_text: str) -> None:
        add(verbs, name, help_text, action="store_true")

    every = " ".join(_VERBS)
    add(every, "settings", "settings file (TOML)", type=Path, metavar="SETTINGS")
    add("predict", "images", "image files", type=Path, nargs="+", metavar="IMAGE")
    add("transform", "images", "s3://bucket/folder/ of images", metavar="S3")
    add("explain", "images", "image or folder; with --clarify s3://bucket/folder/")
    flag(every, "--quiet", "print only the result")
    changing = "train tune deploy predict transform explain delete"
    flag(changing, "--dry-run", "validate and print the requests; send none")
    no_wait_help = "return when SageMaker has started"
    waiting = "train tune deploy transform explain"
    add(waiting, "--no-wait", no_wait_help, dest="wait", action="store_false")
    job_help = "training job, or a model.tar.gz on S3 (default: the newest job's model)"
    add("deploy transform explain report", "--job", job_help)
    local = "train tune deploy predict explain report delete"
    flag(local, "--local", "run on this machine, without an account or Docker")
    port_help = "port of the local server (default: the deployed server's, else 8080)"
    add("deploy predict explain", "--port", port_help, type=int)
    add("train", "--from-tuning", "use this tuning job's best hyperparameters", metavar="JOB")
    flag("predict", "--json", "print complete responses")
    add("predict explain", "--model", "model of a multi-model endpoint", metavar="NAME")
    clarify_help = (
        "use a SageMaker Clarify job (closed to new accounts): all class names, in model order"
    )
    add("explain", "--clarify", clarify_help, nargs="+", metavar="CLASS")
    flag("report", "--no-open", "only print the reports' paths")
    flag("delete", "--yes", "do not ask for confirmation")
    flag("delete", "--keep-output", "keep job output on S3: models, reports")
    add("cost", "--hours", "of one training job (default: %(default)s)", type=float, default=1.0)
    return parser
