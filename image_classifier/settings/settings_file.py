"""A settings file read and checked: every mistake at once, each with its line."""

import json
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from container.classifier.errors import UserError
from container.training.hyperparameters import Hyperparameters
from image_classifier.settings import metric_definitions as metrics
from image_classifier.settings import toml_lines
from image_classifier.settings.reading import Mistake, Reader
from image_classifier.settings.schema import Settings

# What push.sh writes, where it stands.
IMAGES = Path(__file__).resolve().parents[2] / "images.json"

MAX_BYTES = 1_000_000

# What a verb cannot do without on SageMaker.
NEEDS: Mapping[str, tuple[str, ...]] = {
    "train": ("aws.role", "aws.bucket", "images.train"),
    "tune": ("aws.role", "aws.bucket", "images.train", "tuning"),
    "deploy": ("aws.role", "aws.bucket", "images.serve"),
    "predict": ("aws.bucket",),
    "transform": ("aws.role", "aws.bucket", "images.serve"),
    "explain --clarify": ("aws.role", "aws.bucket", "images.serve"),
    "report": ("aws.bucket",),
    "delete": ("aws.bucket",),
}


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file without mistakes."""

    path: Path
    settings: Settings
    lines: Mapping[toml_lines.Path, int]

    @property
    def local_data(self) -> Path | None:
        """The folder of the channels on this machine."""
        local = self.settings.data.local
        return None if local is None else (self.path.parent / local).resolve()

    def local_channels(self) -> dict[str, Path]:
        """Return the folder of every channel on this machine.

        Raises:
            UserError: there is none for one of them.
        """
        if self.local_data is None:
            message = f"{self.path}: --local needs data.local, the folder of the channels"
            raise UserError(message)
        channels = {name: self.local_data / name for name in self.settings.data.channels}
        for name, folder in channels.items():
            if not folder.is_dir():
                message = f"no folder {folder} for channel {name}: mend data.local or data.channels"
                raise UserError(message)
        return channels

    def require(self, verb: str) -> None:
        """Check that the file has what a verb needs on SageMaker.

        Raises:
            UserError: something is missing; all of it is named.
        """
        missing = [name for name in NEEDS.get(verb, ()) if not _get(self.settings, name)]
        if missing:
            listed = ", ".join(missing)
            hint = ""
            if any(name.startswith("images") for name in missing):
                hint = "; ./push.sh writes the images into images.json"
            message = f"{self.path}: {verb} needs {listed}{hint}"
            raise UserError(message)

    def resolved(self, pattern: str) -> str:
        """Return where a key stands, as editors read it."""
        return f"{self.path}:{toml_lines.line_of(tuple(pattern.split('.')), self.lines)}"


def read(path: Path, images: Path = IMAGES) -> SettingsFile:
    """Read a settings file; images that it does not name are those of images.json.

    Raises:
        UserError: it cannot be read, or has mistakes: one line each.
    """
    text = _text(path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        message = f"{path}:{line[1] if line else len(text.splitlines())}: no TOML: {error}"
        raise UserError(message) from None
    lines = toml_lines.find(text)
    reader = Reader()
    settings = reader.table(Settings, content)
    mistakes = [*reader.mistakes, *_in_hyperparameters(settings), *metrics.mistakes(settings)]
    if mistakes:
        raise UserError("\n".join(_sentences(path, mistakes, lines)))
    return SettingsFile(path, _with_images(settings, images), lines)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            message = f"{path} has more than a megabyte: no settings file"
            raise UserError(message)
        return path.read_text(encoding="utf-8")
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}): name a settings file (TOML)"
        raise UserError(message) from None
    except UnicodeDecodeError:
        message = f"{path} is not UTF-8: save it as UTF-8"
        raise UserError(message) from None


def _in_hyperparameters(settings: Settings) -> Iterator[Mistake]:
    """Yield what the training program would say of each hyperparameter, then of all together."""
    tuned = settings.tuning.ranges if settings.tuning else {}
    given = settings.hyperparameters
    found = False
    for name, value in given.items():
        try:
            Hyperparameters.from_strings({name: value})
        except UserError as error:
            found = True
            yield Mistake(("hyperparameters", name), str(error))
    if found:
        return
    try:
        Hyperparameters.from_strings(
            {name: value for name, value in given.items() if name not in tuned}
        )
    except UserError as error:
        yield Mistake(("hyperparameters",), str(error))


def _sentences(
    path: Path, mistakes: Iterable[Mistake], lines: Mapping[toml_lines.Path, int]
) -> Iterator[str]:
    placed = sorted({(toml_lines.line_of(m.path, lines), m.path, m.sentence) for m in mistakes})
    for line, key, sentence in placed:
        yield f"{path}:{line}: {'.'.join(key)} {sentence}"


def _with_images(settings: Settings, path: Path) -> Settings:
    """Return the settings with what was pushed, if it was pushed to their region."""
    if not path.is_file():
        return settings
    try:
        pushed = json.loads(path.read_text(encoding="utf-8"))
        region = str(pushed["region"])
        found = {name: str(pushed[name]) for name in ("train", "serve") if name in pushed}
    except (ValueError, KeyError, TypeError):
        message = f"{path} is none that push.sh has written: run ./push.sh again, or remove it"
        raise UserError(message) from None
    if settings.aws.region not in {"", region}:
        return settings
    chosen = replace(
        settings.images,
        train=settings.images.train or found.get("train"),
        serve=settings.images.serve or found.get("serve"),
    )
    return replace(settings, images=chosen)


def _get(settings: Settings, name: str) -> object:
    value: object = settings
    for part in name.split("."):
        value = getattr(value, part)
    return value
