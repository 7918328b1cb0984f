"""Files of a form, as a browser or `curl -F` sends them."""

import io
from collections.abc import Sequence

from werkzeug.exceptions import BadRequest, RequestEntityTooLarge
from werkzeug.formparser import FormDataParser
from werkzeug.http import parse_options_header

FORM = "multipart/form-data"

# Text fields are not used.
MAX_PARTS, MAX_TEXT_BYTES = 1000, 2**20


def read_files(data: bytes, content_type: str) -> Sequence[bytes]:
    """Return the content of the files of a form, in its order.

    Raises:
        BadRequest: the form is malformed or has no file.
        RequestEntityTooLarge: it has too many parts, or too long texts.
    """
    _, options = parse_options_header(content_type)
    parser = FormDataParser(
        # werkzeug would write files to a disk.
        stream_factory=lambda *_, **__: io.BytesIO(),
        max_form_memory_size=MAX_TEXT_BYTES,
        max_form_parts=MAX_PARTS,
        silent=False,
    )
    try:
        _, _, files = parser.parse(io.BytesIO(data), FORM, len(data), options)
    except RequestEntityTooLarge as error:
        raise RequestEntityTooLarge(
            f"a form may have at most {MAX_PARTS} parts and {MAX_TEXT_BYTES // 2**20} MB of text"
        ) from error
    except ValueError as error:
        raise BadRequest(f"the form is malformed: {error}") from error
    found = [file.read() for _, file in files.items(multi=True)]
    if not found:
        raise BadRequest("the form has no file; send one with `curl -F image=@image.jpg`")
    return found
