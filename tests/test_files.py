"""Files: half of one is never met, whatever happens; photographs come as a viewer shows them."""

import os

import numpy as np
import pytest
from PIL import Image

from seglib.files import as_rgb, atomic_path, image_files, read_image, short_path


def test_a_file_appears_when_its_block_ends_well(tmp_path):
    with atomic_path(tmp_path / "new" / "a.txt") as aside:
        aside.write_text("whole")
        assert not (tmp_path / "new" / "a.txt").exists()
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["a.txt"]


@pytest.mark.parametrize("where", ["block", "rename"])
def test_what_was_there_before_outlives_a_failure(tmp_path, monkeypatch, where):
    def full(*_):
        raise OSError(28, "No space left on device")

    (tmp_path / "a.txt").write_text("before")
    if where == "rename":
        monkeypatch.setattr(os, "replace", full)
    with (
        pytest.raises(OSError, match=r"cannot write .*a\.txt: No space left on device"),
        atomic_path(tmp_path / "a.txt") as aside,
    ):
        aside.write_text("after")
        if where == "block":
            full()
    assert (tmp_path / "a.txt").read_text() == "before"
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]


@pytest.mark.parametrize("mode", ["L", "P", "CMYK", "RGBA", "1", "LA"])
def test_images_of_every_mode_come_as_rgb(tmp_path, mode):
    path = tmp_path / f"a.{'jpg' if mode == 'CMYK' else 'png'}"
    Image.new("RGB", (6, 4), (255, 255, 255)).convert(mode).save(path)
    image = read_image(path)
    assert image.shape == (4, 6, 3) and image.dtype == np.uint8 and image.min() >= 250


def test_sixteen_bits_are_scaled_not_cut_off(tmp_path):
    Image.fromarray(np.array([[0, 257, 32896, 65535]], np.uint16)).save(tmp_path / "a.png")
    assert read_image(tmp_path / "a.png")[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize(
    ("values", "said"),
    [(np.array([[0, 70000]], np.int32), "numbers beyond 16 bits"), (np.array([[0.0, 1.0]], np.float32), "fractions")],
)
def test_numbers_whose_white_is_not_known_are_refused(tmp_path, values, said):
    Image.fromarray(values).save(tmp_path / "a.tiff")
    with pytest.raises(ValueError, match=rf"a\.tiff holds {said}"):
        read_image(tmp_path / "a.tiff")


def test_small_numbers_of_a_large_kind_are_what_they_are(tmp_path):
    Image.fromarray(np.array([[0, 200]], np.int32)).save(tmp_path / "a.tiff")
    assert read_image(tmp_path / "a.tiff")[0, :, 0].tolist() == [0, 200]


@pytest.mark.parametrize("suffix", ["png", "webp", "jpg"])
def test_damaged_exif_turns_nothing_and_stops_nobody(tmp_path, suffix):
    path = tmp_path / f"a.{suffix}"
    Image.new("RGB", (6, 4), (9, 9, 9)).save(path, exif=b"Exif\0\0garbage")
    assert read_image(path).shape == (4, 6, 3)


@pytest.mark.filterwarnings("ignore::UserWarning")  # Pillow remarks on what it meets
@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "tif", "bmp", "gif", "ppm", "ico", "tga"])
def test_whatever_a_damaged_file_does_to_its_decoder_the_error_names_it(tmp_path, suffix):
    whole, path = tmp_path / f"whole.{suffix}", tmp_path / f"damaged.{suffix}"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(whole)
    content = whole.read_bytes()
    for seed in range(60):
        draw = np.random.default_rng(seed)
        damaged = np.frombuffer(content, np.uint8).copy()
        damaged[draw.integers(0, min(len(damaged), 400), 12)] = draw.integers(0, 256, 12)
        path.write_bytes(damaged[: draw.integers(10, len(damaged) + 1)].tobytes())
        try:
            assert read_image(path).ndim == 3
        except ValueError as error:
            assert str(path) in str(error)


def test_only_images_are_listed_sorted_and_none_that_is_hidden(tmp_path):
    for name in ("b.JPG", "a.png", ".hidden.png", "notes.txt"):
        (tmp_path / name).write_text("")
    assert list(image_files(tmp_path)) == ["a.png", "b.JPG"]


def test_arrays_become_rgb():
    grey = np.array([[0, 100]], np.uint8)
    for array in (grey, grey[..., None], np.dstack([grey] * 3), np.dstack([grey] * 3 + [grey * 0])):
        rgb = as_rgb(array)
        assert rgb.dtype == np.uint8 and rgb.tolist() == [[[0, 0, 0], [100, 100, 100]]]
    assert as_rgb(np.array([[0, 128, 129, 65535]], np.uint16))[0, :, 0].tolist() == [0, 0, 1, 255]


def test_a_path_is_shown_the_shorter_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert short_path(tmp_path / "runs" / "a") == short_path("runs/a") == "runs/a"
    assert short_path("/tmp") == "/tmp"
