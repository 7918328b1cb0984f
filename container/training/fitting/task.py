"""The input of a training run and its result."""

from collections.abc import Sequence
from dataclasses import dataclass

from container.classifier.preprocessing import Preprocessing
from container.networks.network import Classifier, Network
from container.training.data.images import ImageSet
from container.training.device import Arithmetic
from container.training.evaluation.progress import Best
from container.training.hyperparameters import Hyperparameters
from container.training.recipe import Recipe


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


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingResult:
    """What a training run leaves: its best weights and how it got there."""

    classifier: Classifier
    """With the weights of the best epoch, or with the present ones if no epoch was finished."""
    best: Best | None
    history: Sequence[dict[str, float]]
    """The metrics of every finished epoch."""
    recipe: Recipe
    arithmetic: Arithmetic
