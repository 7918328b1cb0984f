"""The verbs: their help, an example of each, and the step that follows it."""

import argparse
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PROGRAM = "image-classifier"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verb:
    """A verb of the command."""

    summary: str
    """Line in the list of verbs."""

    example: str
    """Arguments that the end of the help text shows."""

    page: str
    """Documentation page, in the folder docs/ of the repository."""

    then: str
    """The next step on SageMaker, with the names of arguments in braces."""

    then_here: str | None = None
    """The next step on this machine; None: the same, with --local."""

    then_asynchronous: str | None = None
    """The next step of an asynchronous endpoint; None: the same."""

    is_search: bool = False
    """Whether `--set` of lengths and of searched hyperparameters is for the trials alone."""

    then_prepared: str | None = None
    """The next step for a folder that `prepare` made; None: the same."""

    def next_step(self, arguments: argparse.Namespace, result: object, program: str) -> str:
        """Return the command that follows the verb, with the values of its arguments."""
        if arguments.dry_run:
            return "the same command without --dry-run"
        values = {
            name: _quoted(value[0] if isinstance(value, list) and value else value)
            for name, value in (vars(arguments) | {"result": result}).items()
        }
        # The next step is of the same settings; a training is not of those of its search.
        overrides = getattr(arguments, "overrides", [])
        left_out = [pair for pair in overrides if self.is_search and _is_of_search(pair, arguments)]
        for pair in overrides:
            if pair not in left_out:
                values["settings"] += f" --set {_quoted(pair)}"
        is_multi_model = arguments.endpoint_kind == "multi-model"
        model = getattr(arguments, "model", None) or ("NAME.tar.gz" if is_multi_model else None)
        port = getattr(arguments, "port", None) if arguments.local else None
        values |= {
            "page": self.page,
            "command": program,
            "local": " --local" if arguments.local else "",
            "port": "" if port is None else f" --port {port}",
            "model": "" if model is None else f" --model {_quoted(model)}",
        }
        step = self.then_here if arguments.local else None
        if arguments.endpoint_kind == "asynchronous" and not arguments.local:
            step = self.then_asynchronous
        if self.then_prepared is not None and (arguments.source / "info_train.csv").is_file():
            step = self.then_prepared
        lengths = [pair for pair in left_out if not pair.startswith("tuning.")]
        note = f" (without --set {', '.join(lengths)}, which was for the trials)" if lengths else ""
        return str(step or self.then).format(**values) + note


# Hyperparameters of the length of a training, which is often shorter for trials.
_LENGTHS = frozenset({"epochs", "head_epochs", "max_minutes"})


def _is_of_search(pair: str, arguments: argparse.Namespace) -> bool:
    """Return whether a `--set` of `tune` is not for the training with the best hyperparameters."""
    table, _, name = pair.partition("=")[0].strip().partition(".")
    is_replaced = name in _LENGTHS or name in arguments.tuned
    return table == "tuning" or (table == "hyperparameters" and is_replaced)


def _quoted(value: object) -> str:
    """Return a value as a shell's word; a path that begins with a dash is no option."""
    is_like_option = isinstance(value, Path) and str(value).startswith("-")
    return shlex.quote(f"./{value}" if is_like_option else str(value))


_DELETE_ENDPOINT = "{command} delete {settings} (an endpoint costs money until it is deleted)"

