"""Pieces of one field find each other by their borders; pictures that are strangers, black or flat stay apart."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from seglib.datasets.download.fields import same_field
from tests.conftest import REAL

SIDE = 192  # pixels of a piece: a border half as long crosses so few nuclei that some agree by chance


def cloudy(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) smooth noise, and a little of the camera's."""
    coarse = rng.integers(0, 230, (height // 8, width // 8), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC), float)
    return np.clip(smooth + rng.normal(0, 2, smooth.shape), 0, 255).astype(np.uint8)


def nuclei(rng: np.random.Generator, height: int, width: int) -> np.ndarray:
    """(height, width) bright discs with soft edges on black, and a little of the camera's noise."""
    y, x = np.mgrid[-12:12, -12:12]
    image = rng.normal(5, 1, (height + 24, width + 24))
    for _ in range(height * width // 200):
        top, left, radius = rng.integers(0, height), rng.integers(0, width), rng.uniform(3, 6)
        image[top : top + 24, left : left + 24] += rng.uniform(60, 200) / (1 + np.exp(np.hypot(y, x) - radius))
    return np.clip(image[12:-12, 12:-12], 0, 255).astype(np.uint8)


def cut(field: np.ndarray, rows: int, columns: int) -> list[np.ndarray]:
    """The rows x columns equal pieces of an (H, W) or (H, W, C) field."""
    return [piece for strip in np.split(field, rows) for piece in np.split(strip, columns, axis=1)]


def together(numbers: list[int], names: list) -> set[frozenset]:
    """The groups as sets of names, whatever their numbers."""
    return {frozenset(name for name, n in zip(names, numbers, strict=True) if n == number) for number in set(numbers)}


def shuffled(rng: np.random.Generator, groups: list[list[np.ndarray]]) -> tuple[list[np.ndarray], list[int]]:
    """The pictures of all groups in random order, and the group that each is from."""
    pieces = [(image, number) for number, group in enumerate(groups) for image in group]
    order = rng.permutation(len(pieces))
    return [pieces[i][0] for i in order], [pieces[i][1] for i in order]


@pytest.mark.parametrize("draw", [cloudy, nuclei])
@pytest.mark.parametrize("rows, columns", [(2, 2), (1, 3), (3, 1), (4, 4)])
def test_the_pieces_of_a_field_are_one_group(draw, rows, columns):
    rng = np.random.default_rng(0)
    images, field = shuffled(rng, [cut(draw(rng, rows * SIDE, columns * SIDE), rows, columns) for _ in range(6)])
    groups = same_field(images)
    assert together(groups, list(range(len(images)))) == together(field, list(range(len(images))))
    assert [groups.index(number) for number in range(6)] == sorted(groups.index(number) for number in range(6))


@pytest.mark.parametrize("missing", range(4))
def test_a_missing_piece_does_not_part_the_others(missing):
    pieces = cut(cloudy(np.random.default_rng(17), 128, 128), 2, 2)
    assert same_field(pieces[:missing] + pieces[missing + 1 :]) == [0, 0, 0]


@pytest.mark.parametrize("draw", [cloudy, nuclei])
def test_strangers_stay_apart(draw):
    rng = np.random.default_rng(1)
    assert same_field([draw(rng, SIDE, SIDE) for _ in range(40)]) == list(range(40))


@pytest.mark.parametrize("noise", [0, 1])
def test_black_borders_do_not_chain(noise):
    """A cell in the middle, black around it: every border goes with every other."""
    rng = np.random.default_rng(2)
    images = rng.normal(5, noise, (60, 64, 64))
    images[:, 24:40, 24:40] += rng.uniform(50, 150, (60, 16, 16))
    assert same_field(list(images.astype(np.uint8))) == list(range(60))
    assert same_field(list(images[:2].astype(np.uint8))) == [0, 1]


def test_a_faint_vignette_that_all_share_joins_none_of_them():
    rng = np.random.default_rng(14)
    images = rng.normal(20, 1, (20, 48, 2048)) + 0.65 * np.cos(np.linspace(-np.pi, np.pi, 2048))
    assert same_field(list(images)) == list(range(20))


def test_one_border_that_many_share_joins_none_of_them():
    """A scale or a frame: structure, but the same in all. A tie says nothing about who is whose neighbour."""
    rng = np.random.default_rng(3)
    images = rng.integers(0, 255, (30, 64, 64), dtype=np.uint8)
    images[:, :, [0, 1, -2, -1]] = rng.integers(0, 255, (64, 1))
    assert same_field(list(images)) == list(range(30))


@pytest.mark.parametrize("brighter", [2, -2])
def test_a_border_has_one_partner(brighter):
    """Whichever fits better, where two pictures go on at it: groups must not grow faster than fields do."""
    left, right = (piece / 2 for piece in cut(cloudy(np.random.default_rng(15), 64, 128), 1, 2))
    assert same_field([left, right + brighter]) == same_field([left + brighter, right]) == [0, 0]
    assert sorted(same_field([left, right + brighter, right])) == [0, 0, 1]
    assert same_field([left + brighter, left, right]) in ([0, 1, 0], [0, 1, 1])


def test_a_drawing_without_noise():
    field = np.repeat(np.random.default_rng(16).integers(0, 255, (64, 1), dtype=np.uint8), 128, axis=1)
    field[20:30, 20:30] = 0  # in the left half, which would equal the right one without
    assert same_field(cut(field, 1, 2)) == [0, 0]


def test_equal_pictures_are_one_group_and_hide_no_neighbour():
    rng = np.random.default_rng(4)
    left, right = cut(cloudy(rng, 64, 128), 1, 2)
    stranger, black = cloudy(rng, 64, 64), np.zeros((64, 64), np.uint8)
    assert same_field([stranger, stranger.copy(), black, black.copy(), black.reshape(32, 128)]) == [0, 0, 1, 1, 2]
    assert same_field([left, stranger, right, left.copy(), right.copy()]) == [0, 1, 0, 0, 0]


def test_a_small_change_inside_is_another_picture():
    image = cloudy(np.random.default_rng(5), 64, 64)
    changed = image.copy()
    changed[30, 30] ^= 1
    assert same_field([image, changed]) == [0, 1]


def test_none_and_one():
    assert same_field([]) == []
    assert same_field([cloudy(np.random.default_rng(6), 64, 64)]) == [0]


def test_two_pictures_need_no_rival():
    rng = np.random.default_rng(7)
    assert same_field(cut(cloudy(rng, 64, 128), 1, 2)) == [0, 0]
    assert same_field([cloudy(rng, 64, 64), cloudy(rng, 64, 64)]) == [0, 1]


def test_a_picture_is_not_its_own_neighbour():
    """The right border of a picture that repeats goes on best at its own left border."""
    rng = np.random.default_rng(13)
    half = cloudy(rng, 64, 32) // 2 + np.uint8(50)
    repeating = np.concatenate([half, half[:, ::-1]], axis=1)
    assert same_field([repeating, repeating + rng.integers(0, 3, repeating.shape, dtype=np.uint8)]) == [0, 0]


def test_pieces_of_different_sizes_meet_where_their_borders_are_equally_long():
    rng = np.random.default_rng(8)
    images = []
    for _ in range(4):
        field = cloudy(rng, 96, 96)
        images += [field[:, :40], field[:56, 40:], field[56:, 40:]]  # the left one borders on two, and finds neither
    images += np.split(cloudy(rng, 96, 136), [40], axis=1)
    assert same_field(images) == [0, 1, 1, 2, 3, 3, 4, 5, 5, 6, 7, 7, 8, 8]


@pytest.mark.parametrize("scale", [1, 1 / 255], ids=["0-255", "0-1"])
def test_colour_and_fractions(scale):
    rng = np.random.default_rng(9)
    fields = [np.stack([cloudy(rng, 128, 128) for _ in range(3)], 2) for _ in range(3)]
    images = [piece * scale if scale < 1 else piece for field in fields for piece in cut(field, 2, 2)]
    assert same_field(images) == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2]


def test_brightness_that_wraps_round_is_no_neighbour():
    """0 and 255 are far apart, whatever the arithmetic of bytes says."""
    left, right = cut(cloudy(np.random.default_rng(10), 64, 128), 1, 2)
    assert same_field([left, right + np.uint8(128)]) == [0, 1]


def test_who_is_together_does_not_depend_on_the_order():
    rng = np.random.default_rng(11)
    groups = [cut(draw(rng, 2 * SIDE, 2 * SIDE), 2, 2) for draw in (cloudy, nuclei) for _ in range(4)]
    images = [image for group in groups for image in group] + [groups[0][0], groups[5][3], np.zeros((64, 64), np.uint8)]
    expected = together(same_field(images), list(range(len(images))))
    assert Counter(map(len, expected)) == {4: 6, 5: 2, 1: 1}
    for _ in range(5):
        order = rng.permutation(len(images)).tolist()
        assert together(same_field([images[i] for i in order]), order) == expected


def test_each_picture_is_read_once():
    class Files(list):
        reads = Counter()

        def __iter__(self):
            for i in range(len(self)):
                self.reads[i] += 1
                yield self[i].copy()

    files = Files(cut(cloudy(np.random.default_rng(12), 128, 128), 2, 2))
    assert same_field(files) == [0, 0, 0, 0] and set(files.reads.values()) == {1}


@pytest.mark.parametrize("shape", [(64,), (64, 1), (1, 64, 3), (2, 64, 64, 3)])
def test_a_wrong_shape_is_named(shape):
    with pytest.raises(ValueError, match=r"image 1 must be \(H, W\)"):
        same_field([np.zeros((64, 64)), np.zeros(shape)])


def test_the_nuclei_of_the_data_science_bowl():
    files = sorted((REAL / "dsb2018" / "images").glob("*.png"))
    if not files:
        pytest.skip("needs the real photographs of ../shared/data/dsb2018")
    sizes = Counter(Counter(same_field([np.asarray(Image.open(file)) for file in files])).values())
    assert sizes[4] >= 40 and sum(size * count for size, count in sizes.items() if size > 1) >= 0.85 * len(files)
    assert max(sizes) <= 16  # the largest fields are cut 4x4
