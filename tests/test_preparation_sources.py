"""Folders and archives of images, also malicious ones."""

import gzip
import io
import os
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from container.classifier.errors import UserError
from image_classifier.preparation import archives
from image_classifier.preparation.sources import list_images, open_source
from tests.planted import drawn, encoded

IMAGE = encoded(drawn(0), "PNG")


def zipped(path: Path, **entries: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in entries.items():
            archive.writestr(name, data)
    return path


def tarred(path: Path, *members: tarfile.TarInfo, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member in members:
            member.size = len(IMAGE) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(IMAGE) if member.isreg() else None)
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    found = tarfile.TarInfo(name)
    found.type, found.linkname = kind, target
    return found


def names_in(archive: Path) -> list[str]:
    with open_source(archive, quiet=True) as folder:
        found, _ = list_images(folder)
        assert all((folder / name).read_bytes() == IMAGE for name in found)
    assert not folder.exists()
    return found


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
def test_tar_is_read_with_every_compression(tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"a.tar{mode[1:].replace(':', '.')}"
    tarred(path, member("ant/1.png"), member("ant/2.png", tarfile.LNKTYPE, "ant/1.png"), mode=mode)

    assert names_in(path) == ["ant/1.png", "ant/2.png"]


def test_zip_is_read(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.ZIP", **{"ant/1.png": IMAGE, "ant/": b"", "__MACOSX/x.png": b""})

    assert names_in(path) == ["ant/1.png"]


@pytest.mark.parametrize(
    "name", ["../1.png", "ant/../../1.png", "/1.png", "..\\1.png", "C:\\1.png"]
)
def test_entry_that_leaves_the_folder_is_rejected(tmp_path: Path, name: str) -> None:
    for path in (
        zipped(tmp_path / "a.zip", **{name: IMAGE}),
        tarred(tmp_path / "a.tar", member(name)),
    ):
        inside = tmp_path / "inside"
        inside.mkdir(exist_ok=True)
        with (
            pytest.raises(UserError, match="which leaves the folder: it is not"),
            open_source(path, unpack_in=inside),
        ):
            pass
        assert list(inside.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"a.zip", "a.tar", "inside"}


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (member("ant", tarfile.SYMTYPE, "/etc"), "contains the link 'ant'"),
        (member("1.png", tarfile.SYMTYPE, "../../etc/passwd"), "contains the link '1.png'"),
        (member("1.png", tarfile.LNKTYPE, "/etc/passwd"), "contains the link '1.png'"),
        (member("1.png", tarfile.LNKTYPE, "../secret"), "contains '../secret', which leaves"),
        (member("1.png", tarfile.LNKTYPE, "not/there.png"), "is damaged"),
    ],
)
def test_link_in_a_tar_is_rejected(tmp_path: Path, link: tarfile.TarInfo, words: str) -> None:
    path = tarred(tmp_path / "a.tar", link, member("bee/1.png"))

    with pytest.raises(UserError, match=words), open_source(path, quiet=True):
        pass


def test_link_in_a_zip_is_rejected(tmp_path: Path) -> None:
    info = zipfile.ZipInfo("1.png")
    info.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(info, "/etc/passwd")

    with (
        pytest.raises(UserError, match=r"contains the link '1\.png'"),
        open_source(tmp_path / "a.zip"),
    ):
        pass


def test_encrypted_zip_is_reported(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"ant/1.png": IMAGE})
    data = bytearray(path.read_bytes())
    # The flags in the directory at the end, which Python itself cannot set.
    data[data.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(data)

    with pytest.raises(UserError, match="is encrypted: unpack it first"), open_source(path):
        pass


def test_name_that_is_too_long_for_the_disk_is_reported(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{f"ant/{'x' * 300}.png": IMAGE})

    with (
        pytest.raises(UserError, match=r"a\.zip: 'ant/x+' cannot be unpacked: "),
        open_source(path),
    ):
        pass


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_device_or_pipe_in_a_tar_is_rejected(tmp_path: Path, kind: bytes) -> None:
    path = tarred(tmp_path / "a.tar", member("bee/1.png"), member("x.png", kind))

    rejected(path, r"a\.tar contains 'x\.png', a device or a pipe: pack files only")


def rejected(path: Path, words: str) -> None:
    """Check that an archive is rejected, and that nothing of it is left behind."""
    folder = path.parent / "unpacked"
    folder.mkdir()
    with pytest.raises(UserError, match=words), open_source(path, unpack_in=folder, quiet=True):
        pass
    assert list(folder.iterdir()) == []


def test_an_archive_that_becomes_many_times_larger_is_rejected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MIN_LIMIT_BYTES", 1_000_000)
    zeros = {f"ant/{number}.bmp": bytes(100_000) for number in range(200)}
    inner = zipped(tmp_path / "inner.zip", **zeros)
    links = [member(f"{number}.png", tarfile.LNKTYPE, "0.png") for number in range(1, 2000)]
    words = "becomes more than 200 times as large when it is unpacked"

    for path in (
        inner,
        zipped(tmp_path / "nested.zip", **{"more.zip": inner.read_bytes()}),
        tarred(tmp_path / "links.tgz", member("0.png"), *links, mode="w:gz"),
        sparse(tmp_path / "sparse.tar", files=10, size=2_000_000),
    ):
        rejected(path, words)
        (tmp_path / "unpacked").rmdir()

    monkeypatch.undo()
    with open_source(inner, quiet=True) as folder:
        assert len(list((folder / "ant").iterdir())) == 200


def sparse(path: Path, files: int, size: int) -> Path:
    """Write a tar of files without any content, as `tar --sparse` does."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for number in range(files):
            found = member(f"ant/{number}.bmp")
            found.size = len(b"0\n".ljust(tarfile.BLOCKSIZE, b"\0"))
            found.pax_headers = {
                "GNU.sparse.major": "1",
                "GNU.sparse.minor": "0",
                "GNU.sparse.name": found.name,
                "GNU.sparse.realsize": str(size),
            }
            archive.addfile(found, io.BytesIO(b"0\n".ljust(tarfile.BLOCKSIZE, b"\0")))
    return path


def test_entry_in_very_many_folders_is_rejected(tmp_path: Path) -> None:
    path = zipped(tmp_path / "a.zip", **{"ant/1.png": IMAGE, "a/" * 1900 + "2.png": IMAGE})

    rejected(path, r"a\.zip contains 'a/a/.*, in more than 100 folders: repack it")


def test_archive_in_an_archive_is_named_by_its_path(tmp_path: Path) -> None:
    inner = tarred(tmp_path / "inner.tar", member("../../1.png"))
    path = zipped(tmp_path / "a.zip", **{"parts/inner.tar": inner.read_bytes()})

    rejected(path, r"a\.zip, parts/inner\.tar contains '\.\./\.\./1\.png', which leaves")


def test_too_large_contents_are_rejected(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bomb.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(3_000_000))
    monkeypatch.setattr(archives, "MAX_FILE_BYTES", 2_000_000)

    with pytest.raises(UserError, match=r"contains '1\.png', larger than 2 MB"), open_source(path):
        pass
    monkeypatch.undo()
    monkeypatch.setattr(archives, "SPARE_BYTES", 10**18)
    with pytest.raises(UserError, match="does not fit on the disk"), open_source(path):
        pass


@pytest.mark.parametrize("name", ["a.zip", "a.tar", "a.tar.gz"])
def test_damaged_archive_is_reported(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    whole = zipped(path, **{"1.png": IMAGE}) if name == "a.zip" else tarred(path, member("1.png"))
    path.write_bytes(whole.read_bytes()[:600])

    with pytest.raises(UserError, match="is damaged"), open_source(path, quiet=True):
        pass


@pytest.mark.parametrize("mode", ["bz2", "xz"])
def test_damage_in_a_compressed_tar_is_reported(tmp_path: Path, mode: str) -> None:
    path = tmp_path / f"a.tar.{mode}"
    with tarfile.open(path, f"w:{mode}") as archive:  # type: ignore[call-overload]
        for name in ("1.png", "2.png"):
            (tmp_path / name).write_bytes(os.urandom(200_000))
            archive.add(tmp_path / name, f"ant/{name}")
    data = bytearray(path.read_bytes())
    for place in (len(data) // 2, len(data) - 12):
        data[place] ^= 255
    path.write_bytes(data)

    with pytest.raises(UserError, match=r"is damaged|cannot be unpacked: \w"), open_source(path):
        pass


@pytest.mark.parametrize("mode", ["w", "w:gz"])
@pytest.mark.parametrize("damage", ["header", "cut"])
def test_tar_that_ends_at_a_damaged_header_is_rejected(
    tmp_path: Path, mode: str, damage: str
) -> None:
    path = tarred(tmp_path / "a.tar", *(member(f"ant/{number}.png") for number in range(4)))
    data = bytearray(path.read_bytes())
    third = data.index(b"ant/2.png")
    data[third] ^= 255
    data = data[: third + 100] if damage == "cut" else data
    if mode == "w:gz":
        path = tmp_path / "a.tar.gz"
        path.write_bytes(gzip.compress(bytes(data)))
    else:
        path.write_bytes(data)

    with (
        pytest.raises(UserError, match="ends early, or an entry's header is damaged"),
        open_source(path, quiet=True),
    ):
        pass


def test_tar_without_its_closing_zeros_is_read(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", member("ant/1.png"))
    path.write_bytes(path.read_bytes()[: 512 + -(-len(IMAGE) // 512) * 512])

    assert names_in(path) == ["ant/1.png"]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE])
def test_large_extended_header_is_not_read(tmp_path: Path, kind: bytes) -> None:
    header = member("././@LongLink", kind)
    header.size = 3_000_000
    first = tarred(tmp_path / "a.tar", member("1.png")).read_bytes()
    first = first[: 512 + -(-len(IMAGE) // 512) * 512]
    path = tmp_path / "b.tar"
    path.write_bytes(first + header.tobuf() + b"a" * 3_000_064 + bytes(1024))

    with (
        pytest.raises(UserError, match="extended header has 3000000 bytes"),
        open_source(path, quiet=True),
    ):
        pass


def test_folders_count_as_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    many = [f"ant/{number}/" for number in range(20)]
    tar = tarred(tmp_path / "a.tar", *(member(name, tarfile.DIRTYPE) for name in many))
    monkeypatch.setattr(archives, "MAX_ENTRIES", 10)

    for path in (tar, zipped(tmp_path / "a.zip", **dict.fromkeys(many, b""))):
        with (
            pytest.raises(UserError, match="more than 10 entries"),
            open_source(path, quiet=True),
        ):
            pass


def test_total_size_is_limited_archives_in_archives_included(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inner = zipped(tmp_path / "inner.zip", **{"1.png": IMAGE, "2.png": IMAGE})
    path = zipped(tmp_path / "a.zip", **{"ant.zip": inner.read_bytes()})
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", inner.stat().st_size + 2 * len(IMAGE) - 1)

    with (
        pytest.raises(UserError, match=r"a\.zip contains more than"),
        open_source(path, quiet=True),
    ):
        pass
    monkeypatch.setattr(archives, "MAX_TOTAL_BYTES", inner.stat().st_size + 2 * len(IMAGE))
    assert names_in(path) == ["ant/1.png", "ant/2.png"]


def test_zip_of_windows_with_entries_for_folders_is_read(tmp_path: Path) -> None:
    entries = {"data\\": b"", "data\\ant\\": b"", "data\\ant\\1.png": IMAGE}

    assert names_in(zipped(tmp_path / "a.zip", **entries)) == ["data/ant/1.png"]


def test_archive_with_a_duplicate_name_is_rejected(tmp_path: Path) -> None:
    path = tarred(tmp_path / "a.tar", member("1.png"), member("1.png"))

    with pytest.raises(UserError, match=r"contains '1\.png' twice"), open_source(path, quiet=True):
        pass


def test_missing_or_unknown_source_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "a.rar").touch()

    with (
        pytest.raises(UserError, match="does not exist: name a folder or one of"),
        open_source(tmp_path / "b"),
    ):
        pass
    with (
        pytest.raises(UserError, match="is neither a folder nor an archive"),
        open_source(tmp_path / "a.rar"),
    ):
        pass


def test_unsupported_files_and_folder_links_are_reported(tmp_path: Path) -> None:
    for name in ("ant/1.JPG", "ant/notes.txt", "ant/.hidden.png", "ant/2.psd", ".git/3.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "more").symlink_to(tmp_path / "ant")

    images, findings = list_images(tmp_path)

    assert images == ["ant/1.JPG"]
    assert [(item.kind, item.path) for item in findings] == [
        ("unsupported", "ant/2.psd"),
        ("other-file", "ant/notes.txt"),
        ("link", "more"),
    ]


def test_broken_links_and_pipes_are_reported(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    (tmp_path / "2.png").symlink_to("nowhere")
    os.mkfifo(tmp_path / "3.png")

    images, findings = list_images(tmp_path)

    assert images == ["1.png"]
    assert [(item.kind, item.path) for item in findings] == [
        ("no-file", "2.png"),
        ("no-file", "3.png"),
    ]


def test_folder_without_images_is_rejected(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"^found no images: expected files that end"):
        list_images(tmp_path)
    (tmp_path / "ant").symlink_to(tmp_path.parent)
    with pytest.raises(UserError, match=r"; ant is a link to a folder, which is not followed"):
        list_images(tmp_path)
