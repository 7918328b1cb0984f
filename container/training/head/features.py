"""The features of a frozen backbone: the input of the network's head, computed once."""

import hashlib
import inspect
import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torchvision
from torch import nn

from container.classifier.errors import UserError
from container.networks import network as networks
from container.networks.network import Classifier, Network
from container.training.data.cache import Cache
from container.training.data.images import ImageSet, decoders
from container.training.device import Arithmetic
from container.training.evaluation import inference
from container.training.evaluation.inference import answers
from container.training.progress_bar import ProgressBar
from container.training.sagemaker.stop import Stop

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Features:
    """The inputs of the network's head for the images of a channel."""

    values: npt.NDArray[np.float32]
    """Of shape (N, D), mapped from disk."""

    labels: npt.NDArray[np.int64]
    """Of shape (N,): indices into the class names."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


def find_or_compute(
    network: Network, images: ImageSet, arithmetic: Arithmetic, stop: Stop
) -> Features:
    """Read features from the user's cache on this machine, or compute and store them.

    For jobs of one rank: if several processes need the same features, one computes them and the
    others wait for its lock.

    Raises:
        UserError: the disk is full, or the cache cannot be written.
        Stopped: a stop was requested.
    """
    cache, key = Cache.of_this_user(), _key(network, images, arithmetic)
    with cache.locked(key, stop) as partial:
        stored = cache.find(key)
        if stored is not None:
            with stored:
                values = np.memmap(stored, np.float32, "r").reshape(len(images), -1)
            logger.info("frozen_features=cached images=%d dimensions=%d", *values.shape)
            return Features(values, images.labels)
        found = compute(network, images, arithmetic, stop)
        try:
            cache.reserve(partial, found.values.nbytes)
            partial.write(found.values.data)
            cache.publish(key, partial)
        except OSError as error:
            logger.warning("features are not cached: %s", error.strerror)
    return found


def _key(network: Network, images: ImageSet, arithmetic: Arithmetic) -> str:
    """Return a hash of the images, the frozen weights and the code that computes features."""
    code = decoders() + [inspect.getsource(module) for module in (networks, inference)]
    versions = (torch.__version__, torchvision.__version__)
    parts = (network.name, images.sha256, images.pixels.shape, str(arithmetic), versions, code)
    digest = hashlib.sha256(ascii(parts).encode())
    for name, values in network.module.state_dict().items():
        # The features do not depend on the last head.
        if not name.startswith(f"{network.heads[-1]}."):
            digest.update(ascii((name, values.shape)).encode())
            digest.update(values.detach().cpu().contiguous().numpy().tobytes())
    return f"features-{digest.hexdigest()}"


def compute(network: Network, images: ImageSet, arithmetic: Arithmetic, stop: Stop) -> Features:
    """Compute the input of the network's last head, as in evaluation.

    Raises:
        UserError: the disk is full.
        Stopped: a stop was requested.
    """
    start = time.monotonic()
    classifier = arithmetic.place(Classifier(network.module))
    try:
        # Written and then mapped: written pages do not count as memory of this process.
        with (
            tempfile.TemporaryFile() as file,
            without_head(network),
            ProgressBar("features", len(images)) as bar,
        ):
            for batch in answers(classifier, images, arithmetic):
                stop.check()
                file.write(batch.tobytes())
                bar.update(len(batch))
            file.flush()
            shape = (len(images), batch.shape[1])
            values = np.memmap(file, np.float32, "r", shape=shape)
    except OSError as error:
        raise UserError(
            f"no room for the features of {len(images)} images in {tempfile.gettempdir()} "
            f"({error.strerror}): give the job a larger volume (volume_size)"
        ) from error
    seconds = time.monotonic() - start
    logger.info("frozen_features images=%d dimensions=%d seconds=%.1f", *shape, seconds)
    return Features(values, images.labels)


@contextmanager
def without_head(network: Network) -> Iterator[None]:
    """Make the network return the input of its last head."""
    name = network.heads[-1]
    head = network.module.get_submodule(name)
    network.module.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        network.module.set_submodule(name, head)
