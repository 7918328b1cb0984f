"""README.md and docs/: links, and every console block."""

import itertools
import os
import re
import shlex
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from tests.bodies import JPEG
from tests.command_lines import PROGRAMS, parser_of, subparsers_of
from tests.documents import DOCS, MARKS, PAGES, README, ROOT, Block, blocks, run
from tests.processes import free_port
from tests.servers import Server
from tests.settings_files import BEGINNING, TUNING

MAX_README_WORDS = 1300

CONSOLE = [block for block in blocks() if block.language == "console"]
TUTORIAL = DOCS / "tutorial.md"

_LINK = re.compile(r"(?<!`)\]\((?P<target>[^)\s]+)\)")


def slug(heading: str) -> str:
    """Return the anchor of a heading, as GitHub and MkDocs make it of plain words."""
    plain = re.sub(r"[^\w\s-]", "", heading.lower().strip())
    return re.sub(r"\s", "-", plain)


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {slug(heading) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    broken = []
    for match in _LINK.finditer(page.read_text(encoding="utf-8")):
        file, _, anchor = match["target"].partition("#")
        if file.startswith(("http:", "https:")):
            continue
        target = (page.parent / file).resolve() if file else page
        if not target.is_file() or (anchor and anchor not in anchors(target)):
            broken.append(match["target"])

    assert broken == []


def test_every_page_is_in_the_navigation() -> None:
    navigation = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")

    pages = [str(page.relative_to(DOCS)) for page in DOCS.rglob("*.md")]
    assert [page for page in pages if f": {page}\n" not in navigation] == []


def test_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= MAX_README_WORDS


def test_files_and_folders_in_the_documents_exist() -> None:
    pattern = (
        r"`((?:container|image_classifier|local_test|tests|benchmarks|docs|examples|notebooks)"
        r"/[\w/.-]+)`"
    )
    named = {name for page in PAGES for name in re.findall(pattern, page.read_text("utf-8"))}
    made_by_a_run = ("local_test/test_dir", "local_test/tour")

    missing = [n for n in named if not n.startswith(made_by_a_run) and not (ROOT / n).exists()]
    assert missing == []
    assert len(named) > 20


@pytest.mark.parametrize("block", CONSOLE, ids=lambda block: block.place)
def test_console_blocks_name_what_executes_them(block: Block) -> None:
    is_known = block.mark in MARKS or (ROOT / block.mark).is_file()

    assert block.kind == "test", "put <!-- test: MARK --> before the block"
    assert is_known, f"{block.mark} is neither a mark of tests/documents.py nor a test"
    assert list(block.commands())


def program_of(words: list[str]) -> tuple[str, list[str]] | None:
    """Return the module and the arguments of a command of ours."""
    if words[0] == "image-classifier":
        return "image_classifier", words[1:]
    if "-m" in words and words[0] in {"python", ".venv/bin/python"} and words[2] in PROGRAMS:
        return words[2], words[3:]
    return None


def words_of(command: str) -> list[str]:
    """Return the words of a command without its comment and what is piped or chained."""
    lexer = shlex.shlex(command, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split = True
    words = list(lexer)
    ends = [index for index, word in enumerate(words) if set(word) <= set("|;&")]
    return words[: ends[0]] if ends else words


def test_commands_have_the_options_that_the_programs_accept() -> None:
    parsed = 0
    for block in CONSOLE:
        for command, _ in block.commands():
            if found := program_of(words_of(command)):
                program, arguments = found
                # A command follows that `doctor` examines.
                arguments = [*itertools.takewhile(lambda word: word != "--", arguments)]
                try:
                    parser_of(program, arguments[0]).parse_args(arguments)
                except SystemExit:
                    pytest.fail(f"{block.place}: {command}")
                parsed += 1

    assert parsed > 50


def dry_runs() -> dict[str, Block]:
    """Return the commands that need AWS, as dry runs, each with its block."""
    verbs = {
        name
        for name, _, parser in subparsers_of(parser_of("image_classifier"))
        if "--dry-run" in parser.format_usage()
    }
    # `delete` lists the account's resources; `explain` reads the endpoint's predictions.
    verbs -= {"delete", "explain"}
    found = {}
    for block in blocks(mark="aws"):
        for command, _ in block.commands():
            # The job of `--from-tuning` is in the account.
            plain = re.sub(r" --from-tuning \S+| --dry-run", "", command)
            program = program_of(words_of(plain))
            if program and program[0] == "image_classifier" and program[1][0] in verbs:
                found[f"{plain} --dry-run"] = block
    return found


@pytest.mark.parametrize("command", dry_runs())
def test_verbs_that_need_aws_run_as_a_dry_run(command: str, tmp_path: Path) -> None:
    for name in ("settings", "birds", "hands"):
        (tmp_path / f"{name}.toml").write_text(BEGINNING + TUNING, encoding="utf-8")
    for name in ("image.jpg", "image.png"):
        (tmp_path / name).write_bytes(JPEG)

    run(
        replace(dry_runs()[command], text=f"$ {command}\n"),
        tmp_path,
        {"AWS_EC2_METADATA_DISABLED": "true"},
    )


@pytest.mark.parametrize("block", blocks(mark="server"), ids=lambda block: block.place)
def test_blocks_with_a_server(block: Block, server: Server, tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(JPEG)

    run(block, tmp_path, {}, port=str(server.port))


@pytest.mark.parametrize("block", blocks(mark="clone"), ids=lambda block: block.place)
def test_blocks_in_the_checkout(block: Block) -> None:
    run(block, ROOT, {})


def sample_zip(folder: Path) -> None:
    """Write fingers.zip as the tutorial does."""
    for block in blocks([TUTORIAL], mark="journey")[:1]:
        run(block, folder, {})


@pytest.mark.slow
@pytest.mark.parametrize("page", [README, DOCS / "how-to" / "own-data.md"], ids=lambda p: p.name)
def test_blocks_with_a_data_set(page: Path, tmp_path: Path) -> None:
    sample_zip(tmp_path)
    (tmp_path / "Makefile").write_text("setup:\n\t@echo nothing to install\n", encoding="utf-8")
    (tmp_path / ".venv").symlink_to(ROOT / ".venv")

    for block in blocks([page], mark="data"):
        run(block, tmp_path, {})


@pytest.mark.slow
def test_tutorial_from_a_zip_to_an_endpoint(tmp_path: Path) -> None:
    port = str(free_port())
    environment = {"OMP_NUM_THREADS": "1"}
    for block in blocks([TUTORIAL]):
        if block.kind == "file":
            (tmp_path / block.mark).write_text(block.text, encoding="utf-8")
        elif block.mark == "journey":
            run(_with_port(block, port), tmp_path, environment, port=port)
    shutil.copy2(tmp_path / "hands.toml", tmp_path / "settings.toml")
    # The guides continue with the trained model of the tutorial.
    for block in blocks(mark="trained"):
        run(_with_port(block, port), tmp_path, environment, port=port)


def _with_port(block: Block, port: str) -> Block:
    text = re.sub(
        r"^(\$ .* deploy .*--local)$", rf"\1 --port {port}", block.text, flags=re.MULTILINE
    )
    return replace(block, text=text)


@pytest.mark.docker
def test_compose_accepts_its_file() -> None:
    result = subprocess.run(
        ["docker", "compose", "config", "--services"],  # noqa: S607 - on the PATH
        cwd=ROOT,
        env=os.environ,
        capture_output=True,
        text=True,
        check=True,
    )

    assert {"prepare", "train", "serve"} <= set(result.stdout.split())
