"""Writes the generated tables of the documents: `python -m tests.readme`."""

import ast
import itertools
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from container.serving.settings import MIB, Settings
from container.serving.sizing import Sizing
from image_classifier.preparation.findings import KINDS
from tests import hostile_images

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
IMAGES = ROOT / "docs" / "images.md"
PREPARATION = ROOT / "docs" / "preparation.md"

HYPERPARAMETERS = ROOT / "container" / "training" / "hyperparameters.py"
SETTINGS = ROOT / "container" / "serving" / "settings.py"

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


TABLES: Mapping[Path, Mapping[str, Callable[[], str]]] = {
    README: {
        "hyperparameters": hyperparameters_table,
        "environment": environment_table,
        "sizing": sizing_table,
    },
    IMAGES: {"images": hostile_images.table},
    PREPARATION: {"findings": findings_table},
}


def with_tables(document: Path) -> str:
    """Return a document's text with its tables made anew."""
    text = document.read_text(encoding="utf-8")
    for name, table in TABLES[document].items():
        before, mark, after = text.partition(f"<!-- {name} -->\n")
        assert mark, f"{document.name} has no place for {name}"
        rest = re.sub(r"^\n?(?:[|].*\n)+", "", after)
        text = f"{before}{mark}\n{table()}\n{rest}"
    return text


if __name__ == "__main__":
    for path in TABLES:
        path.write_text(with_tables(path), encoding="utf-8")
