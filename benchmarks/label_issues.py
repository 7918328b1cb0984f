"""Measure how well changed labels are found, beside cleanlab and nearest neighbors.

    python -m benchmarks.label_issues --data FOLDER [--cleanlab PYTHON]

5 % of the labels of the training images of hurricane.tar, fingers.tar and dogs.tar are changed to
another class. Precision and recall of `audit` with its simple features, and for dogs.tar with those
of the pretrained network in FOLDER/weights; of cleanlab's defaults on the same features, in the
Python of an environment that has it (pip install cleanlab); and of the ten nearest neighbors among
copies of 8 x 8 pixels, the method of earlier versions.
"""

import argparse
import json
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.conditions import print_results
from benchmarks.job import unpacked
from container.classifier.preprocessing import Pixels
from image_classifier.preparation.audit import find_copies
from image_classifier.preparation.features import Features, simple_features
from image_classifier.preparation.labels import Labeled, class_names, label_by_layout
from image_classifier.preparation.network_features import network_features
from image_classifier.preparation.scan import Scan, scan
from image_classifier.preparation.sources import list_images
from image_classifier.preparation.suspects import check_labels

FOLDERS = {
    "fingers": "fingers/train",
    "hurricane": "hurricane/train_another",
    "dogs": "dogs/train",
}
CHANGED = 0.05
NETWORK, WEIGHTS = "squeezenet1_0", "weights/squeezenet1_0-deepcompression.pth"

# Of the method of earlier versions.
NEIGHBORS, MIN_VOTES, MIN_ACCURACY = 10, 9, 0.8

CLEANLAB = """
import json, sys
import numpy as np
from cleanlab.classification import CleanLearning
data = np.load(sys.argv[1])
features = data["features"]
features = (features - features.mean(axis=0)) / (features.std(axis=0) + 1e-6)
found = CleanLearning(seed=0).find_label_issues(features, data["labels"])
print(json.dumps(np.flatnonzero(found["is_label_issue"]).tolist()))
"""


