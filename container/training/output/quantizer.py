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
import onnx  # noqa: E402
import onnxruntime  # noqa: E402
from onnx import numpy_helper  # noqa: E402

from container.training.output.rounding import diffuse  # noqa: E402
from container.training.sagemaker import supervisor  # noqa: E402

# Operators with weights, of which the last ones may remain in float32.
LAYERS = ("Conv", "Gemm", "MatMul")


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
    name = network.graph.input[0].name
    images = [{name: image[np.newaxis]} for image in np.load(pixels, mmap_mode="r")]
    layers = [node.name for node in network.graph.node if node.op_type in LAYERS]
    in_float = layers[max(0, len(layers) - float_layers) :]
    if is_diffused:
        _diffuse_convolutions(network, in_float)
    quantized = nncf.quantize(
        network,
        nncf.Dataset(images),
        subset_size=len(images),
        model_type=nncf.ModelType.TRANSFORMER if is_transformer else None,
        preset=nncf.QuantizationPreset(preset),
        ignored_scope=nncf.IgnoredScope(names=in_float),
    )
    onnx.save(quantized, target)


def _diffuse_convolutions(network: onnx.ModelProto, in_float: Sequence[str]) -> None:
    """Round the weights of the other convolutions. NNCF then finds the same scales and values."""
    nodes = (node for node in network.graph.node if node.op_type == "Conv")
    names = {node.input[1] for node in nodes if node.name not in in_float}
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
    parser.add_argument("--threads", type=int, required=True)
    options = parser.parse_args(arguments)
    supervisor.end_with_supervisor()
    limit_threads(options.threads)
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
