"""Bodies of requests to pixels."""

import base64
import io
import json
import tracemalloc
from collections.abc import Sequence
from contextlib import suppress

import numpy as np
import pytest
from werkzeug.exceptions import (
    BadRequest,
    HTTPException,
    RequestEntityTooLarge,
    UnprocessableEntity,
    UnsupportedMediaType,
)

from container.classifier.preprocessing import Pixels, Preprocessing, preprocess
from container.serving.http.decoding import (
    Splitter,
    choose_splitter,
    split_body,
    split_by_content,
    split_image,
    split_json,
    split_json_lines,
    split_npy,
)
from tests.artifacts import encode, random_pixels
from tests.bodies import lines

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


@pytest.mark.parametrize(
    "content_type", ["image/jpeg", "Image/JPEG", "image/jpeg; charset=utf-8", "image/jpeg ;q"]
)
def test_a_content_types_case_and_parameters_do_not_matter(content_type: str) -> None:
    assert choose_splitter(content_type) is split_image


@pytest.mark.parametrize(
    "content_type", [None, "", "application/octet-stream", "application/x-www-form-urlencoded"]
)
def test_without_a_type_the_first_bytes_decide(content_type: str | None) -> None:
    split = choose_splitter(content_type)

    assert np.array_equal(decode(split, PNG), decode(split, npy(PIXELS)))


@pytest.mark.parametrize("content_type", ["text/csv", "image/tiff", "x" * 10_000])
def test_an_unknown_type_is_refused_with_the_known_ones_listed(content_type: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="application/x-npy") as refusal:
        choose_splitter(content_type)

    assert len(refusal.value.description or "") < 300


def test_pixels_are_those_of_the_one_preprocessing() -> None:
    expected = preprocess(PNG, SETTINGS)

    for split, data in [
        (split_image, PNG),
        (split_npy, npy(PIXELS)),
        (split_json, json.dumps({"instances": [base64.b64encode(PNG).decode()]}).encode()),
        (split_by_content, PNG),
    ]:
        assert np.array_equal(decode(split, data)[0], expected)


def test_a_batch_of_pixels_is_as_many_images() -> None:
    others = random_pixels(seed=1)

    images = decode(split_npy, npy([PIXELS, others]))

    assert np.array_equal(images[0], decode(split_npy, npy(PIXELS))[0])
    assert np.array_equal(images[1], decode(split_npy, npy(others))[0])


def test_fortran_order_is_the_same_image() -> None:
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
        (npy(PIXELS)[:-1], "needs 6000 bytes, it has 5999"),
        (npy(PIXELS) + b"x", "needs 6000 bytes, it has 6001"),
        (
            npy_header(f"{{'descr':'|u1','fortran_order':False,'shape':({10**4000 - 1},0,3)}}"),
            "not a NumPy file",
        ),
        (b"\x93NUMPY", "not a NumPy file"),
        (b"\x93NUMPY\x09\x00" + bytes(100), "not a NumPy file"),
        (b"PK\x03\x04" + bytes(100), "not a NumPy file"),
        (npy_header("{'descr': '|u1', 'fortran_order': False"), "not a NumPy file"),
        (npy_header("(" * 100), "not a NumPy file"),
        # An eager reader would make room for 30 TB.
        (
            npy_header("{'descr':'|u1','fortran_order':False,'shape':(10**7,10**6,3)}"),
            "not a NumPy file",
        ),
        (
            npy_header("{'descr':'|u1','fortran_order':False,'shape':(9999999,1000000,3)}"),
            "needs 29999997000000 bytes, it has 0",
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
def test_another_kind_of_array_is_refused(data: bytes, message: str) -> None:
    with pytest.raises(UnprocessableEntity, match=message):
        decode(split_npy, data)


def test_a_damaged_array_is_never_our_fault() -> None:
    generator = np.random.default_rng(0)
    original = npy(PIXELS)

    for _ in range(2000):
        damaged = bytearray(original[: generator.integers(1, len(original))])
        for position in generator.integers(0, min(len(damaged), 128), 3):
            damaged[position] = generator.integers(0, 256)
        with suppress(RequestEntityTooLarge, UnprocessableEntity):
            decode(split_npy, bytes(damaged))


def test_base64_may_be_broken_into_lines_and_wrapped_in_an_object() -> None:
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
        (b"[]", "expected"),
        (b"{}", "expected"),
        (b'{"instances": []}', "expected"),
        (b'{"instances": {}}', "expected"),
        (b'{"instances": [[0, 0, 0]]}', "instance 0 is neither"),
        (b'{"instances": [{"url": "http://localhost/cat.jpg"}]}', "instance 0 is neither"),
        (b'{"instances": ["http://localhost/cat.jpg"]}', "instance 0 is not base64"),
        ('{"instances": ["ü"]}'.encode(), "instance 0 is not base64"),
    ],
)
def test_other_json_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(BadRequest, match=message):
        decode(split_json, body)


