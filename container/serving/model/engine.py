"""Inference on the CPU: OpenVINO runs the artifact's ONNX file."""

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np

from container.classifier.errors import ArtifactError
from container.classifier.manifest import FLOAT32, INT8
from container.classifier.preprocessing import Pixels
from container.serving.model.outcome import Probabilities
from container.serving.settings import BFLOAT16

# OpenVINO's import loads its conversion tools, which send telemetry at every start and write an
# identifier into the home folder. OpenVINO runs without them.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

import openvino  # noqa: E402  the line above must come first

Model: TypeAlias = openvino.Model

# By default OpenVINO uses bfloat16 on every processor that has it. The network's file marks which
# operations are int8; this setting is for the others.
PRECISIONS = {FLOAT32: "f32", BFLOAT16: "bf16", INT8: "f32"}


class InferSlot:
    """An inference request of a compiled network, with its input and output tensors."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        """Create the inference request and warm it up."""
        self._request = compiled.create_infer_request()
        # Write into the input tensor: passing the image with each call takes four times as long.
        self._pixels = self._request.get_input_tensor().data
        self.infer(np.zeros(self._pixels.shape[1:], np.uint8))

    def infer(self, image: Pixels) -> Probabilities:
        """Predict an image; return a copy, because the next prediction overwrites the tensor."""
        self._pixels[0] = image
        self._request.infer()
        probabilities: Probabilities = self._request.get_output_tensor().data[0].copy()
        return probabilities


InferSlots: TypeAlias = SimpleQueue[InferSlot]

# Two threads that create their first tensors at the same time can deadlock: one holds Python's
# lock, the other one that of OpenVINO's binding. Seen when starts were repeated.
_FIRST_TENSORS = threading.Lock()


def read_network(onnx_model: Path, image_size: int) -> Model:
    """Read an ONNX file, for one image of `image_size` x `image_size` pixels per inference.

    Streams use the cores as well as batches do, and each batch size would have to be compiled.
    """
    model = openvino.Core().read_model(onnx_model)
    model.reshape([1, image_size, image_size, 3])
    return model


class Engine:
    """A network compiled for this machine. `infer` is thread-safe."""

    def __init__(
        self,
        onnx_model: Path,
        *,
        image_size: int,
        classes: int,
        precision: str,
        streams: int,
        latency_threads: int = 1,
        read: Callable[[Path, int], Model] = read_network,
    ) -> None:
        """Compile the network for throughput, and for latency if `latency_threads` is above 1.

        Args:
            onnx_model: The ONNX file.
            image_size: Width and height of the input, in pixels.
            classes: Number of probabilities.
            precision: A key of `PRECISIONS`.
            streams: Images predicted at the same time, each on one core.
            latency_threads: Cores that predict the only image in the server.
            read: `read_network`, or a cache of it for further precisions of the same file.

        Raises:
            ArtifactError: The network does not turn uint8 pixels into `classes` probabilities.
        """
        core = openvino.Core()
        try:
            # Read once: both compiled networks share the weights in memory.
            model = read(onnx_model, image_size)
            found = (model.input().element_type.to_string(), model.output().partial_shape)
            # Compile both at the same time to start sooner.
            with ThreadPoolExecutor() as threads:
                throughput = threads.submit(_compile, core, model, precision, streams, streams)
                if latency_threads > 1:
                    latency = threads.submit(_compile, core, model, precision, 1, latency_threads)
            # One slot more than streams: OpenVINO starts it the moment a stream is free, which is
            # faster than waking another Python thread.
            self._throughput = _slots(throughput.result(), streams + 1)
            self._latency = _slots(latency.result(), 1) if latency_threads > 1 else SimpleQueue()
        except RuntimeError as error:
            raise ArtifactError(
                f"{onnx_model.name} cannot be compiled: {str(error).strip()}"
            ) from error
        if found != ("u8", openvino.PartialShape([1, classes])):
            raise ArtifactError(f"{onnx_model.name} must turn u8 into [1,{classes}], not {found}")

    def infer(self, image: Pixels, *, is_idle: bool) -> Probabilities:
        """Predict an image; wait for a free slot.

        Args:
            image: uint8 of shape (image_size, image_size, 3).
            is_idle: This is the only image in the server, so it may use all cores.

        Returns:
            float32 of shape (classes,).
        """
        slots = self._latency if is_idle and not self._latency.empty() else self._throughput
        slot = slots.get()
        try:
            return slot.infer(image)
        finally:
            slots.put(slot)

    def close(self) -> None:
        """Do nothing: no thread runs, and the last reference frees the memory."""


def _compile(
    core: openvino.Core, model: openvino.Model, precision: str, streams: int, threads: int
) -> openvino.CompiledModel:
    settings = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        # Two workers pinned to the same cores would halve each other's speed.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", settings)


def _slots(compiled: openvino.CompiledModel, number: int) -> InferSlots:
    slots: InferSlots = SimpleQueue()
    with _FIRST_TENSORS:
        for _ in range(number):
            slots.put(InferSlot(compiled))
    return slots
