"""What a training job can be told, and how SageMaker says it: every value a string.

Imports the standard library only, so that a typo fails on the sender's machine too.
"""

import ast
import json
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import Literal, Self, TypeAlias

from classifier.errors import UserError

# What tuning jobs and the SDKs add for themselves.
FOREIGN_PREFIXES = ("_", "sagemaker_")
FOREIGN_NAMES = frozenset({"default_user_module_name"})

Value: TypeAlias = "bool | int | float | str | None"

TRUE, FALSE = frozenset({"true", "1", "yes", "on"}), frozenset({"false", "0", "no", "off"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameters:
    """The hyperparameters of a training job, checked when made."""

    network: str = "resnet18"
    """A torchvision classification network by name, or `small`: ours, for training from scratch."""

    pretrained: bool | None = None
    """Start from the `weights` channel, else a download. Unset: yes, but not for `small`."""

    epochs: int = 5
    """Passes over the training channel."""

    batch_size: int = 64
    """Pictures per step, over all hosts."""

    optimizer: Literal["adamw", "sgd", "adam"] = "adamw"
    """`sgd` has Nesterov momentum 0.9."""

    learning_rate: float | None = None
    """Peak of the one-cycle schedule; the new head of a pretrained network learns ten times faster.

    Unset: 0.005 for `small`, 0.0005 from scratch, 0.0002 pretrained; `sgd`: 0.05, 0.01, 0.002.
    """

    weight_decay: float | None = None
    """Pull of the weights to zero. Unset: 0.01 for `adamw`, 0.0005 for `sgd`, none for `adam`."""

    label_smoothing: float = 0.0
    """Share of the target probability spread over all classes."""

    image_size: int | None = None
    """Height and width that the network sees, in pixels. Unset: 64 for `small`, else 224."""

    augment: bool = True
    """Random small shifts, rotations, sizes, brightness, contrast: none destroys a label."""

    horizontal_flip: bool = False
    """Mirror half of the pictures: only where left and right mean the same."""

    vertical_flip: bool = False
    """Turn half of the pictures upside down: only where up and down mean the same."""

    validation_fraction: float = 0.2
    """Share of each class split off for validation where there is no validation channel."""

    objective: Literal["val_accuracy", "val_f1", "val_loss"] = "val_accuracy"
    """Decides which epoch's weights are kept."""

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of training's arithmetic. `auto`: bfloat16 where the hardware has instructions for it."""

    seed: int = 0
    """Of every random choice."""

    checkpoint_interval_seconds: float = 60.0
    """Least time between two checkpoints, which are made after an epoch; a stop makes one too."""

    def __post_init__(self) -> None:
        """Check every range."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            # Written so that NaN fails it.
            if value is not None and not low <= value <= high:
                message = f"{name} must be {low} to {high}, got {value!r}"
                raise UserError(message)
        for name, hint in typing.get_type_hints(type(self)).items():
            if typing.get_origin(hint) is Literal and getattr(self, name) not in hint.__args__:
                known = ", ".join(hint.__args__)
                message = f"{name} must be one of {known}; got {getattr(self, name)!r}"
                raise UserError(message)

    @classmethod
    def from_strings(cls, strings: Mapping[str, object]) -> Self:
        """Decode hyperparameters.json, whatever SDK wrote it.

        Raises:
            UserError: an unknown name (the known ones are listed), or a value of a wrong type or
                out of its range.
        """
        types = typing.get_type_hints(cls)
        own = {
            name: value
            for name, value in strings.items()
            if not name.startswith(FOREIGN_PREFIXES) and name not in FOREIGN_NAMES
        }
        if unknown := sorted(own.keys() - types.keys()):
            known = ", ".join(field.name for field in fields(cls))
            message = f"unknown hyperparameters {', '.join(unknown)}; known are {known}"
            raise UserError(message)
        return cls(**{name: _decode(name, types[name], value) for name, value in own.items()})  # type: ignore[arg-type]


_RANGES: tuple[tuple[str, float, float], ...] = (
    ("epochs", 1, 10_000),
    ("batch_size", 1, 65_536),
    ("learning_rate", 1e-9, 100.0),
    ("weight_decay", 0.0, 1.0),
    ("label_smoothing", 0.0, 0.9),
    ("image_size", 16, 1024),
    ("validation_fraction", 0.01, 0.9),
    ("seed", 0, 2**32 - 1),
    ("checkpoint_interval_seconds", 0.0, 86_400.0),
)


def _decode(name: str, hint: object, value: object) -> Value:
    """Decode one value: Python's repr, JSON, JSON within a string, or plain text."""
    text = str(value).strip()
    if text.startswith('"') and text.endswith('"'):
        text = _unquote(text)
    kinds = _kinds(hint)
    if type(None) in kinds and text.lower() in {"", "none", "null"}:
        return None
    parse, described = next(_PARSERS[kind] for kind in kinds if kind in _PARSERS)
    try:
        return parse(text)
    except (ValueError, OverflowError, SyntaxError):
        message = f"{name} must be {described}, got {text!r}"
        raise UserError(message) from None


def _kinds(hint: object) -> tuple[object, ...]:
    if typing.get_origin(hint) is Literal:
        return (str,)
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _unquote(text: str) -> str:
    try:
        return str(json.loads(text)).strip()
    except ValueError:
        return text


def _parse_bool(text: str) -> bool:
    lower = text.lower()
    if lower not in TRUE | FALSE:
        raise ValueError(text)
    return lower in TRUE


def _parse_int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        number = float(text)
        if not number.is_integer():
            raise
        return int(number)


def _parse_text(text: str) -> str:
    # str() of a Python string that was itself a repr.
    return str(ast.literal_eval(text)) if text[:1] == "'" == text[-1:] else text


_PARSERS: dict[object, tuple[Callable[[str], Value], str]] = {
    bool: (_parse_bool, "true or false"),
    int: (_parse_int, "a whole number"),
    float: (float, "a number"),
    str: (_parse_text, "a text"),
}
