"""The trained classifier as an artifact: safetensors, ONNX and golden answers."""

import errno
import io
import logging
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from container.classifier import artifact
from container.classifier.artifact import GoldenAnswer
from container.classifier.errors import UserError
from container.classifier.manifest import Manifest
from container.classifier.preprocessing import Preprocessing, preprocess
from container.networks.network import Classifier, ServedClassifier

GOLDEN_IMAGES = 8

# Larger golden images are stored at the network's input size.
MAX_GOLDEN_BYTES = 2**20

logger = logging.getLogger(__name__)


def write_artifact(
    directory: Path, manifest: Manifest, classifier: Classifier, validation: Sequence[Path]
) -> None:
    """Write the artifact; on failure, a previous artifact is kept.

    Raises:
        UserError: the disk is full.
    """
    classifier = classifier.cpu().to(memory_format=torch.contiguous_format).eval()
    served = ServedClassifier(classifier, manifest.temperature).eval()
    try:
        with artifact.writing(directory, manifest) as partial:
            weights = {k: v.contiguous() for k, v in classifier.network.state_dict().items()}
            safetensors.torch.save_file(weights, partial / artifact.WEIGHTS)
            export_onnx(served, manifest.preprocessing.image_size, partial / artifact.ONNX_MODEL)
            answers = golden_answers(served, validation, manifest.preprocessing)
            artifact.write_golden(partial, answers)
    except Exception as error:
        # safetensors and the exporter wrap the file system's error.
        if _disk_is_full(error):
            raise UserError(
                f"no space left for the model artifact in {directory}: give the job a larger "
                "volume (volume_size); a previous artifact is unchanged"
            ) from error
        raise
    logger.info("artifact=%s", directory)


def export_onnx(served: ServedClassifier, image_size: int, path: Path) -> None:
    """Export the graph from uint8 pixels (N, H, W, 3) to probabilities (N, C), for any N."""
    pixels = torch.zeros(2, image_size, image_size, 3, dtype=torch.uint8)
    for name in ("onnxscript", "onnx_ir", "torch.onnx"):
        # They log every step of their optimizer.
        logging.getLogger(name).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        # The exporter uses deprecated functions itself.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            served,
            (pixels,),
            path,
            dynamo=True,
            dynamic_shapes={"pixels": {0: torch.export.Dim("batch")}},
            input_names=["pixels"],
            output_names=["probabilities"],
            external_data=False,
            verbose=False,
        )


@torch.inference_mode()
def golden_answers(
    served: ServedClassifier, paths: Sequence[Path], settings: Preprocessing
) -> list[tuple[str, GoldenAnswer]]:
    """Return a few images, spread evenly over `paths`, with their probabilities."""
    indices = np.linspace(0, len(paths) - 1, min(GOLDEN_IMAGES, len(paths))).astype(int)
    answers = []
    for path in (paths[index] for index in indices):
        data, suffix = path.read_bytes(), path.suffix.lower()
        if len(data) > MAX_GOLDEN_BYTES:
            data, suffix = _shrunk(data, settings), ".png"
        pixels = torch.from_numpy(preprocess(data, settings).copy())[None]
        probabilities = tuple(served(pixels)[0].tolist())
        answers.append((suffix, GoldenAnswer(data=data, probabilities=probabilities)))
    return answers


def _shrunk(data: bytes, settings: Preprocessing) -> bytes:
    file = io.BytesIO()
    Image.fromarray(preprocess(data, settings)).save(file, "PNG")
    return file.getvalue()


def _disk_is_full(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
            return True
        if os.strerror(errno.ENOSPC) in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
