"""JPEG files with faults: what leaves every pixel intact is accepted, missing data are not."""

import io

import numpy as np
import pytest
from PIL import Image

from container.classifier.environment import IMAGE_MEMORY_VARIABLE
from container.classifier.errors import ImageError
from container.classifier.jpeg import END_OF_IMAGE, read_jpeg
from container.classifier.preprocessing import Pixels, Preprocessing, decode_image, preprocess
from tests.artifacts import random_pixels

IMAGE = Image.fromarray(random_pixels(12, 16)).resize((80, 60), Image.Resampling.BICUBIC)


def saved(mode: str = "RGB", **settings: object) -> bytes:
    file = io.BytesIO()
    IMAGE.convert(mode).save(file, "JPEG", **settings)
    return file.getvalue()


FILES = {
    "baseline": saved(),
    "full chroma": saved(subsampling=0, quality=95),
    "restarts": saved(restart_marker_rows=1),
    "progressive": saved(progressive=True),
    "gray": saved("L"),
    "progressive gray": saved("L", progressive=True),
    "CMYK": saved("CMYK"),
}
TRAILERS = (b"", bytes(40), b"\0SEFT\xff\xc4\xff\xda", FILES["baseline"], b"\xff\x45\xff\x01")


def decoded(data: bytes) -> Pixels:
    return np.asarray(decode_image(data))


def by_pillow(data: bytes) -> Pixels:
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image.convert("RGB"))


@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_pixels_are_those_of_pillow(data: bytes) -> None:
    assert np.array_equal(decoded(data), by_pillow(data))


@pytest.mark.parametrize("trailer", TRAILERS)
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_end_marker_may_be_missing_and_a_trailer_may_follow(data: bytes, trailer: bytes) -> None:
    for faulty in (data + trailer, data[:-2] + trailer, data[:-1]):
        assert np.array_equal(decoded(faulty), by_pillow(data))


@pytest.mark.parametrize("end", [b"", END_OF_IMAGE, END_OF_IMAGE + FILES["gray"], TRAILERS[2]])
@pytest.mark.parametrize("data", FILES.values(), ids=FILES)
def test_missing_data_are_found_with_and_without_an_end_marker(data: bytes, end: bytes) -> None:
    start = data.index(b"\xff\xda")

    for length in range(start, len(data) - 40, 37):
        cut = data[:length]
        try:
            pixels = decoded(cut + end)
        except ImageError:
            continue
        # Between two scans an end marker ends a sound file.
        assert end.startswith(END_OF_IMAGE)
        assert read_jpeg(data).is_progressive
        assert np.abs(pixels.astype(int) - by_pillow(data)).max() < 128


def test_segment_with_a_damaged_marker_is_left_out() -> None:
    data = saved(dpi=(72, 72), comment=b"x" * 300)

    for marker in (b"\xff\xe0", b"\xff\xfe"):
        for damaged in (b"\0" + marker[1:], b"\xff\xd1", b"\xff\x02"):
            assert np.array_equal(decoded(data.replace(marker, damaged, 1)), by_pillow(data))


def test_padding_before_the_end_marker_is_ignored() -> None:
    data = FILES["baseline"]

    assert np.array_equal(decoded(data[:-2] + bytes(1000) + data[-2:]), by_pillow(data))


def test_limit_of_the_size_follows_the_decoded_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    file = io.BytesIO()
    IMAGE.resize((2000, 1600)).save(file, "JPEG")
    monkeypatch.setenv(IMAGE_MEMORY_VARIABLE, "10")

    # At an eighth.
    assert preprocess(file.getvalue(), Preprocessing(image_size=64)).shape == (64, 64, 3)
    with pytest.raises(ImageError, match=r"decoding 2000 x 1600 pixels takes 26 MB, .* allows 10"):
        decode_image(file.getvalue())


def test_reason_for_which_a_file_cannot_be_opened_is_kept() -> None:
    data = saved().replace(b"\xff\xc0\x00\x11\x08", b"\xff\xc0\x00\x11\x0c")

    with pytest.raises(ImageError, match="the image is damaged: cannot handle 12-bit layers"):
        decode_image(data)
