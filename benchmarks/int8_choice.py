"""How often int8 is chosen by few validation images, and what it costs on many held-out images.

    python -m benchmarks.int8_choice --data ../shared/data ants-bees hurricane dogs

One SqueezeNet is trained for each data set from ImageNet weights. For each seed, random training
images calibrate an int8 network, and random held-out images are the validation images. The rule
"difference" accepts int8 if the accuracy on these is at most `max_accuracy_drop` lower. The rule
"test" is that of the training program, with its other calibrations. The true drop is that on all
held-out images.
"""

import argparse
import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.conditions import conditions
from benchmarks.training import Case, make_tree, train, unpacked
from container.classifier import labeled_images
from container.classifier.artifact import Artifact
from container.training.data import images
from container.training.data.images import ImageSet
from container.training.output.comparison import Comparison
from container.training.output.quantization import (
    BATCH_SIZE,
    CALIBRATIONS,
    Calibration,
    Int8Network,
    quantize,
)
from container.training.sagemaker.stop import StopRequest

WEIGHTS = "weights/squeezenet1_0-deepcompression.pth"
SETTINGS = {"network": "squeezenet1_0", "epochs": "4", "quantize": "none", "debug": "off"}

# 60 training images of each breed.
DOGS = dict.fromkeys(
    (
        "001.shih-tzu",
        "002.rhodesian-ridgeback",
        "003.beagle",
        "004.english-foxhound",
        "005.border-terrier",
        "006.australian-terrier",
        "007.golden-retriever",
        "008.old-english-sheepdog",
        "009.samoyed",
        "010.dingo",
    ),
    60,
)

CASES = {
    "ants-bees": Case(
        training="ants-bees/train",
        validation="ants-bees/val",
        hyperparameters=SETTINGS,
        weights=WEIGHTS,
    ),
    "hurricane": Case(
        training="hurricane/train_another",
        validation="hurricane/validation_another",
        hyperparameters={**SETTINGS, "image_size": "128"},
        weights=WEIGHTS,
        keep={"damage": 500, "no_damage": 500},
    ),
    "dogs": Case(
        training="dogs/train",
        validation="dogs/val",
        hyperparameters={**SETTINGS, "image_size": "128"},
        weights=WEIGHTS,
        keep=DOGS,
    ),
}

SIZES = (90, 300)
HELD_OUT = 2000
MAX_DROP = 0.005


@dataclass(frozen=True, slots=True)
class Networks:
    """A float32 network, the images around it, and its predictions of the held-out ones."""

    artifact: Artifact
    training: ImageSet
    held_out: ImageSet
    predicted: npt.NDArray[np.int64]

    def int8(self, calibration: Calibration, seed: int, scratch: Path) -> npt.NDArray[np.int64]:
        """Return an int8 network's predictions of the held-out images."""
        count = min(calibration.calibration_images, len(self.training))
        chosen = np.random.default_rng(seed).choice(len(self.training), count, replace=False)
        target = scratch / "model.int8.onnx"
        pixels = self.training.pixels[np.sort(chosen)]
        network = self.artifact.manifest.network
        source = self.artifact.onnx_model
        quantize(source, pixels, target, network, StopRequest(), calibration=calibration)
        return _predict(target, self.held_out)

    def compare(self, int8: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> Comparison:
        """Compare both networks on some of the held-out images."""
        labels, float32 = self.held_out.labels[indices], self.predicted[indices]
        return Comparison.of(labels, float32, int8[indices], MAX_DROP)


def main() -> None:
    """Train, quantize for every seed, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *CASES], help="data sets; default: all")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files")
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--models", type=Path, help="folder of networks trained before")
    arguments = parser.parse_args()
    results = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for name in arguments.names or CASES:
            base_dir = (arguments.models or scratch / "models") / name
            if not (base_dir / "model" / "manifest.json").exists():
                found = unpacked(arguments.data, name, scratch)
                make_tree(base_dir, CASES[name], found, arguments.data, seed=0)
                train(base_dir)
            networks = _networks(base_dir)
            choices = [
                c for seed in range(arguments.seeds) for c in _choices(networks, seed, scratch)
            ]
            for size in SIZES if len(networks.held_out) > max(SIZES) else SIZES[:1]:
                row = _row([choice for choice in choices if choice["validation_images"] == size])
                results.append({"data": name, "held_out": len(networks.held_out), **row})
                print(json.dumps(results[-1]), flush=True)
    facts = conditions(["nncf", "onnxruntime", "torch"])
    print(json.dumps({"results": results, "conditions": facts}))


def _networks(base_dir: Path) -> Networks:
    artifact = Artifact.read(base_dir / "model")
    training, validation = (
        images.decode(
            labeled_images.labeled_files(base_dir / "input" / "data" / channel),
            artifact.manifest.class_names,
            artifact.manifest.preprocessing,
            StopRequest(),
        )
        for channel in ("training", "validation")
    )
    order = np.random.default_rng(0).permutation(len(validation))[:HELD_OUT]
    held_out = ImageSet(validation.pixels[order], validation.labels[order], (), "")
    return Networks(artifact, training, held_out, _predict(artifact.onnx_model, held_out))


def _predict(onnx_model: Path, held_out: ImageSet) -> npt.NDArray[np.int64]:
    network = Int8Network(onnx_model)
    batches = range(0, len(held_out), BATCH_SIZE)
    found = [network.predict(held_out.pixels[start : start + BATCH_SIZE]) for start in batches]
    named: npt.NDArray[np.int64] = np.concatenate(found).argmax(axis=1)
    return named


def _choices(networks: Networks, seed: int, scratch: Path) -> Iterator[Mapping[str, Any]]:
    """Yield the choice of both rules for each number of validation images."""
    count = len(networks.held_out)
    order = np.random.default_rng(1000 + seed).permutation(count)
    tried: list[npt.NDArray[np.int64]] = []
    for size in SIZES:
        best: Comparison | None = None
        accepted: int | None = None
        for attempt, calibration in enumerate(CALIBRATIONS):
            if attempt == len(tried):
                tried.append(networks.int8(calibration, seed, scratch))
            compared = networks.compare(tried[attempt], order[:size])
            if best is None or compared.drop < best.drop:
                best, accepted = compared, attempt
            if compared.is_within_limit:
                break
        if best is None or not best.is_accurate:
            accepted = None
        first = networks.compare(tried[0], order[:size])
        drops = [networks.compare(int8, order).drop for int8 in tried]
        yield {
            "validation_images": size,
            "difference": first.is_within_limit,
            "test": accepted,
            "drops": drops,
        }


def _row(choices: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    accepted = [c["drops"][c["test"]] for c in choices if c["test"] is not None]
    by_difference = [c["drops"][0] for c in choices if c["difference"]]
    return {
        "validation_images": choices[0]["validation_images"],
        "seeds": len(choices),
        "int8_by_difference": len(by_difference),
        "true_drops_by_difference": by_difference,
        "int8_by_test": len(accepted),
        "calibrations_by_test": [c["test"] for c in choices],
        "true_drops_by_test": accepted,
        "true_drops_of_first": [c["drops"][0] for c in choices],
    }


if __name__ == "__main__":
    main()
