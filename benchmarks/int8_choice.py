"""How often int8 is chosen by few validation images, and what it costs on many held-out images.

    python -m benchmarks.int8_choice --data ../shared/data ants-bees hurricane dogs

One SqueezeNet is trained for each data set from ImageNet weights. For each seed, random training
images calibrate int8 networks with every calibration of the training program. For each draw, random
held-out images are the validation images. The true drop is that on all held-out images, with its
standard error; the expected one is what the probabilities of the float32 network predict of it.

The rule "difference" accepts the first calibration if the accuracy on the validation images is at
most `max_accuracy_drop` lower. The rule "mcnemar" takes the calibration with the lowest drop,
unless McNemar's test shows that it is larger than allowed. The rule "expected" is that of the
training program.
"""

import argparse
import itertools
import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks.conditions import print_results
from benchmarks.job import Case, make_tree, unpacked
from benchmarks.training import train
from container.classifier import labeled_images
from container.classifier.artifact import Artifact
from container.training.data import images
from container.training.data.images import ImageSet
from container.training.output.comparison import Comparison, losses_of
from container.training.output.onnx_network import OnnxNetwork
from container.training.output.quantization import (
    BATCH_SIZE,
    QUANTIZATION_SETTINGS,
    QuantizationSettings,
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
    probabilities: npt.NDArray[np.float32]

    def int8(
        self, settings: QuantizationSettings, seed: int, scratch: Path
    ) -> npt.NDArray[np.int64]:
        """Return an int8 network's predictions of the held-out images."""
        count = min(settings.calibration_images, len(self.training))
        chosen = np.random.default_rng(seed).choice(len(self.training), count, replace=False)
        target = scratch / "model.int8.onnx"
        pixels = self.training.pixels[np.sort(chosen)]
        network = self.artifact.manifest.network
        source = self.artifact.onnx_model
        quantize(source, pixels, target, network, StopRequest(), settings=settings)
        classes: npt.NDArray[np.int64] = _probabilities(target, self.held_out).argmax(axis=1)
        return classes

    def compare(self, int8: npt.NDArray[np.int64], indices: npt.NDArray[np.int64]) -> Comparison:
        """Compare both networks on some of the held-out images."""
        labels, probabilities = self.held_out.labels[indices], self.probabilities[indices]
        float32 = probabilities.argmax(axis=1)
        losses = losses_of(probabilities, float32, int8[indices])
        return Comparison.of(labels, float32, int8[indices], losses, MAX_DROP)


def main() -> None:
    """Train, quantize for every seed, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", choices=[[], *CASES], help="data sets; default: all")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files")
    parser.add_argument("--seeds", type=int, default=2, help="calibrations of each kind")
    parser.add_argument("--draws", type=int, default=50, help="sets of validation images a seed")
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
            tried = []
            for seed in range(arguments.seeds):
                tried.append([networks.int8(each, seed, scratch) for each in QUANTIZATION_SETTINGS])
                for settings, int8 in zip(QUANTIZATION_SETTINGS, tried[-1], strict=True):
                    print(name, seed, settings, _true(networks, int8), flush=True)
            for size in SIZES if len(networks.held_out) > max(SIZES) else SIZES[:1]:
                row = _row(networks, tried, size, arguments.draws)
                results.append({"data": name, "held_out": len(networks.held_out), **row})
                print(json.dumps(results[-1]), flush=True)
    print_results(["nncf", "onnxruntime", "torch"], results=results)


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
    return Networks(artifact, training, held_out, _probabilities(artifact.onnx_model, held_out))


def _probabilities(onnx_model: Path, held_out: ImageSet) -> npt.NDArray[np.float32]:
    network = OnnxNetwork(onnx_model)
    batches = range(0, len(held_out), BATCH_SIZE)
    return np.concatenate(
        [network.predict(held_out.pixels[start : start + BATCH_SIZE]) for start in batches]
    )


def _true(networks: Networks, int8: npt.NDArray[np.int64]) -> dict[str, float]:
    """Return the drop on all held-out images by their labels, and the expected one."""
    found = networks.compare(int8, np.arange(len(int8)))
    different = (found.lost + found.gained) / found.images
    return {
        "drop": found.drop,
        "drop_error": math.sqrt((different - found.drop**2) / found.images),
        "expected": found.expected_drop,
        "agreement": found.agreement,
    }


def _row(
    networks: Networks, tried: Sequence[Sequence[npt.NDArray[np.int64]]], size: int, draws: int
) -> dict[str, Any]:
    """Return how often each rule accepts int8, and the mean true drop of the accepted networks."""
    accepted: dict[str, list[dict[str, float]]] = {name: [] for name in RULES}
    for (seed, networks_of_seed), draw in itertools.product(enumerate(tried), range(draws)):
        random = np.random.default_rng((seed, draw))
        indices = random.permutation(len(networks.held_out))[:size]
        compared = [networks.compare(int8, indices) for int8 in networks_of_seed]
        for name, rule in RULES.items():
            if (chosen := rule(compared)) is not None:
                accepted[name].append(_true(networks, networks_of_seed[chosen]))
    return {
        "validation_images": size,
        "choices": len(tried) * draws,
        **{
            name: {
                "accepted": len(found),
                **{key: float(np.mean([each[key] for each in found])) for key in found[0]},
            }
            if found
            else {"accepted": 0}
            for name, found in accepted.items()
        },
    }


def _by_difference(compared: Sequence[Comparison]) -> int | None:
    return 0 if compared[0].drop <= MAX_DROP + 1e-9 else None


def _by_mcnemar(compared: Sequence[Comparison]) -> int | None:
    within = (n for n, each in enumerate(compared) if each.drop <= MAX_DROP + 1e-9)
    best = next(within, min(range(len(compared)), key=lambda n: compared[n].drop))
    return None if compared[best].has_larger_drop else best


def _by_expected(compared: Sequence[Comparison]) -> int | None:
    return next((n for n, each in enumerate(compared) if each.is_accurate), None)


RULES = {"difference": _by_difference, "mcnemar": _by_mcnemar, "expected": _by_expected}


if __name__ == "__main__":
    main()
