"""An artifact with shuffled weights, for the sanity check of explanations.

The values of every weight with several dimensions are shuffled. This keeps their magnitudes, and
thereby the activations in range (Adebayo et al. 2018, all layers at once).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import numpy_helper

from container.classifier.artifact import ONNX_MODEL, Artifact, GoldenAnswer, write_golden, writing
from container.classifier.errors import UserError
from container.classifier.manifest import FLOAT32
from container.classifier.preprocessing import preprocess


def randomize(source: Path, target: Path, seed: int) -> None:
    """Write a copy of the artifact in `source` with shuffled weights into a new folder.

    It has its own golden answers, so the server loads it like any other artifact.

    Raises:
        ArtifactError: `source` contains no artifact.
        UserError: `target` is not empty.
    """
    if target.exists() and any(target.iterdir()):
        raise UserError(f"{target} is not empty: name a new folder")
    artifact = Artifact.read(source)
    manifest = replace(artifact.manifest, precision=FLOAT32, metrics={}, temperature=1.0)
    with writing(target, manifest) as partial:
        _shuffle(artifact.onnx_model, partial / ONNX_MODEL, seed)
        session = onnxruntime.InferenceSession(
            partial / ONNX_MODEL, providers=["CPUExecutionProvider"]
        )
        images = [answer.data for answer in artifact.golden_answers]
        pixels = np.stack([preprocess(image, manifest.preprocessing) for image in images])
        (rows,) = session.run(None, {session.get_inputs()[0].name: pixels})
        write_golden(
            partial,
            [
                (".png", GoldenAnswer(data=image, probabilities=tuple(row)))
                for image, row in zip(images, rows.tolist(), strict=True)
            ],
        )


def _shuffle(source: Path, target: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1 and np.issubdtype(values.dtype, np.floating):
            shuffled = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    onnx.save(model, target)
