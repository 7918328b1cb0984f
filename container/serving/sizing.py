"""How many of everything: chosen together from the quota, the memory limit and the network."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

from serving.limits import usable_memory, usable_processors
from serving.settings import MIB, Settings

# A guess, not measured on so many: Python's lock limits what one process can hand to its streams.
PROCESSORS_PER_WORKER = 8

# A worker without its network.
SERVER_BYTES = 200 * MIB

# The network's file, and what a compiled variant keeps besides.
COPIES = 2

# What a model takes while it is loaded, which is its most: 2.5 times ResNet-18's file was seen, and
# 25 MB for a file of 7 MB.
LOADING_COPIES, LOADING_BYTES = 3, 20 * MIB

# Of the memory of a multi-model endpoint that the server and one picture leave; the rest is for
# more pictures and bodies.
MODELS_SHARE = 0.75

# The largest picture with the greediest decoder, WebP's: 50 megapixels of 16 bytes. Written out,
# for gunicorn's master reads this module, and has no other use for NumPy and Pillow.
PICTURE_BYTES = 800_000_000

# Requests in threads, whose bodies are in memory: enough to read the next ones meanwhile.
LEAST_THREADS, MOST_THREADS = 8, 64

# Connections, each of which costs a socket; how long they wait is limited besides.
QUEUE_PER_STREAM = 256


def network_bytes(directory: Path) -> int:
    """Return the size of an artifact's network file, 0 where there is none."""
    files = (path for path in directory.glob("*.onnx") if path.is_file())
    return max((path.stat().st_size for path in files), default=0)


def loaded_bytes(network: int, lone_threads: int) -> int:
    """Return what a model whose network's file has so many bytes takes of memory at most."""
    copies = LOADING_COPIES + (COPIES if lone_threads > 1 else 0)
    return LOADING_BYTES + copies * network


def models_budget(memory: int) -> int:
    """Return the memory that all models of a multi-model endpoint may take, in bytes."""
    return max(0, int(MODELS_SHARE * (memory - SERVER_BYTES - PICTURE_BYTES)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizing:
    """What one server runs; all but `workers` are of each worker."""

    workers: int
    """Processes, each with its own network."""

    streams: int
    """Pictures predicted at a time, each on one processor."""

    lone_threads: int
    """Processors for the picture of a lone request; 1 means that it is predicted as in a crowd."""

    pictures: int
    """Pictures decoded or predicted at a time; those that wait are still compressed."""

    threads: int
    """Requests whose bodies are read, or wait in memory for their pictures' turn."""

    queue: int
    """Connections whose requests wait unread; one more is refused."""

    @classmethod
    def choose(cls, settings: Settings, *, processors: int, memory: int, model_bytes: int) -> Self:
        """Choose what the settings leave open; memory and the model's file are in bytes.

        On a multi-model endpoint there is no such file yet, and the streams are every model's.
        """
        needed = SERVER_BYTES + PICTURE_BYTES
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
        # Spent in this order: the server, one picture, a second compiled variant, more pictures.
        free = memory // workers - needed
        # Many models have no memory for that.
        is_twice = not settings.multi_model and free >= COPIES * model_bytes
        lone_threads = settings.lone_threads or (streams if is_twice else 1)
        if lone_threads > 1:
            free -= COPIES * model_bytes
        # Two more than streams: one waits in the engine for the next free stream, one is decoded.
        pictures = max(1, min(streams + 2, 1 + free // PICTURE_BYTES))
        bodies = (free - (pictures - 1) * PICTURE_BYTES) // settings.max_body_bytes
        return cls(
            workers=workers,
            streams=streams,
            lone_threads=lone_threads,
            pictures=pictures,
            threads=settings.threads or max(LEAST_THREADS, pictures, min(MOST_THREADS, bodies)),
            queue=settings.queue or QUEUE_PER_STREAM * streams,
        )

    @classmethod
    def of_this_container(cls, settings: Settings, model: Path) -> Self:
        """Choose by what this container may use, for the artifact in `model`."""
        return cls.choose(
            settings,
            processors=usable_processors(),
            memory=usable_memory(),
            model_bytes=0 if settings.multi_model else network_bytes(model),
        )

    def __str__(self) -> str:
        """Return it as the log has it."""
        return " ".join(f"{name}={getattr(self, name)}" for name in self.__slots__)
