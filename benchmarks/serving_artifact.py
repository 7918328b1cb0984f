"""Write an artifact and photographs for the serving benchmarks."""

import dataclasses
import io
import shutil
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn

from container.classifier.artifact import INT8_MODEL, Artifact, extending, write_int8_answers
from container.classifier.manifest import INT8, Manifest
from container.classifier.preprocessing import Preprocessing, preprocess
from container.networks.network import Classifier, build
from container.training.output.export import write_artifact
from container.training.output.onnx_network import OnnxNetwork
from container.training.output.quantization import quantize
from container.training.sagemaker.stop import StopRequest

IMAGES = 64
SETTINGS = Preprocessing(image_size=224, crop_fraction=0.875)


def write_images(folder: Path, data: Path, side: int | None) -> Sequence[Path]:
    """Write photographs of ants-bees.tar; resize the shorter side to `side` pixels if given."""
    archive = data / "ants-bees.tar"
    if not archive.is_file():
        raise SystemExit(f"no {archive}: --data names the folder that holds it")
    folder.mkdir()
    with tarfile.open(archive) as tar:
        members = [member for member in tar if member.isfile() and "/val/" in member.name]
        chosen = members[:: len(members) // IMAGES][:IMAGES]
        for number, member in enumerate(chosen):
            file = tar.extractfile(member)
            content = file.read() if file else b""
            (folder / f"{number:02}.jpg").write_bytes(_resized(content, side) if side else content)
    return sorted(folder.iterdir())


def make_artifact(directory: Path, network: str, image_files: Sequence[Path]) -> None:
    """Write an artifact with random weights, whose predictions differ between images."""
    torch.manual_seed(0)
    manifest = Manifest(class_names=tuple("abcdefghij"), network=network, preprocessing=SETTINGS)
    classifier = Classifier(build(network, len(manifest.class_names)).module)
    images = [
        torch.from_numpy(preprocess(path.read_bytes(), SETTINGS).copy()) for path in image_files
    ]
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 1.0
        if isinstance(module, nn.Linear):
            # The same confidence at every width: bfloat16 must reproduce the predictions.
            nn.init.normal_(module.weight, std=1.0 / module.in_features**0.5)
    with torch.no_grad():
        classifier.train()(torch.stack(images).permute(0, 3, 1, 2).float())
    write_artifact(directory, manifest, classifier, image_files)


def add_int8(directory: Path, images: Sequence[Path]) -> None:
    """Add an int8 network without measuring its accuracy, because the weights are random."""
    source = Artifact.read(directory)
    pixels = np.stack([preprocess(path.read_bytes(), SETTINGS) for path in images])
    golden = np.stack([preprocess(each.data, SETTINGS) for each in source.golden_answers])
    manifest = dataclasses.replace(source.manifest, precision=INT8)
    with tempfile.TemporaryDirectory() as scratch:
        target = Path(scratch, INT8_MODEL)
        quantize(source.onnx_model, pixels, target, manifest.network, StopRequest())
        answers = OnnxNetwork(target).predict(golden)
        with extending(directory, manifest) as partial:
            shutil.move(target, partial / INT8_MODEL)
            write_int8_answers(partial, answers.tolist())


def _resized(data: bytes, side: int) -> bytes:
    image = Image.open(io.BytesIO(data)).convert("RGB")
    scale = side / min(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    file = io.BytesIO()
    image.resize(size, Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()
