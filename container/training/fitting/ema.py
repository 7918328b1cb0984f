"""An exponential moving average of the weights (Polyak and Juditsky 1992)."""

import copy

import torch

from container.networks.network import Classifier


class WeightAverage:
    """An exponential moving average of a classifier's weights and statistics."""

    def __init__(self, classifier: Classifier, decay: float) -> None:
        """Start from the present weights; with a decay of 0 the average is the classifier."""
        self.decay = decay
        self.classifier = copy.deepcopy(classifier).requires_grad_(False) if decay else classifier

    @torch.no_grad()
    def update(self, classifier: Classifier, step: int) -> None:
        """Add the weights after `step`, counted from 0, to the average."""
        if not self.decay:
            return
        # A smaller decay at first: the weights of the first steps are far from the later ones.
        decay = min(self.decay, (1 + step) / (10 + step))
        averages, values = self.classifier.state_dict(), classifier.state_dict()
        is_real = {name: value.is_floating_point() for name, value in values.items()}
        torch._foreach_lerp_(
            [averages[name] for name in values if is_real[name]],
            [values[name] for name in values if is_real[name]],
            1 - decay,
        )
        for name in values:
            if not is_real[name]:
                averages[name].copy_(values[name])
