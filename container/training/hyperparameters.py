"""The hyperparameters of a training job, which SageMaker passes as strings.

Imports the standard library only, so that they can be checked before a job is created.
"""

import typing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Literal, NamedTuple, Self

from container.classifier.errors import UserError
from container.classifier.parsing import parse, parts_of

# Hyperparameters that tuning jobs and the SDKs add for themselves.
FOREIGN_PREFIXES = ("_", "sagemaker_")
FOREIGN_NAMES = frozenset({"default_user_module_name"})


class Range(NamedTuple):
    """The limits of a number, both allowed."""

    low: float
    high: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Hyperparameters:
    """The hyperparameters of a training job, checked when created."""

    network: str = "resnet18"
    """A torchvision classification network, or `small`: our network for training from scratch."""

    pretrained: bool | None = None
    """Start from pretrained weights: the `weights` channel, or else a download.

    Unset: true, except for `small`.
    """

    fine_tuning: Literal["full", "staged", "none"] = "full"
    """Layers of a pretrained network that are trained after its new head.

    `full`: all from the start; `staged`: first the last layers, then all; `none`: no layers.
    """

    head_epochs: Annotated[int, Range(1, 10_000)] = 50
    """Epochs that train the new head of a pretrained network, on features of the frozen network."""

    epochs: Annotated[int, Range(1, 10_000)] = 5
    """Epochs that train the network after its head.

    Not used with `fine_tuning=none` or `max_minutes`.
    """

    max_minutes: Annotated[float | None, Range(1.0, 100_000.0)] = None
    """Minutes for the whole job, from its start to its reports. Unset: no limit.

    The measured speed decides the image size and how many epochs fit
    (docs/explanation/training.md).
    """

    batch_size: Annotated[int | None, Range(1, 65_536)] = None
    """Images per step, over all hosts and GPUs. Unset: 32 for pretrained networks, else 64.

    Not used with `fine_tuning=none`.
    """

    gradient_accumulation_steps: Annotated[int, Range(1, 1024)] = 1
    """Parts into which each device splits its share of a batch. More parts need less memory."""

    optimizer: Literal["adamw", "sgd", "adam", "muon"] | None = None
    """`sgd` has Nesterov momentum 0.9. Unset: `muon` for `small` from scratch, else `adamw`."""

    learning_rate: Annotated[float | None, Range(1e-9, 100.0)] = None
    """Peak of the one-cycle schedule. The first layers of pretrained networks have lower rates.

    Unset, for `small`, other networks from scratch, and pretrained ones: 0.005, 0.0005 and 0.0005
    with `adamw` and `adam`; 0.05, 0.01 and 0.002 with `sgd`; 0.02, 0.01 and 0.001 with `muon`. The
    new head of a pretrained network tries several rates, unless `fine_tuning=none` and this is set.
    """

    weight_decay: Annotated[float | None, Range(0.0, 10.0)] = None
    """Weight decay. Unset: 0.01; 0.0005 for `sgd`, 0 for `adam`."""

    gradient_clip_norm: Annotated[float | None, Range(1e-6, 1e6)] = None
    """Maximum norm of the gradient, above which it is scaled down. Unset: no limit."""

    ema_decay: Annotated[float | None, Range(0.0, 0.999999)] = None
    """Decay of the moving average of the weights, which is evaluated and saved. 0: no average.

    Unset: an average over about the last twentieth of the run.
    """

    early_stopping_patience: Annotated[int | None, Range(1, 10_000)] = None
    """Stop after this many epochs without a better objective. Unset: never."""

    label_smoothing: Annotated[float | None, Range(0.0, 0.9)] = None
    """Fraction of the target probability that is spread over all classes.

    Unset: 0.1 where layers of a pretrained network are trained after its new head, else 0.
    """

    class_balance: Literal["auto", "none", "weights", "sampling"] = "auto"
    """Handling of imbalanced classes: class `weights` in the loss, or more frequent `sampling`.

    `auto`: `sampling` if one class has three times the images of another, else `none`.
    """

    image_size: Annotated[int | None, Range(16, 1024)] = None
    """Height and width of the network's input, in pixels. Unset: 128 for `small`, else 224.

    Unset with `max_minutes`: 128 to 224, by the measured speed.
    """

    half_size_steps: Annotated[float, Range(0.0, 0.9)] = 0.0
    """Fraction of the steps, at the start, that train on images of half the size to save time.

    Only for networks that accept any size, trained from scratch.
    """

    augment: bool = True
    """Augment images with the random changes of the next four hyperparameters."""

    max_rotation: Annotated[float, Range(0.0, 180.0)] = 10.0
    """Maximum rotation in either direction, in degrees."""

    max_zoom: Annotated[float, Range(0.0, 0.5)] = 0.1
    """Maximum zoom in or out, as a fraction of the image's side."""

    max_shift: Annotated[float, Range(0.0, 0.5)] = 0.08
    """Maximum shift, as a fraction of the image's side."""

    max_light: Annotated[float, Range(0.0, 1.0)] = 0.2
    """Maximum change of contrast, as a fraction; brightness changes by half, color by a quarter."""

    horizontal_flip: bool = False
    """Flip half of the images left to right. Use it only if that does not change the class."""

    vertical_flip: bool = False
    """Flip half of the images top to bottom. Use it only if that does not change the class."""

    quarter_turns: bool = False
    """Rotate images by 0, 90, 180 or 270 degrees. For images without an up, such as aerial ones."""

    cutout: Annotated[float, Range(0.0, 0.75)] = 0.0
    """Side of a random gray square in every image, as a fraction of the image's side. 0: none."""

    mixup: Annotated[float, Range(0.0, 10.0)] = 0.0
    """Alpha of mixup, which blends pairs of images. 0: none."""

    cutmix: Annotated[float, Range(0.0, 10.0)] = 0.0
    """Alpha of CutMix, which pastes a part of another image. With `mixup`: one of them per step."""

    test_time_augmentation: bool = False
    """Average predictions over the enabled flips, in serving too: more accurate, but slower."""

    validation_fraction: Annotated[float, Range(0.01, 0.9)] = 0.2
    """Fraction of each class that is split off if there is no `validation` channel."""

    splits: Literal["folders", "none"] = "folders"
    """`none`: folders such as `train` and `test` in an image channel are classes, not splits."""

    objective: Literal["val_accuracy", "val_balanced_accuracy", "val_f1", "val_loss"] | None = None
    """Metric that selects the epoch whose weights are saved.

    Unset: `val_balanced_accuracy` if imbalanced classes are balanced, else `val_accuracy`.
    """

    min_accuracy: Annotated[float | None, Range(0.0, 1.0)] = None
    """Fail the job if its accuracy is lower, on the `test` channel or else on validation images.

    Stopped jobs are exempt. Unset: no minimum.
    """

    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of training. `auto`: the faster one, measured. Set it if a seed must reproduce."""

    compile: bool = False
    """Compile the network with `torch.compile`: a start of minutes, then faster steps on a GPU."""

    quantize: Literal["auto", "none"] = "auto"
    """Quantize the trained network. `auto`: serve int8 if it is accurate enough; `none`: never.

    The quantization at the end of the job is calibrated on training images.
    """

    max_accuracy_drop: Annotated[float, Range(0.0, 1.0)] = 0.005
    """Allowed drop of int8's accuracy below float32's.

    int8 is rejected if the expected drop on the validation images plus its standard error is larger
    (docs/explanation/precision.md). 0 rejects int8 always, 1 never.
    """

    seed: Annotated[int, Range(0, 2**32 - 1)] = 0
    """Seed of all random numbers."""

    checkpoint_interval_seconds: Annotated[float, Range(0.0, 86_400.0)] = 60.0
    """Minimum time between checkpoints. A stop and the last epoch write one too."""

    debug: Literal["auto", "required", "off"] = "auto"
    """Record tensors (docs/how-to/debug.md).

    `required`: fail the job if they cannot be recorded.
    """

    debug_rules: str | None = None
    """Debugger rules, as comma-separated names or SageMaker's JSON. `none`: no rules.

    `!` after a name stops the training when the rule finds an issue. Unset: all rules that need no
    parameters.
    """

    def __post_init__(self) -> None:
        """Check the ranges and choices."""
        for name, hint in typing.get_type_hints(type(self), include_extras=True).items():
            value = getattr(self, name)
            if value is None:
                continue
            choices = [part for part in parts_of(hint) if isinstance(part, str)]
            if typing.get_origin(hint) is Annotated:
                low, high = hint.__metadata__[0]
                # NaN fails this comparison too.
                if not low <= value <= high:
                    raise UserError(f"{name} must be {low} to {high}, got {value!r}")
            elif choices and value not in choices:
                raise UserError(f"{name} must be one of {', '.join(choices)}; got {value!r}")
        if self.max_minutes is not None and self.half_size_steps:
            raise UserError(
                "half_size_steps and max_minutes are both set, and with max_minutes the number of "
                "steps is not known: drop one of them"
            )

    @classmethod
    def from_strings(cls, strings: Mapping[str, object]) -> Self:
        """Parse the content of hyperparameters.json, which every SDK encodes differently.

        Raises:
            UserError: a name is unknown (the known ones are listed), or a value has the wrong type
                or is out of range.
        """
        hints = typing.get_type_hints(cls)
        own = {
            name: value
            for name, value in strings.items()
            if not name.startswith(FOREIGN_PREFIXES) and name not in FOREIGN_NAMES
        }
        if unknown := sorted(own.keys() - hints.keys()):
            known = ", ".join(field.name for field in fields(cls))
            raise UserError(f"unknown hyperparameters {', '.join(unknown)}; known are {known}")
        return cls(**{name: parse(name, hints[name], value) for name, value in own.items()})  # type: ignore[arg-type]

    def changes(self) -> str:
        """Return the values that differ from the defaults, as a command line has them."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return " ".join(
            f"{name}={str(value).lower() if isinstance(value, bool) else value}"
            for name, (value, default) in values.items()
            if value != default
        )
