"""Files: never half written, locked, and images read as a viewer shows them."""

import json
import os
import re
import warnings
from unittest.mock import Mock

import cv2
import numpy as np
import pytest
from filelock import FileLock
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from seglib.datasets.sample.objects import write_jpeg
from seglib.files import (
    as_rgb,
    atomic_path,
    check_choice,
    image_files,
    image_size,
    link_or_copy,
    locked,
    read_image,
    short_path,
    write_json,
)

# ------------------------------------------------------------------------------------------------ writing


def test_a_file_appears_when_its_block_ends(tmp_path):
    with atomic_path(tmp_path / "new" / "a.txt") as temporary:
        temporary.write_text("complete")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("where", ["block", "rename"])
def test_a_file_is_left_as_it_was_when_writing_fails(tmp_path, monkeypatch, where):
    fail = Mock(side_effect=OSError(28, "No space left on device"))
    (tmp_path / "a.txt").write_text("before")
    if where == "rename":
        monkeypatch.setattr(os, "replace", fail)
    with (
        pytest.raises(OSError, match=r"cannot write .*a\.txt: No space left on device.*untouched"),
        atomic_path(tmp_path / "a.txt") as temporary,
    ):
        temporary.write_text("after")
        if where == "block":
            fail()
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


def test_json_is_written_in_utf_8_with_a_final_newline(tmp_path):
    write_json(tmp_path / "new" / "a.json", {"name": "Müller", "values": [1, None]})
    content = (tmp_path / "new" / "a.json").read_bytes().decode("utf-8")
    assert json.loads(content) == {"name": "Müller", "values": [1, None]} and content.endswith("}\n")


@pytest.mark.parametrize("has_links", [True, False])
def test_a_file_is_linked_or_copied_even_if_it_is_a_relative_link(tmp_path, monkeypatch, has_links):
    if not has_links:
        monkeypatch.setattr(os, "link", Mock(side_effect=OSError("no links here")))
    (tmp_path / "a.txt").write_text("content")
    (tmp_path / "link.txt").symlink_to("a.txt")
    (tmp_path / "below").mkdir()
    link_or_copy(tmp_path / "link.txt", tmp_path / "below" / "b.txt")
    assert (tmp_path / "below" / "b.txt").read_text() == "content"
    assert (tmp_path / "below" / "b.txt").samefile(tmp_path / "a.txt") == has_links


# ------------------------------------------------------------------------------------------------ locks


def test_a_lock_keeps_others_out_until_its_block_ends(tmp_path):
    arguments = {"path": tmp_path / "new" / ".lock", "message": "another process works there", "timeout": 0}
    with locked(**arguments), pytest.raises(RuntimeError, match="another process works there"):
        locked(**arguments).__enter__()
    with locked(**arguments):
        pass


def test_without_a_timeout_the_message_is_printed_and_the_lock_awaited(tmp_path, monkeypatch, capsys):
    other = FileLock(tmp_path / ".lock")
    other.acquire()
    acquire = FileLock.acquire

    def release_before_waiting(self, timeout=None, **options):
        if timeout is None:
            other.release()
        return acquire(self, timeout, **options)

    monkeypatch.setattr(FileLock, "acquire", release_before_waiting)
    with locked(tmp_path / ".lock", "waiting for another process"):
        assert capsys.readouterr().out == "waiting for another process\n"


@pytest.mark.parametrize("error", [NotImplementedError(), OSError(37, "No locks available")])
def test_a_block_runs_with_a_warning_where_the_file_system_has_no_locks(tmp_path, monkeypatch, error):
    monkeypatch.setattr(FileLock, "acquire", Mock(side_effect=error))
    message = re.escape(f"no locks in {tmp_path} ({error!r}): let only one process at a time work there")
    with pytest.warns(UserWarning, match=message), locked(tmp_path / ".lock", "another process works there"):
        pass


