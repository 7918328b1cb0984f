"""In which precisions an artifact can be served here, and how close to training each must come."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from container.classifier import machine
from container.classifier.artifact import WEIGHTS, Artifact, GoldenAnswer
from container.classifier.errors import ArtifactError
from container.classifier.manifest import MANIFEST
from container.serving.settings import BFLOAT16, FLOAT32, INT8

# The largest difference between a probability here and the golden one. In float32 another processor
# adds up in another order: 4e-6 was seen between engines. bfloat16 keeps 8 of float32's 24 bits:
# 0.05 was seen among 2,000 images, of one between two classes. int8 has golden answers of its
# own. Its sums are exact, but what lies about half way between two integers is rounded to either:
# 0.007 was seen between runtimes.
TOLERANCES = {FLOAT32: 1e-3, BFLOAT16: 0.1, INT8: 0.1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A network and what it has to answer."""

    precision: str

    network: Path
    """The ONNX file; for PyTorch the weights."""

    golden_answers: Sequence[GoldenAnswer]

    tolerance: float
    """Of each probability."""


def variants(artifact: Artifact, wanted: str = "") -> Sequence[Variant]:
    """Return what OpenVINO can serve, the best first; the last one, float32, always works.

    `wanted` overrules what the processor is made for. Only an artifact whose training has found
    int8 good enough has it.
    """
    networks = dict.fromkeys((BFLOAT16, FLOAT32), (artifact.onnx_model, artifact.golden_answers))
    if artifact.int8 is not None:
        networks[INT8] = artifact.int8.onnx_model, artifact.int8.golden_answers
    best = [wanted] if wanted else _fastest()
    return [
        Variant(
            precision=precision,
            network=networks[precision][0],
            golden_answers=networks[precision][1],
            tolerance=TOLERANCES[precision],
        )
        for precision in dict.fromkeys((*best, FLOAT32))
        if precision in networks
    ]


def torch_variants(artifact: Artifact, wanted: str, *, has_bfloat16: bool) -> Sequence[Variant]:
    """Return what PyTorch can serve, as `variants` does; it has no int8.

    Raises:
        ArtifactError: the artifact has no weights.
    """
    if artifact.weights is None:
        message = f"{MANIFEST} lists no {WEIGHTS}, which PyTorch serves: OpenVINO can do without"
        raise ArtifactError(message)
    best = wanted or (BFLOAT16 if has_bfloat16 else FLOAT32)
    return [
        Variant(
            precision=precision,
            network=artifact.weights,
            golden_answers=artifact.golden_answers,
            tolerance=TOLERANCES[precision],
        )
        for precision in dict.fromkeys((best, FLOAT32))
        if precision != INT8
    ]


def _fastest() -> list[str]:
    """Return what the processor has instructions for, the fastest first."""
    has = {INT8: machine.has_int8_instructions(), BFLOAT16: machine.has_bfloat16_instructions()}
    return [precision for precision, is_there in has.items() if is_there]
