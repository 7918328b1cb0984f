"""Explain the predictions of any endpoint for images, as SageMaker Clarify does.

Exit codes: 0 success; 1 failure; 2 wrong command line; 130 stopped.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.media_types import NPY
from image_classifier.explainer.analysis import Analysis, Predictor
from image_classifier.explainer.endpoint import PARALLEL, Endpoint, HttpEndpoint, SageMakerEndpoint
from image_classifier.explainer.job import ANALYSIS, Job
from image_classifier.explainer.model import Model

DONE, FAILED, STOPPED = 0, 1, 130


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = _parser().parse_args(argv)
    # Raises KeyboardInterrupt, like SIGINT.
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        arguments.run(arguments)
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
    analysis, parallel = _analysis(arguments), arguments.parallel
    other: Model | nullcontext[None] = nullcontext()
    if arguments.randomized_url:
        endpoint = HttpEndpoint(arguments.randomized_url, parallel=parallel)
        other = Model(endpoint, analysis.predictor, parallel)
    model = Model(_endpoint(arguments, analysis.predictor), analysis.predictor, parallel)
    with model, other as randomized:
        summary = Job(
            images=arguments.images,
            output=arguments.output,
            analysis=analysis,
            model=model,
            randomized=randomized,
            is_quiet=arguments.quiet,
        ).run()
    for file, why in summary.unreadable.items():
        print(f"explainer: left out {file}: {why}", file=sys.stderr)
    print(
        f"{summary.counted} explained; deletion better than random order on "
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
    # Here, because onnx is slow to import and explanations do not need it.
    from image_classifier.explainer.randomized import randomize  # noqa: PLC0415

    randomize(arguments.model, arguments.output, arguments.seed)
    print(arguments.output)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m image_classifier.explainer", description=__doc__
    )
    commands = parser.add_subparsers(required=True)
    explain = commands.add_parser("explain", help="explain the predictions for images")
    explain.set_defaults(run=_explain)
    explain.add_argument(
        "images", type=Path, nargs="+", help="images, or a folder with images at any depth"
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
    shuffle.set_defaults(run=_randomize)
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
