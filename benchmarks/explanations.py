"""Correctness and cost of explanations of our own server's predictions.

    python -m benchmarks.explanations --data FOLDER

FOLDER holds hurricane.tar, ants-bees.tar, dogs.tar and flowers.tar, and in weights/ SqueezeNet's
weights for the `weights` channel. A network is trained on a part of the first two: new heads on
the frozen SqueezeNet, which takes seconds. 20 correctly classified validation images are explained.

truth: the explanation of a network that detects a red patch is the patch, on 20 images.
agreement: KernelSHAP of 100 samples against all 256 coalitions of eight superpixels.
faithful: deletion and insertion against random order with a gray baseline, and shuffled weights.
segments: numbers of superpixels on photographs, for num_segments=20.
cost: seconds for 500 evaluations of ResNet-18, and memory while 100 photographs are explained.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import islice
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from benchmarks.conditions import ROOT, print_results
from benchmarks.job import environment, write_configuration
from benchmarks.rivals.commands import ours
from benchmarks.serving import PYTHON, running
from benchmarks.serving_artifact import add_int8, make_artifact, write_images
from container.classifier import artifact
from container.classifier.manifest import Manifest
from container.classifier.media_types import NPY
from container.classifier.preprocessing import Preprocessing
from container.training.output.export import export_onnx, golden_answers
from image_classifier.explainer import image as images
from image_classifier.explainer import shapley
from image_classifier.explainer.analysis import Analysis, Predictor
from image_classifier.explainer.endpoint import HttpEndpoint
from image_classifier.explainer.explanation import Evaluations, explain
from image_classifier.explainer.image import SegmentedImage
from image_classifier.explainer.job import Job
from image_classifier.explainer.model import Model
from image_classifier.explainer.randomized import randomize
from tests import red_patch

IMAGES, EVALUATIONS = 20, 500
PRECISIONS = ("float32", "bfloat16", "int8")
PREDICTOR = Predictor(content_type=NPY)
PACKAGES = ("numpy", "scikit-image", "openvino", "torch", "urllib3")

SETS = {"hurricane": ("train_another", "validation_another"), "ants-bees": ("train", "val")}
PHOTOGRAPHS, PHOTOGRAPHS_PER_CLASS = ("ants-bees", "dogs", "flowers"), 6
TRAINING_IMAGES, VALIDATION_IMAGES = 120, 40
HYPERPARAMETERS = {"network": "squeezenet1_0", "fine_tuning": "none", "quantize": "none"}


class RedPatch(nn.Module):
    """`patch`, where 8 x 8 pixels somewhere are red on average."""

    def forward(self, pixels: Tensor) -> Tensor:
        """Return probabilities (N, 2) for uint8 pixels (N, H, W, 3)."""
        red, green, blue = (pixels.float() / 255).unbind(dim=3)
        redness = (red - (green + blue) / 2)[:, None]
        most = nn.functional.avg_pool2d(redness, 8, 4).amax(dim=(1, 2, 3))
        logit = 20 * (most - 0.4)
        return torch.softmax(torch.stack([-logit / 2, logit / 2], dim=1), dim=1)


class Served:
    """A model behind our server, inside a `with` block."""

    def __init__(self, base_dir: Path, precision: str = "float32") -> None:
        """Serve the artifact in `base_dir/model`."""
        self._base_dir, self._precision, self._stack = base_dir, precision, ExitStack()

    def __enter__(self) -> Model:
        """Start the server."""
        contender = partial(ours, self._precision, PYTHON)
        server = self._stack.enter_context(running(contender, self._base_dir))
        endpoint = HttpEndpoint(f"http://127.0.0.1:{server.port}")
        return self._stack.enter_context(Model(endpoint, PREDICTOR))

    def __exit__(self, *_error: object) -> None:
        """Stop it."""
        self._stack.close()


def truth(scratch: Path) -> Mapping[str, object]:
    """Explain images whose class has a known reason."""
    paths = red_patch.write_images(scratch / "images", IMAGES)
    _write_red_patch(scratch / "model", paths)
    analysis = _analysis()
    right = 0
    with Served(scratch) as model:
        for number, path in enumerate(paths):
            image = _segment(path, analysis)
            if not model.class_names:
                model.probe(image.pixels)
            values = np.array(explain(image, model, analysis.shap).shapley)[:, 1]
            right += red_patch.is_right(values, image.segments, red_patch.draw(number)[1])
        agreed = agreement(scratch / "images", model)
    return {"images": len(paths), "right": right, **agreed}


def _write_red_patch(directory: Path, paths: Sequence[Path]) -> None:
    settings = Preprocessing(image_size=red_patch.SIDE)
    names = red_patch.CLASS_NAMES
    manifest = Manifest(class_names=names, network="small", preprocessing=settings)
    served = RedPatch()
    with artifact.writing(directory, manifest) as folder:
        # Not a Classifier, but exported in the same way.
        export_onnx(served, settings.image_size, folder / artifact.ONNX_MODEL)  # type: ignore[arg-type]
        answers = golden_answers(served, paths, settings)  # type: ignore[arg-type]
        artifact.write_golden(folder, answers)


def train(scratch: Path, data: Path, name: str) -> None:
    """Train new heads on a part of a data set."""
    counts = (TRAINING_IMAGES, VALIDATION_IMAGES)
    channels = scratch / "input/data"
    for folder, channel, count in zip(SETS[name], ("training", "validation"), counts, strict=True):
        _extract(data / f"{name}.tar", folder, channels / channel, count)
    (channels / "weights").mkdir()
    (weights,) = (data / "weights").glob("*.pth")
    (channels / "weights" / weights.name).symlink_to(weights.resolve())
    write_configuration(scratch, HYPERPARAMETERS)
    subprocess.run(
        [sys.executable, "-m", "container.training", "train"],
        env=environment(scratch),
        stdout=sys.stderr,
        check=True,
    )


def _extract(tar: Path, folder: str, channel: Path, count: int) -> None:
    """Write the first `count` images of each class."""
    written: dict[str, int] = {}
    with tarfile.open(tar) as archive:
        for member in sorted(archive.getmembers(), key=lambda member: member.name):
            path = PurePosixPath(member.name)
            if not member.isfile() or path.parent.parent.name != folder:
                continue
            class_name = path.parent.name
            written[class_name] = written.get(class_name, 0) + 1
            file = archive.extractfile(member)
            if written[class_name] <= count and file is not None:
                (channel / class_name).mkdir(parents=True, exist_ok=True)
                (channel / class_name / path.name).write_bytes(file.read())


def faithful(scratch: Path, model: Model) -> Mapping[str, object]:
    """Explain correctly classified images, and compare with shuffled weights."""
    # White noise is classified as `damage`, which would leave nothing to explain.
    baseline = scratch / "gray.png"
    Image.new("RGB", (8, 8), (128, 128, 128)).save(baseline)
    analysis = _analysis(baseline=baseline)
    chosen = _choose_correct(scratch / "input/data/validation", model)
    for path in chosen:
        link = scratch / "chosen" / path.parent.name / path.name
        link.parent.mkdir(parents=True, exist_ok=True)
        link.symlink_to(path)
    randomize(scratch / "model", scratch / "shuffled/model", seed=0)
    with Served(scratch / "shuffled") as shuffled:
        job = Job(
            images=[scratch / "chosen"],
            output=scratch / "explanations",
            analysis=analysis,
            model=model,
            randomized=shuffled,
        )
        summary = job.run()
    return {"images": summary.images, "right": summary.correct, **summary.faithfulness()}


def agreement(images: Path, model: Model) -> Mapping[str, float]:
    """Compare samples with all coalitions."""
    analysis = _analysis(num_segments=8)
    differences = []
    for path in sorted(images.rglob("*.*")):
        image = _segment(path, analysis)
        count = image.segment_count
        if count == 1:
            # A uniform image cannot be divided.
            continue
        evaluate = Evaluations(model, image)
        values = evaluate(shapley.all_coalitions(count))
        found = []
        for samples in (98, 2**count - 2):
            chosen = shapley.sample(count, samples, np.random.default_rng(0))
            found.append(
                shapley.kernel(
                    chosen.coalitions,
                    chosen.weights,
                    evaluate(chosen.coalitions),
                    empty=values[0],
                    full=values[-1],
                )
            )
        exact = shapley.exact(values)
        differences.append([float(np.abs(one - exact).max()) for one in found])
    largest = np.max(differences, axis=0)
    return {
        "images": len(differences),
        "largest_difference_100_samples": float(largest[0]),
        "largest_difference_all_samples": float(largest[1]),
        "within_0.01": int((np.array(differences)[:, 0] < 1e-2).sum()),  # noqa: PLR2004
    }


def _choose_correct(folder: Path, model: Model) -> list[Path]:
    chosen: list[Path] = []
    # The classes in turn.
    paths = sorted(folder.rglob("*.*"), key=lambda path: (path.name, path.parent.name))
    per_class = IMAGES // 2
    for path in paths:
        pixels = images.read(path)
        if not model.class_names:
            model.probe(pixels)
        whole = SegmentedImage(pixels, np.zeros(pixels.shape[:2], np.int64), pixels)
        label = int(model.scores(whole, np.ones((1, 1), bool))[0].argmax())
        of_class = sum(one.parent == path.parent for one in chosen)
        if model.class_names[label] == path.parent.name and of_class < per_class:
            chosen.append(path)
    return chosen


def seconds(scratch: Path, data: Path, rounds: int) -> Mapping[str, object]:
    """Time 500 evaluations of ResNet-18 on a photograph at a time, in each precision."""
    paths = write_images(scratch / "images", data, 320)
    make_artifact(scratch / "model", "resnet18", paths)
    add_int8(scratch / "model", paths)
    analysis = _analysis()
    segmented = (_segment(path, analysis) for path in paths)
    # Few superpixels have fewer than 500 coalitions.
    enough = (image for image in segmented if 2**image.segment_count > EVALUATIONS)
    chosen = list(islice(enough, rounds))
    found = {}
    for precision in PRECISIONS:
        with Served(scratch, precision) as model:
            model.probe(chosen[0].pixels)
            found[precision] = [_seconds(image, model) for image in chosen]
        print(precision, found[precision], flush=True)
    return {precision: statistics.median(taken) for precision, taken in found.items()}


def _seconds(image: SegmentedImage, model: Model) -> float:
    count = image.segment_count
    sample = shapley.sample(count, EVALUATIONS, np.random.default_rng(0))
    start = time.monotonic()
    model.scores(image, sample.coalitions)
    return time.monotonic() - start


def memory(scratch: Path, data: Path, count: int) -> Mapping[str, object]:
    """Watch the program's memory while it explains photographs."""
    folder = scratch / "photographs"
    for name in SETS["ants-bees"]:
        _extract(data / "ants-bees.tar", name, folder / name, count // 4)
    document = {
        "methods": {
            "shap": {
                "num_samples": 60,
                "image_config": {"model_type": "IMAGE_CLASSIFICATION", "num_segments": 12},
            }
        },
        "predictor": {"content_type": NPY},
    }
    (scratch / "config.json").write_text(json.dumps(document), encoding="utf-8")
    contender = partial(ours, "float32", PYTHON)
    seen: dict[int, float] = {}
    with running(contender, scratch) as server:
        command = [
            sys.executable,
            "-m",
            "image_classifier.explainer",
            "explain",
            str(folder),
            "--quiet",
        ]
        command += ["--output", str(scratch / "out"), "--config", str(scratch / "config.json")]
        command += ["--url", f"http://127.0.0.1:{server.port}"]
        with subprocess.Popen(command, cwd=ROOT, stdout=sys.stderr) as process:
            status = Path(f"/proc/{process.pid}/status")
            while process.poll() is None:
                done = sum(1 for _ in (scratch / "out").rglob("explanation.json"))
                if match := re.search(r"^VmHWM:\s+(\d+) kB", status.read_text(), re.MULTILINE):
                    seen[done] = int(match[1]) * 1024 / 1e6
                time.sleep(0.5)
    if process.returncode != 0:
        raise SystemExit(process.returncode)
    return {f"peak_mb_after_{done}": peak for done, peak in seen.items() if done % 10 == 0}


def segments(scratch: Path, data: Path) -> Mapping[str, object]:
    """Count the superpixels of photographs with Clarify's compactness and by default."""
    for name in PHOTOGRAPHS:
        _extract(data / f"{name}.tar", "val", scratch / name, PHOTOGRAPHS_PER_CLASS)
    paths = sorted(scratch.rglob("*.jpg"))
    found: dict[str, object] = {"images": len(paths)}
    for name, analysis in {"clarify": _analysis(), "default": Analysis.create(PREDICTOR)}.items():
        counts = [_segment(path, analysis).segment_count for path in paths]
        found[name] = f"{min(counts)} to {max(counts)}, median {statistics.median(counts):g}"
    return found


def _analysis(num_segments: int = 20, baseline: Path | None = None) -> Analysis:
    """Return an analysis with Clarify's compactness."""
    return Analysis.create(
        PREDICTOR, num_segments=num_segments, segment_compactness=5, baseline=baseline
    )


def _segment(path: Path, analysis: Analysis) -> SegmentedImage:
    return images.segment(images.read(path), analysis.shap)


def main() -> None:
    """Measure, print tables and one JSON document."""
    parts = ("truth", "faithful", "segments", "cost")
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", choices=[[], *parts], help="default: all")
    parser.add_argument("--data", type=Path, required=True, help="folder with the tar files")
    parser.add_argument("--rounds", type=int, default=5, help="photographs that are timed")
    parser.add_argument("--photographs", type=int, default=100, help="while memory is watched")
    arguments = parser.parse_args()
    arguments.parts = arguments.parts or parts
    results: dict[str, Mapping[str, object]] = {}

    def report(name: str, figures: Mapping[str, object]) -> None:
        results[name] = figures
        print(name, "  ".join(f"{key} {value}" for key, value in figures.items()), flush=True)

    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if "truth" in arguments.parts:
            (scratch / "truth").mkdir()
            report("truth", truth(scratch / "truth"))
        for name in SETS if "faithful" in arguments.parts else ():
            train(scratch / name, arguments.data, name)
            with Served(scratch / name) as model:
                report(f"faithful, {name}", faithful(scratch / name, model))
                report(f"agreement, {name}", agreement(scratch / name / "chosen", model))
        if "segments" in arguments.parts:
            report("segments", segments(scratch / "segments", arguments.data))
        if "cost" in arguments.parts:
            (scratch / "cost").mkdir()
            report("seconds", seconds(scratch / "cost", arguments.data, arguments.rounds))
            report("memory", memory(scratch / "cost", arguments.data, arguments.photographs))
    print_results(PACKAGES, results=results)


if __name__ == "__main__":
    main()
