"""Limits on the size of modules and functions, and on names of gunicorn that are not public."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

MAX_MODULE_LINES, MAX_FUNCTION_LINES = 300, 60


def modules() -> Iterator[tuple[str, str]]:
    """Yield the path and the text of every module of the two packages."""
    for package in ("container", "image_classifier"):
        for path in sorted((ROOT / package).rglob("*.py")):
            yield str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")


def functions(text: str) -> Iterator[tuple[str, int]]:
    """Yield the name of every function and its number of lines."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.end_lineno:
            yield node.name, node.end_lineno - node.lineno + 1


def test_modules_are_short() -> None:
    lines = {path: len(text.splitlines()) for path, text in modules()}

    assert {path: count for path, count in lines.items() if count > MAX_MODULE_LINES} == {}
    assert len(lines) > 100


def test_functions_fit_a_screen() -> None:
    long = {
        f"{path}:{name}": count
        for path, text in modules()
        for name, count in functions(text)
        if count > MAX_FUNCTION_LINES
    }

    assert long == {}


def test_installed_packages_contain_all_data_files() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    patterns = project["tool"]["setuptools"]["package-data"]["*"]
    files = [
        path
        for package in ("container", "image_classifier")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".py"
    ]

    assert [path for path in files if not any(path.match(pattern) for pattern in patterns)] == []
    assert ROOT / "container/classifier/report.css" in files


def test_only_the_drain_uses_internals_of_gunicorn() -> None:
    importers = {
        path
        for path, text in modules()
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("gunicorn")
    }

    assert importers <= {
        "container/serving/server/drain.py",
        # Documented names: the arbiter's exit codes and the worker class.
        "container/serving/server/gunicorn_conf.py",
    }
