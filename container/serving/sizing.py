"""How many of everything: chosen together from the quota, the memory limit and the network."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from container.classifier.machine import gpu_count, memory_limit_bytes, usable_cpus
from container.serving.gpu import serves_batches
from container.serving.settings import MIB, Settings

# A guess, not measured on so many: Python's lock limits what one process can hand to its streams.
PROCESSORS_PER_WORKER = 8

# A worker without its network; with PyTorch and CUDA's libraries, a guess that errs on the safe
# side: 0.75 GB were seen without a GPU.
SERVER_BYTES = 200 * MIB
TORCH_SERVER_BYTES = 3000 * MIB

# The network's file, and what a compiled variant keeps besides.
COPIES = 2

# What a model takes while it is loaded, which is its most: 2.5 times ResNet-18's file was seen, and
# 25 MB for a file of 7 MB. Each prediction at a time has besides what lies between the layers, by
# the pixels of the network's input: 16 numbers in float32 for each, a guess on the safe side.
LOADING_COPIES, LOADING_BYTES, LAYER_BYTES = 3, 20 * MIB, 64

# Of the memory of a multi-model endpoint that the server and one image leave; the rest is for
# more images and bodies.
MODELS_SHARE = 0.75

# The largest image with the greediest decoder, WebP's: 50 megapixels of 16 bytes. Written out,
# for gunicorn's master reads this module, and has no other use for NumPy and Pillow.
IMAGE_BYTES = 800_000_000

# Requests in threads, whose bodies are in memory: enough to read the next ones meanwhile. More, and
# they would wait there for so long that refusing them, by then at full price, became common.
LEAST_THREADS, THREADS_PER_IMAGE = 8, 4

# Connections, each of which costs a socket; how long they wait is limited besides.
QUEUE_PER_STREAM = 128


def network_bytes(directory: Path) -> int:
    """Return the size of an artifact's network file, 0 where there is none."""
    files = (path for path in directory.glob("*.onnx") if path.is_file())
    return max((path.stat().st_size for path in files), default=0)


def server_bytes(*, batches: bool) -> int:
    """Return what a worker takes of memory without its network, with PyTorch or without."""
    return TORCH_SERVER_BYTES if batches else SERVER_BYTES


def models_budget(memory: int, server: int = SERVER_BYTES) -> int:
    """Return the memory that all models of a multi-model endpoint may take, in bytes."""
    return max(0, int(MODELS_SHARE * (memory - server - IMAGE_BYTES)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizing:
    """What one server runs; all but `workers` are of each worker."""

    workers: int
    """Processes, each with its own network."""

    streams: int
    """Images predicted at a time, each on one processor."""

    latency_threads: int
    """Processors for the image of a lone request; 1 means that it is predicted as in a crowd."""

    images: int
    """Images decoded or predicted at a time; those that wait are still compressed."""

    threads: int
    """Requests whose bodies are read, or wait in memory for their images' turn."""

    queue: int
    """Connections whose requests wait unread; one more is refused."""

    batched: int = 0
    """Images, besides those, that are decoded and wait for their batch or are in one; 0 where
    OpenVINO predicts one by one."""

    @classmethod
    def choose(cls, settings: Settings, *, processors: int, memory: int, model_bytes: int) -> Self:
        """Choose what the settings leave open; memory and the model's file are in bytes.

        On a multi-model endpoint there is no such file yet, and the streams are every model's.
        """
        needed = SERVER_BYTES + IMAGE_BYTES
        if settings.multi_model:
            # The process that is asked for a model must be the one that was told to load it.
            workers, most_streams = 1, PROCESSORS_PER_WORKER
            needed += models_budget(memory)
        else:
            needed += COPIES * model_bytes
            workers = settings.workers or max(
                1, min(-(-processors // PROCESSORS_PER_WORKER), memory // needed)
            )
            most_streams = processors
        streams = settings.streams or max(1, min(processors // workers, most_streams))
        # Spent in this order: the server, one image, a second compiled variant, more images.
        free = memory // workers - needed
        # Many models have no memory for that.
        is_twice = not settings.multi_model and free >= COPIES * model_bytes
        latency_threads = settings.latency_threads or (streams if is_twice else 1)
        if latency_threads > 1:
            free -= COPIES * model_bytes
        # Two more than streams: one waits in the engine for the next free stream, one is decoded.
        images = max(1, min(streams + 2, 1 + free // IMAGE_BYTES))
        bodies = (free - (images - 1) * IMAGE_BYTES) // settings.max_body_bytes
        return cls(
            workers=workers,
            streams=streams,
            latency_threads=latency_threads,
            images=images,
            threads=settings.threads
            or max(LEAST_THREADS, images, min(THREADS_PER_IMAGE * images, bodies)),
            queue=settings.queue or QUEUE_PER_STREAM * streams,
        )

    @classmethod
    def for_batches(
        cls, settings: Settings, *, processors: int, memory: int, model_bytes: int, gpus: int
    ) -> Self:
        """Choose for PyTorch: a process for each GPU, all processors to decode for them."""
        workers = 1 if settings.multi_model else settings.workers or max(1, gpus)
        server = server_bytes(batches=True)
        models = models_budget(memory, server) if settings.multi_model else COPIES * model_bytes
        free = memory // workers - server - models - IMAGE_BYTES
        images = max(1, min(-(-processors // workers), 1 + free // IMAGE_BYTES))
        # One batch is computed, the next one comes together.
        batched = 2 * settings.max_batch_size
        bodies = (free - (images - 1) * IMAGE_BYTES) // settings.max_body_bytes
        most = THREADS_PER_IMAGE * images + batched
        return cls(
            workers=workers,
            streams=1,
            latency_threads=1,
            images=images,
            threads=settings.threads or max(LEAST_THREADS, images, min(most, bodies)),
            queue=settings.queue or QUEUE_PER_STREAM * images,
            batched=batched,
        )

    @classmethod
    def of_this_container(cls, settings: Settings, model: Path) -> Self:
        """Choose by what this container may use, for the artifact in `model`.

        Raises:
            UserError: the settings name an engine that is not there.
        """
        processors, memory = math.ceil(usable_cpus()), memory_limit_bytes()
        model_bytes = 0 if settings.multi_model else network_bytes(model)
        if serves_batches(settings):
            return cls.for_batches(
                settings,
                processors=processors,
                memory=memory,
                model_bytes=model_bytes,
                gpus=gpu_count(),
            )
        return cls.choose(settings, processors=processors, memory=memory, model_bytes=model_bytes)

    def loaded_bytes(self, network: int, image_size: int) -> int:
        """Return what a model takes of memory at most.

        Args:
            network: Bytes of its network's file.
            image_size: Of its input, in pixels.
        """
        is_twice = self.latency_threads > 1
        copies = LOADING_COPIES + (COPIES if is_twice else 0)
        # One more than streams waits in the engine.
        predictions = self.streams + 1 + is_twice
        return LOADING_BYTES + copies * network + predictions * LAYER_BYTES * image_size**2

    def __str__(self) -> str:
        """Return it as the log has it."""
        return " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
