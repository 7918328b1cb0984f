"""Train, tune, deploy and ask image classifiers on SageMaker, or on this machine."""

import argparse
import json
import sys
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.sagemaker import cost, deployment, prediction, reports, resources, training
from image_classifier.sagemaker.aws import Aws
from image_classifier.settings import settings_file
from image_classifier.settings.settings_file import SettingsFile

# What runs on this machine leaves its files here.
LOCAL_RUNS = Path(".launcher")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; return 0, or 1 with the reason on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        file = settings_file.read(arguments.settings)
        aws = Aws(
            region=file.settings.aws.region or None,
            is_dry=getattr(arguments, "dry_run", False),
            show=_ignore if arguments.quiet else _show,
        )
        return _VERBS[arguments.verb](aws, file, arguments)
    except UserError as error:
        print(f"python -m image_classifier: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"python -m image_classifier: {_stopped(arguments)}", file=sys.stderr)
        return 130


def _stopped(arguments: argparse.Namespace) -> str:
    if getattr(arguments, "local", False):
        return "stopped"
    return (
        "stopped waiting; what was started on SageMaker continues: "
        "`status` shows it, `delete` ends it"
    )


def _show(text: str) -> None:
    print(text, flush=True)


def _ignore(text: str) -> None:
    del text


def _check(_aws: Aws, file: SettingsFile, _arguments: argparse.Namespace) -> int:
    print(f"{file.path}: nothing is wrong")
    return 0


def _train(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    if arguments.local and not aws.is_dry:
        from image_classifier.local import jobs as local_jobs  # noqa: PLC0415 - with Optuna, as above

        from_tuning = arguments.from_tuning is not None
        print(local_jobs.train(file, LOCAL_RUNS / file.settings.name, from_tuning=from_tuning))
        return 0
    name = training.train(aws, file, from_tuning=arguments.from_tuning, wait=not arguments.no_wait)
    return _result(aws, name)


def _tune(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    if arguments.local and not aws.is_dry:
        return _tune_here(aws, file)
    return _result(aws, training.tune(aws, file, wait=not arguments.no_wait))


def _tune_here(aws: Aws, file: SettingsFile) -> int:
    # Optuna takes a second to import.
    from image_classifier.local import tuning as local_tuning  # noqa: PLC0415

    folder = LOCAL_RUNS / file.settings.name / "tuning"
    best = local_tuning.run(file, folder, aws.show)
    aws.show(f"best: trial {best.number}, {best.value:.5g}")
    for name, value in sorted(best.params.items()):
        aws.show(f"  {name} = {value}")
    aws.show(str(folder / local_tuning.PAGE))
    print(folder / local_tuning.MODEL)
    return 0


def _deploy(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    if arguments.local and not aws.is_dry:
        from image_classifier.local import jobs as local_jobs  # noqa: PLC0415

        archive = None if arguments.job is None else Path(arguments.job)
        port = arguments.port or local_jobs.PORT
        local_jobs.deploy(LOCAL_RUNS / file.settings.name, archive, port)
        print(f"http://127.0.0.1:{port}")
        return 0
    name = deployment.deploy(aws, file, job=arguments.job, wait=not arguments.no_wait)
    return _result(aws, name)


def _predict(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    if arguments.local and not aws.is_dry:
        from image_classifier.local import jobs as local_jobs  # noqa: PLC0415

        port = arguments.port or local_jobs.port(LOCAL_RUNS / file.settings.name)
        found = local_jobs.predict(arguments.images, port)
    else:
        found = deployment.predict(aws, file, arguments.images, model=arguments.model)
    for image, answer in found:
        print(json.dumps(answer) if arguments.json else prediction.format_line(image, answer))
    return 0


def _transform(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    where = deployment.transform(
        aws, file, arguments.images, job=arguments.job, wait=not arguments.no_wait
    )
    return _result(aws, where)


def _explain(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    if arguments.clarify is not None:
        where = deployment.clarify(
            aws,
            file,
            arguments.images,
            arguments.clarify,
            job=arguments.job,
            wait=not arguments.no_wait,
        )
        return _result(aws, where)
    # scikit-image takes a second to import.
    from image_classifier.local import jobs as local_jobs  # noqa: PLC0415
    from image_classifier.sagemaker import explanation  # noqa: PLC0415

    folder = LOCAL_RUNS / file.settings.name
    port = arguments.port or local_jobs.port(folder) if arguments.local else None
    report = explanation.explain(
        aws,
        file,
        Path(arguments.images),
        folder / "explanations",
        port=port,
        model=arguments.model,
        is_quiet=arguments.quiet,
    )
    return _result(aws, str(report))


def _report(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    folder = LOCAL_RUNS / file.settings.name
    if arguments.local:
        from image_classifier.local import jobs as local_jobs  # noqa: PLC0415

        pages = local_jobs.reports(folder)
    else:
        pages = reports.fetch(aws, file, folder / "reports", job=arguments.job)
    for page in pages:
        print(page)
        if not arguments.no_open:
            webbrowser.open(page.resolve().as_uri())
    return 0


def _status(aws: Aws, file: SettingsFile, _arguments: argparse.Namespace) -> int:
    found = list(resources.find(aws, file.settings))
    for each in found:
        print(each)
    if not found:
        print(f"nothing on SageMaker is {file.settings.name}'s")
    return 0


def _delete(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    if arguments.local:
        if aws.is_dry:
            print("the server on this machine would be stopped, if there is one")
            return 0
        from image_classifier.local import jobs as local_jobs  # noqa: PLC0415

        was_running = local_jobs.stop(LOCAL_RUNS / file.settings.name)
        print("the server is stopped" if was_running else "no server was running")
        return 0
    file.require("delete")
    found = [each for each in resources.find(aws, file.settings) if each.is_to_go]
    objects = [] if arguments.keep_output else resources.outputs(aws, file.settings)
    for each in found:
        print(f"{'stop' if each.kind.is_job else 'remove'} {each}")
    if objects:
        print(f"remove {len(objects)} objects below {file.settings.output}/, models among them")
    if not found and not objects:
        print(f"nothing of {file.settings.name} is left")
        return 0
    if not (aws.is_dry or arguments.yes or _agrees()):
        print("nothing was removed", file=sys.stderr)
        return 1
    resources.remove(aws, found, objects)
    return 0


def _agrees() -> bool:
    if not sys.stdin.isatty():
        message = "nobody to ask: say --yes to remove them"
        raise UserError(message)
    return input("all of these? [y/N] ").strip().lower() in {"y", "yes"}


def _cost(_aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> int:
    for item in cost.estimate(file.settings, arguments.hours):
        print(item)
    print(cost.footnote())
    return 0


def _result(aws: Aws, text: str) -> int:
    """Print a verb's result alone on stdout's last line, for scripts."""
    if not aws.is_dry:
        print(text)
    return 0


_VERBS: dict[str, Callable[[Aws, SettingsFile, argparse.Namespace], int]] = {
    "check": _check,
    "train": _train,
    "tune": _tune,
    "deploy": _deploy,
    "predict": _predict,
    "transform": _transform,
    "explain": _explain,
    "report": _report,
    "status": _status,
    "delete": _delete,
    "cost": _cost,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m image_classifier", description=__doc__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")
    made = {
        name: verbs.add_parser(name, help=help_text)
        for name, help_text in (
            ("check", "say what is wrong with the settings, if anything"),
            ("train", "run a training job"),
            ("tune", "search hyperparameters; print the best job and what it used"),
            ("deploy", "make an endpoint of a trained model, or give it a new one"),
            ("predict", "ask the endpoint about images"),
            ("transform", "answer a whole folder of images on S3 without an endpoint"),
            ("explain", "show which parts of images made the endpoint answer as it did"),
            ("report", "fetch a training job's reports and open them"),
            ("status", "list what there is"),
            ("delete", "remove all that was made, after a list of it"),
            ("cost", "say what the settings would cost"),
        )
    }
    for verb in made.values():
        verb.add_argument("settings", type=Path, metavar="SETTINGS", help="settings file (TOML)")
        verb.add_argument("--quiet", action="store_true", help="print the result alone")
    for name in ("train", "tune", "deploy", "predict", "transform", "explain", "delete"):
        made[name].add_argument(
            "--dry-run", action="store_true", help="print the exact requests, checked; send none"
        )
    for name in ("train", "tune", "deploy", "transform", "explain"):
        made[name].add_argument(
            "--no-wait", action="store_true", help="return when SageMaker has started"
        )
    for name in ("deploy", "transform", "explain", "report"):
        made[name].add_argument(
            "--job",
            metavar="JOB",
            help="training job, or a model.tar.gz on S3 (default: the newest job's model)",
        )
    for name in ("train", "tune", "deploy", "predict", "explain", "report", "delete"):
        made[name].add_argument(
            "--local", action="store_true", help="on this machine, without account or engine"
        )
    for name in ("deploy", "predict", "explain"):
        default = "8080" if name == "deploy" else "what `deploy` was given, else 8080"
        made[name].add_argument(
            "--port", type=int, help=f"of the local server (default: {default})"
        )
    made["train"].add_argument(
        "--from-tuning", metavar="JOB", help="with the best hyperparameters of this tuning job"
    )
    _add_own_arguments(made)
    return parser


def _add_own_arguments(verbs: dict[str, argparse.ArgumentParser]) -> None:
    predict = verbs["predict"]
    predict.add_argument("images", type=Path, nargs="+", metavar="IMAGE")
    predict.add_argument("--json", action="store_true", help="print the server's whole answers")
    for name in ("predict", "explain"):
        verbs[name].add_argument("--model", metavar="NAME", help="of a multi-model endpoint")
    verbs["transform"].add_argument("images", metavar="S3", help="s3://bucket/folder/ of images")
    explain = verbs["explain"]
    explain.add_argument(
        "images", help="a folder of images, or one; with --clarify s3://bucket/folder/"
    )
    explain.add_argument(
        "--clarify",
        nargs="+",
        metavar="CLASS",
        help="let a job of SageMaker Clarify do it, which new accounts do not have: all class "
        "names, in the model's order",
    )
    verbs["report"].add_argument("--no-open", action="store_true", help="print their paths alone")
    delete = verbs["delete"]
    delete.add_argument("--yes", action="store_true", help="do not ask")
    delete.add_argument(
        "--keep-output", action="store_true", help="leave on S3 what jobs wrote: models, reports"
    )
    verbs["cost"].add_argument(
        "--hours", type=float, default=1.0, help="of one training job (default: %(default)s)"
    )
