"""Explain the predictions of any endpoint for images, as SageMaker Clarify does.

Exit codes: 0 success; 1 failure; 2 wrong command line; 130 stopped.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import FrameType

from container.classifier.errors import UserError
from container.classifier.vocabulary import NPY
from image_classifier.explainer.analysis import Analysis, Predictor
from image_classifier.explainer.endpoint import Endpoint, HttpEndpoint, SageMakerEndpoint
from image_classifier.explainer.job import ANALYSIS, Job
from image_classifier.explainer.model import PARALLEL, Model
from image_classifier.explainer.randomized import randomize

DONE, FAILED, STOPPED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = _parser().parse_args(argv)
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        _COMMANDS[arguments.command](arguments)
    except UserError as error:
        print(f"explainer: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(
            "explainer: stopped; the same command continues after the finished images",
            file=sys.stderr,
        )
        return STOPPED
    finally:
        signal.signal(signal.SIGTERM, before)
    return DONE


def _explain(arguments: argparse.Namespace) -> None:
    analysis = _analysis(arguments)
    with ExitStack() as stack:

        def open_model(endpoint: Endpoint) -> Model:
            model = Model(endpoint, analysis.predictor, arguments.parallel)
            return stack.enter_context(model)

        randomized = None
        if arguments.randomized_url:
            endpoint = HttpEndpoint(arguments.randomized_url, parallel=arguments.parallel)
            randomized = open_model(endpoint)
        job = Job(
            images=arguments.images,
            output=arguments.output,
            analysis=analysis,
            model=open_model(_endpoint(arguments, analysis.predictor)),
            randomized=randomized,
            is_quiet=arguments.quiet,
        )
        summary = job.run()
    for image in summary.unreadable:
        print(f"explainer: left out {image.file}: {image.why}", file=sys.stderr)
    print(
        f"{summary.images} images explained; deletion better than random order on "
        f"{summary.better_deletions}; {arguments.output / ANALYSIS}, "
        f"{arguments.output / analysis.methods.report.name}.html"
    )


def _analysis(arguments: argparse.Namespace) -> Analysis:
    if arguments.config is None:
        # This project's servers accept arrays, which are exact, several per request.
        analysis = Analysis.create(Predictor(content_type=NPY))
    else:
        analysis = Analysis.read(arguments.config)
    if arguments.endpoint:
        predictor = analysis.predictor.model_copy(update={"endpoint_name": arguments.endpoint})
        analysis = analysis.model_copy(update={"predictor": predictor})
    return analysis


def _endpoint(arguments: argparse.Namespace, predictor: Predictor) -> Endpoint:
    if arguments.url:
        return HttpEndpoint(arguments.url, parallel=arguments.parallel)
    return SageMakerEndpoint(predictor, region=arguments.region, parallel=arguments.parallel)


def _randomize(arguments: argparse.Namespace) -> None:
    randomize(arguments.model, arguments.output, arguments.seed)
    print(arguments.output)


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], None]] = {
    "explain": _explain,
    "randomize": _randomize,
}


def _stop(_signal: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m image_classifier.explainer", description=__doc__
    )
    commands = parser.add_subparsers(dest="command", required=True)
    explain = commands.add_parser("explain", help="explain the predictions for images")
    explain.add_argument(
        "images", type=Path, help="a folder with images at any depth, or one image"
    )
    explain.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="folder for the results"
    )
    explain.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="Clarify's analysis_config.json (default: 20 superpixels, 500 samples, images "
        "sent as arrays)",
    )
    target = explain.add_mutually_exclusive_group()
    target.add_argument("--url", help="URL of a server, such as http://localhost:8080")
    target.add_argument("--endpoint", metavar="NAME", help="name of a SageMaker endpoint")
    explain.add_argument("--region", help="AWS region of the endpoint (default: boto3's)")
    explain.add_argument(
        "--randomized-url",
        metavar="URL",
        help="URL of the same network with random weights, for the sanity check",
    )
    explain.add_argument(
        "--parallel",
        type=_positive,
        default=PARALLEL,
        metavar="N",
        help="requests in flight (default: %(default)s)",
    )
    explain.add_argument("--quiet", action="store_true", help="hide the progress bar")
    shuffle = commands.add_parser(
        "randomize", help="write an artifact with shuffled weights, to serve for --randomized-url"
    )
    shuffle.add_argument("model", type=Path, help="folder of an unpacked artifact")
    shuffle.add_argument(
        "output", type=Path, help="new folder for the artifact with shuffled weights"
    )
    shuffle.add_argument("--seed", type=int, default=0, help="random seed (default: 0)")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 64:  # noqa: PLR2004 - threads
        raise argparse.ArgumentTypeError(f"expected 1 to 64, got {text!r}")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
