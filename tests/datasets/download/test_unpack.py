"""Archives: the wanted files are unpacked, nothing is written outside the folder, and damage is named."""

import io
import random
import stat
import tarfile
import zipfile
from pathlib import Path

import pytest

from seglib.datasets.download.fetch import BLOCK, ArchiveError, unpack

FILES = {"a/1.jpg": b"one", "a/2.jpg": random.Random(0).randbytes(20_000), "b/notes.txt": b"", "ä/ü 3.png": b"three"}
both = pytest.mark.parametrize("kind", ["zip", "tar"])


def pack(folder: Path, kind: str, files: dict[str, bytes] = FILES) -> Path:
    """An archive of these files, with an entry for each folder."""
    path = folder / f"set.{kind}"
    folders = sorted({f"{parent}/" for name in files for parent in Path(name).parents if parent.name})
    if kind == "zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in {**dict.fromkeys(folders, b""), **files}.items():
                archive.writestr(name, content)
        return path
    with tarfile.open(path, "w") as archive:
        for name, content in {**dict.fromkeys(folders, b""), **files}.items():
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def pack_link(folder: Path, kind: str, target: str) -> Path:
    """An archive of a symbolic link "door" and a file behind it."""
    path = folder / f"set.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo("door")
            info.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(info, target)
            archive.writestr("door/new", b"evil")
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


def keep(name: str) -> str:
    return name


@both
def test_wanted_files_are_unpacked_to_their_place(tmp_path, kind):
    archive = pack(tmp_path, kind)
    unpack(archive, tmp_path / "all", keep, 10**6)
    assert contents(tmp_path / "all") == FILES
    unpack(archive, tmp_path / "some", lambda name: f"images/{name[2:]}" if name.endswith(".jpg") else None, 10**6)
    assert contents(tmp_path / "some") == {"images/1.jpg": FILES["a/1.jpg"], "images/2.jpg": FILES["a/2.jpg"]}


@both
@pytest.mark.parametrize("name", ["../outside", "a/../../outside", "{folder}/outside"])
def test_a_path_that_leads_out_of_the_folder_is_refused(tmp_path, kind, name):
    archive = pack(tmp_path, kind, {"x": b"x"})
    before = contents(tmp_path)
    with pytest.raises(ArchiveError, match="leads out of the folder"):
        unpack(archive, tmp_path / "new", lambda _: name.format(folder=tmp_path), 10**6)
    assert contents(tmp_path) == before


@both
def test_nothing_is_written_through_a_link(tmp_path, kind):
    outside = tmp_path / "outside"
    outside.mkdir()
    archive = pack_link(tmp_path, kind, str(outside))
    unpack(archive, tmp_path / "new", keep, 10**6)
    assert contents(tmp_path / "new") == {"door/new": b"evil"}
    assert not list(outside.iterdir()) and not any(path.is_symlink() for path in tmp_path.rglob("*"))


@both
@pytest.mark.parametrize("target", ["same", "a"])  # a is the folder of the first file
def test_two_files_that_become_one_are_named(tmp_path, kind, target):
    archive = pack(tmp_path, kind, {"a/1.jpg": b"one", "b/1.jpg": b"two"})
    with pytest.raises(ArchiveError, match=rf"set\.{kind}: b/1\.jpg cannot be unpacked to {target}, because another"):
        unpack(archive, tmp_path / "new", lambda name: name if target == name[0] else target, 10**6)


@both
def test_no_more_is_written_than_was_expected(tmp_path, kind):
    archive = pack(tmp_path, kind, {"small": b"1", "zeros": bytes(10**7)})
    with pytest.raises(ArchiveError, match="holds more than expected; stopped at zeros"):
        unpack(archive, tmp_path / "new", keep, 10**7)
    assert contents(tmp_path / "new") == {"small": b"1"}
    unpack(archive, tmp_path / "2", keep, 10**7 + BLOCK)


@both
@pytest.mark.parametrize("content", [b"", b"<!DOCTYPE html><html>Log in</html>" * 50, random.Random(1).randbytes(2000)])
def test_a_file_that_is_not_an_archive_is_called_broken(tmp_path, kind, content):
    (tmp_path / f"set.{kind}").write_bytes(content)
    with pytest.raises(ArchiveError, match=rf"set\.{kind} is broken"):
        unpack(tmp_path / f"set.{kind}", tmp_path / "new", keep, 10**6)


def test_a_damaged_zip_is_called_broken_wherever_the_damage_is(tmp_path):
    archive = pack(tmp_path, "zip")
    whole = archive.read_bytes()
    for number, position in enumerate(random.Random(2).sample(range(len(whole)), 40)):
        archive.write_bytes(whole[:position])
        with pytest.raises(ArchiveError, match="is broken"):
            unpack(archive, tmp_path / str(number), keep, 10**6)
    changed = bytearray(whole)
    changed[10_000] ^= 1  # inside a/2.jpg
    archive.write_bytes(changed)
    with pytest.raises(ArchiveError, match="is broken"):
        unpack(archive, tmp_path / "new", keep, 10**6)
