"""`init`: a commented settings file for a data set."""

import argparse
import hashlib
import json
import os
import re
import statistics
import tomllib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from PIL import Image, UnidentifiedImageError

from container.classifier.channel_names import CHANNEL_NAMES, TRAINING, WEIGHTS, find_channel
from container.classifier.errors import UserError
from container.classifier.labeled_images import LabeledFile, class_names_of, labeled_files
from container.classifier.media_types import IMAGE_FORMATS
from image_classifier.cli.results import LOCAL_RUNS
from image_classifier.cli.starter_text import TEMPLATE
from image_classifier.settings import section
from image_classifier.settings.json_schema import json_schema
from image_classifier.settings.known_names import NETWORKS
from image_classifier.settings.schema import MAX_NAME, Settings

# Beside a new file, and named in its first line, for editors. Written for the installed version.
SCHEMA = LOCAL_RUNS / "settings.schema.json"

# Images whose size is read.
SAMPLE = 200

# Sides of a network's input. Pretrained networks have seen 224.
SIDES = (32, 48, 64, 96, 128, 160, 192, 224)
MAX_SMALL_SIDE = 128

# From this number of images per class on, the small network learns from scratch. Images of up to
# MAX_TINY pixels have too little detail for a pretrained network.
ENOUGH_PER_CLASS = 300
MAX_TINY = 64

# Of a pretrained network, whatever the number of images.
EPOCHS = 5

# Images that the small network sees in all epochs together, at least.
SEEN_IMAGES = 10_000