def main() -> None:
    """Measure; print the results and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the archives")
    parser.add_argument("--cleanlab", help="Python of an environment that has cleanlab")
    parser.add_argument("--images", type=int, help="at most so many of each data set")
    parser.add_argument("--sets", nargs="+", choices=FOLDERS, default=[*FOLDERS])
    parser.add_argument("--seeds", type=int, default=1)
    arguments = parser.parse_args()
    results = []
    for name in arguments.sets:
        with tempfile.TemporaryDirectory() as scratch:
            folder = unpacked(arguments.data, name, Path(scratch)) / FOLDERS[name]
            for result in _measure(name, folder, arguments):
                print(result, flush=True)
                results.append(result)
    print_results(["numpy", "pillow"], results=results)


def _measure(name: str, folder: Path, arguments: argparse.Namespace) -> list[dict[str, object]]:
    paths, _ = list_images(folder)
    random = np.random.default_rng(0)
    if arguments.images and arguments.images < len(paths):
        chosen = np.sort(random.permutation(len(paths))[: arguments.images])
        paths = [paths[index] for index in chosen]
    pattern = re.compile(r"_(?P<label>[0-5][LR])\.[^.]+$") if name == "fingers" else None
    images, _ = label_by_layout(paths, pattern)
    scanned = scan(folder, images, quiet=True)
    indices = np.flatnonzero(find_copies(scanned) == np.arange(len(images)))
    indices = indices[scanned.is_comparable[indices]]
    kinds = {"simple": scanned}
    if name == "dogs":
        weights = arguments.data / WEIGHTS
        found = network_features(folder, images, scanned, NETWORK, weights, quiet=True)
        kinds[NETWORK] = replace(scanned, network_features=found)
    results = []
    for seed in range(arguments.seeds):
        changed, labeled = _change(images, indices, seed)
        for kind, of_kind in kinds.items():
            scores = _methods(labeled, of_kind, indices, arguments.cleanlab)
            for method, (suspects, seconds) in scores.items():
                score = _score(suspects, changed)
                facts = {"set": name, "seed": seed, "images": len(indices), "features": kind}
                results.append({**facts, "method": method, **score, "seconds": round(seconds, 1)})
    return results


def _change(
    images: list[Labeled], indices: npt.NDArray[np.int64], seed: int
) -> tuple[set[int], list[Labeled]]:
    """Return the images whose label is changed, by index, and all images."""
    random = np.random.default_rng(seed)
    names, labeled = class_names(images), list(images)
    changed = set(random.permutation(indices)[: round(CHANGED * len(indices))].tolist())
    for index in sorted(changed):
        others = [name for name in names if name != images[index].class_name]
        labeled[index] = replace(images[index], class_name=str(random.choice(others)))
    return changed, labeled


def _methods(
    images: list[Labeled], scanned: Scan, indices: npt.NDArray[np.int64], cleanlab: str | None
) -> Mapping[str, tuple[set[int], float]]:
    """Return the suspects of each method, by index, with the seconds that it took."""
    names = class_names(images)
    labels = np.array([names.index(images[index].class_name) for index in indices])
    start = time.monotonic()
    numbers = {image.name: number for number, image in enumerate(images)}
    check = check_labels(images, scanned, indices)
    ours = {
        numbers[finding.path or ""] for finding in check.findings if finding.kind == "label-suspect"
    }
    found = {"audit": (ours, time.monotonic() - start)}
    start = time.monotonic()
    suspects = _neighbors(scanned.thumbnails[indices], labels)
    found["neighbors"] = (set(indices[suspects].tolist()), time.monotonic() - start)
    if cleanlab:
        features = scanned.network_features
        rows = _simple(scanned, indices) if features is None else features[indices]
        start = time.monotonic()
        suspects = _cleanlab(cleanlab, rows, labels)
        found["cleanlab"] = (set(indices[suspects].tolist()), time.monotonic() - start)
    return found


def _simple(scanned: Scan, indices: npt.NDArray[np.int64]) -> Features:
    return simple_features(scanned.edges[indices], scanned.thumbnails[indices])


def _cleanlab(python: str, features: Features, labels: npt.NDArray[np.int64]) -> list[int]:
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "data.npz")
        np.savez(path, features=features, labels=labels)
        command = [python, "-W", "ignore", "-c", CLEANLAB, str(path)]
        output = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout
    suspects: list[int] = json.loads(output.splitlines()[-1])
    return suspects


def _neighbors(thumbnails: Pixels, labels: npt.NDArray[np.int64]) -> list[int]:
    """Return the images of which nine of the ten most similar ones have one other label."""
    features = thumbnails.reshape(len(labels), 8, 2, 8, 2, 3).mean(axis=(2, 4), dtype=np.float32)
    features = features.reshape(len(labels), -1)
    features -= features.mean(axis=1, keepdims=True)
    features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    correct, suspects = 0, []
    for index, label in enumerate(labels.tolist()):
        similarity = features @ features[index]
        similarity[index] = -np.inf
        nearest = np.argpartition(-similarity, NEIGHBORS)[:NEIGHBORS]
        counts = np.bincount(labels[nearest])
        best = int(counts.argmax())
        correct += best == label
        if counts[best] >= MIN_VOTES and best != label:
            suspects.append(index)
    return suspects if correct >= MIN_ACCURACY * len(labels) else []


def _score(suspects: set[int], changed: set[int]) -> dict[str, float]:
    correct = len(suspects & changed)
    precision, recall = correct / max(len(suspects), 1), correct / len(changed)
    return {
        "changed": len(changed),
        "found": len(suspects),
        "precision": round(precision, 3),
        "recall": round(recall, 3),
        "f1": round(2 * precision * recall / max(precision + recall, 1e-9), 3),
    }


if __name__ == "__main__":
    main()
