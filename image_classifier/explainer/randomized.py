"""An artifact whose network has forgotten what it learned, to check explanations against.

Of every weight of several dimensions the values are shuffled: what remains are their sizes, which
keep the activations in range (Adebayo et al. 2018, all layers at once).
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from container.classifier.artifact import ONNX_MODEL, Artifact, GoldenAnswer, write_golden, writing
from container.classifier.errors import UserError
from container.classifier.manifest import FLOAT32
from container.classifier.preprocessing import preprocess


def randomize(source: Path, target: Path, seed: int) -> None:
    """Write an artifact like that in `source`, with shuffled weights, into a new folder.

    The server serves it as any other: it has golden answers of its own.

    Raises:
        ArtifactError: there is no artifact in `source`.
        UserError: `target` is in use already.
    """
    if target.exists() and any(target.iterdir()):
        message = f"{target} is not empty: name a new folder"
        raise UserError(message)
    artifact = Artifact.read(source)
    manifest = replace(artifact.manifest, precision=FLOAT32, metrics={}, temperature=1.0)
    with writing(target, manifest) as partial:
        _shuffle(artifact.onnx_model, partial / ONNX_MODEL, seed)
        pixels = [preprocess(each.data, manifest.preprocessing) for each in artifact.golden_answers]
        rows = _answers(partial / ONNX_MODEL, np.stack(pixels))
        write_golden(
            partial,
            [
                (".png", GoldenAnswer(data=each.data, probabilities=tuple(row)))
                for each, row in zip(artifact.golden_answers, rows.tolist(), strict=True)
            ],
        )


def _shuffle(source: Path, target: Path, seed: int) -> None:
    # Here alone: explanations themselves need no network.
    import onnx  # noqa: PLC0415
    from onnx import numpy_helper  # noqa: PLC0415

    rng = np.random.default_rng(seed)
    model = onnx.load(source)
    for tensor in model.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.ndim > 1 and np.issubdtype(values.dtype, np.floating):
            shuffled = rng.permutation(values.ravel()).reshape(values.shape)
            tensor.CopyFrom(numpy_helper.from_array(shuffled, tensor.name))
    onnx.save(model, target)


def _answers(onnx_model: Path, pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(onnx_model, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    rows: npt.NDArray[np.float32] = session.run(None, {name: pixels})[0]
    return rows
