"""Reader of losses from a training's log or its metrics.json."""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from container.classifier.errors import UserError
from container.debugger.reading.records import Record, Records

# In bytes.
MAX_SIZE = 256 * 2**20

# The format of our log and of many other programs.
_LINE = re.compile(r"\bepoch[=: ]+(?P<epoch>\d+)\b")
_LOSSES = {"TRAIN": "train_loss", "EVAL": "val_loss"}
_NAME = "loss_output_0"


def read(path: Path) -> Records:
    """Return the losses of every epoch, each as one step.

    Raises:
        UserError: the file cannot be read, or has no losses.
    """
    try:
        if path.stat().st_size > MAX_SIZE:
            raise UserError(f"{path} is larger than any log: {path.stat().st_size} bytes")
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    losses = _from_json(text) if text.lstrip().startswith("{") else _from_lines(text)
    if not losses:
        raise UserError(
            f"{path} has no losses: expected lines with epoch=, train_loss= and val_loss="
        )
    return of_losses(losses)


def of_losses(losses: Mapping[tuple[int, str], float]) -> Records:
    """Return records of mean losses by epoch and mode."""
    tensors: dict[tuple[str, str], list[Record]] = {}
    for (epoch, mode), value in sorted(losses.items()):
        order = 2 * epoch + (mode == "EVAL")
        record = Record(order, epoch, {"": partial(np.asarray, value)})
        tensors.setdefault((_NAME, mode), []).append(record)
    return Records(tensors, [])


def _from_lines(text: str) -> dict[tuple[int, str], float]:
    """Return losses by epoch and mode; if a file has two runs, the later one counts."""
    found = {}
    for line in text.splitlines():
        epoch = _LINE.search(line)
        for mode, name in _LOSSES.items():
            value = re.search(rf"\b{name}[=: ]+(?P<value>[-+\w.]+)", line)
            if epoch and value:
                try:
                    found[int(epoch["epoch"]), mode] = float(value["value"])
                except ValueError:
                    continue
    return found


def _from_json(text: str) -> dict[tuple[int, str], float]:
    try:
        history = json.loads(text).get("history")
    except (ValueError, RecursionError):
        return {}
    found = {}
    for epoch, metrics in enumerate(history if isinstance(history, list) else [], start=1):
        for mode, name in _LOSSES.items():
            value = metrics.get(name) if isinstance(metrics, dict) else None
            if isinstance(value, int | float):
                found[epoch, mode] = float(value)
    return found