@pytest.mark.parametrize("piece", [b"[],", b"{},", b"0,", b"[", "[".encode("utf-16-le")])
def test_json_that_parsed_would_fill_the_memory_is_refused_unparsed(piece: bytes) -> None:
    body = b'{"instances":[' + piece * 2**20
    tracemalloc.start()

    with pytest.raises(RequestEntityTooLarge, match="more than 1000 brackets"):
        decode(split_json, body)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**20


def test_so_many_images_fit_into_json_as_the_documents_say() -> None:
    def count(instances: list[object]) -> int:
        data = json.dumps({"instances": instances}).encode()
        return len(split_body(split_json, data, most=10_000, has_error_records=False))

    text = base64.b64encode(PNG).decode()
    assert count([{"b64": text}] * 499) == 499
    assert count([text] * 999) == 999
    for instances in ([{"b64": text}] * 500, [text] * 1000):
        with pytest.raises(RequestEntityTooLarge):
            count(list(instances))


def test_base64_with_a_blank_between_its_letters_takes_no_memory_for_each() -> None:
    body = json.dumps({"instances": ["AA " * 2**20 + "?"]}).encode()
    tracemalloc.start()

    with pytest.raises(BadRequest, match="instance 0 is not base64"):
        decode(split_json, body)

    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 8 * len(body)


def test_a_broken_image_among_several_fails_alone_and_is_named_by_its_number() -> None:
    texts = [base64.b64encode(data).decode() for data in (PNG, PNG[:100])]

    good, broken = split_json(json.dumps({"instances": texts}).encode())

    assert np.array_equal(good(SETTINGS), preprocess(PNG, SETTINGS))
    with pytest.raises(UnprocessableEntity, match="instance 1: the image is damaged"):
        broken(SETTINGS)


def test_more_images_than_a_request_may_hold_are_refused() -> None:
    data = npy(np.zeros((65, 1, 1, 3), np.uint8))

    assert len(split_body(split_npy, data, most=65, has_error_records=False)) == 65
    with pytest.raises(RequestEntityTooLarge, match="at most 64 images, got 65"):
        split_body(split_npy, data, most=64, has_error_records=False)


@pytest.mark.parametrize(
    ("data", "error"), [(b"", BadRequest), (npy(PIXELS)[:-1], UnprocessableEntity)]
)
def test_what_cannot_be_split_may_be_an_image_that_fails(
    data: bytes, error: type[HTTPException]
) -> None:
    (image,) = split_body(split_npy, data, most=1, has_error_records=True)

    with pytest.raises(error):
        image(SETTINGS)
    with pytest.raises(error):
        split_body(split_npy, data, most=1, has_error_records=False)


def test_lines_are_images() -> None:
    text = base64.b64encode(PNG)

    images = split_json_lines(b'{"id": 7, "b64": "%s"}\r\n"%s"\n' % (text, text))

    assert len(images) == 2
    for image in images:
        assert np.array_equal(image(SETTINGS), preprocess(PNG, SETTINGS))


def test_invalid_line_fails_alone() -> None:
    data = b'{"b64": "?"}\nno JSON\n\n7\n' + b"[" * 1001 + b"\n" + lines(PNG)

    *bad, good = split_json_lines(data)

    assert np.array_equal(good(SETTINGS), preprocess(PNG, SETTINGS))
    reasons = (
        "line 0 is not base64",
        "line 1 is not JSON",
        "line 2 is not JSON",
        "line 3 is neither a base64 text",
        "line 4 has more than 1000 brackets",
    )
    for image, reason in zip(bad, reasons, strict=True):
        with pytest.raises(HTTPException, match=reason):
            image(SETTINGS)


def test_too_many_lines_are_refused_at_once() -> None:
    with pytest.raises(RequestEntityTooLarge, match="at most 100000 lines"):
        split_json_lines(b"\n" * 100_001)
