"""One preprocessing: training's evaluation and serving see the same pixels of the same image."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from container.classifier.artifact import ONNX_MODEL, WEIGHTS, Artifact
from container.classifier.labeled_images import LabeledFile
from container.classifier.preprocessing import Pixels, Preprocessing
from container.networks.network import Classifier, ServedClassifier, build
from container.serving.http.decoding import split_body
from container.training.data.images import ImageSet, decode
from container.training.sagemaker.stop import StopRequest
from tests.odd_images import from_archive, generated
from tests.opt_ml import make_job, train_here
from tests.served import answers

SHARED = Path(__file__).resolve().parent.parent.parent / "shared/data"

CONTENT_TYPES = {".jpeg": "image/jpeg", ".png": "image/png", ".webp": "image/webp"}


def write_generated(directory: Path) -> None:
    for number, (suffix, data) in enumerate(generated(200)):
        (directory / f"{number:03}_generated{suffix}").write_bytes(data)


def write_photographs(directory: Path) -> None:
    for name in ("ants-bees", "dogs"):
        for number, (suffix, data) in enumerate(from_archive(SHARED / f"{name}.tar", 100)):
            (directory / f"{name}-{number:03}_photograph{suffix}").write_bytes(data)


@pytest.fixture(
    scope="module",
    params=[
        write_generated,
        pytest.param(
            write_photographs,
            marks=pytest.mark.skipif(not SHARED.is_dir(), reason="no folder ../shared/data here"),
        ),
    ],
    ids=["generated", "photographs"],
)
def paths(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Sequence[Path]:
    """200 images of odd sizes, modes and orientations."""
    directory = tmp_path_factory.mktemp("images")
    write: Callable[[Path], None] = request.param
    write(directory)
    return sorted(directory.iterdir())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The artifact of a real training."""
    base_dir = make_job(tmp_path_factory.mktemp("job"), image_size="32", epochs="2")
    assert train_here(base_dir, "train") == 0
    return base_dir / "model"


def seen_by_training(paths: Sequence[Path], settings: Preprocessing) -> ImageSet:
    files = [LabeledFile(path, "any") for path in paths]
    return decode(files, ("any",), settings, StopRequest())


def seen_by_serving(paths: Sequence[Path], settings: Preprocessing) -> Pixels:
    types = [CONTENT_TYPES.get(path.suffix, "application/x-image") for path in paths]
    return np.stack(
        [
            image(settings)
            for path, content_type in zip(paths, types, strict=True)
            for image in split_body(
                path.read_bytes(),
                content_type,
                max_bytes=10**9,
                max_images=1,
                has_error_records=False,
            )
        ]
    )


@pytest.mark.parametrize(
    "settings",
    [
        Preprocessing(image_size=32),
        Preprocessing(image_size=224),
        Preprocessing(image_size=64, crop_fraction=0.875),
    ],
    ids=["32", "224", "64-cropped"],
)
def test_training_and_serving_see_the_same_pixels_bit_for_bit(
    paths: Sequence[Path], settings: Preprocessing
) -> None:
    images = seen_by_training(paths, settings)

    assert len(images) == len(paths) == 200
    assert images.paths == tuple(paths)
    assert np.array_equal(images.pixels, seen_by_serving(paths, settings))


def test_torch_and_the_served_network_agree_on_every_image(
    paths: Sequence[Path], model: Path
) -> None:
    manifest = Artifact.read(model).manifest
    pixels = np.array(seen_by_training(paths, manifest.preprocessing).pixels)
    network = build(manifest.network, len(manifest.class_names))
    network.module.load_state_dict(load_file(model / WEIGHTS))
    served = ServedClassifier(Classifier(network.module), manifest.temperature).eval()

    with torch.inference_mode():
        expected = served(torch.from_numpy(pixels)).numpy()

    # Images of which one is answered as the other would show nothing.
    assert np.ptp(expected, axis=0).max() > 0.1
    assert np.abs(answers(model / ONNX_MODEL, pixels) - expected).max() < 1e-3


def test_the_images_are_as_odd_as_they_are_meant_to_be(paths: Sequence[Path]) -> None:
    suffixes = {path.suffix for path in paths}

    assert suffixes == {".jpeg", ".png", ".webp", ".gif", ".bmp", ".tiff", ".avif"}
