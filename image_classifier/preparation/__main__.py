"""Turn images as people have them into a data set to trust, and put it where jobs read it.

Exit codes: 0 done, and `audit` and `check` found no fault; 1 they did; 2 it could not be done.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from container.classifier.errors import UserError
from image_classifier.preparation import findings, labels
from image_classifier.preparation.audit import Audit
from image_classifier.preparation.bucket import Difference, Prefix, hashed
from image_classifier.preparation.manifests import COLUMNS
from image_classifier.preparation.pipeline import Reading, audit_source, prepare

DONE, FAULTY, FAILED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        # Names of files need not be text.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        return _COMMANDS[arguments.command](arguments)
    except UserError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'the disk'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("stopped")
    finally:
        signal.signal(signal.SIGTERM, before)


def _stop(_signal: int, _frame: object) -> NoReturn:
    raise KeyboardInterrupt


def _fail(reason: str) -> int:
    print(f"preparation: {reason}", file=sys.stderr)
    return FAILED


def _prepare(arguments: argparse.Namespace) -> int:
    found = prepare(
        arguments.source,
        arguments.out,
        _reading(arguments),
        {"validation": arguments.validation, "test": arguments.test},
        fix=arguments.fix,
        quiet=arguments.quiet,
    )
    if not arguments.quiet:
        _tell(found)
        print(f"{arguments.out} is ready: look at {arguments.out / 'report.html'}")
    return DONE


def _audit(arguments: argparse.Namespace) -> int:
    found = audit_source(
        arguments.source,
        _reading(arguments),
        fix=arguments.fix,
        page_path=arguments.page,
        quiet=arguments.quiet,
    )
    if arguments.findings:
        findings.write(found.findings, arguments.findings)
    if not arguments.quiet:
        _tell(found)
    return FAULTY if findings.has_fault(found.findings) else DONE


def _upload(arguments: argparse.Namespace) -> int:
    prefix = Prefix(arguments.address)
    files = hashed(arguments.folder, quiet=arguments.quiet)
    difference = prefix.compare(files, quiet=arguments.quiet)
    names = [*difference.missing, *difference.changed]
    size = sum(files[name].size_bytes for name in names) / 1e6
    said = f"{len(names)} of {len(files)} files, {size:.1f} MB"
    if arguments.dry_run:
        for name in names:
            print(f"would send {name}")
        print(f"would send {said}")
        return DONE
    prefix.send(files, names, quiet=arguments.quiet)
    if not arguments.quiet:
        print(f"sent {said}; the others were there")
    if difference.surplus:
        _warn_of_surplus(difference, arguments.address)
    return DONE


def _check(arguments: argparse.Namespace) -> int:
    prefix = Prefix(arguments.address)
    files = hashed(arguments.folder, quiet=arguments.quiet)
    difference = prefix.compare(files, quiet=arguments.quiet)
    if not arguments.quiet:
        for word in ("missing", "changed", "surplus"):
            for name in getattr(difference, word):
                print(f"{word}: {name}")
        if difference.is_none:
            print(f"{arguments.address} has the same {len(files)} files as {arguments.folder}")
    return DONE if difference.is_none else FAULTY


def _warn_of_surplus(difference: Difference, address: str) -> None:
    """Say what a job would train on, though it is not here; it is not ours to delete."""
    print(
        f"WARNING: {address} has {len(difference.surplus)} files that are not here, such as "
        f"{difference.surplus[0]}: a job would read them too",
        file=sys.stderr,
    )


def _tell(found: Audit) -> None:
    """Print what a data set holds and what is wrong with it."""
    for split in found.splits:
        count = sum((image.split or "all") == split for image in found.images)
        print(f"{split}: {count} images")
    for line in findings.summary(found.findings):
        print(line)
    for sentence in found.sentences():
        print(sentence)


def _reading(arguments: argparse.Namespace) -> Reading:
    return Reading(
        within=arguments.within,
        label=arguments.label,
        group=arguments.group,
        manifests=arguments.manifest,
        columns=dict(arguments.columns),
    )


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "prepare": _prepare,
    "audit": _audit,
    "upload": _upload,
    "check": _check,
}


def _column(text: str) -> tuple[str, str]:
    meaning, equals, name = text.partition("=")
    if meaning not in COLUMNS or not equals or not name:
        message = f"expected {'|'.join(COLUMNS)}=NAME, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return meaning, name


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        message = f"expected a share from 0 to less than 1, got {text!r}"
        raise argparse.ArgumentTypeError(message)
    return share


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m image_classifier.preparation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser(
        "prepare", help="make train/, validation/ and test/ with class folders, tables and a report"
    )
    making.add_argument("source", type=Path, help="a folder, a zip or a tar")
    making.add_argument("out", type=Path, help="the new folder")
    for split in ("validation", "test"):
        making.add_argument(
            f"--{split}",
            type=_share,
            metavar="SHARE",
            help="share of the images (default: 0.1; ready splits are kept, and only a missing "
            "validation is taken from training)",
        )
    _add_reading(making, fix="copy what is bad there and leave it out")
    looking = commands.add_parser("audit", help="say what is wrong with images as they are")
    looking.add_argument("source", type=Path, help="a folder, a zip or a tar")
    looking.add_argument("--findings", type=Path, metavar="FILE", help="write JSON Lines there")
    looking.add_argument("--page", type=Path, metavar="FILE", help="write the HTML page there")
    _add_reading(looking, fix="move what is bad there; moved.jsonl says where from")
    _add_transfers(commands)
    return parser


def _add_transfers(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    sending = commands.add_parser("upload", help="send to S3 what is not there, or not the same")
    sending.add_argument("--dry-run", action="store_true", help="say what would be sent")
    checking = commands.add_parser("check", help="compare a folder with what is in S3")
    for parser in (sending, checking):
        parser.add_argument("folder", type=Path)
        parser.add_argument("address", metavar="s3://BUCKET/PREFIX")
    for parser in (sending, checking):
        parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


def _add_reading(parser: argparse.ArgumentParser, fix: str) -> None:
    presets = ", ".join(labels.LABEL_PATTERNS)
    parser.add_argument(
        "--within", default=".", metavar="FOLDER", help="the folder of the source to read alone"
    )
    parser.add_argument(
        "--label",
        metavar="PATTERN",
        help="regular expression with (?P<label>...) that is searched in an image's path, or one "
        f"of {presets} (default: class folders, or <name>_<class name>.png in one folder)",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="labels from a CSV, JSON Lines, .lst or augmented manifest, in the source or here; of "
        "several the names tell the splits",
    )
    parser.add_argument(
        "--columns",
        type=_column,
        nargs="+",
        default=[],
        metavar="MEANING=NAME",
        help=f"what a manifest's columns {', '.join(COLUMNS)} are called",
    )
    parser.add_argument(
        "--group",
        metavar="PATTERN",
        help="regular expression with (?P<group>...): what stays in one split; or one of "
        f"{', '.join(labels.GROUP_PATTERNS)}",
    )
    parser.add_argument("--fix", type=Path, metavar="DIR", help=fix)
    parser.add_argument("--quiet", action="store_true", help="print nothing but errors")


if __name__ == "__main__":
    sys.exit(main())
