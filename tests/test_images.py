"""Images that are decoded once, in the order of their files, and cached."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from container.classifier.environment import CACHE_DIR_VARIABLE, IMAGE_MEMORY_VARIABLE
from container.classifier.errors import UserError
from container.classifier.labeled_images import LabeledFile
from container.classifier.preprocessing import Preprocessing, preprocess
from container.training.data.images import ImageSet, decode
from container.training.sagemaker.stop import Stop, Stopped, StopRequest
from tests.opt_ml import IS_ROOT, needs_unshare, square, wait_for

SETTINGS = Preprocessing(image_size=16)
CLASS_NAMES = ("blue", "green", "red")

# A program for separate processes: it decodes the folder in its argument.
PROGRAM = """
import logging, sys
from pathlib import Path
from container.classifier.preprocessing import Preprocessing
from container.classifier.labeled_images import LabeledFile
from container.training.data.images import decode
from container.training.sagemaker.stop import StopRequest

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
# `labeled_files` rejects pipes, with which tests block the decoding.
paths = sorted(Path(sys.argv[1]).iterdir())
files = [LabeledFile(path, path.stem.partition("_")[2]) for path in paths]
names = sorted({file.class_name for file in files})
images = decode(files, names, Preprocessing(image_size=16), StopRequest())
print(f"sum={images.pixels.sum()} sha256={images.sha256}")
"""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder of this test's cache."""
    directory = tmp_path / "cache"
    monkeypatch.setenv(CACHE_DIR_VARIABLE, str(directory))
    return directory


@pytest.fixture
def files(tmp_path: Path) -> list[LabeledFile]:
    """Return more files than a chunk has, with the classes in rotation."""
    channel = tmp_path / "channel"
    channel.mkdir()
    files = []
    for number in range(300):
        class_name = CLASS_NAMES[number % 3]
        path = channel / f"{number:03}_{class_name}.png"
        path.write_bytes(square(class_name, number))
        files.append(LabeledFile(path, class_name))
    return files


def decoded(files: list[LabeledFile]) -> ImageSet:
    return decode(files, CLASS_NAMES, SETTINGS, StopRequest())


def test_pixels_labels_and_paths_are_in_the_order_of_the_files(files: list[LabeledFile]) -> None:
    images = decoded(files)

    assert len(images) == 300
    assert images.pixels.shape == (300, 16, 16, 3)
    assert images.labels.tolist() == [number % 3 for number in range(300)]
    assert images.paths == tuple(file.path for file in files)
    for place in (0, 255, 256, 299):
        expected = preprocess(files[place].path.read_bytes(), SETTINGS)
        assert np.array_equal(images.pixels[place], expected)


def test_broken_images_leave_no_gaps(files: list[LabeledFile]) -> None:
    for place in (0, 100, 299):
        files[place].path.write_bytes(b"no image")

    images = decoded(files)

    assert len(images.pixels) == len(images) == len(images.paths) == 297
    assert images.labels[:3].tolist() == [1, 2, 0]
    assert np.array_equal(images.pixels[0], preprocess(files[1].path.read_bytes(), SETTINGS))


def test_more_than_five_percent_of_broken_images_are_rejected(
    files: list[LabeledFile],
) -> None:
    for place in range(15):
        files[place].path.write_bytes(b"no image")
    assert len(decoded(files)) == 285

    files[15].path.write_bytes(b"no image")
    with pytest.raises(
        UserError, match=r"^16 of 300 images cannot be read, more than 5%: .*; \.\.\.$"
    ):
        decoded(files)


def test_checksum_depends_on_content_labels_and_order(files: list[LabeledFile]) -> None:
    checksum = decoded(files).sha256

    assert decoded(files).sha256 == checksum
    assert decoded(files[::-1]).sha256 != checksum
    relabeled = [LabeledFile(files[0].path, "red"), *files[1:]]
    assert decoded(relabeled).sha256 != checksum
    files[7].path.write_bytes(square("red", 1000))
    assert decoded(files).sha256 != checksum


def test_stop_request_interrupts_decoding(files: list[LabeledFile]) -> None:
    stop = StopRequest(requested=True)

    with pytest.raises(Stopped):
        decode(files, CLASS_NAMES, SETTINGS, stop)


