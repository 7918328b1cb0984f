"""The network on the processor: OpenVINO runs the artifact's ONNX file."""

import sys
from pathlib import Path
from queue import SimpleQueue

import numpy as np

from classifier.errors import ArtifactError
from classifier.preprocessing import Pixels
from serving.encoding import Probabilities

# OpenVINO's import loads its conversion tools, which report every start to the vendor and write
# an identifier into the home folder. Without them it goes on.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

import openvino  # noqa: E402  the line above must come first

# OpenVINO would otherwise choose bfloat16 wherever the processor has it.
PRECISIONS = {"float32": "f32", "bfloat16": "bf16"}


class Engine:
    """A network compiled for this machine; any number of threads may call `infer`."""

    def __init__(
        self, onnx_model: Path, *, image_size: int, classes: int, precision: str, streams: int
    ) -> None:
        """Compile for as many predictions at a time as `streams`, each on one processor.

        Raises:
            ArtifactError: not a network from uint8 pixels to as many probabilities as `classes`.
        """
        if precision not in PRECISIONS:
            message = f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}"
            raise ArtifactError(message)
        settings = {
            "PERFORMANCE_HINT": "THROUGHPUT",
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "NUM_STREAMS": streams,
            "INFERENCE_NUM_THREADS": streams,
            # Pinned to the same processors, two workers would halve each other's speed.
            "ENABLE_CPU_PINNING": False,
        }
        core = openvino.Core()
        try:
            model = core.read_model(onnx_model)
            # One picture at a time: streams fill the processors as well as batches do, of
            # which each new size would have to be compiled.
            model.reshape([1, image_size, image_size, 3])
            found = (model.input().element_type.to_string(), model.output().partial_shape)
            compiled = core.compile_model(model, "CPU", settings)
        except RuntimeError as error:
            message = f"{onnx_model.name} cannot be compiled: {str(error).strip()}"
            raise ArtifactError(message) from error
        if found != ("u8", openvino.PartialShape([1, classes])):
            message = f"{onnx_model.name} must turn u8 into [1,{classes}], not {found}"
            raise ArtifactError(message)
        self.streams = streams
        self._requests: SimpleQueue[openvino.InferRequest] = SimpleQueue()
        for _ in range(streams):
            self._requests.put(compiled.create_infer_request())

    def infer(self, images: Pixels) -> Probabilities:
        """Predict, waiting for a free stream.

        Args:
            images: uint8 of shape (N, image_size, image_size, 3).

        Returns:
            float32 of shape (N, classes).
        """
        request = self._requests.get()
        try:
            # Copied: the next prediction of this stream overwrites its output.
            return np.concatenate([self._infer_one(request, image) for image in images])
        finally:
            self._requests.put(request)

    @staticmethod
    def _infer_one(request: openvino.InferRequest, image: Pixels) -> Probabilities:
        answer: Probabilities = request.infer({0: image[np.newaxis]}, share_inputs=True)[0]
        return answer
