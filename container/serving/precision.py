"""In which precisions an artifact can be served here, and how close to training each must come."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier import processor
from classifier.artifact import Artifact, GoldenAnswer
from serving.settings import BFLOAT16, FLOAT32

# The largest difference between a probability here and the golden one. In float32 another processor
# adds up in another order: 4e-6 was seen between engines. bfloat16 keeps 8 of float32's 24 bits:
# 0.02 was seen, of a network that was hardly sure of anything.
TOLERANCES = {FLOAT32: 1e-3, BFLOAT16: 0.05}


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A network and what it has to answer."""

    precision: str
    onnx_model: Path
    golden_answers: Sequence[GoldenAnswer]

    tolerance: float
    """Of each probability."""


def variants(artifact: Artifact, wanted: str = "") -> Sequence[Variant]:
    """Return what to serve, the best first; the last one is float32, which always works.

    `wanted` overrules what the processor is made for.
    """
    fastest = BFLOAT16 if processor.multiplies_bfloat16() else FLOAT32
    precisions = dict.fromkeys((wanted or fastest, FLOAT32))
    return [
        Variant(
            precision=precision,
            onnx_model=artifact.onnx_model,
            golden_answers=artifact.golden_answers,
            tolerance=TOLERANCES[precision],
        )
        for precision in precisions
    ]
