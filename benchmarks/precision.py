"""What int8 and bfloat16 cost in accuracy and save in time, on trained networks.

    python -m benchmarks.precision --data ../shared/data hurricane dogs

The training program trains each network and makes its int8 one, which is then run here by OpenVINO
as in serving: one image at a time on one core. Accuracy and agreement are those of all validation
images, the milliseconds the median of rounds in which the precisions take turns. `--models` names
a folder in which trained networks are kept and found again.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.conditions import print_results
from benchmarks.job import Case, make_tree, unpacked
from benchmarks.training import hurricane, train
from container.classifier import labeled_images
from container.classifier.artifact import Artifact
from container.classifier.preprocessing import Pixels
from container.serving.model.engine import Engine
from container.training.data import images
from container.training.data.images import ImageSet
from container.training.output.onnx_network import OnnxNetwork
from container.training.output.quantization import BATCH_SIZE, METRICS
from container.training.sagemaker.stop import StopRequest

CASES = {
    "hurricane": hurricane(4, image_size="64"),
    "dogs": Case(
        training="dogs/train",
        validation="dogs/val",
        hyperparameters={
            "network": "resnet18",
            "pretrained": "false",
            "image_size": "128",
            "epochs": "4",
            "horizontal_flip": "true",
        },
    ),
}

ROUNDS, IMAGES_PER_ROUND = 7, 100

Infer = Callable[[Pixels], npt.NDArray[np.float32]]
"""Of an image (S, S, 3) the probabilities (C,)."""


def main() -> None:
    """Train, compare, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *CASES], help="data sets; default: all")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files")
    parser.add_argument("--models", type=Path, help="folder of networks trained before")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in arguments.names or CASES:
            base_dir = (arguments.models or Path(scratch, "models")) / name
            if not (base_dir / "model" / "manifest.json").exists():
                found = unpacked(arguments.data, name, Path(scratch))
                make_tree(base_dir, CASES[name], found, arguments.data, seed=0)
                train(base_dir)
            result = {"data": name, **_compare(base_dir)}
            results.append(result)
            _print(result)
    print_results(["openvino", "nncf", "onnxruntime", "torch"], results=results)


def _compare(base_dir: Path) -> dict[str, Any]:
    artifact = Artifact.read(base_dir / "model")
    validation = _validation(base_dir, artifact)
    engines = _engines(artifact)
    answers = {
        precision: np.stack([infer(image) for image in validation.pixels])
        for precision, infer in engines.items()
    }
    milliseconds = _times(engines, validation.pixels[:IMAGES_PER_ROUND])
    float32 = answers["float32"]
    return {
        "report": artifact.manifest.metrics[METRICS],
        "images": len(validation),
        "precisions": {
            precision: {
                "accuracy": float(np.mean(found.argmax(axis=1) == validation.labels)),
                "agreement": float(np.mean(found.argmax(axis=1) == float32.argmax(axis=1))),
                "largest_difference": float(np.abs(found - float32).max()),
                "milliseconds": milliseconds[precision],
            }
            for precision, found in answers.items()
        },
        "runtimes": _runtimes(artifact, validation, answers),
    }


def _validation(base_dir: Path, artifact: Artifact) -> ImageSet:
    files = labeled_images.labeled_files(base_dir / "input" / "data" / "validation")
    manifest = artifact.manifest
    return images.decode(files, manifest.class_names, manifest.preprocessing, StopRequest())


def _engines(artifact: Artifact) -> Mapping[str, Infer]:
    networks = {"float32": artifact.onnx_model, "bfloat16": artifact.onnx_model}
    if artifact.int8 is not None:
        networks["int8"] = artifact.int8.onnx_model
    manifest = artifact.manifest
    return {
        precision: partial(
            Engine(
                onnx_model,
                image_size=manifest.preprocessing.image_size,
                classes=len(manifest.class_names),
                precision=precision,
                streams=1,
            ).infer,
            is_idle=False,
        )
        for precision, onnx_model in networks.items()
    }


def _times(engines: Mapping[str, Infer], pixels: Pixels) -> dict[str, float]:
    """Return the milliseconds of an image, the median of the rounds."""
    images = np.array(pixels)
    times: dict[str, list[float]] = {precision: [] for precision in engines}
    for _ in range(ROUNDS):
        for precision, infer in engines.items():
            start = time.perf_counter()
            for image in images:
                infer(image)
            times[precision].append(1000 * (time.perf_counter() - start) / len(images))
    return {precision: statistics.median(found) for precision, found in times.items()}


def _runtimes(
    artifact: Artifact, validation: ImageSet, answers: Mapping[str, npt.NDArray[np.float32]]
) -> dict[str, float] | None:
    """Return how OpenVINO's int8 differs from ONNX Runtime's, which training evaluates with."""
    if artifact.int8 is None:
        return None
    network = OnnxNetwork(artifact.int8.onnx_model)
    batches = range(0, len(validation), BATCH_SIZE)
    found = np.concatenate(
        [network.predict(validation.pixels[start : start + BATCH_SIZE]) for start in batches]
    )
    named, expected = found.argmax(axis=1), answers["int8"].argmax(axis=1)
    return {
        "accuracy": float(np.mean(named == validation.labels)),
        "agreement": float(np.mean(named == expected)),
        "largest_difference": float(np.abs(found - answers["int8"]).max()),
    }


def _print(result: Mapping[str, Any]) -> None:
    print(f"{result['data']}: {result['report']['reason']}")
    for precision, figures in result["precisions"].items():
        print(
            f"  {precision:<9} accuracy {100 * figures['accuracy']:6.2f} %  "
            f"agreement {100 * figures['agreement']:6.2f} %  "
            f"largest difference {figures['largest_difference']:.4f}  "
            f"{figures['milliseconds']:.2f} ms"
        )
    if runtimes := result["runtimes"]:
        print(
            f"  ONNX Runtime in int8: accuracy {100 * runtimes['accuracy']:.2f} %, agreement with "
            f"OpenVINO {100 * runtimes['agreement']:.2f} %, largest difference "
            f"{runtimes['largest_difference']:.4f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
