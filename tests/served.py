"""Predict with the ONNX file of an artifact, with the engine of the serving container image."""

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt

from container.classifier.preprocessing import Pixels

# As in serving/model/engine.py: the conversion tools, which are not needed, send telemetry.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

import openvino  # noqa: E402  after the line above


def answers(onnx_model: Path, pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return probabilities (N, C) for pixels (N, S, S, 3), as one batch in float32."""
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    compiled = core.compile_model(core.read_model(onnx_model), "CPU", settings)
    probabilities: npt.NDArray[np.float32] = compiled([pixels])[0]
    return probabilities
