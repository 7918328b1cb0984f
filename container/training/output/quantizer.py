"""Quantizes an ONNX file to int8 with NNCF: `quantizer MODEL PIXELS TARGET`.

A program of its own, because NNCF cannot be stopped from within: training ends it when a stop or
its time limit comes, and continues when it fails.
"""

import argparse
import sys
from pathlib import Path

# NNCF loads what it finds of its other back ends, and reports its use to the vendor.
for _name in ("openvino_telemetry", "openvino", "torch"):
    sys.modules[_name] = None  # type: ignore[assignment]

import nncf  # noqa: E402  the lines above must come first
import numpy as np  # noqa: E402
import onnx  # noqa: E402

from container.training.sagemaker import supervisor  # noqa: E402


def quantize(model: Path, pixels: Path, target: Path, *, is_transformer: bool) -> None:
    """Write `model` in int8, calibrated with uint8 images (N, H, W, 3).

    Weights and activations become int8, with scales of their own for each channel of a weight and
    each layer's activations; what NNCF leaves alone stays float32 (Jacob et al. 2018,
    arXiv 1712.05877; biases corrected as by Nagel et al. 2019, arXiv 1906.04721).
    """
    network = onnx.load(model)
    name = network.graph.input[0].name
    images = [{name: image[np.newaxis]} for image in np.load(pixels, mmap_mode="r")]
    kind = nncf.ModelType.TRANSFORMER if is_transformer else None
    quantized = nncf.quantize(
        network, nncf.Dataset(images), subset_size=len(images), model_type=kind
    )
    onnx.save(quantized, target)


def main() -> None:
    """Quantize as the command line says."""
    parser = argparse.ArgumentParser(prog="container.training.output.quantizer")
    parser.add_argument("model", type=Path)
    parser.add_argument("pixels", type=Path)
    parser.add_argument("target", type=Path)
    parser.add_argument("--transformer", action="store_true")
    arguments = parser.parse_args()
    supervisor.end_with_supervisor()
    if sys.platform == "linux":
        # Where memory runs out, the kernel then ends this program and not the training.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    quantize(
        arguments.model,
        arguments.pixels,
        arguments.target,
        is_transformer=arguments.transformer,
    )


if __name__ == "__main__":
    main()
