"""What recording costs: ResNet-18's steps with an observer and without, which take turns.

    OMP_NUM_THREADS=1 PYTHONPATH=container python -m benchmarks.debugger_cost

Pictures are noise of 64 x 64 pixels, batches have 32: a step is short, and recording weighs more
than at 224 pixels. `default` is the policy of a run of 2,000 steps; `tensors` has losses every 10
steps and weights and gradients reduced every 100. What a step costs that records a collection, and
one that records nothing, is the median over their turns; the slowdown adds both up by how often
they come. Processor time, of this process alone: the machine is shared.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torchvision import models

from benchmarks.conditions import conditions
from debugger.hook_configuration import REDUCTIONS, default_collections
from debugger.observer import Observer, Settings
from networks.network import Classifier
from training.cluster import Cluster
from training.hyperparameters import Hyperparameters
from training.pictures import Pictures
from training.recipe import Arithmetic
from training.step import TrainingStep

BATCH, SIDE, TOTAL_STEPS = 32, 64, 2000

# A record of all tensors comes in one step of so many, of a loss in one of the others.
TENSORS, LOSSES = 100, 10


def collections(policy: str) -> list[dict[str, object]]:
    """Return a policy's collections."""
    if policy == "default":
        return default_collections(TOTAL_STEPS)
    tensors = {"train.save_interval": str(TENSORS), "reductions": REDUCTIONS}
    return [
        {
            "CollectionName": "losses",
            "CollectionParameters": {"train.save_interval": str(LOSSES)},
        },
        {"CollectionName": "weights", "CollectionParameters": tensors},
        {"CollectionName": "gradients", "CollectionParameters": tensors},
    ]


def measure(policy: str, rounds: int) -> Mapping[str, float]:
    """Let steps with and without an observer take turns; return a slowdown and its parts."""
    torch.manual_seed(0)
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (BATCH, SIDE, SIDE, 3), np.uint8)
    pictures = Pictures(pixels, random.integers(0, 10, BATCH), (Path("x"),) * BATCH, "")
    network = models.resnet18(num_classes=10)
    classifier = Classifier(network).to(memory_format=torch.channels_last).train()
    groups = [{"params": list(network.parameters()), "factor": 1.0}]
    step = TrainingStep(
        torch.optim.SGD(groups, lr=0.0, momentum=0.9),
        pictures,
        Hyperparameters(augment=False),
        arithmetic=Arithmetic(torch.device("cpu"), torch.float32),
        cluster=Cluster(0, 1),
        half_size_steps=0,
        class_weights=None,
    )
    seconds: dict[str, list[float]] = {"without": [], "nothing": [], "loss": [], "tensors": []}
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory, "debughookconfig.json")
        path.write_text(json.dumps({"CollectionConfigurations": collections(policy)}))
        settings = Settings(
            configuration_path=path,
            profiler_configuration_path=Path(directory, "none"),
            output_dir=Path(directory),
            rules="none",
            is_required=True,
        )
        observer = Observer(settings)
        observer.start(
            network, classifier.normalize, total_steps=TOTAL_STEPS, first_step=0, epoch=0
        )
        for turn in range(-1, rounds):
            kinds = {"tensors": TENSORS * (turn + 1), "loss": LOSSES, "nothing": LOSSES + 1}
            for kind, offset in kinds.items():
                number = offset if kind == "tensors" else TENSORS * (turn + 1) + offset
                own = _time(step, classifier, number, observer)
                without = _time(step, classifier, number, Observer())
                # The first turn warms up.
                if turn >= 0:
                    seconds[kind].append(own)
                    seconds["without"].append(without)
        observer.close()
    return _slowdown(seconds)


def _time(step: TrainingStep, model: Classifier, number: int, observer: Observer) -> float:
    start = time.process_time()
    observer.begin_step(number, 0)
    step(model, number, np.arange(BATCH), 0.0, observer)
    return time.process_time() - start


def _slowdown(seconds: Mapping[str, Sequence[float]]) -> dict[str, float]:
    median = {name: statistics.median(values) for name, values in seconds.items()}
    plain = median["without"]
    extra = {name: median[name] - plain for name in ("nothing", "loss", "tensors")}
    in_hundred = extra["tensors"] + 9 * extra["loss"] + 90 * extra["nothing"]
    return {
        "step_ms": 1000 * plain,
        **{f"{name}_extra_ms": 1000 * value for name, value in extra.items()},
        "slowdown_percent": 100 * in_hundred / (100 * plain),
    }


def main() -> None:
    """Measure, print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=15, help="default: %(default)s")
    rounds = parser.parse_args().rounds
    results = {}
    for policy in ("default", "tensors"):
        results[policy] = measure(policy, rounds)
        words = "  ".join(f"{name} {value:.2f}" for name, value in results[policy].items())
        print(f"{policy:<8} n={rounds}  {words}", flush=True)
    facts = conditions(["torch", "smdebug", "protobuf", "numpy"])
    print(json.dumps({"rounds": rounds, "results": results, "conditions": facts}))


if __name__ == "__main__":
    main()