# ------------------------------------------------------------------------------------------------ reading


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1"])
def test_images_of_every_mode_are_read_as_rgb(tmp_path, mode):
    path = tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (4, 6, 3) and image.dtype == np.uint8 and image.min() >= 250


def test_sixteen_bits_are_scaled(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_numbers_without_a_known_white_need_one(tmp_path, kind):
    Image.fromarray(np.array([[0, 2, 4, 9]], kind)).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=r"a\.tiff has values of .*pass white="):
        read_image(tmp_path / "a.tiff")
    assert read_image(tmp_path / "a.tiff", white=4)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_a_dark_image_of_16_bits_is_warned_about_once_and_scaled_by_white(tmp_path):
    values = np.linspace(0, 4000, 24).reshape(4, 6).astype(np.uint16)
    for name in "ab":
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    with pytest.warns(UserWarning, match=r"values up to 4000 of 65535: pass white=") as record:
        assert [read_image(tmp_path / f"{name}.png").max() for name in "ab"] == [16, 16]
    assert len(record) == 1
    expected = (values / 4000 * 255).round()
    assert (read_image(tmp_path / "a.png", white=4000)[..., 0] == expected).all()


def write_raster(path, bands, **settings):
    rasterio = pytest.importorskip("rasterio")
    count, height, width = bands.shape
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no coordinates
        with rasterio.open(
            path, "w", driver="GTiff", count=count, height=height, width=width, dtype=bands.dtype, **settings
        ) as file:
            file.write(bands)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
@pytest.mark.parametrize("settings", [{}, {"compress": "lzw", "interleave": "band"}])
def test_bands_of_a_tiff_are_chosen_by_their_numbers(tmp_path, dtype, settings):
    bands = (np.arange(6 * 4 * 6).reshape(6, 4, 6)).astype(dtype)
    write_raster(tmp_path / "a.tif", bands, **settings)
    with pytest.raises(ValueError, match=r"a\.tif has 6 bands: pass .*bands=\(3, 2, 1\)"):
        read_image(tmp_path / "a.tif")
    image = read_image(tmp_path / "a.tif", bands=(4, 3, 2), white=255)
    assert (image == np.moveaxis(bands[[3, 2, 1]], 0, 2)).all() and image_size(tmp_path / "a.tif") == (4, 6)
    assert (read_image(tmp_path / "a.tif", bands=(6,), white=255)[..., 2] == bands[5]).all()
    with pytest.raises(ValueError, match=r"one or three numbers from 1 to 6, not \(7,\)"):
        read_image(tmp_path / "a.tif", bands=(7,))


def test_colors_of_16_bits_keep_their_bits_and_a_fourth_band_is_said(tmp_path):
    colors = (np.arange(3 * 4 * 6).reshape(3, 4, 6) * 50).astype(np.uint16)
    write_raster(tmp_path / "a.tif", colors, photometric="RGB")
    cv2.imwrite(str(tmp_path / "b.png"), np.moveaxis(colors[::-1], 0, 2))
    for name in ("a.tif", "b.png"):
        assert (read_image(tmp_path / name, white=4000) == (np.moveaxis(colors, 0, 2) / 4000 * 255).round()).all()
    write_raster(tmp_path / "four.tif", np.arange(96, dtype=np.uint8).reshape(4, 4, 6), photometric="MINISBLACK")
    with pytest.warns(UserWarning, match="four bands, of which the first three are read"):
        assert read_image(tmp_path / "four.tif")[0, 0].tolist() == [0, 24, 48]


