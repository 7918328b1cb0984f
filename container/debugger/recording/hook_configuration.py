"""What is recorded: SageMaker's debughookconfig.json, or a policy that costs little."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from container.classifier.errors import UserError

# As SageMaker's own readers know the file.
COLLECTIONS, PARAMETERS, LOCAL_PATH = "CollectionConfigurations", "HookParameters", "LocalPath"

REDUCTIONS = "min,max,mean,std,abs_mean,l2_norm"

# Steps between two records where there are many; short runs have closer ones.
LOSS_INTERVAL, TENSOR_INTERVAL = 10, 100

# Records of each kind that even a short run has, as far as it has steps.
LOSS_RECORDS, TENSOR_RECORDS = 100, 20

# A record of all weights takes a tenth of a step to half of one.
LEAST_TENSOR_INTERVAL = 10

Document = dict[str, object]


@dataclass(frozen=True, kw_only=True, slots=True)
class HookConfiguration:
    """Where and what to record, as smdebug reads it."""

    directory: Path
    document: Document
    is_default: bool
    """Whether the collections are ours."""


def read(path: Path) -> Document | None:
    """Return the platform's file, or None where there is none.

    Raises:
        UserError: it is no JSON object, or its collections are none.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, RecursionError) as error:
        message = f"{path} is not JSON: {error}"
        raise UserError(message) from None
    if not isinstance(document, dict):
        message = f"{path} must hold an object, got {type(document).__name__}"
        raise UserError(message)
    collections = document.get(COLLECTIONS) or []
    if not isinstance(collections, list) or not all(
        isinstance(each, dict) and isinstance(each.get("CollectionName"), str)
        for each in collections
    ):
        message = f"{path}: {COLLECTIONS} must be a list of objects with a CollectionName"
        raise UserError(message)
    local = document.get(LOCAL_PATH)
    if local is not None and not (isinstance(local, str) and Path(local).is_absolute()):
        message = f"{path}: {LOCAL_PATH} must be an absolute path, got {local!r}"
        raise UserError(message)
    return document


def choose(document: Document | None, output_dir: Path, total_steps: int) -> HookConfiguration:
    """Return what to record in a run of `total_steps`.

    A file without collections, as the SDK sends one with every job, leaves the choice to us. With
    a file SageMaker uploads `output_dir`/tensors; without one only `output_dir`/data goes up.
    """
    given = dict(document or {})
    default = output_dir / "tensors" if document is not None else output_dir / "data/debug/tensors"
    directory = Path(str(given.get(LOCAL_PATH) or default))
    is_default = not given.get(COLLECTIONS) and not given.get(PARAMETERS)
    if is_default:
        given[COLLECTIONS] = default_collections(total_steps)
    return HookConfiguration(
        directory=directory,
        document={**given, LOCAL_PATH: str(directory)},
        is_default=is_default,
    )


def default_collections(total_steps: int) -> list[Document]:
    """Return the collections of the default policy: losses often, reductions now and then.

    Of whole tensors it has labels and predictions, a sample of the input's pixels, and what share
    of the images each unit answers to.
    """
    losses = max(1, min(LOSS_INTERVAL, total_steps // LOSS_RECORDS))
    tensors = max(LEAST_TENSOR_INTERVAL, min(TENSOR_INTERVAL, total_steps // TENSOR_RECORDS))
    return [
        _collection("losses", losses, {"eval.save_interval": "1"}),
        _collection("labels", losses, {"include_regex": "^labels$", "eval.save_interval": "1"}),
        _collection(
            "predictions", losses, {"include_regex": "^predictions$", "eval.save_interval": "1"}
        ),
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
