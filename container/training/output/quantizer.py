"""Quantize an ONNX file to int8 with NNCF: `quantizer MODEL PIXELS TARGET`.

A separate program, because NNCF cannot be interrupted: training kills it after a stop request or
its time limit, and continues if it fails.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

# NNCF imports every backend that is installed, and sends telemetry to its vendor.
for _name in ("openvino_telemetry", "openvino", "torch"):
    sys.modules[_name] = None  # type: ignore[assignment]

import nncf  # noqa: E402  the lines above must come first
import numpy as np  # noqa: E402
import numpy.typing as npt  # noqa: E402
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from container.classifier import machine  # noqa: E402
from container.training.sagemaker import supervisor  # noqa: E402

# Operators with weights, of which the last ones may remain in float32.
LAYERS = ("Conv", "Gemm", "MatMul")

# Of int8, whose scales are symmetric.
LARGEST = 127


def quantize(
    model: Path,
    pixels: Path,
    target: Path,
    *,
    is_transformer: bool,
    preset: str = "performance",
    float_layers: int = 0,
    is_diffused: bool = False,
) -> None:
    """Quantize `model`, calibrated on uint8 pixels (N, H, W, 3).

    Weights become int8 with a scale per channel, activations with a scale per tensor; layers that
    NNCF skips stay in float32 (Jacob et al. 2018, arXiv 1712.05877). Biases are corrected (Nagel
    et al. 2019, arXiv 1906.04721). `is_diffused` rounds the weights of convolutions by `diffuse`.
    """
    network = onnx.load(model)
    if is_diffused:
        _diffuse_convolutions(network)
    name = network.graph.input[0].name
    images = [{name: image[np.newaxis]} for image in np.load(pixels, mmap_mode="r")]
    layers = [node.name for node in network.graph.node if node.op_type in LAYERS]
    quantized = nncf.quantize(
        network,
        nncf.Dataset(images),
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
        preset=nncf.QuantizationPreset(preset),
        ignored_scope=nncf.IgnoredScope(names=layers[max(0, len(layers) - float_layers) :]),
    )
    onnx.save(quantized, target)


def diffuse(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Round weights (N, ...) to int8 values, with a scale per channel, by error diffusion.

    The rounding error of each weight is added to the next one (Floyd and Steinberg 1976), so the
    errors of neighboring weights cancel out where neighboring pixels are similar. Rounding to the
    nearest value instead removes most of what fine-tuning has changed: its many small changes are
    below half a step.
    """
    rows = weights.reshape(len(weights), -1).astype(np.float64)
    scales = np.maximum(np.abs(rows).max(axis=1), np.finfo(np.float32).tiny) / LARGEST
    rounded, error = np.empty_like(rows), np.zeros(len(rows))
    for column, values in enumerate((rows / scales[:, np.newaxis]).T):
        wanted = values + error
        rounded[:, column] = np.clip(np.round(wanted), -LARGEST, LARGEST)
        error = wanted - rounded[:, column]
    return (rounded * scales[:, np.newaxis]).reshape(weights.shape).astype(np.float32)


def _diffuse_convolutions(network: onnx.ModelProto) -> None:
    """Round the weights of all convolutions. NNCF then finds the same scales and values."""
    names = {node.input[1] for node in network.graph.node if node.op_type == "Conv"}
    for weights in network.graph.initializer:
        if weights.name in names:
            rounded = diffuse(numpy_helper.to_array(weights))
            weights.CopyFrom(numpy_helper.from_array(rounded, weights.name))


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
    parser = argparse.ArgumentParser()
    parser.add_argument("paths", nargs=3, type=Path)
    parser.add_argument("--preset", default="performance")
    parser.add_argument("--float-layers", type=int, default=0)
    parser.add_argument("--diffused", action="store_true")
    parser.add_argument("--transformer", action="store_true")
    options = parser.parse_args(arguments)
    supervisor.end_with_supervisor()
    if (quota := machine.cpu_quota()) is not None:
        limit_threads(max(1, int(quota)))
    if sys.platform == "linux":
        # If memory runs out, the kernel kills this program instead of the training.
        Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
    quantize(
        *options.paths,
        is_transformer=options.transformer,
        preset=options.preset,
        float_layers=options.float_layers,
        is_diffused=options.diffused,
    )


if __name__ == "__main__":
    main(sys.argv[1:])
