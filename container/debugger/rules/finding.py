"""What a rule says of a training."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One place at which a rule does not hold."""

    step: int
    tensor: str
    value: float
    sentence: str
    """What was found, with the number and what it is compared to."""

    cause: str
    """The probable one."""

    remedy: str


@dataclass(frozen=True, slots=True)
class Finding:
    """All that a rule found."""

    datapoints: int
    violations: Sequence[Violation] = ()
    lacks: str = ""
    """What more the rule would have to see to judge; empty when it could."""
