"""Archives: what is wanted goes to its place; nothing gets out of the folder, whatever an archive says."""

import gzip
import io
import random
import stat
import struct
import tarfile
import warnings
import zipfile
from pathlib import Path

import pytest

from seglib.datasets.download.unpack import BLOCK, ArchiveError, check_path, members, unpack

FILES = {"a/1.jpg": b"one", "a/2.jpg": random.Random(0).randbytes(20_000), "b/notes.txt": b"", "ä/ü 3.png": b"three"}
KINDS = ["zip", "stored.zip", "tar", "tgz", "tar.bz2", "tar.xz"]
TARS = [kind for kind in KINDS if "zip" not in kind]
PLENTY = 10**6
kinds = pytest.mark.parametrize("kind", KINDS)


def pack(folder: Path, kind: str, files: dict[str, bytes] = FILES, **links: str) -> Path:
    """An archive of these files, with an entry for each folder, as most programs write them."""
    path = folder / f"set.{kind}"
    if "zip" in kind:
        method = zipfile.ZIP_STORED if kind == "stored.zip" else zipfile.ZIP_DEFLATED
        with zipfile.ZipFile(path, "w", method) as archive, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # two of one name
            for name, content in each_with_its_folders(files):
                archive.writestr(name, content)
        return path
    with tarfile.open(path, f"w:{ {'tgz': 'gz', 'tar.bz2': 'bz2', 'tar.xz': 'xz'}.get(kind, '') }") as archive:
        for name, content in each_with_its_folders(files):
            info = tarfile.TarInfo(name)
            info.size, info.type = len(content), tarfile.DIRTYPE if name.endswith("/") else tarfile.REGTYPE
            archive.addfile(info, io.BytesIO(content))
    return path


def each_with_its_folders(files: dict[str, bytes]) -> list[tuple[str, bytes]]:
    folders = {f"{parent}/": b"" for name in files for parent in Path(name.lstrip("/")).parents if parent.name}
    return [*(folders if not any(".." in each for each in folders) else {}).items(), *files.items()] if files else []


def special(folder: Path, kind: str, name: str, target: str = "", what: bytes = tarfile.SYMTYPE) -> Path:
    """An archive of a link or a device, between two plain files."""
    path = folder / f"set.{kind}"
    if "zip" in kind:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("first", b"first")
            info = zipfile.ZipInfo(name)
            modes = {
                tarfile.SYMTYPE: stat.S_IFLNK,
                tarfile.FIFOTYPE: stat.S_IFIFO,
                tarfile.CHRTYPE: stat.S_IFCHR,
                tarfile.BLKTYPE: stat.S_IFBLK,
            }
            info.external_attr = (modes[what] | 0o777) << 16
            archive.writestr(info, target)
            archive.writestr("last", b"last")
        return path
    with tarfile.open(path, "w:gz" if kind == "tgz" else "w:") as archive:
        for each in ("first", name, "last"):
            info = tarfile.TarInfo(each)
            if each == name:
                info.type, info.linkname = what, target
                archive.addfile(info)
            else:
                info.size = len(each)
                archive.addfile(info, io.BytesIO(each.encode()))
    return path


