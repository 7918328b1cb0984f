"""A network of an ONNX file, computed by ONNX Runtime."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from container.classifier import machine
from container.classifier.preprocessing import Pixels


class NotQuantizedError(Exception):
    """The network cannot be quantized, for the reason in the message."""


class OnnxNetwork:
    """An int8 network, or the float32 network that it is compared with, in ONNX Runtime."""

    def __init__(self, onnx_model: Path) -> None:
        """Load the network."""
        # Imported here: if the import fails, float32 is served.
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        if not machine.has_int8_instructions():
            # Without them sums of products can overflow. Computed in float32 the results are
            # correct, as they are on processors that serve int8.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self.session = onnxruntime.InferenceSession(
            onnx_model, options, providers=["CPUExecutionProvider"]
        )
        self.input = self.session.get_inputs()[0].name

    def predict(self, pixels: Pixels) -> npt.NDArray[np.float32]:
        """Return probabilities (N, C) for uint8 pixels (N, H, W, 3).

        Raises:
            NotQuantizedError: the probabilities are not finite.
        """
        probabilities: npt.NDArray[np.float32] = self.session.run(None, {self.input: pixels})[0]
        if not np.isfinite(probabilities).all():
            raise NotQuantizedError("the probabilities of int8 are NaN or infinite")
        return probabilities
