"""The network on a GPU: PyTorch computes images in batches, from an artifact's weights.

Of each size that batches come in, the work is recorded once as a CUDA graph and then replayed,
which costs the processor one call. On a machine without a GPU the same code computes on the
processor, without graphs: slower than OpenVINO, for tests and for trying it.
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
from container.classifier.artifact import Artifact
from container.classifier.errors import ArtifactError, UserError
from container.classifier.manifest import Manifest
from container.classifier.preprocessing import Pixels
from container.networks.network import Classifier, ServedClassifier, build
from container.serving.model.batching import Batcher, Batching
from container.serving.model.outcome import Probabilities
from container.serving.model.precision import TOLERANCES, Variant, torch_variants
from container.serving.settings import BFLOAT16, ENGINE, OPENVINO

logger = logging.getLogger(__name__)

# On a GPU one batch is copied while another is computed; a processor has nothing to do meanwhile.
LANES = {"cuda": 2, "cpu": 1}

# Before the recording: libraries choose and load what they compute with.
WARM_UPS = 3

# A process may record one graph at a time, and neither ask the device nor take or free its memory
# meanwhile. Those who only predict continue.
_PREPARING = threading.Lock()


class Network:
    """A network on its device, ready for batches of any size up to the largest."""

    def __init__(
        self, served: ServedClassifier, *, image_size: int, precision: str, max_batch_size: int
    ) -> None:
        """Move `served` to the device, and record it there."""
        self.device = _device()
        self._served = served.to(self.device).to(memory_format=torch.channels_last)
        self._precision = precision
        if precision == BFLOAT16:
            _round_weights(served)
        shape = (max_batch_size, image_size, image_size, 3)
        # Images that a larger batch left here are computed in vain.
        self.pixels = torch.zeros(shape, dtype=torch.uint8, device=self.device)
        self.sizes = batch_sizes(max_batch_size)
        self._launching = threading.Lock()
        self._stream: torch.cuda.Stream | None = None
        self._replays: dict[int, Callable[[], Tensor]] = {}
        if self.device.type == "cuda":
            self._stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]
            # What came before was another stream's.
            torch.cuda.synchronize()
            pool = torch.cuda.graph_pool_handle()
            # The largest first: the others find room in its memory. They may share it, for the
            # stream computes one after the other, and each answer is copied before the next.
            for size in reversed(self.sizes):
                self._replays[size] = self._record(size, pool)

    @torch.inference_mode()
    def launch(
        self, pixels: Tensor, answers: Tensor, count: int, done: torch.cuda.Event | None
    ) -> None:
        """Have the first `count` of `answers` computed; on a GPU they are there after `done`.

        Args:
            pixels: uint8 (max_batch_size, image_size, image_size, 3), in pinned memory for a GPU.
            answers: float32 (max_batch_size, classes), likewise.
            count: Images in the batch.
            done: Recorded behind the work.
        """
        size = next(size for size in self.sizes if size >= count)
        # In the stream's order: nothing is overwritten before it was read.
        with self._launching, self._on_stream():
            self.pixels[:count].copy_(pixels[:count], non_blocking=True)
            computed = self._replays[size]() if self._replays else self._compute(size)
            answers[:count].copy_(computed[:count], non_blocking=True)
            if done is not None:
                done.record()

    def _on_stream(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream) if self._stream else nullcontext()

    @torch.inference_mode()
    def _compute(self, size: int) -> Tensor:
        # Its cache of rounded weights would go stale in a graph; what pays is rounded already.
        with torch.autocast(
            self.device.type,
            torch.bfloat16,
            enabled=self._precision == BFLOAT16,
            cache_enabled=False,
        ):
            probabilities: Tensor = self._served(self.pixels[:size]).float()
        return probabilities

    def _record(self, size: int, pool: object) -> Callable[[], Tensor]:
        """Record the work for a batch of `size`; return what does it again, on the stream."""
        with self._on_stream():
            for _ in range(WARM_UPS):
                self._compute(size)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(
            graph,
            pool=pool,  # type: ignore[arg-type]  # whose type has no public name
            stream=self._stream,
            # Other models' threads predict meanwhile.
            capture_error_mode="thread_local",
        ):
            answers = self._compute(size)

        def replay() -> Tensor:
            graph.replay()
            return answers

        return replay


class Lane:
    """Pinned memory for one batch at a time, which the GPU reads and writes directly."""

    def __init__(self, network: Network, classes: int) -> None:
        """Allocate the memory."""
        is_cuda = network.device.type == "cuda"
        self._network = network
        self._pixels = torch.zeros(network.pixels.shape, dtype=torch.uint8, pin_memory=is_cuda)
        self._answers = torch.zeros((len(network.pixels), classes), pin_memory=is_cuda)
        # Blocking: a waiting thread sleeps and leaves the CPU to decoding.
        self._done = torch.cuda.Event(blocking=True) if is_cuda else None  # type: ignore[no-untyped-call]

    def infer(self, images: Sequence[Pixels]) -> Probabilities:
        """Predict a batch: uint8 (S, S, 3) each, to float32 (N, classes)."""
        np.stack(images, out=self._pixels[: len(images)].numpy())
        try:
            self._network.launch(self._pixels, self._answers, len(images), self._done)
            if self._done is not None:
                self._done.synchronize()
        except torch.AcceleratorError:
            # The process has lost the device: all further batches would fail. gunicorn replaces the
            # worker after it has responded to its requests.
            logger.critical("the GPU failed, and with it this worker")
            os.kill(os.getpid(), signal.SIGTERM)
            raise
        return self._answers[: len(images)].numpy().copy()


class TorchEngine:
    """A network for any number of threads, who wait in `infer` for their images' batches."""

    def __init__(self, manifest: Manifest, variant: Variant, batching: Batching) -> None:
        """Load the weights, get ready for every size of batch and try each.

        Raises:
            ArtifactError: the weights are not the network's, or it cannot be computed.
            UserError: a GPU is there that PyTorch cannot use.
            MemoryError: the GPU's did not suffice.
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
                _check(lane, network, variant.precision)
        except torch.OutOfMemoryError as error:
            raise MemoryError(f"the GPU's memory did not suffice: {error}") from error
        except RuntimeError as error:
            raise ArtifactError(
                f"{manifest.network} cannot be computed in {variant.precision}: {error}"
            ) from error
        self._batcher = Batcher([lane.infer for lane in lanes], batching)
        self.infer = self._batcher.infer
        logger.info("device=%s batch_sizes=%s", network.device, network.sizes)

    def close(self) -> None:
        """Answer who waits, end the threads, and give the GPU's memory back."""
        self._batcher.close()
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            with _PREPARING:
                torch.cuda.empty_cache()