@dataclass(frozen=True, kw_only=True, slots=True)
class DataSet:
    """What the choices depend on."""

    folder: Path
    channels: Sequence[str]
    """Folders in it that are channels, under their own names."""
    images: int
    """Of the training channel."""
    classes: Sequence[str]
    side: int
    """Median of the shorter sides of its images, in pixels."""
    weights: Sequence[str]
    """Files in the weights channel."""

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Read a data set.

        Raises:
            UserError: the folder has no training channel, or its images cannot be used.
        """
        if not folder.is_dir():
            raise UserError(f"{folder} is not a folder: `prepare {folder} OUT` makes one of images")
        folders = {path.name for path in folder.glob("*/")}
        names = [name for channel in CHANNEL_NAMES if (name := find_channel(channel, folders))]
        training = find_channel(TRAINING, folders)
        if training is None:
            found = ", ".join(sorted(folders)[:10]) or "no folders"
            raise UserError(
                f"no folder train/ or training/ in {folder}, found {found}: "
                f"`prepare {folder} OUT` makes splits, then name OUT"
            )
        files = labeled_files(folder / training)
        weights = find_channel(WEIGHTS, folders)
        return cls(
            folder=folder,
            channels=names,
            images=len(files),
            classes=class_names_of(files),
            side=_typical_side(files),
            weights=sorted(path.name for path in (folder / weights).iterdir()) if weights else (),
        )

    @property
    def network(self) -> str:
        """Return the network that suits the number and the size of the images."""
        if self.weights:
            names = " ".join(self.weights).lower().replace("-", "_")
            # The longest: wide_resnet50_2 contains resnet50. `small` has no pretrained weights.
            known = [name for name in NETWORKS if name in names and name != "small"]
            return max(known, key=len, default="resnet18")
        is_enough = self.images >= ENOUGH_PER_CLASS * len(self.classes)
        return "small" if is_enough or self.side <= MAX_TINY else "resnet18"

    @property
    def image_size(self) -> int:
        """Return the side of the network's input: not larger than the images."""
        largest = MAX_SMALL_SIDE if self.network == "small" else SIDES[-1]
        fitting = [side for side in SIDES if side <= min(self.side, largest)]
        return max(fitting, default=SIDES[0])

    @property
    def epochs(self) -> int:
        """Return the number of epochs."""
        return self.small_epochs if self.network == "small" else EPOCHS

    @property
    def small_epochs(self) -> int:
        """Return the number of epochs of the small network: more of them with fewer images."""
        return min(max(SEEN_IMAGES // self.images, 4), 40)

    @property
    def batch_size(self) -> int:
        """Return the number of images per step, so that an epoch has a dozen steps."""
        sizes = (64, 32, 16) if self.network == "small" else (32, 16)
        return next((size for size in sizes if self.images >= 12 * size), 8)


def parser() -> argparse.ArgumentParser:
    """Return the options of `init`, for a parser that has them as its parent."""
    parent = argparse.ArgumentParser(add_help=False)
    parent.add_argument(
        "--data",
        type=Path,
        required=True,
        metavar="DIR",
        help="folder of the channels, as `prepare` writes it: train/ and optionally validation/, "
        "test/ and weights/",
    )
    parent.add_argument(
        "--output",
        type=Path,
        default=Path("settings.toml"),
        metavar="FILE",
        help="the new settings file (default: %(default)s)",
    )
    parent.add_argument("--name", help="name of the settings (default: that of the folder)")
    parent.add_argument("--replace", action="store_true", help="replace an existing file")
    parent.add_argument("--quiet", action="store_true", help="print only the path of the file")
    parent.set_defaults(run=run)
    return parent


def run(arguments: argparse.Namespace) -> Path:
    """Write the settings file; return its path.

    Raises:
        UserError: the file exists, or the data set or the name cannot be used.
    """
    output: Path = arguments.output
    if output.exists() and not arguments.replace:
        raise UserError(f"{output} exists already: add --replace, or name another --output")
    data = DataSet.read(arguments.data)
    text = render(data, arguments.name or _name(data.folder), output.absolute().parent)
    # A name that was given can be wrong.
    _, mistakes = section.validate(Settings, tomllib.loads(text))
    if mistakes:
        raise UserError("; ".join(f"{'.'.join(key)} {message}" for key, message in mistakes))
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(text, encoding="utf-8")
    schema = output.parent / SCHEMA
    schema.parent.mkdir(exist_ok=True)
    schema.write_text(json.dumps(json_schema()), encoding="utf-8")
    if not arguments.quiet:
        size = f"{data.image_size} x {data.image_size} pixels"
        print(
            f"{data.images} training images of {len(data.classes)} classes: "
            f"network {data.network}, {size}, {data.epochs} epochs"
        )
        print(_pretrained(data).removeprefix("# "))
    return output


def render(data: DataSet, name: str, beside: Path) -> str:
    """Return the settings file's text; the path of the data is relative to the folder `beside`."""
    is_small = data.network == "small"
    local = Path(os.path.relpath(data.folder.absolute(), beside)).as_posix()
    fine_tuning = "# fine_tuning = " if is_small else "fine_tuning = "
    low, high = _RATES[is_small]
    return TEMPLATE.substitute(
        schema=SCHEMA.as_posix(),
        name=json.dumps(name),
        images=data.images,
        classes=len(data.classes),
        side=data.side,
        local=json.dumps(local, ensure_ascii=False),
        channels=json.dumps(list(data.channels)),
        network=json.dumps(data.network),
        image_size=_image_size(data),
        epochs=data.epochs,
        batch_size=data.batch_size,
        fine_tuning=f'{fine_tuning}"full"',
        pretrained=_pretrained(data),
        low=low,
        high=high,
        other="{}: {} to {}".format("resnet18" if is_small else "small", *_RATES[not is_small]),
        other_epochs=f"resnet18: {EPOCHS}" if is_small else f"small: {data.small_epochs}",
    )


# By whether the network is `small`. Around the default rates of the training program's optimizers.
_RATES = {False: ("0.00005", "0.001"), True: ("0.005", "0.05")}


def _image_size(data: DataSet) -> str:
    """Return the line of the image size; as a comment if it is the default."""
    is_default = data.image_size == (MAX_SMALL_SIDE if data.network == "small" else SIDES[-1])
    return f"{'# ' * is_default}image_size = {data.image_size}"


def _pretrained(data: DataSet) -> str:
    if data.network == "small":
        return "# Trained from scratch."
    if data.weights:
        return f"# Starts from the weights channel: {data.weights[0]}."
    return (
        "# Downloads pretrained weights. Offline: add weights/ to the data and to channels, "
        'or use "small".'
    )


def _name(folder: Path) -> str:
    """Return a valid name of settings from that of a folder, with a hash if it is not the same."""
    given = folder.resolve().name
    words = re.findall(r"[a-z0-9]+", given.lower())
    name = re.sub(r"^[^a-z]+", "", "-".join(words))
    if name == given and 0 < len(name) <= MAX_NAME:
        return name
    # Results of different data sets must not share a folder.
    end = "-" + hashlib.sha256(os.fsencode(given)).hexdigest()[:4]
    return (name[: MAX_NAME - len(end)].strip("-") or "images") + end


def _typical_side(files: Sequence[LabeledFile]) -> int:
    """Return the median of the shorter sides of some images.

    Raises:
        UserError: none of them can be read.
    """
    sides = []
    for file in files[:: max(1, len(files) // SAMPLE)]:
        try:
            # Pillow warns about each format that does not fit.
            with (
                warnings.catch_warnings(action="ignore"),
                Image.open(file.path, formats=IMAGE_FORMATS) as image,
            ):
                sides.append(min(image.size))
        except (OSError, UnidentifiedImageError, Image.DecompressionBombError):
            # `audit` reports them.
            continue
    if not sides:
        raise UserError(f"no image of {len(files)} can be read, such as {files[0].path}")
    return round(statistics.median(sides))
