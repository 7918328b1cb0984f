"""Preprocessing of image files of all kinds to the network's pixels."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from container.classifier.environment import IMAGE_MB, MB
from container.classifier.errors import ImageError, UserError
from container.classifier.preprocessing import (
    PIXEL_BYTES,
    Pixels,
    Preprocessing,
    decode_image,
    fit,
    preprocess,
)
from tests.artifacts import encode, random_pixels

SETTINGS = Preprocessing(image_size=32)

# Of any format but JPEG.
MAX_PIXELS = IMAGE_MB * MB // PIXEL_BYTES
PIXELS = random_pixels(60, 80)

# Inverse transpositions of the EXIF orientations.
TURNS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def save(image: Image.Image, file_format: str = "PNG", **parameters: object) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **parameters)
    return file.getvalue()


def decoded(data: bytes) -> Pixels:
    return np.asarray(decode_image(data))


def png_header(width: int, height: int) -> bytes:
    """Return a PNG with a size in its header and no pixels."""
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    chunk = struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))
    data = b"IDAT" + zlib.compress(b"")
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk
        + struct.pack(">I", len(data) - 4)
        + data
        + struct.pack(">I", zlib.crc32(data))
    )


@pytest.mark.parametrize("orientation", TURNS)
def test_image_is_rotated_upright(orientation: int) -> None:
    image = Image.fromarray(PIXELS)
    turn = TURNS[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation

    data = save(image.transpose(turn) if turn is not None else image, exif=exif)

    assert np.array_equal(decoded(data), PIXELS)


def test_cmyk_jpeg_becomes_rgb() -> None:
    red = Image.new("CMYK", (20, 20), (0, 255, 255, 0))

    pixels = decoded(save(red, "JPEG"))

    assert pixels.shape == (20, 20, 3)
    assert pixels[..., 0].min() > 240
    assert pixels[..., 1:].max() < 15


def test_16_bit_gray_keeps_its_upper_8_bits() -> None:
    gray = np.array([[0, 255, 256, 0x1234, 0xFFFF]], np.uint16)

    pixels = decoded(save(Image.fromarray(gray)))

    assert pixels[0, :, 0].tolist() == [0, 0, 1, 0x12, 0xFF]
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_transparency_becomes_white() -> None:
    image = Image.new("RGBA", (3, 1))
    image.putdata([(255, 0, 0, 255), (255, 0, 0, 0), (0, 0, 0, 51)])

    assert decoded(save(image)).tolist() == [[[255, 0, 0], [255, 255, 255], [204, 204, 204]]]


def test_transparency_of_gray_becomes_white() -> None:
    image = Image.new("LA", (2, 1), (0, 0))

    assert decoded(save(image)).tolist() == [[[255, 255, 255]] * 2]


def test_transparency_of_webp_becomes_white() -> None:
    image = Image.new("RGBA", (2, 1), (0, 0, 0, 0))

    assert decoded(save(image, "WEBP", lossless=True)).tolist() == [[[255, 255, 255]] * 2]


def test_transparent_palette_color_becomes_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 255, 0])
    image.putpixel((1, 0), 1)

    assert decoded(save(image, transparency=0)).tolist() == [[[255, 255, 255], [0, 255, 0]]]


def test_black_and_white_is_0_and_255() -> None:
    image = Image.fromarray(np.array([[True, False]]))

    assert decoded(save(image)).tolist() == [[[255] * 3, [0] * 3]]


@pytest.mark.parametrize("file_format", ["GIF", "PNG", "WEBP"])
def test_first_frame_of_an_animation_is_used(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    lossless = {"lossless": True} if file_format == "WEBP" else {}

    data = save(frames[0], file_format, save_all=True, append_images=frames[1:], **lossless)

    assert np.array_equal(decoded(data), np.asarray(frames[0]))


@pytest.mark.parametrize("size", [(60000, 1), (1, 60000), (1, 1), (2, 1)])
@pytest.mark.parametrize("crop_fraction", [1.0, 0.875, 0.01])
def test_extreme_aspect_ratios_are_fitted(size: tuple[int, int], crop_fraction: float) -> None:
    settings = Preprocessing(image_size=32, crop_fraction=crop_fraction)

    pixels = preprocess(save(Image.new("RGB", size, "red")), settings)

    assert pixels.shape == (32, 32, 3)
    assert (pixels == [255, 0, 0]).all()


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 1000,
        b"GIF89a",
        b"\xff\xd8\xff\xe0",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n",
    ],
)
def test_unsupported_file_is_rejected(data: bytes) -> None:
    with pytest.raises(ImageError, match="image"):
        decode_image(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_truncated_image_is_rejected(file_format: str) -> None:
    data = encode(PIXELS, file_format)

    for length in range(0, len(data) * 3 // 4, max(1, len(data) // 20)):
        with pytest.raises(ImageError):
            decode_image(data[:length])


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_damaged_image_is_decoded_or_raises_image_error(file_format: str) -> None:
    generator = np.random.default_rng(0)
    original = encode(PIXELS, file_format)

    for _ in range(300):
        damaged = bytearray(original)
        for position in generator.integers(0, len(damaged), 4):
            damaged[position] = generator.integers(0, 256)
        try:
            pixels = preprocess(bytes(damaged), SETTINGS)
        except ImageError:
            continue
        assert pixels.shape == (32, 32, 3)


@pytest.mark.parametrize("size", [(2**16, 2**16), (MAX_PIXELS + 1, 1), (2**31 - 1, 2**31 - 1)])
def test_decompression_bomb_is_rejected_by_its_header(size: tuple[int, int]) -> None:
    with pytest.raises(ImageError, match="MB, SAGEMAKER_CLASSIFIER_IMAGE_MB allows 800"):
        decode_image(png_header(*size))


@pytest.mark.parametrize("file_format", ["PNG", "BMP", "WEBP"])
def test_equal_pixels_fit_equally_in_all_formats(file_format: str) -> None:
    lossless = {"lossless": True} if file_format == "WEBP" else {}

    pixels = preprocess(save(Image.fromarray(PIXELS), file_format, **lossless), SETTINGS)

    assert np.array_equal(pixels, fit(Image.fromarray(PIXELS), SETTINGS))


def test_center_square_is_kept() -> None:
    image = np.zeros((32, 96, 3), np.uint8)
    image[:, 32:64] = 255

    assert (fit(Image.fromarray(image), SETTINGS) == 255).all()


def test_image_of_the_networks_size_is_not_changed() -> None:
    pixels = random_pixels(32, 32)

    assert np.array_equal(preprocess(encode(pixels), SETTINGS), pixels)


def test_gray_and_its_rgb_have_the_same_pixels() -> None:
    gray = Image.fromarray(PIXELS).convert("L")

    assert np.array_equal(
        preprocess(save(gray), SETTINGS), preprocess(save(gray.convert("RGB")), SETTINGS)
    )


@pytest.mark.parametrize(
    "settings", [{"image_size": 15}, {"image_size": 1025}, {"image_size": 32, "crop_fraction": 0}]
)
def test_preprocessing_out_of_range_is_rejected(settings: dict[str, int]) -> None:
    with pytest.raises(UserError, match="must be"):
        Preprocessing(**settings)


def test_only_the_given_bytes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(encode(PIXELS))

    with pytest.raises(ImageError):
        decode_image(str(path).encode())


def test_invalid_exif_tag_of_a_jpeg_is_ignored() -> None:
    # ImageWidth as text, although it should be a number, and Orientation.
    tags = struct.pack("<HHI4s", 0x0100, 2, 2, b"w") + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    data = save(Image.fromarray(PIXELS), "JPEG", exif=exif)

    assert decode_image(data).size == (60, 80)


def test_invalid_exif_tags_of_a_png_are_ignored() -> None:
    # As ImageMagick writes them: ImageWidth as text instead of a number, and Orientation.
    tags = struct.pack("<HHI4s", 0x0100, 2, 2, b"w") + struct.pack("<HHIHH", 0x0112, 3, 1, 6, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + tags + bytes(4)
    text = PngImagePlugin.PngInfo()
    text.add_text("Raw profile type exif", f"\nexif\n{len(exif):8}\n{exif.hex()}\n", zip=True)

    assert decode_image(save(Image.fromarray(PIXELS), pnginfo=text)).size == (60, 80)


def test_jpeg_with_too_many_scans_is_rejected_before_decoding() -> None:
    data = save(Image.fromarray(PIXELS), "JPEG", progressive=True)
    assert decode_image(data).size == (80, 60)
    last = data.rindex(b"\xff\xda")
    scan = data[data.rindex(b"\xff\xda", 0, last) : last]

    with pytest.raises(ImageError, match="more than 100 scans"):
        decode_image(data[:last] + 100 * scan + data[last:])
    # The image is complete before them.
    decode_image(data[:-2] + 100 * data[last:-2] + data[-2:])


@pytest.mark.parametrize("marker", [b"\xff\x01", b"\xff\x02", b"\xff\xc8", b"\xff\xf0"])
def test_scans_after_a_marker_without_a_length_are_counted(marker: bytes) -> None:
    data = save(Image.fromarray(PIXELS), "JPEG", progressive=True)
    last = data.rindex(b"\xff\xda")
    scan = data[data.rindex(b"\xff\xda", 0, last) : last]

    with pytest.raises(ImageError, match="more than 100 scans"):
        decode_image(data[:last] + marker + 100 * scan + data[last:])


def test_progressive_jpeg_with_restarts_is_accepted() -> None:
    image = smooth_photograph(800, 600)
    data = save(image, "JPEG", progressive=True, restart_marker_rows=1)

    assert decode_image(data).size == (800, 600)


def test_jpeg_with_too_many_segments_is_rejected() -> None:
    data = save(Image.fromarray(PIXELS), "JPEG")
    segment = b"\xff\xe1\x00\x12Exif\0\0" + bytes(10)

    with pytest.raises(ImageError, match="more than 1000 segments"):
        decode_image(data[:2] + 1000 * segment + data[2:])
    # Pillow continues after an end-of-image marker that precedes the image.
    with pytest.raises(ImageError, match="more than 1000 segments"):
        decode_image(data[:2] + b"\xff\xd9" + 1000 * segment + data[2:])
    assert decode_image(data[:2] + 900 * b"\xff\xfe\x00\x03x" + data[2:]).size == (80, 60)


COMMENTS = b"!\xfe" + 200_000 * b"\1a" + b"\0"


@pytest.mark.parametrize(
    "parts",
    [
        COMMENTS,
        200_000 * b"!\xfe\0",
        200_000 * b"!\xf9\4\0\0\0\0\0",
        b"!\xff\x0bNETSCAPE2.0" + 200_000 * b"\3\1\0\0" + b"\0",
        200_000 * b"x",
        COMMENTS[:-1],
        # Our reader has finished, but Pillow continues.
        b"!\xf9\0," + 44 * b"x" + b"\0" + COMMENTS,
        b"!\xff\x0bNETSCAPE2.0\0," + 44 * b"x" + b"\0" + COMMENTS,
    ],
)
def test_gif_with_too_many_blocks_is_rejected(parts: bytes) -> None:
    data = save(Image.fromarray(PIXELS).quantize(16), "GIF")
    palette_end = 13 + (3 << (data[10] & 7) + 1)

    with pytest.raises(ImageError, match="more than 200000 pieces"):
        decode_image(data[:palette_end] + parts + data[palette_end:])
    some = b"!\xfe" + 90_000 * b"\1a" + b"\0"
    assert decode_image(data[:palette_end] + some + data[palette_end:]).size == (80, 60)


def test_data_after_a_jpeg_are_not_counted() -> None:
    data = save(Image.fromarray(PIXELS), "JPEG") + b"\xff\xda" * 1000

    assert np.array_equal(decoded(data), decoded(data[:-2000]))


def smooth_photograph(width: int, height: int) -> Image.Image:
    """Return noise in patches, as large as the details of an enlarged photograph."""
    coarse = Image.fromarray(random_pixels(height // 8, width // 8))
    return coarse.resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize(
    ("side", "size"), [(None, (800, 600)), (301, (800, 600)), (300, (400, 300)), (75, (100, 75))]
)
def test_jpeg_is_not_decoded_smaller_than_requested(
    side: int | None, size: tuple[int, int]
) -> None:
    data = save(smooth_photograph(800, 600), "JPEG")

    assert decode_image(data, side).size == size


def test_rotated_jpeg_is_decoded_at_exact_scales_only() -> None:
    photograph = smooth_photograph(1604, 1200)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 3

    assert decode_image(save(photograph, "JPEG"), 100).size == (201, 150)
    assert decode_image(save(photograph, "JPEG", exif=exif), 100).size == (401, 300)


@pytest.mark.parametrize("size", [(1600, 1200), (1601, 1207), (1207, 1603)])
@pytest.mark.parametrize("crop_fraction", [0.875, 1.0])
def test_large_jpeg_has_the_pixels_of_a_full_decoding(
    size: tuple[int, int], crop_fraction: float
) -> None:
    settings = Preprocessing(image_size=64, crop_fraction=crop_fraction)
    data = save(smooth_photograph(*size), "JPEG", quality=90)

    quick = preprocess(data, settings).astype(int)

    thorough = fit(decode_image(data), settings)
    assert not np.array_equal(quick, thorough)
    assert np.abs(quick - thorough).max() <= 4
