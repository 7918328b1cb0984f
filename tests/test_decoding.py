"""Decoding request bodies to pixels."""

import base64
import gzip
import io
import json
import tracemalloc
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TypeAlias

import numpy as np
import pytest
from backports import zstd
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    UnprocessableEntity,
    UnsupportedMediaType,
)

from container.classifier.media_types import NPY
from container.classifier.preprocessing import Pixels, Preprocessing, preprocess
from container.serving.http.decoding import (
    split_body,
    split_image,
    split_json,
    split_json_lines,
    split_npy,
)
from container.serving.http.unpacking import check_encoding
from container.serving.model.outcome import ImageDecoder
from container.serving.settings import MIB, Settings
from tests.artifacts import encode, random_pixels
from tests.bodies import instances, lines

Splitter: TypeAlias = Callable[[bytes], Sequence[ImageDecoder]]

SETTINGS = Preprocessing(image_size=32)
PIXELS = random_pixels()
PNG = encode(PIXELS)


def decode(split: Splitter, data: bytes) -> Sequence[Pixels]:
    return [image(SETTINGS) for image in split(data)]


def npy(array: object, *, allow_pickle: bool = False) -> bytes:
    file = io.BytesIO()
    np.save(file, np.asarray(array), allow_pickle=allow_pickle)
    return file.getvalue()


def npy_header(header: str) -> bytes:
    text = header.encode().ljust(118) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def split_as(content_type: str | None) -> Splitter:
    """Return `split_body` with the limits of the server for a Content-Type."""
    settings = Settings()
    return partial(
        split_body,
        content_type=content_type,
        max_bytes=settings.max_body_bytes,
        max_images=10_000,
        has_error_records=False,
    )


@pytest.mark.parametrize(
    "content_type",
    [
        *(None, "", "image/jpeg", "Image/JPEG", "image/jpeg; charset=utf-8", "image/pjpeg"),
        *("application/octet-stream", "binary/octet-stream", "file-path/raw-bytes"),
        *("application/x-www-form-urlencoded", "application/x-image", "application/json"),
        *("application/x-npy", "text/plain", "x" * 10_000, "multipart/form-data"),
    ],
)
def test_first_bytes_of_images_and_arrays_decide(content_type: str | None) -> None:
    split = split_as(content_type)

    for data in (PNG, npy(PIXELS), gzip.compress(PNG)):
        assert np.array_equal(decode(split, data), decode(split_image, PNG))


@pytest.mark.parametrize("content_type", ["application/json; charset=utf-8", "text/plain", None])
def test_json_is_found_by_its_media_type_or_first_byte(content_type: str | None) -> None:
    assert len(decode(split_as(content_type), instances(PNG, PNG))) == 2


@pytest.mark.parametrize(
    "content_type", ["application/jsonlines", "application/x-ndjson", "application/jsonl"]
)
def test_lines_are_found_by_their_media_type(content_type: str) -> None:
    assert len(decode(split_as(content_type), lines(PNG, PNG, PNG))) == 3


@pytest.mark.parametrize("content_type", ["text/csv", "text/html", "x" * 10_000])
def test_unknown_content_type_is_rejected_with_the_supported_ones(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="application/x-npy") as raised:
        split_as(content_type)(b"1,2,3")

    assert len(raised.value.description or "") < 300


@pytest.mark.parametrize("content_type", ["image/png", "application/octet-stream", None])
def test_unknown_bytes_are_no_image(content_type: str | None) -> None:
    (image,) = split_as(content_type)(b"1,2,3")

    with pytest.raises(UnprocessableEntity, match=r"not an image of a known format \(JPEG"):
        image(SETTINGS)


def form(*parts: bytes) -> bytes:
    """Return a form with the boundary `x`; parts have their heads."""
    return b"".join(b"--x\r\nContent-Disposition: form-data; " + part for part in parts) + b"--x--"


def file_part(data: bytes) -> bytes:
    return b'name="image"; filename="a.png"\r\n\r\n' + data + b"\r\n"


FORM_TYPE = "multipart/form-data; boundary=x"


