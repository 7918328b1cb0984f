"""Read and check a settings file: report every mistake at once, each with its line."""

import json
import operator
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from container.classifier.channel_names import find_folder
from container.classifier.errors import UserError
from image_classifier.settings import metric_definitions, section
from image_classifier.settings.schema import Settings
from image_classifier.settings.section import KeyPath, Mistake
from image_classifier.settings.tuning import rejection

# Where push.sh writes the URIs of the container images.
IMAGES = Path(__file__).resolve().parents[2] / "images.json"

MAX_BYTES = 1_000_000

# Keys that a verb needs on SageMaker.
REQUIRED: Mapping[str, tuple[str, ...]] = {
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

    @property
    def local_data(self) -> Path | None:
        """Return the folder of the channels on this machine."""
        local = self.settings.data.local
        return None if local is None else (self.path.parent / local).resolve()

    def local_channels(self) -> dict[str, Path]:
        """Return the folder of every channel on this machine, which may have another accepted name.

        Raises:
            UserError: a channel has no folder.
        """
        if self.local_data is None:
            raise UserError(f"{self.path}: --local needs data.local, the folder of the channels")
        folders = {path.name for path in self.local_data.glob("*/")}
        channels = {name: find_folder(name, folders) for name in self.settings.data.channels}
        for name, folder in channels.items():
            if folder is None:
                found = f"found {', '.join(sorted(folders)[:10]) or 'no folders'} there"
                raise UserError(
                    f"no folder {self.local_data / name} for channel {name}, {found}: "
                    "fix data.local or data.channels"
                )
        return {name: self.local_data / folder for name, folder in channels.items() if folder}

    def require(self, verb: str) -> None:
        """Check that the file has the keys that a verb needs on SageMaker.

        Raises:
            UserError: keys are missing; all of them are listed.
        """
        required = REQUIRED.get(verb, ())
        missing = [name for name in required if not operator.attrgetter(name)(self.settings)]
        if missing:
            hint = ""
            if any(name.startswith("images") for name in missing):
                hint = "; ./push.sh writes the container images into images.json"
            raise UserError(f"{self.path}: {verb} needs {', '.join(missing)}{hint}")


def read(path: Path, images: Path = IMAGES) -> SettingsFile:
    """Read a settings file; container images that it does not name come from images.json.

    Raises:
        UserError: the file cannot be read, or has mistakes: one line each.
    """
    text = _text(path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise UserError(
            f"{path}:{line[1] if line else len(text.splitlines())}: invalid TOML: {error}"
        ) from None
    settings, mistakes = section.validate(Settings, content)
    mistakes += [*_hyperparameter_mistakes(settings), *metric_definitions.mistakes(settings)]
    if mistakes:
        lines = find_lines(text)
        found = sorted({(_line_of(mistake.path, lines), *mistake) for mistake in mistakes})
        raise UserError(
            "\n".join(f"{path}:{line}: {'.'.join(key)} {message}" for line, key, message in found)
        )
    return SettingsFile(path, _with_images(settings, images))


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return the first line, counted from one, of every table and key of a TOML document.

    `tomllib` does not report lines. The document must be valid.
    """
    found: dict[KeyPath, int] = {}
    table: list[str] = []
    start = 1
    for number, line in enumerate(text.splitlines(), 1):
        if start == number and line.lstrip().startswith("["):
            table = []
        table.append(line)
        try:
            content = tomllib.loads("\n".join(table))
        except tomllib.TOMLDecodeError:
            # A value that spans several lines.
            continue
        for path in _paths(content):
            found.setdefault(path, start)
        start = number + 1
    return found


def _line_of(path: KeyPath, lines: Mapping[KeyPath, int]) -> int:
    """Return the line of a key, else that of the nearest table around it."""
    return next((lines[path[:end]] for end in range(len(path), 0, -1) if path[:end] in lines), 1)


def _paths(table: Mapping[str, object], parent: KeyPath = ()) -> Iterator[KeyPath]:
    for key, value in table.items():
        yield (path := (*parent, key))
        if isinstance(value, Mapping):
            yield from _paths(value, path)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise UserError(f"{path} has more than a megabyte: name a settings file (TOML)")
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): name a settings file (TOML)"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as UTF-8") from None


def _hyperparameter_mistakes(settings: Settings) -> list[Mistake]:
    """Return why the training program would reject each hyperparameter, else all together."""
    given = settings.hyperparameters
    reasons = {name: rejection({name: value}) for name, value in given.items()}
    found = [Mistake(("hyperparameters", n), reason) for n, reason in reasons.items() if reason]
    tuned = settings.tuning.ranges if settings.tuning else {}
    fixed = {name: value for name, value in given.items() if name not in tuned}
    if not found and (reason := rejection(fixed)):
        found = [Mistake(("hyperparameters",), reason)]
    return found


def _with_images(settings: Settings, path: Path) -> Settings:
    """Return the settings with the pushed container images, if they are in the settings' region."""
    if not path.is_file():
        return settings
    try:
        pushed = json.loads(path.read_text(encoding="utf-8"))
        region = str(pushed["region"])
        found = {name: str(pushed[name]) for name in ("train", "serve") if name in pushed}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} was not written by push.sh: run ./push.sh again, or remove the file"
        ) from None
    if settings.aws.region not in {"", region}:
        return settings
    images = settings.images.model_copy(
        update=found | settings.images.model_dump(exclude_none=True)
    )
    return settings.model_copy(update={"images": images})
