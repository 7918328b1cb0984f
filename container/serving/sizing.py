"""Derive the sizes of the server from the CPU quota, the memory limit and the network."""

import math
import resource
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from container.classifier.machine import gpu_count, memory_limit_bytes, usable_cpus
from container.serving.gpu import serves_batches
from container.serving.settings import MIB, Settings

# An estimate: the GIL limits how many streams one process can keep busy. Few processes, because
# the threads of one share a network, and OpenVINO releases the GIL. With two processes, kept
# connections were spread unevenly, and half of the CPUs were idle.
CPUS_PER_WORKER = 8

# A worker without its network. With PyTorch and CUDA: an upper estimate, 0.75 GB were measured
# without a GPU.
SERVER_BYTES, TORCH_SERVER_BYTES = 200 * MIB, 3000 * MIB

# The network's file, and the weights that a compiled network stores in addition.
COPIES = 2

# The peak, while a model is loaded: 2.5 times the file was measured for ResNet-18, and 25 MB for a
# file of 7 MB. Activations of each concurrent prediction: at most 16 float32 numbers for each input
# pixel, an upper estimate.
LOADING_COPIES, LOADING_BYTES, ACTIVATION_BYTES = 3, 20 * MIB, 64

# Share of the memory without the server and one image; the rest is for more images and bodies.
MODELS_SHARE = 0.75

# Requests in flight, whose bodies are in memory. With more of them a request would wait longer
# after its body was read, and a rejection would then cost nearly as much as a prediction.
MIN_THREADS, THREADS_PER_IMAGE = 8, 4

# Queued requests: each costs a thread and a socket. WAIT_SECONDS limits their time.
QUEUE_PER_STREAM = 128


def max_open_files() -> int:
    """Return the file descriptors for sockets of a worker, which ends if it needs more."""
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 100


def network_bytes(directory: Path) -> int:
    """Return the size of an artifact's network file, 0 if it has none."""
    files = (path for path in directory.glob("*.onnx") if path.is_file())
    return max((path.stat().st_size for path in files), default=0)


def server_bytes(*, batches: bool) -> int:
    """Return the memory of a worker without its network, with PyTorch or without."""
    return TORCH_SERVER_BYTES if batches else SERVER_BYTES


def models_budget(settings: Settings, memory: int, server: int = SERVER_BYTES) -> int:
    """Return the memory limit of all models of a multi-model endpoint together, in bytes."""
    return max(0, int(MODELS_SHARE * (memory - server - settings.image_bytes)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizing:
    """Sizes of the server; all except `workers` apply to each worker."""

    workers: int
    """Processes, each with a separate copy of the network."""

    streams: int
    """Images predicted at the same time, each on one core."""

    latency_threads: int
    """Cores that predict the only image in the server; 1 uses a stream for it, too."""

    images: int
    """Images decoded or predicted at the same time; queued images are still compressed."""

    threads: int
    """Requests in flight: their bodies are being read, or wait in memory."""

    queue: int
    """Requests that wait unread for a slot; further requests are rejected."""

    batched: int = 0
    """Additional decoded images that wait for a batch or are in one; 0 with OpenVINO."""

    @classmethod
    def choose(cls, settings: Settings, *, processors: int, memory: int, model_bytes: int) -> Self:
        """Choose the sizes that are not set, for OpenVINO.

        Args:
            settings: What is set.
            processors: CPU quota, rounded up.
            memory: Memory limit in bytes.
            model_bytes: Size of the network's file, 0 on a multi-model endpoint.
        """
        needed = SERVER_BYTES + settings.image_bytes
        if settings.multi_model:
            # One process, because every request must find the models that another one loaded.
            workers, max_streams = 1, CPUS_PER_WORKER
            needed += models_budget(settings, memory)
        else:
            needed += COPIES * model_bytes
            workers = settings.workers or max(
                1, min(-(-processors // CPUS_PER_WORKER), memory // needed)
            )
            max_streams = processors
        streams = settings.streams or max(1, min(processors // workers, max_streams))
        # Assigned in this order: the server, one image, a second compiled network, more images.
        free = memory // workers - needed
        # On a multi-model endpoint a second network for each model would take too much.
        has_second = not settings.multi_model and free >= COPIES * model_bytes
        latency_threads = settings.latency_threads or (streams if has_second else 1)
        if latency_threads > 1:
            free -= COPIES * model_bytes
        # Two more than streams: one waits in the engine for the next free stream, one is decoded.
        images, threads = _images_and_threads(settings, free, streams + 2)
        return cls(
            workers=workers,
            streams=streams,
            latency_threads=latency_threads,
            images=images,
            threads=threads,
            queue=_max_queued(settings, streams),
        )

    @classmethod
    def for_batches(
        cls, settings: Settings, *, processors: int, memory: int, model_bytes: int, gpus: int
    ) -> Self:
        """Choose the sizes for PyTorch: one process for each GPU; all cores decode images."""
        workers = 1 if settings.multi_model else settings.workers or max(1, gpus)
        server = server_bytes(batches=True)
        models = COPIES * model_bytes
        if settings.multi_model:
            models = models_budget(settings, memory, server)
        free = memory // workers - server - models - settings.image_bytes
        # The GPU computes one batch while the next one is collected.
        batched = 2 * settings.max_batch_size
        images, threads = _images_and_threads(settings, free, -(-processors // workers), batched)
        return cls(
            workers=workers,
            streams=1,
            latency_threads=1,
            images=images,
            threads=threads,
            queue=_max_queued(settings, images),
            batched=batched,
        )

    @classmethod
    def of_this_container(cls, settings: Settings, model: Path) -> Self:
        """Choose the sizes for this container and the artifact in `model`.

        Raises:
            UserError: the settings name an engine that is not installed.
        """
        processors, memory = math.ceil(usable_cpus()), memory_limit_bytes()
        size = 0 if settings.multi_model else network_bytes(model)
        if not serves_batches(settings):
            return cls.choose(settings, processors=processors, memory=memory, model_bytes=size)
        return cls.for_batches(
            settings, processors=processors, memory=memory, model_bytes=size, gpus=gpu_count()
        )

    def loaded_bytes(self, network: int, image_size: int) -> int:
        """Return the peak memory of a model whose file has `network` bytes.

        `image_size` is the side of its input in pixels.
        """
        has_second = self.latency_threads > 1
        copies = LOADING_COPIES + COPIES * has_second
        # One more than streams waits in the engine.
        predictions = self.streams + 1 + has_second
        return LOADING_BYTES + copies * network + predictions * ACTIVATION_BYTES * image_size**2

    def __str__(self) -> str:
        """Return all sizes on one line, for the log."""
        return " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)


def _max_queued(settings: Settings, streams: int) -> int:
    """Return the set queue or that for `streams`, as far as there are file descriptors."""
    return min(settings.queue or QUEUE_PER_STREAM * streams, max_open_files() // 4)


def _images_and_threads(
    settings: Settings, free: int, max_images: int, batched: int = 0
) -> tuple[int, int]:
    """Divide the free memory between images, the first of which is not in it, and bodies."""
    images = max(1, min(max_images, 1 + free // settings.image_bytes))
    bodies = (free - (images - 1) * settings.image_bytes) // settings.max_body_bytes
    chosen = max(MIN_THREADS, images, min(THREADS_PER_IMAGE * images + batched, bodies))
    return images, settings.threads or chosen
