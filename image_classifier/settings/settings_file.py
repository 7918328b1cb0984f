"""Read and check a settings file: report every mistake at once, each with its line."""

import json
import operator
import re
import tomllib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from container.classifier.channel_names import find_folder
from container.classifier.errors import UserError
from image_classifier.settings import checks, section
from image_classifier.settings.overrides import apply
from image_classifier.settings.schema import Settings
from image_classifier.settings.section import KeyPath, Mistake

# Where push.sh writes the URIs of the container images; those for arm64 are in another file.
IMAGES = Path(__file__).resolve().parents[2] / "images.json"
ARM64_IMAGES = "images-arm64.json"

MAX_BYTES = 1_000_000

# Keys that a verb needs on SageMaker.
REQUIRED: Mapping[str, tuple[str, ...]] = {
    "train": ("aws.role", "aws.bucket", "images.train"),
    "tune": ("aws.role", "aws.bucket", "images.train", "tuning"),
    "pipeline": ("aws.role", "aws.bucket", "images.train", "images.serve"),
    "register": ("aws.bucket", "images.serve"),
    "deploy": ("aws.role", "aws.bucket", "images.serve"),
    "deploy --expires": ("aws.role", "aws.bucket", "images.serve", "aws.scheduler_role"),
    "predict": ("aws.bucket",),
    "transform": ("aws.role", "aws.bucket", "images.serve"),
    "explain --clarify": ("aws.role", "aws.bucket", "images.serve"),
    "report": ("aws.bucket",),
    "delete": ("aws.bucket",),
}

# Those of them with --local.
LOCAL = frozenset({"train", "tune", "deploy", "predict", "transform", "report", "delete"})


def required(verb: str, settings: Settings) -> tuple[str, ...]:
    """Return the keys that a verb needs on SageMaker with these settings."""
    keys = REQUIRED.get(verb, ())
    # Transform jobs have no instances with arm64 processors.
    if settings.endpoint.is_arm64 and verb != "transform":
        keys = tuple("images.serve_arm64" if key == "images.serve" else key for key in keys)
    return keys


class SettingsError(UserError):
    """Mistakes in a settings file; each line begins with the file and the line of one."""


@dataclass(frozen=True, slots=True)
class SettingsFile:
    """A file without mistakes."""

    path: Path
    settings: Settings
    overridden: Collection[KeyPath] = ()
    """Keys whose values are those of `--set`."""

    def with_tuned(self, tuned: Mapping[str, Any]) -> Settings:
        """Return the settings with the hyperparameters of a search, except those of `--set`."""
        found = {
            name: value
            for name, value in tuned.items()
            if ("hyperparameters", name) not in self.overridden
        }
        hyperparameters = self.settings.hyperparameters | found
        return self.settings.model_copy(update={"hyperparameters": hyperparameters})

    @property
    def local_data(self) -> Path | None:
        """Return the folder of the channels on this machine."""
        local = self.settings.data.local
        if local is None:
            return None
        home = Path.home() if local.startswith("~/") else self.path.parent
        return (home / local.removeprefix("~/")).resolve()

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
                    f"the folder {self.local_data / name} of channel {name} does not exist, "
                    f"{found}: correct data.local or data.channels"
                )
        return {name: self.local_data / folder for name, folder in channels.items() if folder}

    def require(self, verb: str) -> None:
        """Check that the file has the keys that a verb needs on SageMaker.

        Raises:
            UserError: keys are missing; all of them are listed.
        """
        keys = required(verb, self.settings)
        missing = [name for name in keys if not operator.attrgetter(name)(self.settings)]
        if missing:
            hint = ""
            if "aws.scheduler_role" in missing:
                hint = " (see docs/how-to/cut-costs.md)"
            if "images.serve_arm64" in missing:
                hint = f" (endpoint.instance_type is arm64); {checks.ARM64_PUSH_HINT}"
            elif any(name.startswith("images") for name in missing):
                hint = "; ./push.sh writes the container images into images.json"
            if verb in LOCAL:
                hint += "; without an account add --local"
            raise UserError(f"{self.path}: {verb} needs {', '.join(missing)}{hint}")


