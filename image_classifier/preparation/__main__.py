"""Prepare a data set from images, audit it, and upload it to S3.

Exit codes: 0 success; 1 `audit` found a fault, or `check` a difference; 2 failure.
"""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from container.classifier.errors import UserError
from image_classifier.preparation import findings, labels, quarantine
from image_classifier.preparation.audit import Audit
from image_classifier.preparation.findings import FAULT
from image_classifier.preparation.manifests import COLUMNS
from image_classifier.preparation.pipeline import Reading, audit_source, prepare

DONE, FAULTY, FAILED = 0, 1, 2


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        # File names can contain bytes that are not UTF-8.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    # Raises KeyboardInterrupt, like SIGINT.
    handler = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        code: int = arguments.run(arguments)
    except UserError as error:
        reason = str(error)
    except OSError as error:
        reason = f"{error.filename or 'the disk'}: {error.strerror or error}"
    except KeyboardInterrupt:
        reason = "stopped"
    else:
        return code
    finally:
        signal.signal(signal.SIGTERM, handler)
    print(f"preparation: {reason}", file=sys.stderr)
    return FAILED


def _prepare(arguments: argparse.Namespace) -> int:
    shares = {"validation": arguments.validation, "test": arguments.test}
    out, fix, quiet = arguments.out, arguments.fix, arguments.quiet
    found = prepare(arguments.source, out, _reading(arguments), shares, fix=fix, quiet=quiet)
    if not quiet:
        _print_audit(found, arguments.source, fix)
        if faults := sum(item.severity == FAULT for item in found.findings):
            remedy = "correct the source" if fix else "add --fix DIR, or correct the source"
            print(
                f"{faults} faults; only images that cannot be read are left out: "
                f"before training, {remedy}, and prepare again"
            )
        print(f"{out} is ready: open {out / 'report.html'}")
    return DONE


def _audit(arguments: argparse.Namespace) -> int:
    fix, page, quiet = arguments.fix, arguments.page, arguments.quiet
    reading = _reading(arguments)
    for path in (page, arguments.findings):
        # An error after the audit would lose it.
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
    found = audit_source(arguments.source, reading, fix=fix, page_path=page, quiet=quiet)
    if arguments.findings:
        findings.write(found.findings, arguments.findings)
    if arguments.json:
        document = {
            "images": found.counts,
            "findings": [item.document() for item in found.findings],
            "copies": [asdict(leak) for leak in found.leaks],
        }
        print(json.dumps(document))
    elif not quiet:
        _print_audit(found, arguments.source, fix)
    return FAULTY if any(item.severity == FAULT for item in found.findings) else DONE


def _reading(arguments: argparse.Namespace) -> Reading:
    return Reading(
        within=arguments.within,
        label=arguments.label,
        group=arguments.group,
        manifests=arguments.manifest,
        columns=dict(arguments.columns),
        classes=arguments.classes,
        has_splits=arguments.splits != "none",
        encoding=arguments.encoding,
        weights=arguments.weights,
        network=arguments.network,
    )


def _print_audit(found: Audit, source: Path, fix: Path | None) -> None:
    for split, counts in found.counts.items():
        print(f"{split}: {counts.total()} images")
    if fix and found.moved:
        print(f"{found.moved} bad images are in {fix}: {fix / quarantine.LIST} lists them")
    if found.findings:
        print(f"findings, with paths in {source}:")
    for line in [*findings.summary(found.findings), *found.sentences()]:
        print(line)


def _upload(arguments: argparse.Namespace) -> int:
    # The training container image has `prepare`, and no settings file.
    from image_classifier.preparation.bucket import Prefix, hashed  # noqa: PLC0415

    prefix = Prefix(arguments.address)
    files = hashed(arguments.folder, quiet=arguments.quiet)
    difference = prefix.compare(files, quiet=arguments.quiet)
    names = [*difference.missing, *difference.changed]
    size = sum(files[name].size_bytes for name in names) / 1e6
    summary = f"{len(names)} of {len(files)} files, {size:.1f} MB"
    if arguments.dry_run:
        for text in [*names, summary]:
            print(f"would send {text}")
        return DONE
    prefix.send(files, names, quiet=arguments.quiet)
    if not arguments.quiet:
        print(f"sent {summary}; the others were there")
    if surplus := difference.surplus:
        print(
            f"WARNING: {arguments.address} has {len(surplus)} files that are not here, such as "
            f"{surplus[0]}: a job would read them too",
            file=sys.stderr,
        )
    return DONE


