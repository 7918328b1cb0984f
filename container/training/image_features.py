"""Features of images by a pretrained network, for programs without PyTorch.

    python -m container.training.image_features NETWORK WEIGHTS SIZE OUT < PIXELS

PIXELS are images of SIZE x SIZE x 3 bytes, one after the other. OUT becomes a .npy file of (N, D)
float32: the input of the network's head.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from container.classifier.errors import UserError
from container.networks.network import Classifier, build
from container.training.device import Arithmetic
from container.training.evaluation.inference import to_images
from container.training.fitting import pretrained
from container.training.head.features import without_head

BATCH_SIZE = 32

# The head is not used.
CLASSES = 2


def main(arguments: Sequence[str]) -> int:
    """Compute the features; return the exit code."""
    name, weights, size, out = arguments
    try:
        network = build(name, CLASSES, int(size))
        pretrained.load_channel(network, Path(weights))
    except UserError as error:
        print(error, file=sys.stderr)
        return 1
    arithmetic = Arithmetic.choose("float32", name)
    classifier = arithmetic.place(Classifier(network.module)).eval()
    shape = (-1, int(size), int(size), 3)
    found = []
    with without_head(network), torch.inference_mode():
        while data := sys.stdin.buffer.read(BATCH_SIZE * int(size) ** 2 * 3):
            images = to_images(np.frombuffer(data, np.uint8).reshape(shape), arithmetic.device)
            found.append(classifier(images).cpu().numpy())
    np.save(out, np.concatenate(found))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
