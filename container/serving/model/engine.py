"""The network on the processor: OpenVINO runs the artifact's ONNX file."""

import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import SimpleQueue
from typing import TypeAlias

import numpy as np

from container.classifier.errors import ArtifactError
from container.classifier.preprocessing import Pixels
from container.serving.model.outcome import Probabilities
from container.serving.settings import BFLOAT16, FLOAT32, INT8

# OpenVINO's import loads its conversion tools, which report every start to the vendor and write
# an identifier into the home folder. Without them it continues.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

import openvino  # noqa: E402  the line above must come first

# OpenVINO would otherwise choose bfloat16 wherever the processor has it. What is int8 is said in
# the network's own file; this is for the rest of it.
PRECISIONS = {FLOAT32: "f32", BFLOAT16: "bf16", INT8: "f32"}


class Place:
    """An image's place in a compiled network, which predicts as many at a time as streams."""

    def __init__(self, compiled: openvino.CompiledModel) -> None:
        """Make the place and warm it up."""
        self._request = compiled.create_infer_request()
        # Written in place: handed over with each call, an image costs four times as much.
        self._pixels = self._request.get_input_tensor().data
        self.infer(np.zeros(self._pixels.shape[1:], np.uint8))

    def infer(self, image: Pixels) -> Probabilities:
        """Predict; the answer is a copy, for the next prediction overwrites its place."""
        self._pixels[0] = image
        self._request.infer()
        answer: Probabilities = self._request.get_output_tensor().data[0].copy()
        return answer


Places: TypeAlias = SimpleQueue[Place]

# Two threads that make their first tensors at once can wait for each other for ever, one holding
# Python's lock and one that of OpenVINO's binding: seen when starts were repeated.
_FIRST_TENSORS = threading.Lock()


class Engine:
    """A network compiled for this machine; any number of threads may call `infer`."""

    def __init__(
        self,
        onnx_model: Path,
        *,
        image_size: int,
        classes: int,
        precision: str,
        streams: int,
        latency_threads: int = 1,
    ) -> None:
        """Compile for as many predictions at a time as `streams`, each on one processor.

        With `latency_threads` above 1, compile once more for a lone prediction on as many.

        Raises:
            ArtifactError: not a network from uint8 pixels to as many probabilities as `classes`.
        """
        core = openvino.Core()
        try:
            # Once: both compiled variants share what it keeps in memory.
            model = core.read_model(onnx_model)
            # One image at a time: streams fill the processors as well as batches do, of
            # which each new size would have to be compiled.
            model.reshape([1, image_size, image_size, 3])
            found = (model.input().element_type.to_string(), model.output().partial_shape)
            # At the same time, because a start should be quick.
            with ThreadPoolExecutor() as threads:
                crowd = threads.submit(_compile, core, model, precision, streams, streams)
                if latency_threads > 1:
                    lone = threads.submit(_compile, core, model, precision, 1, latency_threads)
            # One more than streams: OpenVINO itself begins with it the moment a stream is free,
            # while Python's threads would have to wake each other first.
            self._crowd = _places(crowd.result(), streams + 1)
            self._lone = _places(lone.result(), 1) if latency_threads > 1 else SimpleQueue()
        except RuntimeError as error:
            message = f"{onnx_model.name} cannot be compiled: {str(error).strip()}"
            raise ArtifactError(message) from error
        if found != ("u8", openvino.PartialShape([1, classes])):
            message = f"{onnx_model.name} must turn u8 into [1,{classes}], not {found}"
            raise ArtifactError(message)

    def infer(self, image: Pixels, *, is_idle: bool) -> Probabilities:
        """Predict, waiting for a free place.

        Args:
            image: uint8 of shape (image_size, image_size, 3).
            is_idle: nothing else is to be predicted, so that all processors may work on this.

        Returns:
            float32 of shape (classes,).
        """
        places = self._lone if is_idle and not self._lone.empty() else self._crowd
        place = places.get()
        try:
            return place.infer(image)
        finally:
            places.put(place)

    def close(self) -> None:
        """Do nothing: no thread of ours runs, and the memory goes with the last reference."""


def _compile(
    core: openvino.Core, model: openvino.Model, precision: str, streams: int, threads: int
) -> openvino.CompiledModel:
    settings = {
        "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": threads,
        # Pinned to the same processors, two workers would halve each other's speed.
        "ENABLE_CPU_PINNING": False,
    }
    return core.compile_model(model, "CPU", settings)


def _places(compiled: openvino.CompiledModel, number: int) -> Places:
    """Return so many of a compiled network's places, warmed up."""
    places: Places = SimpleQueue()
    with _FIRST_TENSORS:
        for _ in range(number):
            places.put(Place(compiled))
    return places
