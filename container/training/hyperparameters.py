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

from container.classifier.errors import UserError

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

    fine_tuning: Literal["staged", "full", "none"] = "staged"
    """What of a pretrained network learns once its new head has.

    `staged`: the last layers, then all; `full`: all at once; `none`: nothing, it stays frozen.
    """

    head_epochs: int = 50
    """Passes over the frozen features in which a pretrained network's new head learns first."""

    epochs: int = 5
    """Passes over the training channel; with `fine_tuning=none` there are none."""

    batch_size: int = 64
    """Images per step, over all hosts and GPUs."""

    gradient_accumulation_steps: int = 1
    """Parts in which each device computes its share of a step: more need less memory."""

    optimizer: Literal["adamw", "sgd", "adam", "muon"] | None = None
    """`sgd` has Nesterov momentum 0.9. Unset: `muon` for `small` from scratch, else `adamw`."""

    learning_rate: float | None = None
    """Peak of the one-cycle schedule; of a pretrained network the first layers learn more slowly.

    Unset: for `small`, from scratch, pretrained with `adamw` 0.005, 0.0005, 0.0002; `sgd` 0.05,
    0.01, 0.002; `muon` 0.02, 0.01, 0.001. New heads try several, but for `fine_tuning=none`.
    """

    find_learning_rate: bool = False
    """Try growing learning rates for a hundred steps first, and take the best one found."""

    weight_decay: float | None = None
    """Pull of the weights to zero. Unset: 0.01, for `sgd` 0.0005, for `adam` none."""

    gradient_clip_norm: float | None = None
    """Longest gradient that a step may follow; a longer one is shortened. Unset: any."""

    ema_decay: float | None = None
    """Of the moving average of the weights, which is what is evaluated and kept; 0: no average.

    Unset: an average over about the last twentieth of the run.
    """

    early_stopping_patience: int | None = None
    """Epochs without a better objective after which the training ends. Unset: never."""

    label_smoothing: float = 0.0
    """Share of the target probability spread over all classes."""

    class_balance: Literal["auto", "none", "weights", "sampling"] = "auto"
    """For uneven classes: a `weights` for each in the loss, or `sampling` the rare ones more often.

    `auto`: `sampling` where a class has three times the images of another, else `none`.
    """

    image_size: int | None = None
    """Height and width that the network sees, in pixels. Unset: 128 for `small`, else 224."""

    half_size_steps: float = 0.0
    """Share of the steps, the first ones, that see images at half their size, which is faster.

    For networks that take any size, from scratch. The other steps make up for what was too small.
    """

    augment: bool = True
    """Random small changes of every image, which destroy no label: the four that follow."""

    max_rotation: float = 10.0
    """In degrees, to either side."""

    max_zoom: float = 0.1
    """Share of the size by which images grow or shrink."""

    max_shift: float = 0.08
    """Share of the side by which images move."""

    max_light: float = 0.2
    """Share by which contrast changes; brightness by half, colors by a quarter of it."""

    horizontal_flip: bool = False
    """Mirror half of the images: only where left and right mean the same."""

    vertical_flip: bool = False
    """Turn half of the images upside down: only where up and down mean the same."""

    quarter_turns: bool = False
    """Turn images by 0, 90, 180 or 270 degrees: only where no side is up, as seen from above."""

    cutout: float = 0.0
    """Side of a random square made gray in every image, as a share of the image's side."""

    mixup: float = 0.0
    """Blend pairs of images; alpha of the beta distribution of the shares. 0: none."""

    cutmix: float = 0.0
    """Paste a part of another image in; alpha as for `mixup`. With both, steps take turns."""

    test_time_augmentation: bool = False
    """Average the answers over the flips that are allowed, in serving too: better and slower."""

    validation_fraction: float = 0.2
    """Share of each class split off for validation where there is no validation channel."""

    objective: Literal["val_accuracy", "val_balanced_accuracy", "val_f1", "val_loss"] | None = None
    """Decides which epoch's weights are kept.

    Unset: `val_balanced_accuracy` where uneven classes are balanced, else `val_accuracy`.
    """

    min_accuracy: float | None = None
    """Fail a job whose accuracy is less: on the `test` channel, else on validation.

    A job that was stopped is not judged.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of training's arithmetic. `auto`: bfloat16 where it makes the network faster."""

    compile: bool = False
    """Compile the network with `torch.compile`: minutes first, then faster steps on a GPU."""

    quantize: Literal["auto", "none"] = "auto"
    """Precision in which the network is served. `auto`: int8 where it suffices; `none`: float32.

    Another network is made for that at the end of a job, calibrated with training images.
    """

    max_accuracy_drop: float = 0.005
    """How much lower int8's accuracy on the validation images may be than float32's."""

    seed: int = 0
    """Of every random choice."""

    checkpoint_interval_seconds: float = 60.0
    """Least time between two checkpoints; a stop and the last epoch make one too."""

    debug: Literal["auto", "required", "off"] = "auto"
    """Record tensors, as docs/debugger.md says. `required`: fail a job in which that cannot be."""

    debug_rules: str | None = None
    """Names of rules that judge the training, by commas, or SageMaker's JSON; `none`: no rule.

    A `!` after a name ends the training when it finds something. Unset: all that need no settings.
    """

    def __post_init__(self) -> None:
        """Check every range."""
        for name, low, high in _RANGES:
            value = getattr(self, name)
            # Written so that NaN fails it.
            if value is not None and not low <= value <= high:
                message = f"{name} must be {low} to {high}, got {value!r}"
                raise UserError(message)
        if self.find_learning_rate and self.learning_rate is not None:
            message = "learning_rate is given, and find_learning_rate=true: drop one of them"
            raise UserError(message)
        for name, hint in typing.get_type_hints(type(self)).items():
            choices = _choices(hint)
            if choices and getattr(self, name) not in choices:
                known = ", ".join(choice for choice in choices if choice is not None)
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
    ("head_epochs", 1, 10_000),
    ("epochs", 1, 10_000),
    ("batch_size", 1, 65_536),
    ("gradient_accumulation_steps", 1, 1024),
    ("learning_rate", 1e-9, 100.0),
    ("weight_decay", 0.0, 10.0),
    ("gradient_clip_norm", 1e-6, 1e6),
    ("ema_decay", 0.0, 0.999999),
    ("early_stopping_patience", 1, 10_000),
    ("label_smoothing", 0.0, 0.9),
    ("image_size", 16, 1024),
    ("half_size_steps", 0.0, 0.9),
    ("max_rotation", 0.0, 180.0),
    ("max_zoom", 0.0, 0.5),
    ("max_shift", 0.0, 0.5),
    ("max_light", 0.0, 1.0),
    ("cutout", 0.0, 0.75),
    ("mixup", 0.0, 10.0),
    ("cutmix", 0.0, 10.0),
    ("validation_fraction", 0.01, 0.9),
    ("min_accuracy", 0.0, 1.0),
    ("max_accuracy_drop", 0.0, 1.0),
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
    """Return the types of a hint, those of a Literal's choices for the Literal."""
    if choices := _choices(hint):
        return tuple({type(choice) for choice in choices})
    return typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)


def _choices(hint: object) -> tuple[str | None, ...]:
    """Return what a Literal allows, and None where it is optional; of other hints nothing."""
    if typing.get_origin(hint) is Literal:
        return typing.get_args(hint)
    parts = typing.get_args(hint)
    if any(typing.get_origin(part) is Literal for part in parts):
        return tuple(choice for part in parts for choice in (_choices(part) or (None,)))
    return ()


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
