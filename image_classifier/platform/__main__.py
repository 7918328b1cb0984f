"""Train and serve on this machine under SageMaker's contract, without Docker or an account."""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from container.classifier.environment import BASE_DIR_VARIABLE
from container.classifier.errors import UserError
from image_classifier.platform import argument_types, opt_ml, processes, training

# val_accuracy is 1.0 with seeds 0 and 1; takes two minutes on two cores with three other jobs.
SAMPLE_HYPERPARAMETERS = {
    "network": "small",
    "epochs": "10",
    "batch_size": "64",
    "image_size": "48",
}
SAMPLE_IMAGES = {"training": 960, "validation": 240}
SAMPLE_SEED = 0


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return 0, or 1 with the reason on stderr."""
    arguments = _parser().parse_args(argv)
    try:
        return _COMMANDS[arguments.command](arguments)
    except UserError as error:
        print(f"platform: {error}", file=sys.stderr)
        return 1


def _prepare(arguments: argparse.Namespace) -> int:
    base_dir: Path = arguments.base_dir
    if arguments.new_job:
        opt_ml.start_job(base_dir)
    else:
        opt_ml.create(base_dir)
    hyperparameters = opt_ml.read_hyperparameters(base_dir)
    if arguments.data:
        ignored = opt_ml.use_own_images(base_dir, arguments.data, replace=arguments.replace)
        if ignored:
            print(f"ignored in {arguments.data}: {', '.join(ignored)}")
        hyperparameters = {}
    elif arguments.replace or not opt_ml.channels(base_dir):
        processes.require("PIL")
        # Here, so that every other command runs without installed packages.
        from image_classifier.platform import hands  # noqa: PLC0415

        with opt_ml.new_channels(base_dir) as staged:
            for channel, count in SAMPLE_IMAGES.items():
                hands.write_images(staged / channel, count, SAMPLE_SEED)
        if arguments.replace or not hyperparameters:
            hyperparameters = SAMPLE_HYPERPARAMETERS
    opt_ml.write_config(base_dir, dict(arguments.hyperparameters) or hyperparameters)
    print(f"{base_dir} is ready: channels {', '.join(opt_ml.channels(base_dir))}")
    return 0


def _train(arguments: argparse.Namespace) -> int:
    if processes.stop(arguments.base_dir):
        print("the server of the earlier model is stopped")
    exit_code = training.train(arguments.base_dir, training.as_process(arguments.base_dir))
    failure = arguments.base_dir / opt_ml.FAILURE
    if exit_code and failure.is_file():
        print(f"training failed; the reason is in {failure}", file=sys.stderr)
    return exit_code


def _serve(arguments: argparse.Namespace) -> int:
    failure = arguments.base_dir / opt_ml.FAILURE
    if failure.is_file():
        raise UserError(f"the last training failed, see {failure}: fix it, and train again")
    program = processes.as_process(arguments.base_dir, arguments.port)
    processes.serve(arguments.base_dir, arguments.port, program)
    print(f"serving {arguments.base_dir / 'model'} on port {arguments.port}")
    return 0


def _stop(arguments: argparse.Namespace) -> int:
    was_running = processes.stop(arguments.base_dir)
    print("the server is stopped" if was_running else "no server was running")
    return 0


_COMMANDS = {"prepare": _prepare, "train": _train, "serve": _serve, "stop": _stop}


def _add_prepare_arguments(prepare: argparse.ArgumentParser) -> None:
    prepare.add_argument(
        "--data",
        type=Path,
        metavar="DIR",
        help="folder with own images: training/ (or train/) and optionally validation/ (or val/, "
        "valid/), test/ and weights/; resets the hyperparameters to their defaults "
        "(default: the images in the tree or, without any, drawn hands)",
    )
    prepare.add_argument(
        "--replace",
        action="store_true",
        help="replace the images and checkpoints in the tree by --data or, without it, by drawn "
        "hands with their hyperparameters (default: keep them)",
    )
    prepare.add_argument(
        "--new-job",
        action="store_true",
        help="move the last job's model and reports to previous/, as `train` does",
    )
    prepare.add_argument(
        "--hyperparameters",
        type=argument_types.pair,
        nargs="+",
        default=[],
        metavar="NAME=VALUE",
        help="train with exactly these hyperparameters "
        "(default: those in the tree; those of drawn hands if these are new)",
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m image_classifier.platform", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    prepare = commands.add_parser(
        "prepare", help="create the files of a training job, with sample images by default"
    )
    _add_prepare_arguments(prepare)
    train = commands.add_parser(
        "train",
        help="run the training job; Ctrl-C stops it with a checkpoint, and the next run continues; "
        "after a finished run, the next one starts from scratch",
    )
    serve = commands.add_parser("serve", help="start the server in the background")
    serve.add_argument(
        "--port",
        type=argument_types.port,
        default=os.environ.get("PORT", "8080"),
        help="TCP port to listen on (default: $PORT, else 8080)",
    )
    stop = commands.add_parser("stop", help="stop the server")
    for command in (prepare, train, serve, stop):
        command.add_argument(
            "--base-dir",
            type=Path,
            default=Path(os.environ.get(BASE_DIR_VARIABLE, processes.TEST_DIR)),
            metavar="DIR",
            help=f"folder instead of /opt/ml (default: ${BASE_DIR_VARIABLE}, else %(default)s)",
        )
    return parser


if __name__ == "__main__":
    sys.exit(main())
