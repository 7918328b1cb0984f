"""Console blocks of README.md and docs/, with a mark that names what executes them.

A comment before a block, `<!-- test: MARK -->`, is one of `MARKS` or the path of a test that
executes the same commands. A comment `<!-- file: NAME -->` before a block gives a file's content.
In a block, a line that begins with `$` is a command. The lines below it are its output: `...` is
any text, and a line of only `...` any number of lines. Output is not compared if none is shown.
"""

import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
DOCS = ROOT / "docs"

PAGES = (README, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(DOCS.rglob("*.md")))

MARKS = {
    "quickstart": "test_readme.py, in a copy of the checkout without a Docker engine",
    "journey": "test_documents.py: the tutorial, from top to bottom",
    "trained": "test_documents.py, in the folder of the tutorial, after it",
    "data": "test_documents.py, in a folder with fingers.zip",
    "clone": "test_documents.py, in the checkout",
    "server": "test_documents.py, with a server and image.jpg",
    "multi-model": "test_multi_model.py",
    "aws": "needs AWS; test_documents.py checks the commands, and runs verbs with --dry-run",
    "docker": "needs a Docker engine; test_documents.py checks that Compose accepts the file",
    "gpu": "needs a GPU",
    "download": "needs a network",
    "sdk3": "needs version 3 of the SageMaker SDK",
    "setup": ".ci/run",
}

# They tell a program below make that it is one.
_MAKE_VARIABLES = ("MAKEFLAGS", "MAKELEVEL", "MFLAGS")

# curl shows no progress on a terminal. The command is that of this checkout.
_QUIET_CURL = """
curl() { command curl --silent --show-error --noproxy localhost "$@"; }
image-classifier() { python -m image_classifier "$@"; }
"""

_BLOCK = re.compile(
    r"(?:<!-- (?P<kind>test|file): (?P<mark>\S+) -->\n)?```(?P<language>\w*)\n(?P<text>.*?)```",
    re.DOTALL,
)


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block of a page."""

    page: Path
    line: int
    kind: str
    """`test`, `file` or empty."""

    mark: str
    language: str
    text: str

    @property
    def place(self) -> str:
        """The page and the line."""
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    def commands(self) -> Iterator[tuple[str, list[str]]]:
        """Yield each command with the lines of output below it."""
        command, output = "", list[str]()
        for line in self.text.splitlines():
            if line.startswith("$ "):
                if command:
                    yield command, output
                command, output = line.removeprefix("$ "), []
            else:
                output.append(line)
        if command:
            yield command, output


def blocks(pages: Iterable[Path] = PAGES, mark: str = "") -> list[Block]:
    """Return the blocks of pages, in order; with `mark` only those."""
    found = []
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            line = text.count("\n", 0, match.start()) + 1
            values = {key: value or "" for key, value in match.groupdict().items()}
            block = Block(page, line, **values)
            if not mark or block.mark == mark:
                found.append(block)
    return found


def pattern_of(lines: Iterable[str]) -> re.Pattern[str]:
    """Return the expression that matches the shown output."""
    expression = ""
    for line in lines:
        if line.strip() == "...":
            expression += r"(?:[^\n]*\n)*?"
        else:
            expression += re.escape(line).replace(r"\.\.\.", ".*?") + r"\s*?\n"
    # The hint at the next step, on stderr, is not shown.
    return re.compile(expression + r"(?:next: [^\n]*\n)?")


def run(block: Block, folder: Path, environment: Mapping[str, str], **replaced: str) -> str:
    """Execute the commands of a block in a folder, compare their output and return it.

    Args:
        block: its commands are executed one by one.
        folder: the working directory.
        environment: variables that are added to this process's.
        replaced: `port` replaces 8080 in commands and output.
    """
    path = f"{ROOT / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
    port = replaced.get("port", "8080")
    # Under `make test`, make would otherwise announce the folders that it enters.
    inherited = {key: value for key, value in os.environ.items() if key not in _MAKE_VARIABLES}
    everything = ""
    for command, output in block.commands():
        result = subprocess.run(
            ["bash", "-c", _QUIET_CURL + command.replace(":8080", f":{port}")],  # noqa: S607
            cwd=folder,
            env={**inherited, "PATH": path, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        printed = f"{block.place}: {command}\n{result.stdout}"
        assert result.returncode == 0, printed
        expected = [line.replace(":8080", f":{port}") for line in output]
        # The next step, which the command prints on stderr, is not in the documents.
        text = re.sub(r"(?m)^next: .*\n", "", f"{result.stdout.removesuffix(chr(10))}\n")
        assert not expected or pattern_of(expected).fullmatch(text), printed
        everything += text
    return everything
