"""Prepare a data set from images, audit it, and upload it to S3.

Exit codes: 0 success; 1 `audit` found a fault, or `check` a difference; 2 failure.
"""

import argparse
import signal
import sys
from collections.abc import Sequence
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
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        # File names can contain bytes that are not UTF-8.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    handler = signal.signal(signal.SIGTERM, _stop)
    try:
        code: int = arguments.run(arguments)
    except UserError as error:
        return _fail(str(error))
    except OSError as error:
        return _fail(f"{error.filename or 'the disk'}: {error.strerror or error}")
    except KeyboardInterrupt:
        return _fail("stopped")
    finally:
        signal.signal(signal.SIGTERM, handler)
    return code


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
        _print_audit(found)
        print(f"{arguments.out} is ready: open {arguments.out / 'report.html'}")
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
        _print_audit(found)
    return FAULTY if findings.has_fault(found.findings) else DONE


def _upload(arguments: argparse.Namespace) -> int:
    prefix = Prefix(arguments.address)
    files = hashed(arguments.folder, quiet=arguments.quiet)
    difference = prefix.compare(files, quiet=arguments.quiet)
    names = [*difference.missing, *difference.changed]
    size = sum(files[name].size_bytes for name in names) / 1e6
    summary = f"{len(names)} of {len(files)} files, {size:.1f} MB"
    if arguments.dry_run:
        for name in names:
            print(f"would send {name}")
        print(f"would send {summary}")
        return DONE
    prefix.send(files, names, quiet=arguments.quiet)
    if not arguments.quiet:
        print(f"sent {summary}; the others were there")
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
        if difference.is_empty:
            print(f"{arguments.address} has the same {len(files)} files as {arguments.folder}")
    return DONE if difference.is_empty else FAULTY


def _warn_of_surplus(difference: Difference, address: str) -> None:
    print(
        f"WARNING: {address} has {len(difference.surplus)} files that are not here, such as "
        f"{difference.surplus[0]}: a job would read them too",
        file=sys.stderr,
    )


def _print_audit(found: Audit) -> None:
    for split, counts in found.counts.items():
        print(f"{split}: {counts.total()} images")
    for line in [*findings.summary(found.findings), *found.sentences()]:
        print(line)


def _reading(arguments: argparse.Namespace) -> Reading:
    return Reading(
        within=arguments.within,
        label=arguments.label,
        group=arguments.group,
        manifests=arguments.manifest,
        columns=dict(arguments.columns),
    )


def _column(text: str) -> tuple[str, str]:
    meaning, _, name = text.partition("=")
    if meaning not in COLUMNS or not name:
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
    quiet = argparse.ArgumentParser(add_help=False)
    quiet.add_argument("--quiet", action="store_true", help="print nothing but errors")
    bucket = argparse.ArgumentParser(add_help=False, parents=[quiet])
    bucket.add_argument("folder", type=Path)
    bucket.add_argument("address", metavar="s3://BUCKET/PREFIX")
    source = argparse.ArgumentParser(add_help=False, parents=[quiet])
    _add_source(source)
    commands = parser.add_subparsers(required=True)

    command = commands.add_parser(
        "prepare",
        parents=[source],
        help="make train/, validation/ and test/ with class folders, tables and a report",
    )
    command.set_defaults(run=_prepare)
    command.add_argument("out", type=Path, help="the new folder")
    for split in ("validation", "test"):
        command.add_argument(
            f"--{split}",
            type=_share,
            metavar="SHARE",
            help="share of the images (default: 0.1; existing splits are kept, and only a missing "
            "validation is taken from training)",
        )
    command = commands.add_parser(
        "audit", parents=[source], help="report what is wrong with a folder or an archive of images"
    )
    command.set_defaults(run=_audit)
    command.add_argument("--findings", type=Path, metavar="FILE", help="write JSON Lines there")
    command.add_argument("--page", type=Path, metavar="FILE", help="write an HTML page there")
    command = commands.add_parser(
        "upload", parents=[bucket], help="send new and changed files to S3"
    )
    command.set_defaults(run=_upload)
    command.add_argument("--dry-run", action="store_true", help="list what would be sent")
    command = commands.add_parser("check", parents=[bucket], help="compare a folder with S3")
    command.set_defaults(run=_check)
    return parser


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a folder, a zip or a tar")
    parser.add_argument(
        "--within", default=".", metavar="FOLDER", help="read only this folder of the source"
    )
    parser.add_argument(
        "--label",
        metavar="PATTERN",
        help="regular expression with (?P<label>...) that is searched in an image's path, or one "
        f"of {', '.join(labels.LABEL_PATTERNS)} (default: class folders, or "
        "<name>_<class name>.png in one folder)",
    )
    parser.add_argument(
        "--manifest",
        type=Path,
        nargs="+",
        default=[],
        metavar="FILE",
        help="CSV, JSON Lines, .lst or augmented manifest with the labels, in the source or in the "
        "working directory; the names of several manifests are splits",
    )
    parser.add_argument(
        "--columns",
        type=_column,
        nargs="+",
        default=[],
        metavar="MEANING=NAME",
        help=f"the manifest's names of the columns {', '.join(COLUMNS)}",
    )
    parser.add_argument(
        "--group",
        metavar="PATTERN",
        help="regular expression with (?P<group>...), or one of "
        f"{', '.join(labels.GROUP_PATTERNS)}: images of one group stay in one split",
    )
    parser.add_argument(
        "--fix",
        type=Path,
        metavar="DIR",
        help="prepare: copy bad images there and leave them out; audit: move them there, with a "
        "list of their origins in moved.jsonl",
    )


if __name__ == "__main__":
    sys.exit(main())