def read(
    path: Path,
    images: Path = IMAGES,
    overrides: Sequence[str] = (),
    *,
    is_check: bool = False,
) -> SettingsFile:
    """Read a settings file; container images that it does not name come from images.json.

    Args:
        path: the settings file.
        images: images.json.
        overrides: texts KEY=VALUE that replace values of the file.
        is_check: check also that the folders of the channels exist on this machine, with images
            that training accepts, and list after the mistakes what is missing for SageMaker.

    Raises:
        UserError: the file cannot be read, or an override is not KEY=VALUE.
        SettingsError: the file has mistakes: one line each.
    """
    text = _text(path)
    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        raise SettingsError(
            f"{path}:{line[1] if line else len(text.splitlines())}: invalid TOML: {error}"
        ) from None
    except RecursionError:
        raise SettingsError(f"{path}:1: invalid TOML: too many brackets within brackets") from None
    overridden = apply(content, overrides)
    settings, mistakes = section.validate(Settings, content)
    file = SettingsFile(path, settings)
    mistakes += checks.find_mistakes(settings)
    if is_check:
        wrong = {mistake.path for mistake in mistakes}
        absent = list(checks.find_missing_folders(settings, file.local_data, wrong))
        mistakes += absent or checks.find_unusable_images(settings, file.local_data)
    lines = _located(path, text, mistakes, overridden)
    try:
        settings = _with_images(settings, images)
    except UserError as error:
        lines.append(str(error))
    if lines:
        missing = checks.missing_for_sagemaker(settings) if is_check else None
        raise SettingsError("\n".join(filter(None, (*lines, missing))))
    return SettingsFile(path, settings, overridden)


def _located(
    path: Path, text: str, mistakes: Iterable[Mistake], overridden: Collection[KeyPath]
) -> list[str]:
    """Return the mistakes in the order of the file, with the line or the option of each."""
    lines = find_lines(text)
    found = set()
    for key, message in mistakes:
        is_override = any(
            option == key[: len(option)] or (option[: len(key)] == key and key not in lines)
            for option in overridden
        )
        line = 0 if is_override else _line_of(key, lines)
        found.add((line, key, message))
    return [
        f"{f'{path}:{line}' if line else '--set'}: {'.'.join(key)} {message}"
        for line, key, message in sorted(found)
    ]


def find_lines(text: str) -> dict[KeyPath, int]:
    """Return the first line, counted from one, of every table and key of a TOML document.

    `tomllib` does not report lines. The document must be valid.
    """
    found: dict[KeyPath, int] = {}
    header, statement, start = "", "", 1
    for number, line in enumerate(text.split("\n"), 1):
        statement += line + "\n"
        is_header = line.lstrip().startswith("[") and start == number
        try:
            content = tomllib.loads(statement if is_header else header + statement)
        except tomllib.TOMLDecodeError:
            # A value that spans several lines.
            continue
        if is_header:
            header = statement
        for path in _paths(content):
            found.setdefault(path, start)
        statement, start = "", number + 1
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
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{path} cannot be read ({error.strerror}): name a settings file (TOML)"
        ) from None
    except UnicodeDecodeError:
        raise UserError(f"{path} is not UTF-8: save it as UTF-8") from None


def _with_images(settings: Settings, path: Path) -> Settings:
    """Return the settings with the pushed container images, if they are in the settings' region."""
    arm64 = _pushed_images(path.with_name(ARM64_IMAGES), settings.aws.region)
    found = _pushed_images(path, settings.aws.region)
    if "serve" in arm64:
        found["serve_arm64"] = arm64["serve"]
    images = settings.images.model_copy(
        update=found | settings.images.model_dump(exclude_none=True)
    )
    return settings.model_copy(update={"images": images})


def _pushed_images(path: Path, region: str) -> dict[str, str]:
    """Return the container images of a file of push.sh, unless they are in another region."""
    if not path.is_file():
        return {}
    try:
        pushed = json.loads(path.read_text(encoding="utf-8"))
        pushed_region = str(pushed["region"])
        found = {name: str(pushed[name]) for name in ("train", "serve") if name in pushed}
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"{path} was not written by push.sh: run ./push.sh again, or remove the file"
        ) from None
    return found if region in {"", pushed_region} else {}