def _check(arguments: argparse.Namespace) -> int:
    from image_classifier.preparation.bucket import Prefix, hashed  # noqa: PLC0415

    prefix = Prefix(arguments.address)
    files = hashed(arguments.folder, quiet=arguments.quiet)
    difference = asdict(prefix.compare(files, quiet=arguments.quiet))
    lines = [f"{word}: {name}" for word, names in difference.items() for name in names]
    same = f"{arguments.address} has the same {len(files)} files as {arguments.folder}"
    if not arguments.quiet:
        print(*(lines or [same]), sep="\n")
    return FAULTY if lines else DONE


def _column(text: str) -> tuple[str, str]:
    meaning, _, name = text.partition("=")
    if meaning not in COLUMNS or not name:
        raise argparse.ArgumentTypeError(f"expected {'|'.join(COLUMNS)}=NAME, got {text!r}")
    return meaning, name


def _encoding(text: str) -> str:
    try:
        "a".encode(text)
    except (LookupError, ValueError):
        raise argparse.ArgumentTypeError(
            f"unknown encoding {text[:50]!r}: use one of Python's, such as cp1252, gbk or shift_jis"
        ) from None
    return text


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"expected a share from 0 to less than 1, got {text!r}")
    return share


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m image_classifier.preparation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True)
    for name, parent in parents().items():
        commands.add_parser(name, parents=[parent], help=parent.description)
    return parser


def parents() -> dict[str, argparse.ArgumentParser]:
    """Return the options of every command, for parsers that have them as a parent."""
    source, bucket = (argparse.ArgumentParser(add_help=False) for _ in range(2))
    _add_source(source)
    bucket.add_argument("folder", type=Path)
    bucket.add_argument("address", metavar="s3://BUCKET/PREFIX")
    parsers = {}
    for name, run, parent, summary in (
        ("prepare", _prepare, source, "make train/, validation/ and test/ with class folders"),
        ("audit", _audit, source, "report what is wrong with a folder or an archive of images"),
        ("upload", _upload, bucket, "send new and changed files to S3"),
        ("check", _check, bucket, "compare a folder with S3"),
    ):
        parsers[name] = argparse.ArgumentParser(
            add_help=False, parents=[parent], description=summary
        )
        parsers[name].set_defaults(run=run)
        parsers[name].add_argument("--quiet", action="store_true", help="print only errors")
    parsers["prepare"].add_argument("out", type=Path, help="the new folder")
    kept = "existing splits are kept, and only a missing validation is taken from training"
    for split in ("--validation", "--test"):
        summary = f"share of the images (default: 0.1; {kept})"
        parsers["prepare"].add_argument(split, type=_share, metavar="SHARE", help=summary)
    for option, summary in (("--findings", "write JSON Lines"), ("--page", "write an HTML page")):
        parsers["audit"].add_argument(option, type=Path, metavar="FILE", help=f"{summary} there")
    parsers["audit"].add_argument("--json", action="store_true", help="print the result as JSON")
    parsers["upload"].add_argument(
        "--dry-run", action="store_true", help="compare with S3, and list what would be sent"
    )
    return parsers


def _add_source(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", type=Path, help="a folder, a zip or a tar")
    parser.add_argument("--within", default=".", metavar="FOLDER", help="read only this folder")
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
        "--classes",
        type=Path,
        metavar="FILE",
        help='JSON or CSV with the names of the labels, such as {"0": "cat"}',
    )
    parser.add_argument(
        "--splits",
        choices=("folders", "none"),
        default="folders",
        help="none: folders such as train and test are classes (default: %(default)s)",
    )
    parser.add_argument(
        "--encoding",
        type=_encoding,
        metavar="NAME",
        help="of names in an archive and of tables that are not UTF-8, such as cp1252 or gbk",
    )
    parser.add_argument(
        "--group",
        metavar="PATTERN",
        help="regular expression with (?P<group>...), or one of "
        f"{', '.join(labels.GROUP_PATTERNS)}: images of one group stay in one split",
    )
    _add_checks(parser)


def _add_checks(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="pretrained weights, by whose features labels are checked and outliers are found; "
        "needs PyTorch (default: simple features)",
    )
    parser.add_argument(
        "--network",
        default="resnet18",
        metavar="NAME",
        help="the network of these weights (default: %(default)s)",
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
