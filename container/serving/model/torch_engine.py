"""Inference on a GPU: PyTorch predicts batches of images with the artifact's weights.

Each batch size is captured once as a CUDA graph; replaying it costs the CPU one call. Without a GPU
the same code runs on the CPU without graphs. That is slower than OpenVINO and meant for tests.
"""

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch import Tensor, nn

from container.classifier import machine
from container.classifier.artifact import WEIGHTS, Artifact
from container.classifier.errors import ArtifactError, UserError
from container.classifier.manifest import FLOAT32, MANIFEST, Manifest
from container.classifier.preprocessing import Pixels
from container.networks.network import Classifier, ServedClassifier, build
from container.serving.model.batching import Batcher, Batching
from container.serving.model.outcome import Probabilities
from container.serving.model.precision import TOLERANCES, Variant, in_order
from container.serving.settings import BFLOAT16, ENGINE, OPENVINO

logger = logging.getLogger(__name__)

# On a GPU, one batch is copied while another one is computed.
LANES = {"cuda": 2, "cpu": 1}

# Before a graph is captured, so that libraries have selected and loaded their kernels.
WARM_UPS = 3

# A process can capture one graph at a time, and must not query the device or allocate or free its
# memory meanwhile. Predictions continue.
_PREPARING = threading.Lock()


class Network:
    """A network on its device, for batches of up to `max_batch_size` images."""

    def __init__(
        self, served: ServedClassifier, *, image_size: int, precision: str, max_batch_size: int
    ) -> None:
        """Move the network to the device and capture its graphs."""
        self.device = _device()
        self._served = served.to(self.device).to(memory_format=torch.channels_last)
        self._precision = precision
        if precision == BFLOAT16:
            _round_weights(served)
        shape = (max_batch_size, image_size, image_size, 3)
        # A batch that is smaller than its graph is padded with earlier images.
        self.pixels = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        self.sizes = batch_sizes(max_batch_size)
        self._launch_lock = threading.Lock()
        self._stream: torch.cuda.Stream | None = None
        self._replays: dict[int, Callable[[], Tensor]] = {}
        if self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            # The weights were copied on another stream.
            torch.cuda.synchronize()
            pool = torch.cuda.graph_pool_handle()
            # The largest first, so that the others fit into its memory. Sharing is safe: the stream
            # runs one graph after another, and each output is copied before the next one starts.
            for size in reversed(self.sizes):
                self._replays[size] = self._capture(size, pool)

    @torch.inference_mode()
    def launch(
        self, pixels: Tensor, probabilities: Tensor, count: int, done: torch.cuda.Event | None
    ) -> None:
        """Launch the prediction of a batch. On a GPU, wait for `done` before reading the result.

        Args:
            pixels: uint8 (max_batch_size, image_size, image_size, 3), in pinned memory for a GPU.
            probabilities: The output, float32 (max_batch_size, classes), likewise.
            count: Images in the batch.
            done: Recorded after the work, on the same stream.
        """
        size = next(size for size in self.sizes if size >= count)
        # The stream runs in order, so nothing is overwritten before it has been read.
        with self._launch_lock, self._on_stream():
            self.pixels[:count].copy_(pixels[:count], non_blocking=True)
            computed = self._replays[size]() if self._replays else self._compute(size)
            probabilities[:count].copy_(computed[:count], non_blocking=True)
            if done is not None:
                done.record()

    def _on_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    @torch.inference_mode()
    def _compute(self, size: int) -> Tensor:
        # Autocast's weight cache does not work with graphs; `_round_weights` replaces it.
        with torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=self._precision == BFLOAT16,
            cache_enabled=False,
        ):
            probabilities: Tensor = self._served(self.pixels[:size]).float()
        return probabilities

    def _capture(self, size: int, pool: object) -> Callable[[], Tensor]:
        """Capture the graph of a batch size; return a function that replays it."""
        with self._on_stream():
            for _ in range(WARM_UPS):
                self._compute(size)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph,
            pool=pool,  # type: ignore[arg-type]  # its type has no public name
            stream=self._stream,
            # Other threads may run other models meanwhile.
            capture_error_mode="thread_local",
        ):
            probabilities = self._compute(size)

        def replay() -> Tensor:
            graph.replay()
            return probabilities

        return replay


class Lane:
    """Pinned memory for one batch at a time, which the GPU accesses directly."""

    def __init__(self, network: Network, classes: int) -> None:
        """Allocate the memory."""
        is_cuda = network.device.type == "cuda"
        self._network = network
        self._pixels = torch.zeros(network.pixels.shape, dtype=torch.uint8, pin_memory=is_cuda)
        self._probabilities = torch.zeros((len(network.pixels), classes), pin_memory=is_cuda)
        # Blocking, so that a waiting thread sleeps and leaves the CPU to image decoding.
        self._done = torch.cuda.Event(blocking=True) if is_cuda else None  # type: ignore[no-untyped-call]

    def infer(self, images: Sequence[Pixels]) -> Probabilities:
        """Predict a batch: N images, each uint8 (S, S, 3), to float32 (N, classes)."""
        np.stack(images, out=self._pixels[: len(images)].numpy())
        try:
            self._network.launch(self._pixels, self._probabilities, len(images), self._done)
            if self._done is not None:
                self._done.synchronize()
        except torch.AcceleratorError:
            # The process has lost the device, so all further batches would fail. On SIGTERM the
            # worker responds to its requests, and gunicorn replaces it.
            logger.critical("the GPU failed; stopping this worker")
            os.kill(os.getpid(), signal.SIGTERM)
            raise
        return self._probabilities[: len(images)].numpy().copy()


