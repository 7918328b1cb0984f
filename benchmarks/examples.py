"""Each example trained, served and used for a prediction on this machine, with few images.

    python -m benchmarks.examples --data ../shared/data

Uses the settings of the example, but one epoch of small images and no int8 model. The images are a
few per class of fingers.tar, dogs.tar and hurricane.tar; half of the held-out ones are for
validation, half for the test. The weights channel has random weights, because the data sets contain
no ImageNet weights. This tests that all steps work; the accuracy is meaningless.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import torch
import torchvision

from benchmarks.conditions import ROOT, print_results
from benchmarks.job import unpacked
from image_classifier.platform.containers import CHOICE_VARIABLE

EXAMPLES = ROOT / "examples"

SUFFIXES = (".jpg", ".jpeg", ".png")

# Images per class and channel.
FEW = 4

# These replace or complete the settings of an example.
SHORT = {"epochs": 1, "head_epochs": 2, "batch_size": 8, "image_size": 64, "quantize": "none"}


def main() -> None:
    """Run the selected examples; print a table and one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("names", nargs="*", help="names of examples (default: all)")
    parser.add_argument("--data", type=Path, required=True, help="folder of the tar files")
    arguments = parser.parse_args()
    results = {}
    for path in sorted(EXAMPLES.glob("*.toml")):
        if arguments.names and path.stem not in arguments.names:
            continue
        data = path.stem.partition("-")[0]
        if not (arguments.data / f"{data}.tar").is_file():
            print(f"{path.stem:<14} no {data}.tar in {arguments.data}", flush=True)
            continue
        with tempfile.TemporaryDirectory() as scratch:
            folder = Path(scratch)
            fill(unpacked(arguments.data, data, folder / "all"), folder / "images")
            start = time.monotonic()
            predicted = run(path, folder)
            results[path.stem] = {"seconds": time.monotonic() - start, "answer": predicted}
            print(f"{path.stem:<14} {results[path.stem]}", flush=True)
    print_results(["torch", "torchvision"], results=results)


def fill(source: Path, images: Path) -> None:
    """Create channels with a few images per class from the splits of a data set."""
    for split in sorted(path for path in source.glob("*/*") if path.is_dir()):
        for few in _classes(split):
            half = len(few) // 2
            held_out = {"validation": few[:half], "test": few[half:]}
            shares = {"training": few} if split.name.startswith("train") else held_out
            for channel, paths in shares.items():
                for path in paths:
                    target = images / channel / path.relative_to(split)
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.hardlink_to(path)


def _classes(split: Path) -> list[list[Path]]:
    """Return a few images per class, which is a folder or the end of the file names."""
    found: dict[str, list[Path]] = {}
    for path in sorted(split.rglob("*")):
        if path.suffix.lower() in SUFFIXES:
            name = path.stem.rpartition("_")[2] if path.parent == split else path.parent.name
            found.setdefault(name, []).append(path)
    return [paths[:FEW] for paths in found.values()]


def shortened(text: str) -> str:
    """Return an example's settings for few images in the folder `images` beside them."""
    lines, section = [], ""
    for line in text.splitlines():
        key = line.partition("=")[0].strip()
        section = line.strip() if line.startswith("[") else section
        if section == "[data]" and key == "local":
            lines.append('local = "images"')
        elif section != "[hyperparameters]" or key not in SHORT:
            lines.append(line)
        if line.startswith("[hyperparameters]"):
            lines += [f"{name} = {json.dumps(value)}" for name, value in SHORT.items()]
    return "\n".join(lines) + "\n"


def run(example: Path, folder: Path) -> str:
    """Train, serve and predict with an example on the channels in `folder`; return the class."""
    settings = folder / "settings.toml"
    settings.write_text(shortened(example.read_text(encoding="utf-8")), encoding="utf-8")
    content = tomllib.loads(settings.read_text(encoding="utf-8"))
    if "weights" in content["data"]["channels"]:
        _write_weights(content["hyperparameters"]["network"], folder / "images" / "weights")
    image = next(p for p in sorted((folder / "images/test").rglob("*")) if p.suffix in SUFFIXES)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    _launch(folder, "train")
    _launch(folder, "deploy", "--port", port)
    try:
        return _launch(folder, "predict", str(image), "--port", port).rpartition(": ")[2]
    finally:
        _launch(folder, "delete")


def _write_weights(network: str, channel: Path) -> None:
    channel.mkdir()
    torch.manual_seed(0)
    torch.save(torchvision.models.get_model(network, weights=None).state_dict(), channel / "w.pth")


def _launch(folder: Path, verb: str, *arguments: str) -> str:
    """Run a verb of `image_classifier` on this machine; return its last line."""
    finished = subprocess.run(
        [sys.executable, "-m", "image_classifier", verb, "settings.toml", "--local", *arguments],
        cwd=folder,
        # Container images may have other code.
        env=os.environ | {CHOICE_VARIABLE: "processes"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    print(finished.stdout, end="", file=sys.stderr)
    return finished.stdout.splitlines()[-1]


if __name__ == "__main__":
    main()
