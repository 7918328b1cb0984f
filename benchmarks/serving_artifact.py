"""An artifact and photographs to measure serving with."""

import io
import tarfile
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import nn

from classifier.artifact import Manifest
from classifier.preprocessing import Preprocessing, preprocess
from training.export import write_artifact
from training.network import Classifier, build

PICTURES = 64
SETTINGS = Preprocessing(image_size=224, crop_fraction=0.875)


def write_pictures(folder: Path, data: Path, side: int | None) -> Sequence[Path]:
    """Write photographs of dogs.tar, with the shorter side enlarged or reduced to `side` pixels."""
    folder.mkdir()
    with tarfile.open(data / "dogs.tar") as tar:
        members = [member for member in tar if member.isfile() and "/val/" in member.name]
        chosen = members[:: len(members) // PICTURES][:PICTURES]
        for number, member in enumerate(chosen):
            file = tar.extractfile(member)
            content = file.read() if file else b""
            (folder / f"{number:02}.jpg").write_bytes(_resized(content, side) if side else content)
    return sorted(folder.iterdir())


def make_artifact(directory: Path, network: str, pictures: Sequence[Path]) -> None:
    """Write random weights whose answers differ from picture to picture."""
    torch.manual_seed(0)
    manifest = Manifest(class_names=tuple("abcdefghij"), network=network, preprocessing=SETTINGS)
    classifier = Classifier(build(network, len(manifest.class_names)).module)
    images = [torch.from_numpy(preprocess(path.read_bytes(), SETTINGS).copy()) for path in pictures]
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.1)
    with torch.no_grad():
        classifier.train()(torch.stack(images).permute(0, 3, 1, 2).float())
    write_artifact(directory, manifest, classifier, pictures)


def _resized(data: bytes, side: int) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
