"""Checks prose and names against `tests/banned_words.txt`.

Reads Markdown, docstrings, comments, messages and identifiers.

Usage: python -m tests.prose [PATH...]     default: every tracked text file
Prints `file:line: what was found (what to write)`; exits with 1 when something was found.
"""

import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("banned_words.txt")
SUFFIXES = {".cfg", ".html", ".ipynb", ".jinja", ".md", ".py", ".sh", ".toml", ".yml", ""}
# Generated, quoted, or data.
EXEMPT = ("requirements/", "tests/banned_words.txt", "CHANGELOG.md", "LICENSE")


def rules() -> tuple[list[tuple[re.Pattern[str], str]], list[str]]:
    """Return the banned expressions with their replacements, and what is allowed."""
    banned, allowed = [], []
    for line in LIST.read_text(encoding="utf-8").splitlines():
        if line.startswith("allow "):
            allowed.append(line.removeprefix("allow ").strip())
        elif line and not line.startswith("#"):
            pattern, _, replacement = line.partition("   ")
            banned.append((re.compile(pattern.rstrip(), re.IGNORECASE), replacement.strip()))
    return banned, allowed


def prose_of(path: Path) -> Iterator[tuple[int, str]]:
    """Yield numbered lines: of Python comments, strings and names, of other files everything."""
    text = path.read_text(encoding="utf-8")
    if path.suffix != ".py":
        yield from enumerate(text.splitlines(), 1)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.NAME:
            yield token.start[0], token.string
        elif token.type in {tokenize.COMMENT, tokenize.STRING}:
            yield from enumerate(token.string.splitlines(), token.start[0])


def findings(path: Path) -> Iterator[str]:
    """Yield what is wrong in a file, one line each."""
    banned, allowed = rules()
    seen = set()
    for number, line in prose_of(path):
        plain = line
        for phrase in allowed:
            plain = plain.replace(phrase, "")
        plain = plain.replace("_", " ")
        for pattern, replacement in banned:
            if (match := pattern.search(plain)) and (number, match[0]) not in seen:
                seen.add((number, match[0]))
                yield f"{path.relative_to(ROOT)}:{number}: {match[0]!r} (write: {replacement})"


def main() -> int:
    """Check the named files and folders, else every tracked file."""
    command = ["git", "-C", str(ROOT), "ls-files", "--", *sys.argv[1:]]
    tracked = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split("\n")
    found = [
        finding
        for name in tracked
        if Path(name).suffix in SUFFIXES and name and not name.startswith(EXEMPT)
        for finding in findings(ROOT / name)
    ]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