def test_form_has_an_image_in_each_file() -> None:
    token = b'name="token"\r\n\r\n1234\r\n'
    data = form(token, file_part(PNG), file_part(PNG[:100]), file_part(PNG))

    first, broken, last = split_as(FORM_TYPE.replace("form-", "Form-"))(data)

    assert np.array_equal(first(SETTINGS), preprocess(PNG, SETTINGS))
    assert np.array_equal(last(SETTINGS), preprocess(PNG, SETTINGS))
    with pytest.raises(UnprocessableEntity, match="file 1: the image is damaged"):
        broken(SETTINGS)


@pytest.mark.parametrize(
    ("data", "content_type", "error", "message"),
    [
        (form(), FORM_TYPE, BadRequest, "the form has no file"),
        (form(b'name="image"\r\n\r\n1\r\n'), FORM_TYPE, BadRequest, "the form has no file"),
        (form(file_part(PNG)), "multipart/form-data", BadRequest, "form is malformed"),
        (form(file_part(PNG))[:90], FORM_TYPE, BadRequest, "form is malformed"),
        (form(*[file_part(b"x")] * 1001), FORM_TYPE, RequestEntityTooLarge, "1000 parts and 1 MB"),
        (
            form(b'name="a"\r\n\r\n' + bytes(2**21) + b"\r\n"),
            FORM_TYPE,
            RequestEntityTooLarge,
            "1000 parts and 1 MB",
        ),
    ],
)
def test_form_without_files_is_rejected(
    data: bytes, content_type: str, error: type[HTTPException], message: str
) -> None:
    with pytest.raises(error, match=message):
        split_as(content_type)(data)


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_packed_body_is_unpacked_within_the_limit(pack: Callable[[bytes], bytes]) -> None:
    packed = pack(instances(PNG))

    assert len(decode(split_as("application/json"), packed)) == 1
    for damaged in (packed[:-5], packed + packed, packed[:20] + bytes(30) + packed[50:]):
        with pytest.raises(BadRequest, match=r"body is (truncated|damaged)"):
            split_as("application/json")(damaged)


@pytest.mark.parametrize("pack", [gzip.compress, zstd.compress])
def test_packed_bomb_takes_no_more_memory_than_the_limit(pack: Callable[[bytes], bytes]) -> None:
    bomb = pack(bytes(50_000_000))
    tracemalloc.start()

    with pytest.raises(RequestEntityTooLarge, match="the unpacked body is larger than 1 MB"):
        split_body(bomb, None, max_bytes=MIB, max_images=1, has_error_records=False)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * MIB


@pytest.mark.parametrize("encoding", [None, "", "identity", "gzip", "GZIP", "zstd"])
def test_known_encodings_are_accepted(encoding: str | None) -> None:
    check_encoding(encoding)


def test_unknown_encoding_is_rejected() -> None:
    with pytest.raises(UnsupportedMediaType, match="Content-Encoding 'br' is not one of"):
        check_encoding("br")


def base64_forms() -> list[str]:
    text = base64.b64encode(PNG + b"\0").decode()
    assert text.endswith("=")
    return [
        "data:image/png;base64," + text,
        "data:;base64," + text,
        text.rstrip("="),
        text.replace("+", "-").replace("/", "_"),
        "\n " + text + "\n",
    ]


@pytest.mark.parametrize("text", base64_forms())
def test_base64_may_be_a_data_url_or_unpadded_or_url_safe(text: str) -> None:
    body = json.dumps(
        {
            "signature_name": "serving_default",
            "instances": [
                text,
                {"b64": text},
                {"image_bytes": {"b64": text}, "key": "1"},
                {"data": text},
                {"image": text, "top": 3},
            ],
        }
    ).encode()

    images = decode(split_json, body)

    assert len(images) == 5
    for image in images:
        assert np.array_equal(image, preprocess(PNG, SETTINGS))


@pytest.mark.parametrize("content_type", [None, "image/jpeg", "application/x-image", "text/plain"])
def test_body_may_be_an_image_in_base64(content_type: str | None) -> None:
    for start in (b"", b"data:image/png;base64,"):
        (image,) = decode(split_as(content_type), start + base64.encodebytes(PNG))

        assert np.array_equal(image, preprocess(PNG, SETTINGS))