def test_a_page_of_a_stack_is_chosen_and_a_thumbnail_is_no_page(tmp_path):
    pages = [Image.new("L", (6, 4), value) for value in (10, 20, 30)]
    for name in ("a.tif", "a.gif"):
        pages[0].save(tmp_path / name, save_all=True, append_images=pages[1:])
        with pytest.raises(ValueError, match=r"a stack of 3 pages: pass page=1"):
            read_image(tmp_path / name)
        assert read_image(tmp_path / name, page=2).max() == 20
        with pytest.raises(ValueError, match=r"3 pages, counted from 1, and no page 4"):
            read_image(tmp_path / name, page=4)
    thumbnail = Image.new("L", (3, 2), 20)
    thumbnail.encoderinfo = {"tiffinfo": {254: 1}}
    pages[0].save(tmp_path / "b.tif", save_all=True, append_images=[thumbnail])
    assert read_image(tmp_path / "b.tif").shape == (4, 6, 3)


def test_a_rotated_image_is_read_upright_or_as_its_annotations_say(tmp_path):
    upright = np.zeros((4, 8, 3), np.uint8)
    upright[:, 4:] = 255
    write_jpeg(tmp_path / "a.jpg", upright, exif=6)
    assert image_size(tmp_path / "a.jpg") == (4, 8)
    assert np.abs(read_image(tmp_path / "a.jpg").astype(int) - upright).max() < 20
    assert read_image(tmp_path / "a.jpg", size=(4, 8)).shape == (4, 8, 3)
    assert read_image(tmp_path / "a.jpg", size=(8, 4)).shape == (8, 4, 3)  # drawn on the stored raster
    with pytest.raises(ValueError, match=r"a\.jpg is 4x8 .* annotations or mask say 5x5"):
        read_image(tmp_path / "a.jpg", size=(5, 5))


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_damaged_exif_is_ignored(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (6, 4), (9, 9, 9)).save(path, exif=b"Exif\0\0garbage")
    assert read_image(path).shape == (4, 6, 3) and image_size(path) == (4, 6)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow warns of what it finds
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp"])
def test_whatever_a_damaged_file_does_to_its_decoder_the_error_names_the_file(tmp_path, suffix):
    original, path = tmp_path / f"original.{suffix}", tmp_path / f"damaged.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(original)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        content = np.frombuffer(original.read_bytes(), np.uint8).copy()
        content[rng.integers(0, min(len(content), 400), 12)] = rng.integers(0, 256, 12)
        path.write_bytes(content[: rng.integers(10, len(content) + 1)].tobytes())
        try:
            assert read_image(path).ndim == 3
        except ValueError as error:
            assert str(path) in str(error)


@pytest.mark.parametrize("read", [read_image, image_size])
def test_limits_of_pillow_do_not_hold(tmp_path, monkeypatch, read):
    with pytest.raises(FileNotFoundError, match=r"a\.png"):
        read(tmp_path / "a.png")
    text = PngInfo()
    text.add_text("comment", "x" * 3_000_000, zip=True)
    Image.new("L", (9, 9)).save(tmp_path / "a.png", pnginfo=text)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 40)
    read(tmp_path / "a.png")
    assert Image.MAX_IMAGE_PIXELS == 40


def test_image_files_are_sorted_and_hidden_files_left_out(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_text("")
    assert [path.name for path in image_files(tmp_path)] == ["a.png", "b.JPG"]


def test_arrays_of_every_kind_become_rgb():
    gray = np.array([[0, 100]], np.uint8)
    for array in (gray, gray[..., None], np.dstack([gray] * 3), np.dstack([gray] * 3 + [gray * 0])):
        rgb = as_rgb(array)
        assert rgb.dtype == np.uint8 and rgb.tolist() == [[[0, 0, 0], [100, 100, 100]]]
    assert as_rgb(np.array([[0, 128, 129, 65535]], np.uint16))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_a_path_is_shown_the_shorter_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "runs" / "a") == short_path("runs/a") == "runs/a"
    assert short_path("/") == "/"


def test_a_wrong_choice_is_refused_with_the_choices():
    check_choice("mode", "binary", ("multiclass", "binary"))
    with pytest.raises(ValueError, match="mode must be one of multiclass, binary, not 'x'"):
        check_choice("mode", "x", ("multiclass", "binary"))
