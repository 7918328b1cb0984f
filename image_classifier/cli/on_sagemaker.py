"""The verbs that use SageMaker, and those that only read the settings file."""

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.cli import results, rules
from image_classifier.sagemaker import (
    attachments,
    clarify,
    deployment,
    prediction,
    preflight,
    registry,
    reports,
    resources,
    running,
    training,
)
from image_classifier.sagemaker import cost as costs
from image_classifier.sagemaker import logs as job_logs
from image_classifier.sagemaker import pipeline as pipelines
from image_classifier.sagemaker.aws import Aws
from image_classifier.sagemaker.prices import Prices
from image_classifier.settings import checks
from image_classifier.settings.settings_file import SettingsError, SettingsFile

# Returns the result to print, or None if everything is printed already.
Verb = Callable[[Aws, SettingsFile, argparse.Namespace], object]


def check(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Report that the file, which has been read, has no mistakes; with --account AWS too."""
    if arguments.account:
        findings = preflight.check(aws, file)
        for unchecked in findings.unchecked:
            print(f"not checked: {unchecked}", file=sys.stderr)
        if findings.problems:
            raise SettingsError("\n".join(f"{file.path}: {each}" for each in findings.problems))
    missing = checks.missing_for_sagemaker(file.settings)
    unused = checks.unused_folders(file.settings, file.local_data)
    if arguments.json:
        note = "; ".join(filter(None, (unused, missing))) or None
        return json.dumps({"file": str(file.path), "mistakes": [], "note": note})
    return "\n".join(filter(None, (f"{file.path}: no mistakes", unused, missing)))


def train(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Run a training job."""
    return training.train(aws, file, from_tuning=arguments.from_tuning, wait=arguments.wait)


def tune(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Run a tuning job."""
    return training.tune(aws, file, wait=arguments.wait)


def deploy(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Create or update the endpoint."""
    number = arguments.version
    package = None if number is None else registry.find_approved(aws, file.settings, number)
    return deployment.deploy(
        aws,
        file,
        job=arguments.job,
        package=package,
        expires=arguments.expires,
        wait=arguments.wait,
    )


def pipeline(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Create or update the pipeline, or write its definition into a file."""
    # NumPy and Pillow take a second to import.
    from image_classifier.cli import data_set  # noqa: PLC0415

    data_set.check_options(file.settings.pipeline.prepare_options)
    if arguments.output is None:
        return pipelines.create(aws, file, is_started=arguments.start)
    text = json.dumps(pipelines.definition(aws, file), indent=2)
    arguments.output.write_text(f"{text}\n", encoding="utf-8")
    return arguments.output


def register(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Create a version in the model registry."""
    return registry.register(aws, file, job=arguments.job)


def approve(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Approve or reject a version."""
    rejected = arguments.reject
    return registry.approve(aws, file.settings, arguments.version, is_rejected=rejected)


def predict(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Print the predictions of the endpoint."""
    images, top = arguments.images, arguments.top
    responses = prediction.predict(aws, file, images, model=arguments.model, top=top)
    results.print_predictions(responses, arguments)
    return None


def transform(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Classify a folder on S3."""
    return prediction.transform(aws, file, arguments.images, job=arguments.job, wait=arguments.wait)


def explain(
    aws: Aws, file: SettingsFile, arguments: argparse.Namespace, port: int | None = None
) -> object:
    """Explain predictions: of the server on `port` of this machine, or else of the endpoint."""
    images, classes = arguments.images, arguments.clarify
    if classes is not None:
        if len(images) > 1:
            raise UserError("--clarify explains one s3://bucket/folder/ of images: name only that")
        job, wait = arguments.job, arguments.wait
        return clarify.explain(aws, file, images[0], classes, job=job, wait=wait)
    try:
        # scikit-image takes a second to import.
        from image_classifier.sagemaker import explanation  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UserError(
            f"explain needs the package {error.name}: in the checkout pip install '.[explain]'"
        ) from None
    return explanation.explain(
        aws,
        file,
        [Path(image) for image in images],
        results.folder_of(file) / "explanations",
        port=port,
        model=arguments.model,
        is_quiet=arguments.quiet,
    )


def report(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Download and open a job's reports."""
    folder = results.folder_of(file) / "reports"
    pages = reports.fetch(aws, file, folder, job=arguments.job)
    results.open_pages(pages, arguments)
    return None


def logs(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Print the log of a training job, or of the endpoint."""
    settings = file.settings
    start = 0 if arguments.since is None else arguments.since.timestamp()
    job = None
    if arguments.endpoint:
        log, owner = job_logs.of_endpoint(aws, settings, start=start), f"endpoint {settings.name}"
    else:
        job = arguments.job or resources.newest_job(aws, settings, is_completed=False)
        log, owner = job_logs.of_training(aws, job, start=start), job
    lines = job_logs.follow(aws, log, job) if arguments.follow else job_logs.read(log, owner)
    results.print_log(lines, arguments, log.texts)
    return None


def debug(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Evaluate the rules on a job's records."""
    name = arguments.job or resources.newest_job(aws, file.settings)
    folder = results.folder_of(file) / "reports"
    reports.fetch(aws, file, folder, job=name)
    rules.evaluate(folder / name, arguments)
    return None


def status(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """List the resources on SageMaker, and what those that run cost."""
    found, prices = resources.find(aws, file.settings), Prices(aws)
    versions = list(registry.versions(aws, file.settings))
    attached = attachments.find(aws, file.settings, found)
    costing = {each.resource: each for each in running.find(aws, found.own, prices)}
    if arguments.json:
        keys: list[dict[str, object]] = [
            {"kind": each.noun, "name": each.name, "status": each.status}
            | ({"cost": costing[each].document()} if each in costing else {})
            for each in found.own
        ]
        keys += [
            {"kind": "ModelPackage", "name": str(v.number), "status": v.status} for v in versions
        ]
        keys += [{"kind": each.kind, "name": each.name, "status": str(each)} for each in attached]
        return json.dumps(keys)
    listed = [str(each) for each in (*found.own, *attached, *versions, *costing.values())]
    listed += [prices.source()] if costing else []
    return "\n".join(listed) or f"{file.settings.name} has no resources of yours on SageMaker"


def delete(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Delete the resources on SageMaker after a confirmation."""
    if arguments.local:
        # A dry run, see main.
        print("would stop the server on this machine, if it runs")
        return None
    file.require("delete")
    everything = resources.find(aws, file.settings)
    found = [item for item in everything.own if item.is_deletable]
    objects = [] if arguments.keep_output else resources.outputs(aws, file.settings, everything)
    if notice := everything.notice():
        print(notice)
    attached = attachments.find(aws, file.settings, everything)
    for resource in found:
        print(f"{'stop' if resource.is_job else 'delete'} {resource}")
    for attachment in attached:
        print(f"delete {attachment}")
    if objects:
        print(f"delete {len(objects)} objects in {file.settings.output}/, models included")
    if not (found or attached or objects):
        print(f"{file.settings.name} has nothing of yours to delete")
        return None
    if not (aws.is_dry or arguments.yes):
        _confirm(file.settings.name)
    # First, so that no schedule remains for a later endpoint of this name.
    attachments.delete(aws, file.settings, attached)
    resources.delete(aws, file.settings, found, objects)
    return None


def _confirm(name: str) -> None:
    if not sys.stdin.isatty():
        raise UserError("no terminal to confirm on: add --yes")
    print(f"type {name} to delete all of these: ", end="", flush=True)
    if sys.stdin.readline().strip() != name:
        raise UserError("nothing was deleted")


def cost(aws: Aws, file: SettingsFile, arguments: argparse.Namespace) -> object:
    """Estimate the costs."""
    estimate = costs.estimate(file.settings, arguments.hours, Prices(aws))
    if arguments.json:
        return json.dumps(estimate.document())
    return "\n".join(estimate.lines())


VERBS: Mapping[str, Verb] = {
    "check": check,
    "train": train,
    "tune": tune,
    "report": report,
    "pipeline": pipeline,
    "register": register,
    "approve": approve,
    "deploy": deploy,
    "predict": predict,
    "explain": explain,
    "transform": transform,
    "logs": logs,
    "debug": debug,
    "status": status,
    "delete": delete,
    "cost": cost,
}
