"""The input of a training run."""

from collections.abc import Sequence
from dataclasses import dataclass

from container.classifier.preprocessing import Preprocessing
from container.networks.network import Network
from container.training.data.images import ImageSet
from container.training.hyperparameters import Hyperparameters


@dataclass(frozen=True, kw_only=True, slots=True)
class Task:
    """What a job trains on what: checked hyperparameters, a network and decoded images."""

    hyperparameters: Hyperparameters
    preprocessing: Preprocessing
    class_names: Sequence[str]
    network: Network
    weights_source: str | None
    """The pretrained weights that the network has: the SHA-256 of a file, or torchvision's name."""
    training: ImageSet
    validation: ImageSet
    test: ImageSet | None = None

    @property
    def is_pretrained(self) -> bool:
        """Whether the network has pretrained weights."""
        return self.weights_source is not None
