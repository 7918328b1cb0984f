"""The precisions that an artifact can be served in, and their tolerances."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from container.classifier import machine
from container.classifier.artifact import Artifact, GoldenAnswer
from container.classifier.manifest import FLOAT32, INT8
from container.serving.settings import BFLOAT16

# Largest difference from a golden probability. float32: another processor adds in another order;
# 4e-6 was measured between engines. bfloat16 keeps 8 of float32's 24 bits: 0.05 was measured among
# 2,000 images, for an image between two classes. int8 has separate golden answers; a value about
# half way between two integers is rounded to either: 0.007 was measured between runtimes.
TOLERANCES = {FLOAT32: 1e-3, BFLOAT16: 0.1, INT8: 0.1}


@dataclass(frozen=True, kw_only=True, slots=True)
class Variant:
    """A network in one precision, with the answers that it must reproduce."""

    precision: str

    network: Path
    """The ONNX file for OpenVINO, the weights for PyTorch."""

    golden_answers: Sequence[GoldenAnswer]

    tolerance: float
    """Largest accepted difference of a probability."""


def variants(artifact: Artifact, wanted: str) -> Sequence[Variant]:
    """Return the variants that OpenVINO can serve, by expected speed; float32 is last.

    Args:
        artifact: It has int8 only if training accepted its accuracy.
        wanted: If not empty, the precision that replaces those of the processor's instructions.
    """
    networks = dict.fromkeys((BFLOAT16, FLOAT32), (artifact.onnx_model, artifact.golden_answers))
    if artifact.int8 is not None:
        networks[INT8] = artifact.int8.onnx_model, artifact.int8.golden_answers
    # Without instructions int8 can overflow, and bfloat16 is never faster. With them the server
    # measures which one is.
    has_instructions = {
        INT8: machine.has_int8_instructions(),
        BFLOAT16: machine.has_bfloat16_instructions(),
    }
    fast = (precision for precision, is_fast in has_instructions.items() if is_fast)
    return in_order(networks, [wanted] if wanted else fast)


def in_order(
    networks: Mapping[str, tuple[Path, Sequence[GoldenAnswer]]], precisions: Iterable[str]
) -> Sequence[Variant]:
    """Return the variants in `precisions` that have networks, then float32."""
    return [
        Variant(
            precision=precision,
            network=networks[precision][0],
            golden_answers=networks[precision][1],
            tolerance=TOLERANCES[precision],
        )
        for precision in dict.fromkeys((*precisions, FLOAT32))
        if precision in networks
    ]