class TorchEngine:
    """A network with dynamic batching. `infer` is thread-safe and waits for the image's batch."""

    def __init__(self, manifest: Manifest, variant: Variant, batching: Batching) -> None:
        """Load the weights, prepare each batch size and check it.

        Raises:
            ArtifactError: The weights do not match the network, or computing it fails.
            UserError: PyTorch cannot use the GPU.
            MemoryError: The GPU has not enough memory.
        """
        classes = len(manifest.class_names)
        served = load_network(manifest, variant.network)
        try:
            with _PREPARING:
                network = Network(
                    served,
                    image_size=manifest.preprocessing.image_size,
                    precision=variant.precision,
                    max_batch_size=batching.max_batch_size,
                )
                lanes = [Lane(network, classes) for _ in range(LANES[network.device.type])]
            for lane in lanes:
                check_batch_sizes(lane, network, variant.precision)
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"the GPU has not enough memory: {error}") from error
        except RuntimeError as error:
            raise ArtifactError(
                f"computing {manifest.network} in {variant.precision} failed: {error}"
            ) from error
        self._batcher = Batcher([lane.infer for lane in lanes], batching)
        self.infer = self._batcher.infer
        logger.info("device=%s batch_sizes=%s", network.device, network.sizes)

    def close(self) -> None:
        """Predict the queued images, stop the threads and free the GPU memory."""
        self._batcher.close()
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            with _PREPARING:
                torch.cuda.empty_cache()


def variants(artifact: Artifact, wanted: str) -> Sequence[Variant]:
    """Return the variants that this machine supports, the preferred one first, without int8.

    Raises:
        ArtifactError: The artifact has no weights.
        UserError: PyTorch cannot use the GPU.
    """
    if artifact.weights is None:
        raise ArtifactError(
            f"{MANIFEST} lists no {WEIGHTS}, which PyTorch serves: OpenVINO can do without"
        )
    if _device().type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = machine.has_bfloat16_instructions()
    networks = dict.fromkeys((BFLOAT16, FLOAT32), (artifact.weights, artifact.golden_answers))
    return in_order(networks, [wanted or (BFLOAT16 if has_bfloat16 else FLOAT32)])


def load_network(manifest: Manifest, weights: Path) -> ServedClassifier:
    """Build an artifact's network, from uint8 pixels to probabilities.

    Raises:
        ArtifactError: The file is damaged or belongs to another network.
        UserError: The network is unknown.
    """
    size = manifest.preprocessing.image_size
    network = build(manifest.network, len(manifest.class_names), size).module
    try:
        network.load_state_dict(safetensors.torch.load_file(weights))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"{weights.name} does not match {manifest.network}: {error}") from error
    classifier = Classifier(network, manifest.flips)
    return ServedClassifier(classifier, manifest.temperature).eval().requires_grad_(False)


def batch_sizes(max_batch_size: int) -> Sequence[int]:
    """Return the sizes that are prepared: smaller powers of two, and `max_batch_size`."""
    return [*(2**power for power in range((max_batch_size - 1).bit_length())), max_batch_size]


def _round_weights(served: ServedClassifier) -> None:
    """Round the weights once that autocast would round for each batch."""
    for module in served.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)


def check_batch_sizes(lane: Lane, network: Network, precision: str) -> None:
    """Compare the predictions of all batch sizes; golden images are predicted one at a time.

    Raises:
        ArtifactError: A prediction depends on the batch size.
    """
    image = np.random.default_rng(0).integers(0, 256, network.pixels.shape[1:], np.uint8)
    expected = lane.infer([image])
    for size in network.sizes:
        difference = float(np.abs(lane.infer([image] * size) - expected).max())
        # `not <=` is also true for NaN.
        if not difference <= TOLERANCES[precision]:
            raise ArtifactError(
                f"predictions in a batch of {size} images differ by {difference:.3g}"
            )


def _device() -> torch.device:
    """Return the GPU, else the CPU.

    Raises:
        UserError: PyTorch cannot use the GPU.
    """
    if not machine.gpu_count():
        return torch.device("cpu")
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:
        raise UserError(
            f"PyTorch cannot use the GPU: {error}; fix that, or set {ENGINE}={OPENVINO} to serve "
            "on the CPU"
        ) from error
    # Fixed batch sizes run often, so the search for the fastest algorithm pays off.
    torch.backends.cudnn.benchmark = True
    # TensorFloat-32 has a precision of 11 bits instead of 24.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    return torch.device("cuda", torch.cuda.current_device())
