"""AWS's rules on tensors, by name."""

from container.debugger.rules import activations, gradients, images, losses, stalled, weights
from container.debugger.rules.rule import collect

RULES = collect(losses, gradients, activations, weights, images, stalled)
