"""The JSON Schema of the settings file, with which editors complete and check keys and values."""

import ast
import inspect
import textwrap
import typing
from collections.abc import Mapping
from dataclasses import fields
from itertools import pairwise
from types import NoneType
from typing import Any

from container.training.hyperparameters import FOREIGN_PREFIXES, Hyperparameters
from image_classifier.settings import known_names
from image_classifier.settings.debugging import RULES
from image_classifier.settings.schema import Settings
from image_classifier.settings.tuning import Range

# Draft 7 is the newest one that all TOML editors read.
DRAFT = "http://json-schema.org/draft-07/schema#"

Schema = dict[str, Any]

_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_TYPES_IN_WORDS = {
    "true or false": "boolean",
    "a whole number": "integer",
    "a number": "number",
    "text": "string",
}


def json_schema() -> Schema:
    """Return the JSON Schema of the settings file."""
    generated = Settings.model_json_schema()
    schema = _simplify(generated, generated.pop("$defs"))
    sections = schema["properties"]
    sections["hyperparameters"] |= {
        "properties": _hyperparameters(),
        # Other programs add hyperparameters with these prefixes.
        "patternProperties": {f"^({'|'.join(FOREIGN_PREFIXES)})": {}},
        "additionalProperties": False,
    }
    tuning = sections["tuning"]["properties"]
    tuning["ranges"] |= {
        "properties": {name: {"$ref": "#/$defs/Range"} for name in _hyperparameters()},
        "additionalProperties": False,
    }
    debugger = sections["debugger"]["properties"]
    debugger["parameters"] |= {"properties": _rules(), "additionalProperties": False}
    endpoint = sections["endpoint"]["properties"]
    endpoint["environment"]["properties"] = _environment()
    return {
        "$schema": DRAFT,
        "title": "Settings of image-classifier",
        **schema,
        "required": ["name"],
        "$defs": {"Range": _simplify(Range.model_json_schema(), {})},
    }


def _simplify(node: Any, definitions: Mapping[str, Schema]) -> Any:  # noqa: ANN401 - JSON
    """Return a schema without references, titles and null, which TOML does not have."""
    if isinstance(node, list):
        return [_simplify(item, definitions) for item in node]
    if not isinstance(node, dict):
        return node
    own = {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
    if "$ref" in node:
        own = {**definitions[node["$ref"].rpartition("/")[2]], **own}
    for option in node.get("anyOf", ()):
        if option.get("type") != "null":
            own = {**_simplify(option, definitions), **own}
    if isinstance(own.get("title"), str):
        del own["title"]
    # None and empty values mean that a key is unset.
    if own.get("default") in (None, "", []) or isinstance(own["default"], dict):
        own.pop("default", None)
    if isinstance(own.get("description"), str):
        own["description"] = " ".join(own["description"].split())
    return {key: _simplify(value, definitions) for key, value in own.items()}


def _hyperparameters() -> Mapping[str, Schema]:
    """Return a schema for each hyperparameter of the training program."""
    hints = typing.get_type_hints(Hyperparameters, include_extras=True)
    meanings = attribute_docstrings(Hyperparameters)
    found = {}
    for field in fields(Hyperparameters):
        schema = {"description": meanings[field.name], **_value(hints[field.name])}
        if field.default is not None:
            schema["default"] = field.default
        found[field.name] = schema
    found["network"] |= {"enum": list(known_names.NETWORKS)}
    return found


def _value(hint: object) -> Schema:
    """Return the schema of a type."""
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Annotated:
        low, high = arguments[1]
        return {**_value(arguments[0]), "minimum": low, "maximum": high}
    if typing.get_origin(hint) is typing.Literal:
        return {"enum": list(arguments)}
    if arguments:
        return _value(next(kind for kind in arguments if kind is not NoneType))
    return {"type": _TYPES[typing.cast("type", hint)]}


def _rules() -> Mapping[str, Schema]:
    """Return a schema for the parameters of each rule."""
    return {
        rule: {
            "type": "object",
            "properties": {
                parameter: {"type": _TYPES_IN_WORDS[words]}
                for parameter, words in known_names.RULES[name].items()
            },
            "additionalProperties": False,
        }
        for rule, (name, _) in RULES.items()
    }


def _environment() -> Mapping[str, Schema]:
    """Return a schema for each environment variable of the server. All values are text."""
    found: dict[str, Schema] = {}
    for name, variable in known_names.ENVIRONMENT.items():
        found[name] = {"type": "string"}
        if variable.choices:
            found[name]["enum"] = list(variable.choices)
        elif variable.type != "text":
            limits = f"from {variable.minimum} to {variable.maximum}"
            found[name]["description"] = f"{variable.type.capitalize()} {limits}, as text."
    return found


def attribute_docstrings(kind: type) -> dict[str, str]:
    """Return the text below each attribute in the source of a class, on one line."""
    module = ast.parse(textwrap.dedent(inspect.getsource(kind)))
    found = {}
    for attribute, text in pairwise(typing.cast("ast.ClassDef", module.body[0]).body):
        match attribute, text:
            case (
                ast.AnnAssign(target=ast.Name(id=name)),
                ast.Expr(value=ast.Constant(value=str(words))),
            ):
                found[name] = " ".join(words.split())
    return found
