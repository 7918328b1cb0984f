"""The reference of the settings file in Markdown, from its JSON Schema."""

import json
from collections.abc import Iterator

from image_classifier.settings.json_schema import Schema, json_schema
from image_classifier.settings.known_names import NETWORKS

INTRODUCTION = """\
# Settings

<!-- Generated: python -m image_classifier.settings -->

A settings file describes training, tuning and deployment of one model. It is a TOML file, and only
`name` is required: every other key has a default or can be unset. `check` lists all mistakes, each
with its line.

`--set KEY=VALUE` replaces a value of the file, such as `--set training.spot=true` or
`--set hyperparameters.network=resnet50`. Text needs no quotation marks there.

Editors that support JSON Schema in TOML, such as VS Code with the extension Even Better TOML,
complete and check keys with [settings.schema.json](../settings.schema.json). Name it in the first
line of the file, as a path from the file or as a URL:

```toml
#:schema ../docs/settings.schema.json
```
"""

# Values of one key that are listed in their own section instead of a cell.
MAX_LISTED = 20


def markdown() -> str:
    """Return the text of docs/reference/settings.md."""
    schema = json_schema()
    parts = [INTRODUCTION, *_section("", schema, schema)]
    names = ", ".join(f"`{name}`" for name in NETWORKS)
    parts.append(f"## Networks\n\nValues of `hyperparameters.network`:\n\n{names}\n")
    return "\n".join(parts)


def _section(path: str, section: Schema, schema: Schema) -> Iterator[str]:
    """Yield the part of a table, then those of the tables below it."""
    below, rows = [], []
    for name, value in section["properties"].items():
        key = f"{path}.{name}".lstrip(".")
        if name == "environment" or "properties" not in value:
            rows.append(_row(name, value))
        else:
            below.append((key, value))
    if rows:
        heading = f"## [{path}]" if path else "## Top of the file"
        lead = section.get("description", "").rpartition("]: ")[2] if path else ""
        table = ["| key | values | default | meaning |", "|---|---|---|---|", *rows]
        text = [heading, *([f"{lead[:1].upper()}{lead[1:]}"] if lead else []), "\n".join(table)]
        yield "\n\n".join(text) + "\n"
    for key, value in below:
        if key == "tuning.ranges":
            yield from _section(f"{key}.HYPERPARAMETER", schema["$defs"]["Range"], schema)
        elif key == "debugger.parameters":
            yield _rules(key, value)
        else:
            yield from _section(key, value, schema)


def _rules(path: str, section: Schema) -> str:
    """Return the part of the rules' parameters: a row for each rule."""
    rows = ["| rule | parameters |", "|---|---|"]
    for rule, value in section["properties"].items():
        parameters = [f"`{n}` ({_values(s)})" for n, s in value["properties"].items()]
        rows.append(f"| `{rule}` | {', '.join(parameters)} |")
    lead = "Parameters of one of the `rules`; unset ones have SageMaker's defaults."
    return "\n\n".join([f"## [{path}.RULE]", lead, "\n".join(rows)]) + "\n"


def _row(name: str, value: Schema) -> str:
    default = f"`{json.dumps(value['default'])}`" if "default" in value else ""
    meaning = value["description"].removeprefix(f"[{name}]: ")
    cells = (f"`{name}`", _values(value), default, meaning[:1].upper() + meaning[1:])
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _values(value: Schema) -> str:
    """Return the accepted values in words."""
    choices = value.get("enum", ())
    if len(choices) > MAX_LISTED:
        return "[a network](#networks)"
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    match value.get("type"):
        case "array":
            items = _values(value["items"])
            words = "list of text" if items == "text" else f"list of: {items}"
        case "integer" | "number":
            words = _number(value)
        case "boolean":
            words = "`true`, `false`"
        case "object":
            words = "table"
        case list():
            words = "text, number, `true` or `false`"
        case _:
            is_instance = value.get("pattern", "").startswith("^ml")
            words = "an instance type" if is_instance else "text"
    return words


def _number(value: Schema) -> str:
    word = "whole number" if value["type"] == "integer" else "number"
    if "minimum" in value:
        word += f" from {value['minimum']:g}"
    if "maximum" in value:
        word += f" to {value['maximum']:.10g}"
    return word