def there(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(autouse=True)
def walls(tmp_path, monkeypatch):
    """A test unpacks to `inside`; beside it and above it nothing may change."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "precious").write_text("precious")
    (tmp_path / "new").mkdir()
    monkeypatch.chdir(outside)
    yield
    left = {path.name for path in tmp_path.iterdir() if not path.name.startswith("set.")}
    assert left <= {"outside", "new"}
    assert there(outside) == {"precious": b"precious"}
    assert not [path for path in tmp_path.rglob("*") if path.is_symlink()]


def everything(name: str) -> str:
    return name


def nothing(name: str) -> None:
    return None


def spoilt(archive: Path, folder: Path, place=everything, limit: int = PLENTY) -> str:
    """Unpack in vain; the message, which names the archive."""
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, folder / "new", place, limit)
    assert str(archive) in str(caught.value)
    return str(caught.value)


# ------------------------------------------------------------------------------------------------ what is wanted


@kinds
def test_everything_comes_as_it_was(tmp_path, kind):
    assert unpack(pack(tmp_path, kind), tmp_path / "new" / "deep", everything, PLENTY) == len(FILES)
    assert there(tmp_path / "new" / "deep") == FILES


@kinds
def test_what_is_wanted_goes_where_it_is_wanted(tmp_path, kind):
    files = FILES | {"__MACOSX/a/._1.jpg": b"junk", "a/.DS_Store": b"junk"}

    def place(name: str) -> str | None:
        return f"images/{Path(name).name}" if name.startswith("a/") and name.endswith(".jpg") else None

    assert unpack(pack(tmp_path, kind, files), tmp_path / "new", place, PLENTY) == 2
    assert there(tmp_path / "new") == {"images/1.jpg": FILES["a/1.jpg"], "images/2.jpg": FILES["a/2.jpg"]}


@kinds
def test_an_archive_without_anything_wanted_writes_nothing(tmp_path, kind):
    assert unpack(pack(tmp_path, kind), tmp_path / "new", nothing, 0) == 0
    assert not there(tmp_path / "new")


@kinds
def test_folders_are_no_members(tmp_path, kind):
    archive = pack(tmp_path, kind)
    assert [member.name for member in members(archive)] == list(FILES)
    assert all(member.plain and member.link is None for member in members(archive))


@pytest.mark.parametrize("kind", TARS)
def test_names_may_begin_with_the_folder_itself(tmp_path, kind):
    archive = pack(tmp_path, kind, {"./1.jpg": b"one", "./a/2.jpg": b"two"})
    unpack(archive, tmp_path / "new", everything, PLENTY)
    assert there(tmp_path / "new") == {"1.jpg": b"one", "a/2.jpg": b"two"}


def test_an_archive_in_a_tar_does_not_make_a_zip_of_it(tmp_path):
    inner = pack(tmp_path, "stored.zip", {"inner.txt": b"inner"}).read_bytes()
    files = {"a.txt": b"a", "inner.zip": inner}
    unpack(pack(tmp_path, "tar", files), tmp_path / "new", everything, PLENTY)
    assert there(tmp_path / "new") == files


def test_progress_is_shown(tmp_path, capsys):
    unpack(pack(tmp_path, "zip"), tmp_path / "new", everything, PLENTY)
    assert "unpacking set.zip: 4 files" in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------ ways out


WAYS_OUT = [
    "/absolute", "../up", "a/../../up", "..", "a/..", "../outside/precious", "//server/share", "C:/windows", "C:up",
    "a\\..\\..\\up", "..\\up", "\\absolute", "a:stream", "a/../b",
]  # fmt: skip


@pytest.mark.parametrize("place", [everything, nothing])
@pytest.mark.parametrize("name", WAYS_OUT)
@kinds
def test_a_name_that_leads_out_is_refused_even_if_it_is_not_wanted(tmp_path, kind, name, place):
    message = spoilt(pack(tmp_path, kind, {name: b"evil"}), tmp_path, place)
    assert "leads out of the archive's folder, or may do so" in message
    assert not there(tmp_path / "new")


@pytest.mark.parametrize("name", [*WAYS_OUT, "", ".", "a\0b"])
def test_a_place_that_leads_out_is_refused(tmp_path, name):
    spoilt(pack(tmp_path, "zip", {"a": b"a"}), tmp_path, lambda _: name)
    with pytest.raises(ArchiveError):
        check_path(name)


@pytest.mark.parametrize("name", ["a", "a/b", "...", "a..b/..c", "ä", "a b", "-rf", "~", "$HOME", "con"])
def test_an_odd_name_is_a_name(name):
    check_path(name)


OUT = ["/etc/passwd", "../precious", "../../outside/precious", "a/../../x", "..", "C:\\x"]


@pytest.mark.parametrize("place", [everything, nothing])
@pytest.mark.parametrize("target", OUT)
@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_a_symbolic_link_out_is_refused(tmp_path, kind, target, place):
    spoilt(special(tmp_path, kind, "link", target), tmp_path, place)
    assert set(there(tmp_path / "new")) <= {"first"}


@pytest.mark.parametrize("place", [everything, nothing])
@pytest.mark.parametrize("target", OUT)
@pytest.mark.parametrize("kind", ["tar", "tgz"])
def test_a_hard_link_out_is_refused(tmp_path, kind, target, place):
    spoilt(special(tmp_path, kind, "deep/link", target, tarfile.LNKTYPE), tmp_path, place)
    assert set(there(tmp_path / "new")) <= {"first"}


def test_a_link_to_what_lies_above_is_counted_from_its_own_folder(tmp_path):
    archive = special(tmp_path, "tar", "a/b/link", "../../first")
    assert unpack(archive, tmp_path / "new", lambda name: None if "link" in name else name, PLENTY) == 2
    spoilt(special(tmp_path, "tar", "a/b/link", "../../../first"), tmp_path, nothing)


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        ("zip", tarfile.SYMTYPE),
        *((kind, what) for kind in ("tar", "tgz") for what in (tarfile.SYMTYPE, tarfile.LNKTYPE)),
    ],
)
def test_a_link_inside_is_left_out_unless_it_is_wanted(tmp_path, kind, what):
    archive = special(tmp_path, kind, "link", "first", what)
    assert unpack(archive, tmp_path / "new" / "1", lambda name: None if name == "link" else name, PLENTY) == 2
    assert there(tmp_path / "new" / "1") == {"first": b"first", "last": b"last"}
    assert "link is a link or a device" in spoilt(archive, tmp_path)


@pytest.mark.parametrize("what", [tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE])
@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_a_device_is_left_out_unless_it_is_wanted(tmp_path, kind, what):
    archive = special(tmp_path, kind, "device", what=what)
    assert unpack(archive, tmp_path / "new" / "1", lambda name: None if name == "device" else name, PLENTY) == 2
    assert "device is a link or a device" in spoilt(archive, tmp_path)


def test_a_link_without_a_target_is_no_accident(tmp_path):
    spoilt(special(tmp_path, "tar", "link", "", tarfile.LNKTYPE), tmp_path)


def test_writing_through_a_link_is_not_possible(tmp_path):
    """The classic: a link to a folder outside, then a file in it."""
    path = tmp_path / "set.tar"
    with tarfile.open(path, "w") as archive:
        link, file = tarfile.TarInfo("door"), tarfile.TarInfo("door/precious")
        link.type, link.linkname, file.size = tarfile.SYMTYPE, str(tmp_path / "outside"), 4
        archive.addfile(link)
        archive.addfile(file, io.BytesIO(b"evil"))
    spoilt(path, tmp_path)
    spoilt(path, tmp_path, lambda name: None if name == "door" else name)


# ------------------------------------------------------------------------------------------------ two at one place


@pytest.mark.parametrize("pair", [("a.png", "A.png"), ("x/a.png", "X/a.png"), ("ß", "SS")])
@kinds
def test_two_files_that_are_one_on_a_mac_are_refused(tmp_path, kind, pair):
    assert "two files of the archive want to be" in spoilt(pack(tmp_path, kind, dict.fromkeys(pair, b"a")), tmp_path)


@pytest.mark.parametrize("place", [lambda _: "same", lambda name: name.replace("b", "a"), lambda _: "./same"])
@kinds
def test_two_files_for_one_place_are_refused_and_the_first_one_stays(tmp_path, kind, place):
    message = spoilt(pack(tmp_path, kind, {"a": b"first", "b": b"second"}), tmp_path, place)
    assert "two files" in message and list(there(tmp_path / "new").values()) == [b"first"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("pair", [("a/b", "a//b"), ("a/b", "a/./b"), ("a/b", "./a/b"), ("\u00e9", "e\u0301")])
def test_two_spellings_of_one_place_are_refused(tmp_path, kind, pair):
    assert "two files" in spoilt(pack(tmp_path, kind, dict(zip(pair, (b"1", b"2"), strict=True))), tmp_path)


@pytest.mark.parametrize("pair", [("a", "a/b"), ("a/b", "a"), ("a", "A/b")])
def test_a_file_where_a_folder_is_to_be_is_refused(tmp_path, pair):
    first, second = pair
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(first, b"1")
        archive.writestr(second, b"2")
    spoilt(path, tmp_path)


@kinds
def test_a_file_that_lies_in_the_folder_already_is_not_overwritten(tmp_path, kind):
    (tmp_path / "new" / "a").write_text("before")
    with pytest.raises(OSError, match="File exists"):
        unpack(pack(tmp_path, kind, {"a": b"after"}), tmp_path / "new", everything, PLENTY)
    assert there(tmp_path / "new") == {"a": b"before"}


# ------------------------------------------------------------------------------------------------ too much


@kinds
def test_no_more_is_written_than_was_expected(tmp_path, kind):
    archive = pack(tmp_path, kind, {"small": b"1", "zeros": bytes(10_000_000)})
    assert archive.stat().st_size < 20_000 or kind in ("tar", "stored.zip")
    assert "at zeros it holds more than was expected" in spoilt(archive, tmp_path, limit=9_999_999)
    assert there(tmp_path / "new") == {"small": b"1"}
    assert unpack(archive, tmp_path / "new" / "2", everything, 10_000_000 + BLOCK) == 2


@kinds
def test_many_empty_files_are_too_much_as_well(tmp_path, kind):
    archive = pack(tmp_path, kind, {f"{n}": b"" for n in range(300)})
    spoilt(archive, tmp_path, limit=100 * BLOCK)
    assert len(there(tmp_path / "new")) == 100


@kinds
def test_what_is_left_out_does_not_count(tmp_path, kind):
    archive = pack(tmp_path, kind, {"small": b"1", "zeros": bytes(1_000_000)})
    assert unpack(archive, tmp_path / "new", lambda name: None if name == "zeros" else name, BLOCK) == 1


def lie(archive: Path, right: int, wrong: int) -> None:
    """Let a zip say another size of its files, in its directory and before each file."""
    content = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\1\2", 24), (b"PK\3\4", 22)):
        at = content.find(signature)
        while at >= 0:
            if struct.unpack_from("<I", content, at + place)[0] == right:
                struct.pack_into("<I", content, at + place, wrong)
            at = content.find(signature, at + 4)
    archive.write_bytes(content)


@pytest.mark.parametrize("wrong", [10, 50_000, 2_000_000])
@pytest.mark.parametrize("kind", ["zip", "stored.zip"])
def test_a_member_that_lies_about_its_size_is_refused(tmp_path, kind, wrong):
    archive = pack(tmp_path, kind, {"zeros": bytes(100_000)})
    lie(archive, 100_000, wrong)
    spoilt(archive, tmp_path)
    assert sum(map(len, there(tmp_path / "new").values())) <= PLENTY


def test_a_link_of_a_zip_that_unpacks_to_no_end_is_not_read(tmp_path):
    archive = special(tmp_path, "zip", "link", "a")
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as opened:
        info = zipfile.ZipInfo("link")
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        opened.writestr(info, b"a" * 5_000_000, zipfile.ZIP_DEFLATED)
    assert all(len(member.link) <= BLOCK for member in members(archive))


# ------------------------------------------------------------------------------------------------ broken ones


BROKEN = {
    "empty": b"",
    "page": b"<!DOCTYPE html><html><title>Log in</title></html>" * 200,
    "text": b"404",
    "zeros": bytes(10_240),
    "noise": random.Random(1).randbytes(10_000),
    "a photograph": b"\xff\xd8\xff\xe0" + random.Random(2).randbytes(10_000),
    "a gz that is no tar": gzip.compress(b"no tar" * 1000),
    "the end of a zip": b"PK\5\6" + bytes(18),
    "the beginning of a zip": b"PK\3\4" + bytes(26),
}


@pytest.mark.parametrize("name", ["set.zip", "set.tgz"])
@pytest.mark.parametrize("case", BROKEN)
def test_what_is_no_archive_is_said_to_be_broken(tmp_path, case, name):
    (tmp_path / name).write_bytes(BROKEN[case])
    if case in ("zeros", "the end of a zip"):  # an archive of nothing
        assert unpack(tmp_path / name, tmp_path / "new", everything, PLENTY) == 0
    else:
        assert "is broken" in spoilt(tmp_path / name, tmp_path)


def positions(size: int, number: int, seed: str) -> list[int]:
    return random.Random(seed).sample(range(size), number)


@kinds
def test_an_archive_cut_off_anywhere_is_said_to_be_broken(tmp_path, kind):
    whole = pack(tmp_path, kind).read_bytes()
    end = len(whole) if kind != "tar" else len(whole.rstrip(b"\0")) // 512 * 512 + 512  # then zeros, of no importance
    between = set()  # there a tar ends as those do that some programs write without an end mark
    if kind == "tar":
        with tarfile.open(tmp_path / "set.tar") as archive:
            between = {member.offset for member in archive.getmembers()} | {end}
    for at in {*positions(end, 60, kind), end - 1, 512, 1024, 1536, 2048} - between:
        (tmp_path / f"set.{kind}").write_bytes(whole[:at])
        spoilt(tmp_path / f"set.{kind}", tmp_path / "new", lambda name, at=at: f"{at}/{name}")


def test_a_tar_without_an_end_mark_is_read(tmp_path):
    archive = pack(tmp_path, "tar")
    members = unpack(archive, tmp_path / "new" / "marked", everything, PLENTY)
    content = archive.read_bytes().rstrip(b"\0")
    archive.write_bytes(content + bytes(-len(content) % 512))
    assert unpack(archive, tmp_path / "new" / "unmarked", everything, PLENTY) == members


@kinds
def test_a_flipped_byte_is_never_met_by_anything_but_an_archive_error(tmp_path, kind):
    whole = pack(tmp_path, kind).read_bytes()
    found = 0
    for at in positions(len(whole), 300, kind):
        flip = 1 << at % 8
        (tmp_path / f"set.{kind}").write_bytes(whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :])
        try:
            unpack(tmp_path / f"set.{kind}", tmp_path / "new" / str(at), everything, PLENTY)
        except ArchiveError:
            found += 1
        except OSError as error:  # a name that no disk takes
            assert error.filename
        else:
            if kind != "tar":  # which has no checksum of its own
                assert sorted(there(tmp_path / "new" / str(at)).values()) == sorted(FILES.values()), at
    assert found > (200 if kind != "tar" else 10)


@pytest.mark.parametrize("kind", ["tgz", "tar.bz2", "tar.xz"])
def test_the_checksum_at_the_end_of_a_compressed_tar_is_read(tmp_path, kind):
    archive = pack(tmp_path, kind)
    content = bytearray(archive.read_bytes())
    content[-6 if kind == "tgz" else -14] ^= 1
    archive.write_bytes(content)
    spoilt(archive, tmp_path)


@pytest.mark.parametrize("kind", ["tar", "tgz"])
def test_a_tar_with_a_broken_header_does_not_lose_the_files_behind_it(tmp_path, kind):
    plain = bytearray(pack(tmp_path, "tar", {"1": b"one", "2": b"two", "3": b"three"}).read_bytes())
    plain[1024 + 150] ^= 1  # in the checksum of the second header
    (tmp_path / f"set.{kind}").write_bytes(gzip.compress(plain) if kind == "tgz" else plain)
    spoilt(tmp_path / f"set.{kind}", tmp_path)


@pytest.mark.parametrize("place", [everything, nothing])
def test_an_encrypted_zip_is_refused(tmp_path, place):
    archive = pack(tmp_path, "zip", {"a": b"secret"})
    content = bytearray(archive.read_bytes())
    content[6] |= 1
    content[content.find(b"PK\1\2") + 8] |= 1
    archive.write_bytes(content)
    if place is everything:
        assert "encrypted" in spoilt(archive, tmp_path)
    else:
        assert unpack(archive, tmp_path / "new", place, PLENTY) == 0


def test_a_zip_packed_in_an_unknown_way_is_refused(tmp_path):
    archive = pack(tmp_path, "zip", {"a": b"a"})
    content = bytearray(archive.read_bytes())
    content[8] = content[content.find(b"PK\1\2") + 10] = 99
    archive.write_bytes(content)
    assert "method is not supported" in spoilt(archive, tmp_path)


def test_a_full_disk_is_no_broken_archive(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("shutil.copyfileobj", full)
    with pytest.raises(OSError, match="No space left on device"):
        unpack(pack(tmp_path, "tgz"), tmp_path / "new", everything, PLENTY)


def test_an_archive_that_is_not_there_is_said_to_be_missing(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"set\.zip"):
        unpack(tmp_path / "set.zip", tmp_path / "new", everything, PLENTY)