# In the order of the journey.
VERBS: Mapping[str, Verb] = {
    "prepare": Verb(
        summary="make a data set of a folder or an archive of images",
        example="archive.zip data/hands",
        page="how-to/own-data.md",
        then="{command} init --data {out} --output settings.toml (first put pretrained weights, "
        "such as resnet18.pth, into {out}/weights/; without a file, init chooses weights that "
        "training downloads from torchvision, or a small network without weights)",
    ),
    "audit": Verb(
        summary="report what is wrong with a folder or an archive of images",
        example="data/hands --page audit.html",
        page="how-to/own-data.md",
        then="{command} prepare {source} FOLDER",
        then_prepared="{command} init --data {source} --output settings.toml",
    ),
    "init": Verb(
        summary="write a settings file for a data set",
        example="--data data/hands --output settings.toml",
        page="tutorial.md",
        then="{command} check {output}",
    ),
    "check": Verb(
        summary="list the mistakes in a settings file",
        example="settings.toml",
        page="reference/settings.md",
        then="{command} train {settings} --local (or without --local, on SageMaker)",
    ),
    "cost": Verb(
        summary="estimate the cost of the settings on SageMaker",
        example="settings.toml --hours 2",
        page="how-to/cut-costs.md",
        then="{command} train {settings} --dry-run",
    ),
    "upload": Verb(
        summary="send the new and changed files of a data set to S3",
        example="data/hands s3://my-bucket/hands/data",
        page="how-to/own-data.md",
        then='set data.s3 = "{address}" in the settings file, then {command} train SETTINGS',
    ),
    "tune": Verb(
        summary="search hyperparameters; print the best ones",
        example="settings.toml --local",
        page="how-to/tune.md",
        then="{command} train {settings} --from-tuning {result}",
        then_here="{command} train {settings} --local --from-tuning best",
        is_search=True,
    ),
    "train": Verb(
        summary="run a training job; print its name, or with --local the path of its model",
        example="settings.toml --local",
        page="tutorial.md",
        then="{command} report {settings} (the reports), {command} deploy {settings} (an endpoint)",
        then_here="{command} report {settings} --local (the reports), "
        "{command} deploy {settings} --local (a server)",
    ),
    "report": Verb(
        summary="open a training job's reports",
        example="settings.toml --local",
        page="tutorial.md",
        then="{command} deploy {settings}{local}",
    ),
    "logs": Verb(
        summary="print the log of a training job, or of the endpoint",
        example="settings.toml --local",
        page="how-to/debug.md",
        then="{command} report {settings}{local}",
    ),
    "debug": Verb(
        summary="evaluate the debugger's rules on a training job's records",
        example="settings.toml --local --rules overfit,vanishing_gradient",
        page="how-to/debug.md",
        then="{command} report {settings}{local}",
    ),
    "pipeline": Verb(
        summary="create a pipeline on SageMaker that prepares, trains, evaluates and registers",
        example="settings.toml --start",
        page="how-to/pipeline.md",
        then="{command} status {settings}",
    ),
    "register": Verb(
        summary="add a model to the model registry as a version; print its number",
        example="settings.toml",
        page="how-to/registry.md",
        then="{command} approve {settings} --version {result}",
    ),
    "approve": Verb(
        summary="approve or reject a version of the model registry",
        example="settings.toml --version 3",
        page="how-to/registry.md",
        then="{command} deploy {settings} --version {result}",
    ),
    "deploy": Verb(
        summary="create an endpoint for a trained model, or update it; "
        "with --local start a server on this machine",
        example="settings.toml --local --port 8080",
        page="how-to/deploy.md",
        then="{command} predict {settings} IMAGE{model}{local}",
    ),
    "predict": Verb(
        summary="print the predicted classes of images",
        example="settings.toml image.jpg --local",
        page="how-to/deploy.md",
        then="{command} explain {settings} {images}{model}{local}{port}",
        then_asynchronous=_DELETE_ENDPOINT,
    ),
    "explain": Verb(
        summary="show which parts of images led to the predictions",
        example="settings.toml image.jpg --local",
        page="how-to/explain.md",
        then=_DELETE_ENDPOINT,
        then_here="{command} delete {settings} --local (stops the server)",
    ),
    "transform": Verb(
        summary="classify a folder of images without an endpoint",
        example="settings.toml images/ --local",
        page="how-to/batch.md",
        then="aws s3 cp --recursive {result} predictions",
        then_here="ls {result}",
    ),
    "status": Verb(
        summary="list all resources of the settings on SageMaker, and what they cost",
        example="settings.toml",
        page="how-to/clean-up.md",
        then="{command} delete {settings} (after a confirmation)",
    ),
    "delete": Verb(
        summary="list all resources of the settings, then delete them; "
        "with --local stop the server",
        example="settings.toml --local",
        page="how-to/clean-up.md",
        then="{command} status {settings} (shows what remains)",
        then_here="{command} deploy {settings} --local (starts the server again)",
    ),
    "doctor": Verb(
        summary="find what SageMaker would reject in any container image or server",
        example="my-image:latest --role serve",
        page="how-to/health-check.md",
        then="push the container image (push.sh, docs/how-to/deploy.md)",
    ),
    "completion": Verb(
        summary="print a script that completes verbs and options in bash, zsh or fish",
        example="bash",
        page="reference/command-line.md",
        then="save the script where {shell} loads completions from (docs/{page})",
    ),
}
