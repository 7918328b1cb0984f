"""Typical inference code: Pillow and torchvision transforms, then one torch call per image."""

import io
import os
from collections.abc import Callable
from pathlib import Path

import safetensors.torch
import torch
from PIL import Image
from torchvision import transforms

from container.classifier.artifact import WEIGHTS, Artifact
from container.networks.network import build


def load(folder: str = os.environ.get("ARTIFACT", "")) -> Callable[[bytes], dict[str, float]]:
    """Return a function that predicts class probabilities of an image file on one thread.

    Args:
        folder: Artifact whose weights are used.
    """
    torch.set_num_threads(1)
    artifact = Artifact.read(Path(folder))
    names = artifact.manifest.class_names
    network = build(artifact.manifest.network, len(names)).module
    network.load_state_dict(safetensors.torch.load_file(artifact.onnx_model.parent / WEIGHTS))
    network.eval()
    size = artifact.manifest.preprocessing.image_size
    transform = transforms.Compose(
        [
            transforms.Resize(round(size / 0.875)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )

    def classify(data: bytes) -> dict[str, float]:
        image = Image.open(io.BytesIO(data)).convert("RGB")
        with torch.inference_mode():
            probabilities = torch.softmax(network(transform(image)[None]), dim=1)[0]
        return dict(zip(names, probabilities.tolist(), strict=True))

    return classify
