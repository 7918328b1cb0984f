"""A file from the web, whole and the one that was meant, or none."""

import hashlib
import http.client
import re
import urllib.error
import urllib.request
from pathlib import Path

from tqdm import tqdm

from container.classifier.errors import UserError

TIMEOUT_SECONDS = 60
CHUNK_BYTES = 1 << 20

PAGE_TYPE, PAGE_SUFFIXES = "text/html", (".html", ".htm")

SHA256 = re.compile(r"^[0-9a-f]{64}$")


class _BrokenOffError(Exception):
    """The rest of a file did not come."""


def download(url: str, target: Path, sha256: str | None, *, quiet: bool = False) -> str:
    """Fetch a file unless it is there; with a checksum an interrupted one continues.

    Returns:
        Its SHA-256.

    Raises:
        UserError: it cannot be fetched, or is another file than the checksum says.
    """
    if not url.startswith(("https://", "http://")):
        message = f"expected an address that begins with https:// or http://, got {url!r}"
        raise UserError(message)
    if sha256 is not None and not SHA256.match(sha256):
        message = f"expected 64 hexadecimal digits as the SHA-256, got {sha256!r}"
        raise UserError(message)
    if target.exists():
        if sha256 is not None and _hash(target) == sha256:
            return sha256
        message = f"{target} is there already, and is not known to be this file: remove it first"
        raise UserError(message)
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.partial")
    if sha256 is None:
        # Nothing would tell whether both halves are of one file.
        partial.unlink(missing_ok=True)
    try:
        _fetch(url, partial, quiet=quiet)
    except _BrokenOffError as error:
        then = (
            "the same command continues"
            if sha256
            else "start again; with --sha256 it would continue"
        )
        message = f"{error}: {then}"
        raise UserError(message) from error
    found = _hash(partial)
    if sha256 not in {None, found}:
        partial.unlink()
        message = f"{url} has the SHA-256 {found}, not {sha256}: it is another file, and not kept"
        raise UserError(message)
    partial.replace(target)
    return found


def _fetch(url: str, partial: Path, *, quiet: bool) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url)  # noqa: S310 - the scheme is checked
    if done:
        request.add_header("Range", f"bytes={done}-")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310
            if answer.headers.get_content_type() == PAGE_TYPE and not url.endswith(PAGE_SUFFIXES):
                message = f"{url} is a web page, such as one to log in by: it is not kept"
                raise UserError(message)
            # A server that knows no ranges sends all of it again.
            is_rest = answer.status == http.client.PARTIAL_CONTENT
            length = answer.length
            with (
                partial.open("ab" if is_rest else "wb") as file,
                tqdm(total=length, unit="B", unit_scale=True, disable=quiet or None) as bar,
            ):
                received = 0
                while chunk := answer.read(CHUNK_BYTES):
                    received += file.write(chunk)
                    bar.update(len(chunk))
    except urllib.error.HTTPError as error:
        if error.code == http.client.REQUESTED_RANGE_NOT_SATISFIABLE and done:
            # All of it is there already; its checksum will tell.
            return
        message = f"{url} answers {error.code} {error.reason}"
        raise UserError(message) from error
    except (OSError, http.client.HTTPException) as error:
        message = f"{url} cannot be fetched to its end ({error})"
        raise _BrokenOffError(message) from error
    if length is not None and received < length:
        message = f"{url} broke off after {received} of {length} bytes"
        raise _BrokenOffError(message)


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
