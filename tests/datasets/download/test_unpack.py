"""Archives: the wanted files are unpacked, nothing is written outside the folder, and damage is named."""

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from seglib.datasets.download.fetch import unpack
from tests.helpers.miniature import make_tar, make_zip

FILES = {"a/1.jpg": b"one", "a/2.jpg": random.Random(0).randbytes(20_000), "b/notes.txt": b"", "ä/ü 3.png": b"three"}
both = pytest.mark.parametrize("kind", ["zip", "tar"])


def pack(folder: Path, kind: str, files: dict[str, bytes]) -> Path:
    path = folder / f"set.{kind}"
    path.write_bytes(make_zip(files) if kind == "zip" else make_tar(files))
    return path


def pack_link(folder: Path, kind: str, target: str) -> Path:
    """An archive of a symbolic link "door" and a file behind it."""
    path = folder / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo("door")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
        return path
    with tarfile.open(path, "w") as archive:
        link = tarfile.TarInfo("door")
        link.type = tarfile.SYMTYPE
        link.linkname = target
        archive.addfile(link)
        file = tarfile.TarInfo("door/new")
        file.size = 4
        archive.addfile(file, io.BytesIO(b"evil"))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@both
def test_the_wanted_files_are_unpacked(tmp_path, kind):
    archive = pack(tmp_path, kind, FILES)
    unpack(archive, tmp_path / "all", lambda path: True, 10**6)
    assert contents(tmp_path / "all") == FILES
    unpack(archive, tmp_path / "some", lambda path: path.endswith(".jpg"), 10**6)
    assert contents(tmp_path / "some") == {"a/1.jpg": FILES["a/1.jpg"], "a/2.jpg": FILES["a/2.jpg"]}


@both
@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "{folder}/outside"])
def test_nothing_is_written_outside_the_folder(tmp_path, kind, name):
    archive = pack(tmp_path, kind, {name.format(folder=tmp_path): b"evil"})
    try:
        unpack(archive, tmp_path / "new", lambda path: True, 10**6)
    except ValueError as error:
        assert "outside" in str(error)
    assert set(contents(tmp_path)) <= {archive.name, *(f"new/{path}" for path in contents(tmp_path / "new"))}


@both
def test_nothing_is_written_through_a_link(tmp_path, kind):
    (tmp_path / "outside").mkdir()
    unpack(pack_link(tmp_path, kind, str(tmp_path / "outside")), tmp_path / "new", lambda path: True, 10**6)
    assert not list((tmp_path / "outside").iterdir()) and not any(path.is_symlink() for path in tmp_path.rglob("*"))


@both
def test_no_more_is_written_than_was_expected(tmp_path, kind):
    archive = pack(tmp_path, kind, {"small": b"1", "zeros": bytes(10**7)})
    with pytest.raises(ValueError, match=rf"set\.{kind} unpacks to 10 MB where at most 1 MB are expected"):
        unpack(archive, tmp_path / "new", lambda path: True, 10**6)
    assert not (tmp_path / "new").exists()


@both
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>Log in</html>" * 50, random.Random(1).randbytes(2000)])
def test_a_file_that_is_not_an_archive_is_called_broken(tmp_path, kind, content):
    (tmp_path / f"set.{kind}").write_bytes(content)
    with pytest.raises(ValueError, match=rf"set\.{kind} is broken"):
        unpack(tmp_path / f"set.{kind}", tmp_path / "new", lambda path: True, 10**6)


def test_a_damaged_zip_is_called_broken_wherever_the_damage_is(tmp_path):
    archive = pack(tmp_path, "zip", FILES)
    whole = archive.read_bytes()
    for number, position in enumerate(random.Random(2).sample(range(len(whole)), 20)):
        archive.write_bytes(whole[:position])
        with pytest.raises(ValueError, match="is broken"):
            unpack(archive, tmp_path / str(number), lambda path: True, 10**6)
    changed = bytearray(whole)
    changed[10_000] ^= 1  # inside a/2.jpg
    archive.write_bytes(changed)
    with pytest.raises(ValueError, match="is broken"):
        unpack(archive, tmp_path / "new", lambda path: True, 10**6)