def origins(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Return the logged origins of the images, by call."""
    lines = [line for line in caplog.messages if line.startswith("decoded_images=")]
    return [line.partition("=")[2].partition(" ")[0] for line in lines]


@contextmanager
def decoding(
    channel: Path, before: Sequence[str] = (), program: str = PROGRAM
) -> Iterator[subprocess.Popen[str]]:
    """Run a program on a channel's folder until the end of the block."""
    with subprocess.Popen(
        [*before, sys.executable, "-c", program, str(channel)],
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def slow(files: list[LabeledFile]) -> Path:
    """Return an image in the channel that blocks its reader until a test writes it."""
    path = files[0].path.with_name("150x_red.png")
    os.mkfifo(path)
    return path


def test_decoded_images_are_cached(
    files: list[LabeledFile], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    files[3].path.write_bytes(b"no image")

    first, second = decoded(files), decoded(files)

    assert origins(caplog) == ["new", "cached"]
    assert np.array_equal(first.pixels, second.pixels)
    assert first.labels.tolist() == second.labels.tolist()
    assert (first.paths, first.sha256) == (second.paths, second.sha256)
    assert caplog.text.count("1 of 300 images cannot be read and are left out: ") == 2


def test_too_many_broken_images_in_the_cache_are_rejected(files: list[LabeledFile]) -> None:
    for file in files[:20]:
        file.path.write_bytes(b"no image")

    for _ in range(2):
        with pytest.raises(UserError, match=r"^20 of 300 images cannot be read, more than 5%: "):
            decoded(files)


def test_cached_pixels_are_read_only(files: list[LabeledFile]) -> None:
    with pytest.raises(ValueError, match="read-only"):
        decoded(files).pixels[0] = 0


def test_changed_file_is_decoded_again(
    files: list[LabeledFile], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = files[5].path
    data, status = path.read_bytes(), path.stat()
    decoded(files)
    # The same size and mtime; only ctime differs.
    path.write_bytes(bytes(len(data)))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))

    assert len(decoded(files)) == 299
    assert origins(caplog) == ["new", "new"]


def test_images_are_decoded_again_with_another_limit_of_memory(
    files: list[LabeledFile], monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.new("RGB", (900, 900)).save(files[0].path)
    monkeypatch.setenv(IMAGE_MEMORY_VARIABLE, "10")
    assert len(decoded(files)) == 299

    monkeypatch.delenv(IMAGE_MEMORY_VARIABLE)
    assert len(decoded(files)) == 300


def test_other_settings_classes_and_orders_have_other_entries(
    files: list[LabeledFile], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    decoded(files)
    relabeled = [LabeledFile(files[0].path, "red"), *files[1:]]
    cropped = Preprocessing(image_size=16, crop_fraction=0.5)

    images = decode(files, CLASS_NAMES, cropped, StopRequest())
    others = [decoded(relabeled), decoded(files[::-1]), decoded(files[:-1])]

    assert origins(caplog) == ["new"] * 5
    assert np.array_equal(images.pixels[0], preprocess(files[0].path.read_bytes(), cropped))
    assert [len(other) for other in others] == [300, 300, 299]


@pytest.mark.parametrize("fraction", [0, 0.5, 0.999])
def test_truncated_entry_is_decoded_again(
    files: list[LabeledFile], cache: Path, caplog: pytest.LogCaptureFixture, fraction: float
) -> None:
    caplog.set_level(logging.INFO)
    expected = np.array(decoded(files).pixels)
    (entry,) = cache.iterdir()
    os.truncate(entry, int(fraction * entry.stat().st_size))

    assert np.array_equal(decoded(files).pixels, expected)
    assert "is truncated" in caplog.text
    decoded(files)
    assert origins(caplog) == ["new", "new", "cached"]


def test_stop_request_leaves_no_files(files: list[LabeledFile], cache: Path) -> None:
    stop = StopRequest(requested=True)

    with pytest.raises(Stopped):
        decode(files, CLASS_NAMES, SETTINGS, stop)

    assert list(cache.iterdir()) == []


def test_partial_file_of_a_killed_process_is_removed(
    files: list[LabeledFile], slow: Path, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    # Opening it for writing blocks until the process reads it.
    with decoding(slow.parent) as process, slow.open("wb"):
        process.send_signal(signal.SIGKILL)
        process.wait()
    (left,) = cache.iterdir()
    assert left.suffix == ".partial"

    decoded(files)

    (entry,) = cache.iterdir()
    assert entry.suffix == ".pixels"
    assert origins(caplog) == ["new"]


@pytest.mark.usefixtures("files")
def test_processes_decode_the_same_images_once(slow: Path, cache: Path) -> None:
    with (
        decoding(slow.parent) as first,
        slow.open("wb") as writer,
        decoding(slow.parent) as second,
    ):
        log = wait_for(second, "^waiting_for=")
        writer.write(square("red", 0))
        writer.close()
        outputs = [first.communicate()[0], log + second.communicate()[0]]

    assert (first.returncode, second.returncode) == (0, 0), outputs
    assert outputs[0].startswith("decoded_images=new files=301 ")
    assert "\ndecoded_images=cached files=301 " in outputs[1]
    assert outputs[0].splitlines()[-1] == outputs[1].splitlines()[-1]
    assert len(list(cache.iterdir())) == 1


def test_concurrent_processes_get_the_same_images(files: list[LabeledFile], cache: Path) -> None:
    with (
        decoding(files[0].path.parent) as a,
        decoding(files[0].path.parent) as b,
        decoding(files[0].path.parent) as c,
    ):
        outputs = [process.communicate()[0] for process in (a, b, c)]

    assert sum("decoded_images=new " in output for output in outputs) == 1, outputs
    assert sum("decoded_images=cached " in output for output in outputs) == 2, outputs
    assert len({output.splitlines()[-1] for output in outputs}) == 1
    assert [path.suffix for path in cache.iterdir()] == [".pixels"]


@pytest.mark.usefixtures("files")
def test_waiting_process_decodes_if_the_other_one_is_killed(slow: Path) -> None:
    with (
        decoding(slow.parent) as first,
        slow.open("wb") as held,
        decoding(slow.parent) as second,
    ):
        wait_for(second, "^waiting_for=")
        first.kill()
        first.wait()
        slow.write_bytes(square("red", 0))
        held.close()
        output, _ = second.communicate()

    assert second.returncode == 0, output
    assert "decoded_images=new files=301 " in output


class StopWhileWaiting(Stop):
    """A stop that is requested at the second check."""

    checks = 0

    @property
    def requested(self) -> bool:
        self.checks += 1
        return self.checks > 1


def test_stop_request_ends_the_wait_for_another_process(
    files: list[LabeledFile], slow: Path, cache: Path
) -> None:
    everything = sorted([*files, LabeledFile(slow, "red")], key=lambda file: file.path)
    with decoding(slow.parent), slow.open("wb"):
        (partial,) = cache.iterdir()
        stop = StopWhileWaiting()

        with pytest.raises(Stopped):
            decode(everything, CLASS_NAMES, SETTINGS, stop)

        assert stop.checks == 2
        assert list(cache.iterdir()) == [partial]


# On a disk of 1 MiB: four entries of 230 KB fit, a fifth needs the space of another.
EVICTING = """
import logging, sys
from pathlib import Path
from container.classifier.errors import UserError
from container.classifier.preprocessing import Preprocessing
from container.classifier.labeled_images import class_names_of, labeled_files
from container.training.data.images import decode
from container.training.sagemaker.stop import StopRequest

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")
files = labeled_files(Path(sys.argv[1]))

def rotated(by):
    turned = files[by:] + files[:by]
    return decode(turned, class_names_of(files), Preprocessing(image_size=16), StopRequest())

for by in (0, 1, 2, 3, 0, 4):
    rotated(by)
print("the least recently used entry is evicted, the others are cached:")
used = [rotated(by) for by in (0, 2, 3, 4)]
before = [images.pixels.sum() for images in used]
print("all are in use:")
try:
    rotated(1)
except UserError as error:
    print(error)
print([images.pixels.sum() for images in used] == before)
print("one is not in use:")
del used[1]
rotated(1)
"""


@needs_unshare
def test_least_recently_used_entries_are_evicted_from_a_full_disk(
    files: list[LabeledFile], cache: Path
) -> None:
    cache.mkdir()
    script = 'mount -t tmpfs -o size=1m tmpfs "$1" && shift && exec "$@"'
    before = ("unshare", "--mount", "sh", "-c", script, "sh", str(cache))

    with decoding(files[0].path.parent, before, EVICTING) as process:
        output, _ = process.communicate()

    assert process.returncode == 0, output
    names = [line.split()[0].partition("decoded-")[0] for line in output.splitlines()]
    new, cached, evicted = "decoded_images=new", "decoded_images=cached", f"evicted={cache}/"
    assert names == [new] * 4 + [cached, evicted, new, "the"] + [cached] * 4 + [
        "all",
        "no",
        "True",
        "one",
        evicted,
        new,
    ]
    assert (
        f"\nno room for 0.00 GB of decoded images in {cache} (No space left on device): "
        "give the job a larger volume (volume_size) or a smaller image_size\n"
    ) in output


@pytest.fixture
def own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the default folder of the cache, which does not exist yet."""
    monkeypatch.delenv(CACHE_DIR_VARIABLE)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"image-classifier-{os.geteuid()}"


def test_default_cache_is_private(files: list[LabeledFile], own_folder: Path) -> None:
    decoded(files)

    (entry,) = own_folder.iterdir()
    assert own_folder.stat().st_mode & 0o777 == 0o700
    assert entry.stat().st_mode & 0o777 == 0o600


def chown(folder: Path) -> None:
    folder.mkdir(mode=0o700)
    os.chown(folder, 65534, 65534)


def link(folder: Path) -> None:
    folder.symlink_to(folder.parent)


def open_to_all(folder: Path) -> None:
    folder.mkdir()
    folder.chmod(0o777)


@pytest.mark.parametrize(
    "plant",
    [
        pytest.param(chown, marks=pytest.mark.skipif(not IS_ROOT, reason="chown is root's")),
        link,
        open_to_all,
    ],
)
def test_cache_folder_of_another_user_is_rejected(
    files: list[LabeledFile], own_folder: Path, plant: Callable[[Path], None]
) -> None:
    plant(own_folder)

    with pytest.raises(
        UserError, match=f"^{own_folder}, .* not a private folder of this user: remove"
    ):
        decoded(files)


def test_cache_that_is_not_writable_is_reported(files: list[LabeledFile], cache: Path) -> None:
    cache.write_bytes(b"a file, not a folder")

    with pytest.raises(
        UserError, match=rf"^{cache} cannot hold .* \(File exists\): set {CACHE_DIR_VARIABLE}"
    ):
        decoded(files)
