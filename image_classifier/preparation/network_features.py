"""Features of a data set's images by a pretrained network, which runs in its own process.

The command itself needs no PyTorch.
"""

import importlib.util
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, cast

import numpy as np
from tqdm import tqdm

from container.classifier.errors import UserError
from container.classifier.preprocessing import Preprocessing, preprocess
from image_classifier.preparation.conversion import convert
from image_classifier.preparation.features import Features
from image_classifier.preparation.labels import Labeled
from image_classifier.preparation.scan import Scan

PROGRAM = "container.training.image_features"

# Height and width of the network's input: labels need less detail than the best accuracy.
IMAGE_SIZE = 128


def network_features(
    folder: Path,
    images: Sequence[Labeled],
    scan: Scan,
    network: str,
    weights: Path,
    *,
    quiet: bool = False,
) -> Features:
    """Return the features (N, D) of N images; zeros for images that cannot be decoded.

    Raises:
        UserError: PyTorch is not installed, or the network or its weights cannot be used.
    """
    if importlib.util.find_spec("torch") is None:
        raise UserError(
            "--weights needs PyTorch: pip install 'image-classifier[local]', or leave --weights out"
        )
    if not weights.exists():
        raise UserError(f"{weights} does not exist: --weights names a file of pretrained weights")
    readable = [not item.problem for item in scan.measured]
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile() as errors:
        out = Path(scratch, "features.npy")
        command = [sys.executable, "-m", PROGRAM, network, str(weights), str(IMAGE_SIZE), str(out)]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)
        stdin = cast(IO[bytes], process.stdin)
        names = [image.name for image, usable in zip(images, readable, strict=True) if usable]
        bar = tqdm(names, desc="features", unit=" images", disable=quiet or None)
        # A program that has failed reads no more.
        with suppress(BrokenPipeError), closing(stdin) as pipe:
            for pixels in _pixels(folder, bar):
                pipe.write(pixels)
        if process.wait():
            errors.seek(0)
            lines = errors.read().decode(errors="replace").strip().splitlines()
            raise UserError(f"--weights {weights}: {lines[-1] if lines else 'the program failed'}")
        found = np.load(out, allow_pickle=False)
    features = np.zeros((len(images), found.shape[1]), np.float32)
    features[readable] = found
    return features


def _pixels(folder: Path, names: Iterable[str]) -> Iterator[bytes]:
    settings = Preprocessing(image_size=IMAGE_SIZE)
    for name in names:
        yield preprocess(convert((folder / name).read_bytes()).data, settings).tobytes()