def test_all_splitters_use_the_same_preprocessing() -> None:
    expected = preprocess(PNG, SETTINGS)

    for split, data in [
        (split_image, PNG),
        (split_npy, npy(PIXELS)),
        (split_json, json.dumps({"instances": [base64.b64encode(PNG).decode()]}).encode()),
        (split_as(None), PNG),
    ]:
        assert np.array_equal(decode(split, data)[0], expected)


def test_array_of_several_images_is_split() -> None:
    others = random_pixels(seed=1)

    images = decode(split_npy, npy([PIXELS, others]))

    assert np.array_equal(images[0], decode(split_npy, npy(PIXELS))[0])
    assert np.array_equal(images[1], decode(split_npy, npy(others))[0])


def test_fortran_order_gives_the_same_image() -> None:
    assert np.array_equal(
        decode(split_npy, npy(np.asfortranarray(PIXELS))), decode(split_npy, npy(PIXELS))
    )


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (npy(PIXELS.astype(np.float32)), "must be uint8 .* got float32"),
        (npy(PIXELS[..., 0]), r"got uint8 of shape \(40, 50\)"),
        (npy(np.zeros((0, 5, 3), np.uint8)), r"shape \(0, 5, 3\)"),
        (npy(np.zeros((1, 1, 1, 1, 3), np.uint8)), "of shape"),
        (npy(np.uint8(3)), "of shape"),
        (npy(np.array([{}], object), allow_pickle=True), "got object"),
        (npy(PIXELS)[:-1], "needs 6000 bytes, found 5999"),
        (npy(PIXELS) + b"x", "needs 6000 bytes, found 6001"),
        (
            npy_header(f"{{'descr':'|u1','fortran_order':False,'shape':({10**4000 - 1},0,3)}}"),
            "not a NumPy file",
        ),
        (b"\x93NUMPY", "not a NumPy file"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "not a NumPy file"),
        (b"PK\x03\x04" + bytes(100), "not a NumPy file"),
        (npy_header("{'descr': '|u1', 'fortran_order': False"), "not a NumPy file"),
        (npy_header("(" * 100), "not a NumPy file"),
        # `numpy.load` would allocate 30 TB.
        (
            npy_header("{'descr':'|u1','fortran_order':False,'shape':(10**7,10**6,3)}"),
            "not a NumPy file",
        ),
        (
            npy_header("{'descr':'|u1','fortran_order':False,'shape':(9999999,1000000,3)}"),
            "needs 29999997000000 bytes, found 0",
        ),
        (
            npy_header("{'descr':'|u1','fortran_order':False,'shape':(True,True,3)}") + bytes(3),
            r"of shape \(True, True, 3\)",
        ),
        (b"\x93NUMPY\x03\x00" + bytes(100), "not a NumPy file of version 1.0 or 2.0"),
        (
            npy_header("{'descr':'|u1','fortran_order':False,'shape':(-1,-1,3)}"),
            "of shape",
        ),
    ],
)
def test_invalid_array_is_rejected(data: bytes, message: str) -> None:
    with pytest.raises(UnprocessableEntity, match=message):
        decode(split_npy, data)


def test_damaged_array_never_causes_an_internal_error() -> None:
    generator = np.random.default_rng(0)
    original = npy(PIXELS)

    for _ in range(2000):
        damaged = bytearray(original[: generator.integers(1, len(original))])
        for position in generator.integers(0, min(len(damaged), 128), 3):
            damaged[position] = generator.integers(0, 256)
        with suppress(RequestEntityTooLarge, UnprocessableEntity):
            decode(split_npy, bytes(damaged))


