"""Archives, unpacked without trusting them: nothing outside the folder, no links, no more than was expected."""

import errno
import lzma
import posixpath
import shutil
import stat
import struct
import tarfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO

from seglib.progress import progress_bar

BLOCK = 4096  # bytes that even an empty file takes: a million of those is a bomb, too


class ArchiveError(ValueError):
    """An archive is broken, or holds what no data set needs.

    Attributes:
        archive: which one, where that is known.
    """

    def __init__(self, message: str, archive: Path | None = None) -> None:
        super().__init__(message)
        self.archive = archive


@dataclass(frozen=True)
class Member:
    """A file in an archive.

    Attributes:
        name: its path in the archive. size: bytes, unpacked. link: where it points, for a link. plain: a plain file.
        open: gives its bytes.
    """

    name: str
    size: int
    link: str | None
    plain: bool
    open: Callable[[], IO[bytes]]


def unpack(archive: Path, folder: Path, place: Callable[[str], str | None], limit: int) -> int:
    """Unpack those files of a zip or tar archive that are wanted, each to a place of its own.

    Args:
        place: the path of a member in the archive -> its path in `folder`, or None to leave it out.
        limit: the most bytes that may be written.

    Returns:
        How many files were written.

    Raises:
        ArchiveError: the archive is broken; a member's path or a link leads out of it; two members want one place; a
            wanted member is no plain file; more than `limit` would be written. What was written before remains:
            unpack into a folder that you can throw away.
    """
    taken: set[PurePosixPath] = set()
    folders: set[PurePosixPath] = set()
    with _reading(archive), progress_bar(None, f"unpacking {archive.name}", unit=" files") as bar:
        for member in members(archive):
            check_path(member.name)
            if member.link is not None:
                check_path(posixpath.normpath(PurePosixPath(member.name).parent / member.link))
            target = place(member.name)
            if target is None:
                continue
            if not member.plain:
                raise ArchiveError(f"{member.name} is a link or a device, where a file was expected")
            check_path(target)
            spot = PurePosixPath(unicodedata.normalize("NFC", target).casefold())  # on macOS and Windows A.png is a.png
            if spot in taken or spot in folders or not taken.isdisjoint(spot.parents):
                raise ArchiveError(f"two files of the archive want to be {target}, or one is another one's folder")
            taken.add(spot)
            folders.update(spot.parents)
            limit -= max(member.size, BLOCK)
            if limit < 0:
                raise ArchiveError(f"at {member.name} it holds more than was expected")
            path = folder / target
            path.parent.mkdir(parents=True, exist_ok=True)
            with member.open() as source, path.open("xb") as sink:
                shutil.copyfileobj(source, sink, 2**20)
            bar.update()
    return len(taken)


def members(archive: Path) -> Iterator[Member]:
    """The members of a zip or tar archive that are not folders."""
    if _is_zip(archive):
        with zipfile.ZipFile(archive) as opened:
            for info in opened.infolist():
                mode = info.external_attr >> 16
                link = _zip_link(opened, info) if stat.S_ISLNK(mode) else None
                plain = stat.S_IFMT(mode) in (0, stat.S_IFREG)
                if not info.is_dir():
                    yield Member(info.filename, info.file_size, link, plain, lambda info=info: opened.open(info))
    else:
        with tarfile.open(archive, tarinfo=_Header) as opened:
            for info in opened:
                link = _tar_link(info)
                if not info.isdir():
                    yield Member(info.name, info.size, link, info.isreg(), lambda info=info: opened.extractfile(info))
            while opened.fileobj.read(2**20):
                pass  # to the end: there stands the checksum of what was compressed


def check_path(name: str) -> None:
    """Raise ArchiveError for the path of a member that is absolute, climbs out, or means something else on Windows."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or any(bad in name for bad in ("\\", ":", "\0")):
        raise ArchiveError(f"the path {name!r} leads out of the archive's folder, or may do so")


class _Header(tarfile.TarInfo):
    """A header of a tar archive; a broken one is an error, where tarfile takes it for the end of the archive."""

    @classmethod
    def fromtarfile(cls, opened: tarfile.TarFile) -> tarfile.TarInfo:
        try:
            return super().fromtarfile(opened)
        except (tarfile.EOFHeaderError, tarfile.EmptyHeaderError):  # with the end mark or, from some programs, without
            raise
        except tarfile.HeaderError as error:
            raise tarfile.ReadError(str(error)) from None


def _is_zip(archive: Path) -> bool:
    """Whether it is a zip from its first byte on: a tar that holds a zip may look like one at its end."""
    with archive.open("rb") as file:
        return file.read(2) == b"PK"


def _zip_link(opened: zipfile.ZipFile, info: zipfile.ZipInfo) -> str:
    """Where a link of a zip archive points: that is what stands in it."""
    with opened.open(info) as file:
        return file.read(BLOCK).decode(errors="replace")


def _tar_link(info: tarfile.TarInfo) -> str | None:
    """Where a link of a tar archive points, counted from its own folder: a hard link counts from the archive's."""
    if info.issym():
        return info.linkname
    return posixpath.relpath(info.linkname or ".", PurePosixPath(info.name).parent) if info.islnk() else None


@contextmanager
def _reading(archive: Path) -> Iterator[None]:
    """Turn what goes wrong while an archive is read into an ArchiveError that names it."""
    broken = zipfile.BadZipFile, tarfile.TarError, zlib.error, lzma.LZMAError, EOFError
    garbled = struct.error, UnicodeError, IndexError  # what zipfile says of a directory with wrong bytes in it
    try:
        yield
    except ArchiveError as error:
        raise ArchiveError(f"{archive}: {error}", archive) from None
    except (*broken, *garbled, RuntimeError) as error:  # RuntimeError: encrypted, or packed in an unknown way
        raise ArchiveError(f"{archive} is broken ({error or type(error).__name__})", archive) from error
    except OSError as error:
        if error.errno in (None, errno.EINVAL):  # not the disk, but gzip or bz2, or a position before the first byte
            raise ArchiveError(f"{archive} is broken ({error})", archive) from error
        raise
