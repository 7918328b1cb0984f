"""Names that the container defines: networks, rules of the debugger, variables of the server.

They come from `known_names.json`, because the modules that define them import PyTorch or belong to
a container image. `python -m tests.known_names` writes that file, and a test compares it.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

_FILE = Path(__file__).with_name("known_names.json")
_CONTENT: dict[str, Any] = json.loads(_FILE.read_text(encoding="utf-8"))


class Variable(NamedTuple):
    """An environment variable of the server."""

    choices: tuple[str, ...]
    """The accepted values of text; empty: any."""
    type: str
    minimum: float
    maximum: float

    def rejection(self, text: str) -> str | None:
        """Return why the server would reject a value, or None. Empty text counts as unset."""
        # On/off values are accepted in any case.
        is_flag = "on" in self.choices
        found = text.lower() if is_flag else text
        if self.choices and text and found not in self.choices:
            return f"must be one of {', '.join(self.choices)}, got {text!r}"
        if not text or self.type == "text":
            return None
        try:
            number = float(text) if self.type == "a number" else int(text)
        except ValueError:
            number = float("nan")
        if self.minimum <= number <= self.maximum:
            return None
        return f"must be {self.type} from {self.minimum} to {self.maximum}, got {text!r}"


NETWORKS: tuple[str, ...] = tuple(_CONTENT["networks"])

RULES: Mapping[str, Mapping[str, str]] = _CONTENT["rules"]
"""SageMaker's names of the debugger's rules; the parameters of each, with their types in words."""

ENVIRONMENT: Mapping[str, Variable] = {
    name: Variable(
        tuple(limits.get("choices", ())),
        limits.get("type", "text"),
        limits.get("minimum", 0),
        limits.get("maximum", 0),
    )
    for name, limits in _CONTENT["environment"].items()
}
"""The server's environment variables."""
