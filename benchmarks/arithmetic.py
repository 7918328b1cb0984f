"""Images per second of training steps in each number format and memory layout, family by family.

    python -m benchmarks.arithmetic [NETWORK ...]

What `precision=auto` and the layout of every network rest on. Formats and layouts take turns;
medians are printed.
"""

import argparse
import itertools
import statistics
import time
from collections import defaultdict

import torch
from torch.nn.functional import cross_entropy

from benchmarks.conditions import print_results
from container.networks.network import build

SIZE, BATCH_SIZE, CLASSES = 224, 8, 10

NETWORKS = (
    "squeezenet1_0",
    "resnet18",
    "resnet50",
    "vgg16",
    "densenet121",
    "regnet_y_400mf",
    "convnext_tiny",
    "swin_t",
    "vit_b_16",
    "mobilenet_v3_large",
    "efficientnet_b0",
    "shufflenet_v2_x1_0",
)
FORMATS = {"float32": torch.float32, "bfloat16": torch.bfloat16}
LAYOUTS = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}


def images_per_second(name: str, dtype: torch.dtype, layout: torch.memory_format) -> float:
    """Time a step on random images, after one that warms up."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    module = build(name, CLASSES, SIZE).module.train().to(device).to(memory_format=layout)
    optimizer = torch.optim.AdamW(module.parameters(), lr=1e-4, fused=True)
    images = torch.rand(BATCH_SIZE, 3, SIZE, SIZE, device=device).to(memory_format=layout)
    labels = torch.arange(BATCH_SIZE, device=device) % CLASSES
    start = 0.0
    for _ in range(2):
        start = time.monotonic()
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            logits = module(images).float()
        cross_entropy(logits, labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        # Waits for the device.
        float(logits.detach().sum())
        optimizer.zero_grad()
    return BATCH_SIZE / (time.monotonic() - start)


def main() -> None:
    """Measure, print a row a network and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("networks", nargs="*", default=NETWORKS)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    results: dict[str, dict[str, float]] = {}
    for name in arguments.networks:
        speeds = defaultdict(list)
        for _ in range(arguments.rounds):
            for dtype, layout in itertools.product(FORMATS, LAYOUTS):
                speed = images_per_second(name, FORMATS[dtype], LAYOUTS[layout])
                speeds[f"{dtype}, {layout}"].append(speed)
        results[name] = {key: statistics.median(values) for key, values in speeds.items()}
        row = "  ".join(f"{key} {speed:.1f}" for key, speed in results[name].items())
        print(f"{name:<20} {row}", flush=True)
    print_results(["torch", "torchvision"], images_per_second=results)


if __name__ == "__main__":
    main()
