"""Quantize an ONNX file to int8 with NNCF: `quantizer MODEL PIXELS TARGET [--transformer]`.

A separate program, because NNCF cannot be interrupted: training kills it after a stop request or
its time limit, and continues if it fails.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

# NNCF imports every backend that is installed, and sends telemetry to its vendor.
for _name in ("openvino_telemetry", "openvino", "torch"):
    sys.modules[_name] = None  # type: ignore[assignment]

import nncf  # noqa: E402  the lines above must come first
import numpy as np  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402

from container.classifier import machine  # noqa: E402
from container.training.sagemaker import supervisor  # noqa: E402


def quantize(model: Path, pixels: Path, target: Path, *, is_transformer: bool) -> None:
    """Quantize `model`, calibrated on uint8 pixels (N, H, W, 3).

    Weights become int8 with a scale per channel, activations with a scale per tensor; layers that
    NNCF skips stay in float32 (Jacob et al. 2018, arXiv 1712.05877). Biases are corrected (Nagel
    et al. 2019, arXiv 1906.04721).
    """
    network = onnx.load(model)
    name = network.graph.input[0].name
    images = [{name: image[np.newaxis]} for image in np.load(pixels, mmap_mode="r")]
    kind = nncf.ModelType.TRANSFORMER if is_transformer else None
    quantized = nncf.quantize(
        network, nncf.Dataset(images), subset_size=len(images), model_type=kind
    )
    onnx.save(quantized, target)


def limit_threads(count: int) -> None:
    """Limit the threads of NNCF's sessions: ONNX Runtime does not read OMP_NUM_THREADS."""
    create = onnxruntime.SessionOptions

    def limited() -> onnxruntime.SessionOptions:
        options = create()
        options.intra_op_num_threads = count
        return options

    onnxruntime.SessionOptions = limited


def main(arguments: Sequence[str]) -> None:
    """Run the command line."""
    model, pixels, target, *options = arguments
    supervisor.end_with_supervisor()
    if (quota := machine.cpu_quota()) is not None:
        limit_threads(max(1, int(quota)))
    if sys.platform == "linux":
        # If memory runs out, the kernel kills this program instead of the training.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    is_transformer = "--transformer" in options
    quantize(Path(model), Path(pixels), Path(target), is_transformer=is_transformer)


if __name__ == "__main__":
    main(sys.argv[1:])
