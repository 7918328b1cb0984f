"""Images that differ from each other as photographs do, and data sets with known faults."""

import csv
import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

SIZE = 64

CLASSES = ("ant", "bee", "hand_left", "hand_right")


def drawn(seed: object, class_name: str = "", size: int = SIZE) -> Image.Image:
    """Draw soft random shapes; those of one class have something in common."""
    image = _shapes(f"{seed}", 45.0)
    if class_name:
        image = image + _shapes(class_name, 90.0)
    pixels = (128 + image).clip(0, 255).astype(np.uint8)
    return Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    """Write an image, its folders too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    """Return an image's file."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def folders(root: Path, counts: dict[str, int], prefix: str = "") -> None:
    """Write class folders with as many different images."""
    for name, count in counts.items():
        for number in range(count):
            save(drawn(f"{prefix}{name}{number}", name), root / name / f"{prefix}{number}.png")


def _shapes(seed: str, contrast: float) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    random = np.random.default_rng(int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16))
    coarse = random.normal(0, 1, (7, 7, 3)).astype(np.float32)
    smooth = [
        np.asarray(Image.fromarray(coarse[:, :, c]).resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        for c in range(3)
    ]
    found: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = contrast * np.stack(smooth, axis=2)
    return found


@dataclass
class Planted:
    """A data set with a manifest, and which faults it has."""

    root: Path
    faults: list[tuple[str, str]] = field(default_factory=list)
    """Kind and path."""

    rows: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Path, label, split and group."""

    def image(
        self,
        path: str,
        data: bytes,
        label: str,
        split: str = "train",
        *,
        group: str = "",
        kind: str = "",
    ) -> None:
        """Write one file with its row, and note its fault if it has one."""
        (self.root / path).parent.mkdir(parents=True, exist_ok=True)
        (self.root / path).write_bytes(data)
        self.rows.append((path, label, split, group))
        if kind:
            self.faults.append((kind, path))

    def write_manifest(self) -> None:
        """Write all rows, with the folds of a cross-validation, which are no splits."""
        rows = [(*row, number % 5) for number, row in enumerate(self.rows)]
        with (self.root / "labels.csv").open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([("path", "label", "split", "patient", "fold"), *rows])
        self.faults.append(("unused-column", ""))


def planted(root: Path, count: int = 10) -> Planted:
    """Write sound images of four classes, and `count` faults of every kind that an image has."""
    found = Planted(root)
    for name in CLASSES:
        for number in range(50):
            split = "validation" if number % 5 == 0 else "train"
            found.image(f"sound/{name}{number}.png", _png(f"{name}{number}", name), name, split)
    for plant in (_broken, _odd, _poor, _copies, _grouped, _unlisted):
        for number in range(count):
            plant(found, number, CLASSES[number % len(CLASSES)])
    # A class that is rare in training, and missing in validation.
    for number in range(4):
        found.image(f"rare{number}.png", _png(f"rare{number}", "rare"), "rare")
    (root / "linked").symlink_to(root / "sound", target_is_directory=True)
    (root / "lost.png").symlink_to("nowhere")
    found.faults += [("link", "linked"), ("no-file", "lost.png")]
    found.write_manifest()
    return found


def _png(seed: str, class_name: str) -> bytes:
    return encoded(drawn(seed, class_name), "PNG")


def _broken(found: Planted, number: int, name: str) -> None:
    jpeg = encoded(drawn(f"broken{number}", name), "JPEG", quality=90)
    png = _png(f"broken too{number}", name)
    cut = jpeg[: len(jpeg) // 2] if number % 2 else png[: len(png) // 2]
    ending = "jpg" if number % 2 else "png"
    found.image(f"truncated{number}.{ending}", cut, name, kind="truncated")
    noise = b"\0" * number if number % 2 else b"<html>404 " + bytes([number]) * 50
    found.image(f"undecodable{number}.png", noise, name, kind="undecodable")
    gray = encoded(Image.new("RGB", (SIZE, SIZE), (number * 20,) * 3), "PNG")
    found.image(f"constant{number}.png", gray, name, kind="constant")
    tiny = encoded(drawn(f"tiny{number}", name, size=6 + number), "PNG")
    found.image(f"tiny{number}.png", tiny, name, kind="tiny")


def _odd(found: Planted, number: int, name: str) -> None:
    def image(kind: str) -> Image.Image:
        return drawn(f"{kind}{number}", name)

    mode = ("CMYK", "P", "RGBA", "LA", "1")[number % 5]
    ending = "JPEG" if mode == "CMYK" else "PNG"
    data = encoded(image("mode").convert(mode), ending)
    suffix = "jpg" if mode == "CMYK" else "png"
    found.image(f"mode{number}.{suffix}", data, name, kind="odd-mode")
    exif = Image.Exif()
    exif[0x0112] = 2 + number % 7
    data = encoded(image("exif"), "JPEG", exif=exif)
    found.image(f"exif{number}.jpg", data, name, kind="exif-rotated")
    data = encoded(image("gray").convert("L").convert("RGB"), "JPEG")
    found.image(f"gray{number}.jpg", data, name, kind="gray-as-rgb")
    data = encoded(image("extension"), "WEBP" if number % 2 else "PNG")
    found.image(f"extension{number}.jpg", data, name, kind="wrong-extension")
    # It looks like one of another class.
    other = CLASSES[(number + 1) % len(CLASSES)]
    found.image(f"suspect{number}.png", _png(f"s{number}", other), name, kind="label-suspect")


def _poor(found: Planted, number: int, name: str) -> None:
    images = {kind: drawn(f"{kind}{number}", name) for kind in ("dark", "bright", "blurry")}
    two_levels = drawn(f"two levels{number}", name).convert("L").point(lambda v: 255 * (v > 128))
    images |= {
        "dark": images["dark"].point(lambda v: v // 4),
        "bright": images["bright"].point(lambda v: 244 + v // 23),
        "blurry": images["blurry"].filter(ImageFilter.GaussianBlur(9)),
        "low-information": two_levels.convert("RGB"),
        "odd-aspect-ratio": drawn(f"long{number}", name).resize((SIZE, SIZE // 3)),
        "odd-size": drawn(f"large{number}", name, size=3 * SIZE),
    }
    for kind, image in images.items():
        found.image(f"{kind}{number}.png", encoded(image, "PNG"), name, kind=kind)


def _copies(found: Planted, number: int, name: str) -> None:
    other = CLASSES[(number + 1) % len(CLASSES)]
    copies: Sequence[tuple[str, str, str]] = (
        ("copy", name, "train"),
        ("copy-across-splits", name, "validation"),
        ("copy-with-two-labels", other, "train"),
    )
    for kind, label, split in copies:
        for similarity, copy in (("exact", _exact_copy), ("near", _near_copy)):
            image = drawn(f"{similarity}{kind}{number}", name)
            found.image(f"{similarity}-{kind}{number}.png", encoded(image, "PNG"), name)
            path = f"again/{similarity}-{kind}{number}.{'png' if similarity == 'exact' else 'jpg'}"
            found.image(path, copy(image, number), label, split, kind=f"{similarity}-{kind}")


def _exact_copy(image: Image.Image, _: int) -> bytes:
    return encoded(image, "PNG")


def _near_copy(image: Image.Image, number: int) -> bytes:
    if number % 2:
        return encoded(image, "JPEG", quality=40)
    smaller = image.resize((48, 48), Image.Resampling.LANCZOS)
    return encoded(smaller, "JPEG", quality=80)


def _grouped(found: Planted, number: int, name: str) -> None:
    other = CLASSES[(number + 1) % len(CLASSES)]
    for kind, label, split in (
        ("group-across-splits", name, "validation"),
        ("group-with-two-labels", other, "train"),
    ):
        group = f"{kind}{number}"
        found.image(f"{group}a.png", _png(f"{group}a", name), name, group=group)
        data = _png(f"{group}b", label)
        found.image(f"{group}b.png", data, label, split, group=group, kind=kind)


def _unlisted(found: Planted, number: int, name: str) -> None:
    found.rows.append((f"missing{number}.png", name, "train", ""))
    found.faults.append(("missing-file", f"missing{number}.png"))
    save(drawn(f"unlabeled{number}", name), found.root / f"unlabeled{number}.png")
    found.faults.append(("unlabeled", f"unlabeled{number}.png"))
    found.image(f"scan{number}.ppm", encoded(drawn(f"t{number}"), "PPM"), name, kind="converted")
    for kind, path, data in (
        ("unsupported", f"scan{number}.dcm", b"\0" * 128 + b"DICM"),
        ("unknown", f"cache{number}.bin", b"\0\1\2"),
        ("other-file", f"notes{number}.txt", b"sharp"),
        ("archive", f"more{number}.zip", b"PK"),
    ):
        (found.root / path).write_bytes(data)
        found.faults.append((kind, path))
    # The names of two files, and of one in other case.
    found.rows.append((f"{number}same.png", name, "train", ""))
    for folder in ("one", "two"):
        path = f"{folder}/{number}same.png"
        found.image(path, _png(f"{folder}{number}", name), name, kind="")
    found.faults.append(("ambiguous-file", f"{number}same.png"))
    found.rows.append((f"SOUND/{name}{number}.png", name, "train", ""))
    found.faults.append(("other-case", f"SOUND/{name}{number}.png"))
