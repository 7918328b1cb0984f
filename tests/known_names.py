"""Writes names for `check`, which does not import PyTorch: `python -m tests.known_names`.

They are those of torchvision's networks, the debugger's rules and the server's variables.
"""

import json
import typing
from collections.abc import Mapping
from pathlib import Path
from unittest import mock

from container.classifier.environment import OFF, ON
from container.debugger.rules import selection
from container.networks.network import known_networks
from container.serving import settings as serving
from image_classifier.settings import known_names

TYPES = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}

PATH = Path(known_names.__file__).with_name("known_names.json")


def rule_parameters() -> dict[str, dict[str, str]]:
    """Return the parameters of every rule with their types, by the rule's names."""
    names = {name: name for name in selection.RULES} | dict(selection.ALIASES)
    found = {}
    for name, target in sorted(names.items()):
        rule = selection.RULES[target]
        hints = typing.get_type_hints(rule.function)
        found[name] = {
            parameter: TYPES[(typing.get_args(hints[parameter]) or (hints[parameter],))[0]]
            for parameter in rule.defaults
        }
    return found


class Recorder:
    """Takes the place of the server's checks of its variables, and records them."""

    found: typing.ClassVar[dict[str, dict[str, object]]] = {}

    def __init__(self, _environment: Mapping[str, str]) -> None:
        self.found.clear()

    def choice(self, name: str, default: str, values: typing.Sequence[str]) -> str:
        self.found[name] = {"choices": list(values)}
        return default

    def flag(self, name: str) -> bool:
        self.found[name] = {"choices": [*ON, *OFF]}
        return False

    def number(self, name: str, default: float, lowest: int, highest: int) -> float:
        kind = TYPES[type(default)]
        self.found[name] = {"type": kind, "minimum": lowest, "maximum": highest}
        return default


def environment_variables() -> dict[str, dict[str, object]]:
    """Return the server's environment variables with their accepted values."""
    with mock.patch.object(serving, "_Variables", Recorder):
        serving.Settings.from_environment({})
    return dict(sorted(Recorder.found.items()))


def content() -> str:
    """Return the text of the file."""
    document = {
        "networks": list(known_networks()),
        "rules": rule_parameters(),
        "environment": environment_variables(),
    }
    return json.dumps(document, indent=1) + "\n"


if __name__ == "__main__":
    PATH.write_text(content(), encoding="utf-8")
