"""Writes the generated tables of the documents: `python -m tests.readme`."""

import ast
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

from container.classifier import artifact
from container.debugger.profiler import rules as profiler_rules
from container.debugger.rules import selection
from container.debugger.rules.rule import Rule
from container.serving.http import multi_model
from container.serving.settings import MIB, Settings
from container.serving.sizing import Sizing
from image_classifier.platform.doctor.cases import CASES, ROLES
from image_classifier.preparation.findings import KINDS
from tests import command_lines, hostile_images, public_layouts
from tests.documents import DOCS, ROOT
from tests.sdk_requests import comparison

REFERENCE = DOCS / "reference"

HYPERPARAMETERS = ROOT / "container" / "training" / "hyperparameters.py"
SETTINGS = ROOT / "container" / "serving" / "settings.py"
MANIFEST = ROOT / "container" / "classifier" / "manifest.py"

# Processors and GB: serverless endpoints, then ml.c7i.large to 4xlarge and ml.m7i.16xlarge.
MACHINES = ((1, 1), (2, 3), (2, 4), (4, 8), (8, 16), (16, 32), (64, 256))


def documented_fields(path: Path, class_name: str) -> list[tuple[str, str, str]]:
    """Return name, default and docstring of each field of a dataclass."""
    module = ast.parse(path.read_text(encoding="utf-8"))
    body = next(
        node.body
        for node in module.body
        if isinstance(node, ast.ClassDef) and node.name == class_name
    )
    fields = []
    for field, text in itertools.pairwise([*body, ast.Pass()]):
        if isinstance(field, ast.AnnAssign):
            words = ""
            if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                words = " ".join(str(text.value.value).split())
            default = ast.unparse(field.value) if field.value else ""
            fields.append((ast.unparse(field.target), default, words))
    return fields


def hyperparameters_table() -> str:
    """Return the table of hyperparameters."""
    rows = ["| name | default | meaning |", "|---|---|---|"]
    for name, default, words in documented_fields(HYPERPARAMETERS, "Hyperparameters"):
        shown = {"None": "unset", "True": "true", "False": "false"}.get(default, default)
        rows.append(f"| `{name}` | {shown.strip(chr(39))} | {words} |")
    return "\n".join(rows)


def environment_table() -> str:
    """Return the table of the serving container image's environment variables."""
    rows = ["| variable | meaning |", "|---|---|"]
    for _, _, words in documented_fields(SETTINGS, "Settings"):
        if match := re.match(r"(SAGEMAKER_\w+)(?:: )?", words):
            rows.append(f"| `{match[1]}` | {words[match.end() :]} |")
    return "\n".join(rows)


def sizing_table() -> str:
    """Return the sizes that the server chooses on some machines, for ResNet-18."""
    # Without the last one, which only the PyTorch engine uses.
    columns = Sizing.__slots__[:-1]
    rows = [
        f"| CPU quota | memory | {' | '.join(columns)} |",
        "|---" * (2 + len(columns)) + "|",
    ]
    for processors, gib in MACHINES:
        chosen = Sizing.choose(
            Settings(),
            processors=processors,
            memory=gib * 1024 * MIB,
            model_bytes=45 * MIB,
        )
        numbers = " | ".join(str(getattr(chosen, column)) for column in columns)
        rows.append(f"| {processors} | {gib} GB | {numbers} |")
    return "\n".join(rows)


def findings_table() -> str:
    """Return the kinds of findings."""
    rows = ["| kind | severity | means | moved by `--fix` |", "|---|---|---|---|"]
    for name, kind in KINDS.items():
        moved = "yes" if kind.is_moved else ""
        rows.append(f"| `{name}` | {kind.severity} | {kind.meaning} | {moved} |")
    return "\n".join(rows)


def cases_table() -> str:
    """Return the cases of the doctor, with anchors."""
    rows = ["| ID | roles | requirement | remedy |", "|---|---|---|---|"]
    for case_id, case in CASES.items():
        roles = "all" if case.roles == ROLES else ", ".join(case.roles)
        id_cell = f'<a id="{case_id}"></a>`{case_id}`'
        rows.append(f"| {id_cell} | {roles} | {case.checks} | {case.remedy} |")
    return "\n".join(rows)


def docstring_table(module: ModuleType) -> str:
    """Return the table in a module's docstring."""
    lines = (module.__doc__ or "").splitlines()
    return "\n".join(line for line in lines if line.startswith("|"))


def manifest_table() -> str:
    """Return the table of the manifest's keys."""
    rows = ["| key | meaning |", "|---|---|"]
    for name, _, words in documented_fields(MANIFEST, "Manifest"):
        rows.append(f"| `{name}` | {words or MANIFEST_KEYS[name]} |")
    return "\n".join(rows)


def rules_table(rules: Mapping[str, Rule]) -> str:
    """Return the table of rules with their parameters."""
    rows = ["| rule | description | parameters |", "|---|---|---|"]
    for name, rule in rules.items():
        parameters = ", ".join(
            f"`{parameter}`" if default is None else f"`{parameter}={default}`"
            for parameter, default in rule.defaults.items()
        )
        # A pipe would end the cell.
        escaped = parameters.replace("|", r"\|")
        rows.append(f"| {name} | {rule.description} | {escaped} |")
    return "\n".join(rows)


# Of keys whose names describe them in the code.
MANIFEST_KEYS = {
    "network": "A torchvision network by name, or `small`.",
    "preprocessing": "Image size, crop, interpolation, mean and standard deviation.",
}

TABLES: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    REFERENCE / "command-line.md": {"programs": command_lines.sections},
    REFERENCE / "hyperparameters.md": {"hyperparameters": hyperparameters_table},
    REFERENCE / "environment.md": {"environment": environment_table, "sizing": sizing_table},
    REFERENCE / "images.md": {"images": hostile_images.table},
    REFERENCE / "findings.md": {"findings": findings_table},
    DOCS / "how-to" / "sdk.md": {"requests": comparison.table},
    DOCS / "how-to" / "health-check.md": {"cases": cases_table},
    REFERENCE / "layouts.md": {"layouts": public_layouts.layouts_table},
    REFERENCE / "http-api.md": {"multi-model": lambda: docstring_table(multi_model)},
    REFERENCE / "artifact.md": {
        "artifact": lambda: docstring_table(artifact),
        "manifest": manifest_table,
    },
    REFERENCE / "rules.md": {
        "rules": lambda: rules_table(selection.RULES),
        "profiler-rules": lambda: rules_table(profiler_rules.RULES),
    },
}


def with_tables(document: Path) -> str:
    """Return a document's text with its tables made anew.

    A table replaces the one after its mark, or everything up to `<!-- end -->` if that follows.
    """
    text = document.read_text(encoding="utf-8")
    for name, table in TABLES[document].items():
        before, mark, after = text.partition(f"<!-- {name} -->\n")
        assert mark, f"{document.name} has no place for {name}"
        _, end, rest = after.partition("\n<!-- end -->")
        rest = end + rest if end else re.sub(r"^\n?(?:[|].*\n)+", "", after)
        text = f"{before}{mark}\n{table()}\n{rest}"
    return text


if __name__ == "__main__":
    for path in TABLES:
        path.write_text(with_tables(path), encoding="utf-8")