def test_base64_may_have_line_breaks_and_be_in_an_object() -> None:
    text = base64.encodebytes(PNG).decode()
    body = json.dumps({"instances": [text, {"b64": text}]}).encode()

    images = decode(split_json, body)

    assert [image.shape for image in images] == [(32, 32, 3)] * 2


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"\xff", "not JSON"),
        (b"[" * 1000, "not JSON"),
        (b"1" * 10_000, "not JSON"),
        (b"[]", r"expected \{.*, got an empty array$"),
        (b"1", "got a number$"),
        (b"{}", "got an object with no keys$"),
        (b'{"inputs": [], "b": 1}', 'got an object with "inputs", "b"$'),
        (b'{"instances": []}', 'got an empty array as "instances"$'),
        (b'{"instances": "x"}', 'got a string as "instances"$'),
        (b'{"instances": [[0, 0, 0]]}', "instance 0 is neither"),
        (b'{"instances": [{"url": "http://localhost/cat.jpg"}]}', "instance 0 is neither"),
        (b'{"instances": ["http://localhost/cat.jpg"]}', "instance 0 is not base64"),
        ('{"instances": ["ü"]}'.encode(), "instance 0 is not base64"),
    ],
)
def test_json_of_another_structure_is_rejected(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        decode(split_json, body)


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"0,", b"[", "[".encode("utf-16-le")])
def test_json_that_would_fill_memory_is_rejected_before_parsing(piece: bytes) -> None:
    body = b'{"instances":[' + piece * 2**20
    tracemalloc.start()

    with pytest.raises(RequestEntityTooLarge, match="more than 1000 brackets"):
        decode(split_json, body)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_json_has_the_documented_maximum_of_images() -> None:
    def count(instances: list[object]) -> int:
        data = json.dumps({"instances": instances}).encode()
        return len(split_as("application/json")(data))

    text = base64.b64encode(PNG).decode()
    assert count([{"b64": text}] * 499) == 499
    assert count([text] * 999) == 999
    for entries in ([{"b64": text}] * 500, [text] * 1000):
        with pytest.raises(RequestEntityTooLarge):
            count(list(entries))


def test_base64_with_many_blanks_takes_little_memory() -> None:
    body = json.dumps({"instances": ["AA " * 2**20 + "?"]}).encode()
    tracemalloc.start()

    with pytest.raises(BadRequest, match="instance 0 is not base64"):
        decode(split_json, body)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * len(body)


def test_only_the_damaged_image_fails_and_its_error_has_its_number() -> None:
    texts = [base64.b64encode(data).decode() for data in (PNG, PNG[:100])]

    good, broken = split_json(json.dumps({"instances": texts}).encode())

    assert np.array_equal(good(SETTINGS), preprocess(PNG, SETTINGS))
    with pytest.raises(UnprocessableEntity, match="instance 1: the image is damaged"):
        broken(SETTINGS)


def test_too_many_images_are_rejected() -> None:
    data = npy(np.zeros((65, 1, 1, 3), np.uint8))

    assert len(split_body(data, NPY, max_bytes=MIB, max_images=65, has_error_records=False)) == 65
    with pytest.raises(RequestEntityTooLarge, match="at most 64 images, got 65"):
        split_body(data, NPY, max_bytes=MIB, max_images=64, has_error_records=False)


@pytest.mark.parametrize(
    ("data", "error"), [(b"", BadRequest), (npy(PIXELS)[:-1], UnprocessableEntity)]
)
def test_body_that_cannot_be_split_can_become_a_failed_image(
    data: bytes, error: type[HTTPException]
) -> None:
    (image,) = split_body(data, NPY, max_bytes=MIB, max_images=1, has_error_records=True)

    with pytest.raises(error):
        image(SETTINGS)
    with pytest.raises(error):
        split_body(data, NPY, max_bytes=MIB, max_images=1, has_error_records=False)


def test_each_line_is_an_image() -> None:
    text = base64.b64encode(PNG)

    images = split_json_lines(b'{"id": 7, "b64": "%s"}\r\n"%s"\n' % (text, text))

    assert len(images) == 2
    for image in images:
        assert np.array_equal(image(SETTINGS), preprocess(PNG, SETTINGS))


def test_invalid_lines_do_not_fail_the_others() -> None:
    data = b'{"b64": "?"}\nno JSON\n\n7\n' + b"[" * 1001 + b"\n" + lines(PNG)

    *bad, good = split_json_lines(data)

    assert np.array_equal(good(SETTINGS), preprocess(PNG, SETTINGS))
    reasons = (
        "line 0 is not base64",
        "line 1 is not JSON",
        "line 2 is not JSON",
        "line 3 is neither a base64 string",
        "line 4 has more than 1000 brackets",
    )
    for image, reason in zip(bad, reasons, strict=True):
        with pytest.raises(HTTPException, match=reason):
            image(SETTINGS)


def test_too_many_lines_are_rejected_before_parsing() -> None:
    with pytest.raises(RequestEntityTooLarge, match="at most 100000 lines"):
        split_json_lines(b"\n" * 100_001)
