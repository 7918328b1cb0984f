"""What a frozen backbone makes of pictures: the input of the network's head, computed once."""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from tqdm import tqdm

from classifier.errors import UserError
from networks.network import Classifier, Network
from training.inference import answers
from training.pictures import Pictures
from training.recipe import Arithmetic

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Features:
    """What the network's head sees of pictures."""

    values: npt.NDArray[np.float32]
    """Of shape (N, D), mapped from disk."""

    labels: npt.NDArray[np.int64]
    """Of shape (N,): indices into the class names."""

    def __len__(self) -> int:
        """Return N."""
        return len(self.labels)


def compute(
    network: Network,
    pictures: Pictures,
    arithmetic: Arithmetic,
    check_stop: Callable[[], None],
) -> Features:
    """Compute the input of the network's last head, as in evaluation.

    `check_stop` is called after every batch; what it raises ends the computation.

    Raises:
        UserError: the disk has no room for the features.
    """
    start = time.monotonic()
    try:
        # Written and then mapped: what is written does not count as this process's memory.
        with tempfile.TemporaryFile() as file:
            for batch in _batches(network, pictures, arithmetic):
                check_stop()
                file.write(batch.tobytes())
            file.flush()
            shape = (len(pictures), batch.shape[1])
            values = np.memmap(file, np.float32, "r", shape=shape)
    except OSError as error:
        message = (
            f"no room for the features of {len(pictures)} pictures in {tempfile.gettempdir()} "
            f"({error.strerror}): give the job a larger volume (volume_size)"
        )
        raise UserError(message) from error
    seconds = time.monotonic() - start
    logger.info("frozen_features pictures=%d dimensions=%d seconds=%.1f", *shape, seconds)
    return Features(values, pictures.labels)


def _batches(
    network: Network, pictures: Pictures, arithmetic: Arithmetic
) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the features (n, D) of one batch of pictures after another."""
    classifier = Classifier(network.module).to(arithmetic.device)
    classifier = classifier.to(memory_format=torch.channels_last)
    with (
        _without_head(network),
        # disable=None: a bar on a terminal, none in a log.
        tqdm(total=len(pictures), desc="features", unit=" pictures", disable=None) as bar,
    ):
        for batch in answers(classifier, pictures, arithmetic):
            yield batch
            bar.update(len(batch))


@contextmanager
def _without_head(network: Network) -> Iterator[None]:
    """Let the network return what its last head would get."""
    name = network.heads[-1]
    head = network.module.get_submodule(name)
    network.module.set_submodule(name, nn.Identity())
    try:
        yield
    finally:
        network.module.set_submodule(name, head)
