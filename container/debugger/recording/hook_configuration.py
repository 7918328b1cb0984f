"""Configuration of recording: SageMaker's debughookconfig.json, or a default with low cost."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from container.classifier.errors import UserError

# Keys of the file.
COLLECTIONS, PARAMETERS, LOCAL_PATH = "CollectionConfigurations", "HookParameters", "LocalPath"

REDUCTIONS = "min,max,mean,std,abs_mean,l2_norm"

# Most steps between two records; short runs record more often.
LOSS_INTERVAL, TENSOR_INTERVAL = 10, 100

# Records of each kind in a short run, if it has as many steps.
LOSS_RECORDS, TENSOR_RECORDS = 100, 20

# Recording all weights takes between a tenth and half of a step's time.
MIN_TENSOR_INTERVAL = 10

Document = dict[str, Any]


def read(path: Path) -> Document | None:
    """Return the document of the platform's file, or None if the file does not exist.

    Raises:
        UserError: it is not a JSON object, or its collections or path are invalid.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path} is not JSON: {error}") from None
    if not isinstance(document, dict):
        raise UserError(f"{path} must hold an object, got {type(document).__name__}")
    collections = document.get(COLLECTIONS) or []
    if not isinstance(collections, list) or not all(
        isinstance(collection, dict) and isinstance(collection.get("CollectionName"), str)
        for collection in collections
    ):
        raise UserError(f"{path}: {COLLECTIONS} must be a list of objects with a CollectionName")
    local = document.get(LOCAL_PATH)
    if local is not None and not (isinstance(local, str) and Path(local).is_absolute()):
        raise UserError(f"{path}: {LOCAL_PATH} must be an absolute path, got {local!r}")
    return document


def choose(document: Document | None, output_dir: Path, total_steps: int) -> Document:
    """Return the document for smdebug in a run of `total_steps`, with the directory of tensors.

    A document without collections, which the SDK sends with every job, selects the default ones.
    With the file SageMaker uploads `output_dir`/tensors; without it only `output_dir`/data.
    """
    given = dict(document or {})
    default = output_dir / "tensors" if document is not None else output_dir / "data/debug/tensors"
    given[LOCAL_PATH] = str(Path(given.get(LOCAL_PATH) or default))
    if not given.get(COLLECTIONS) and not given.get(PARAMETERS):
        given[COLLECTIONS] = default_collections(total_steps)
    return given


def default_collections(total_steps: int) -> list[Document]:
    """Return the default collections: losses often, reductions of tensors rarely.

    Whole tensors are labels, predictions, a sample of the input's pixels, and the fraction of
    positive outputs of each ReLU unit.
    """
    losses = max(1, min(LOSS_INTERVAL, total_steps // LOSS_RECORDS))
    tensors = max(MIN_TENSOR_INTERVAL, min(TENSOR_INTERVAL, total_steps // TENSOR_RECORDS))
    evaluations = {"eval.save_interval": "1"}
    return [
        _collection("losses", losses, evaluations),
        _collection("labels", losses, {"include_regex": "^labels$", **evaluations}),
        _collection("predictions", losses, {"include_regex": "^predictions$", **evaluations}),
        _collection("gradients", tensors, {"reductions": REDUCTIONS}),
        _collection("weights", tensors, {"reductions": REDUCTIONS}),
        _collection("update_ratio", tensors, {"include_regex": "^update_ratio$"}),
        _collection("input_image", tensors, {"include_regex": "^input_image$"}),
        _collection(
            "relu_input", tensors, {"include_regex": ".*relu_input", "reductions": "mean,variance"}
        ),
        _collection("relu_activity", tensors, {"include_regex": "^relu_activity$"}),
        _collection("saturable_input", tensors, {"include_regex": "^saturable_input$"}),
    ]


def _collection(name: str, interval: int, parameters: Mapping[str, str]) -> Document:
    every = {"train.save_interval": str(interval)}
    return {"CollectionName": name, "CollectionParameters": every | dict(parameters)}
