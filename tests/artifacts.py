"""A small real artifact for the tests of serving: random weights, the files of training."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from container.classifier.artifact import ONNX_MODEL, WEIGHTS, GoldenAnswer, write_golden, writing
from container.classifier.manifest import Manifest
from container.classifier.preprocessing import Pixels, Preprocessing, preprocess

CLASS_NAMES = ("cat", "dog", "Übergröße")


class PixelsToProbabilities(torch.nn.Module):
    """uint8 (N, S, S, 3) to float32 probabilities (N, classes)."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        planes = images.permute(0, 3, 1, 2).float() / 255
        return torch.softmax(self.network(planes), dim=1)


def small_network(classes: int) -> torch.nn.Module:
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 8, 5, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(2),
        torch.nn.Flatten(),
        # Wide weights, so that different images get different answers.
        torch.nn.Linear(32, classes),
    )


def encode(pixels: Pixels, file_format: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, file_format)
    return file.getvalue()


def random_pixels(height: int = 40, width: int = 50, seed: int = 0) -> Pixels:
    """An image with structure: noise of 4x4, enlarged."""
    noise = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
    return np.asarray(Image.fromarray(noise).resize((width, height)))


def export(network: torch.nn.Module, path: Path, image_size: int) -> None:
    example = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (example,),
            path,
            dynamo=True,
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
        )


def write_artifact(
    directory: Path,
    *,
    network: torch.nn.Module | None = None,
    class_names: Sequence[str] = CLASS_NAMES,
    image_size: int = 32,
    seed: int = 0,
) -> None:
    """Write an artifact whose golden answers torch gave."""
    torch.manual_seed(seed)
    network = network or small_network(len(class_names))
    whole = PixelsToProbabilities(network).eval()
    settings = Preprocessing(image_size=image_size, crop_fraction=0.875)
    manifest = Manifest(class_names=tuple(class_names), network="small", preprocessing=settings)
    encoded = [encode(random_pixels(seed=seed)) for seed in range(3)]
    with torch.inference_mode():
        images = torch.from_numpy(np.stack([preprocess(data, settings) for data in encoded]))
        probabilities = whole(images).tolist()
    answers = [
        (".png", GoldenAnswer(data=data, probabilities=tuple(row)))
        for data, row in zip(encoded, probabilities, strict=True)
    ]
    with writing(directory, manifest) as partial:
        save_file(network.state_dict(), partial / WEIGHTS)
        export(whole, partial / ONNX_MODEL, image_size)
        write_golden(partial, answers)