def variants(artifact: Artifact, wanted: str) -> Sequence[Variant]:
    """Return what can be served here, the best first.

    Raises:
        ArtifactError: the artifact has no weights.
        UserError: a GPU is there that PyTorch cannot use.
    """
    if _device().type == "cuda":
        has_bfloat16 = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        has_bfloat16 = machine.has_bfloat16_instructions()
    return torch_variants(artifact, wanted, has_bfloat16=has_bfloat16)


def load_network(manifest: Manifest, weights: Path) -> ServedClassifier:
    """Build an artifact's network, from uint8 pixels to probabilities.

    Raises:
        ArtifactError: the file is damaged, or of another network.
        UserError: the network is unknown.
    """
    size = manifest.preprocessing.image_size
    network = build(manifest.network, len(manifest.class_names), size).module
    try:
        network.load_state_dict(safetensors.torch.load_file(weights))
    except (RuntimeError, safetensors.SafetensorError) as error:
        raise ArtifactError(f"{weights.name} is not of {manifest.network}: {error}") from error
    classifier = Classifier(network, manifest.flips)
    return ServedClassifier(classifier, manifest.temperature).eval().requires_grad_(False)


def batch_sizes(most: int) -> Sequence[int]:
    """Return the sizes that are computed: powers of two, and the most."""
    return [*(2**power for power in range((most - 1).bit_length())), most]


def _round_weights(served: ServedClassifier) -> None:
    """Round what autocast would round at every batch."""
    for module in served.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.to(torch.bfloat16)


def _check(lane: Lane, network: Network, precision: str) -> None:
    """Compare all sizes of batches, of which the golden answers see the smallest.

    Raises:
        ArtifactError: an image's answer depends on the others.
    """
    image = np.random.default_rng(0).integers(0, 256, network.pixels.shape[1:], np.uint8)
    expected = lane.infer([image])
    for size in network.sizes:
        difference = float(np.abs(lane.infer([image] * size) - expected).max())
        # This way round, NaN fails too.
        if not difference <= TOLERANCES[precision]:
            raise ArtifactError(
                f"{size} images together get answers that differ by {difference:.3g}"
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
            f"there is a GPU that PyTorch cannot use: {error}; fix that, or set "
            f"{ENGINE}={OPENVINO} to serve on the processor"
        ) from error
    # Every size of batch is computed often enough for the search for its best algorithm to pay.
    torch.backends.cudnn.benchmark = True
    # float32 is to be float32: TensorFloat-32 has 11 of its 24 bits.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]
    return torch.device("cuda", torch.cuda.current_device())
