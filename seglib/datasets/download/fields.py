"""Which pictures were cut from one larger picture: those must not be parted between training and validation.

Microscope fields are often published in pieces: nuclei of the same slide, the same stain, even the two halves of one
nucleus then lie on both sides of a random split. Nothing but the pixels says so: a piece goes on at its border where
its neighbour begins.
"""

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

# Measured on 441 pictures of the Data Science Bowl 2018. Of 178 pairs known to be neighbours all have a step of 0.7 to
# 1.3, and 176 correlate enough. In all 347 pairs pass; of borders laid upside down, which nothing continues, 15 do.
STEP = 1.5  # the most that a picture may change over the cut, in units of its change from one column to the next
ALIKE = 0.3  # the least correlation of the two borders: below it they share no structure, as with black on black
CHANCE = 4.0  # and the least in units of 1 / sqrt(length), the deviation of noise: short borders agree by chance


def same_field(images: Sequence[np.ndarray]) -> list[int]:
    """Group pictures that were cut from one larger picture: their borders continue each other.

    Two pictures are neighbours where the right border of one and the left border of the other (or bottom and top) are
    each other's best match, differ about as much as two neighbouring columns inside the pictures do, and are
    correlated. Neighbours are in one group, and their neighbours too; so are pictures equal in every pixel.

    Args:
        images: each (H, W) or (H, W, C), H and W at least 2, in one scale of grey. Sizes may differ: borders of equal
            length are compared. Each is read once, in turn, so that a sequence that reads files on demand will do.

    Returns:
        For each image the number (0...) of its group, counted in the order of first appearance. Which pictures are
        together does not depend on the order of the images.

    Raises:
        ValueError: an image has another shape.

    A border has at most one partner, so that many pictures of black background do not end in one group; neighbours
    that meet in black alone are not found, unless other pieces of their field join them. Nor are pieces that overlap or
    were rotated or scaled. Two strangers with few nuclei on short borders may be joined by chance.
    """
    first: dict[bytes, int] = {}  # the contents of a picture -> where it comes first
    columns: dict[int, np.ndarray] = {}
    rows: dict[int, np.ndarray] = {}
    joined: list[tuple[int, int]] = []
    for number, image in enumerate(images):
        if image.ndim not in (2, 3) or min(image.shape[:2]) < 2:
            raise ValueError(f"image {number} must be (H, W) or (H, W, C), 2 pixels or more each way: {image.shape}")
        original = first.setdefault(_digest(image), number)
        if original == number:
            columns[number], rows[number] = _borders(image), _borders(image.swapaxes(0, 1))
        else:
            joined.append((original, number))
    return _numbered(len(images), joined + _neighbours(columns) + _neighbours(rows))


def _digest(image: np.ndarray) -> bytes:
    """What only pictures equal in every pixel share."""
    return hashlib.sha256(repr((image.shape, image.dtype.str)).encode() + image.tobytes()).digest()


def _borders(image: np.ndarray) -> np.ndarray:
    """The outermost columns of an (H, W) or (H, W, C) picture in grey: (4, H), being columns 0, 1, W - 2 and W - 1."""
    columns = image[:, [0, 1, -2, -1]].astype(float)
    return (columns if columns.ndim == 2 else columns.mean(2)).T


def _neighbours(borders: dict[int, np.ndarray]) -> list[tuple[int, int]]:
    """Pairs of pictures of which the second continues the first.

    Args:
        borders: the (4, L) borders of each picture; L may differ, and only pictures of one L are compared.
    """
    pairs = []
    for length in sorted({border.shape[1] for border in borders.values()}):
        members = [number for number, border in borders.items() if border.shape[1] == length]
        start, after_start, before_end, end = np.stack([borders[number] for number in members], axis=1)
        inside = np.abs(before_end - end).mean(1)[:, None] + np.abs(start - after_start).mean(1)
        across = np.stack([np.abs(start - one).mean(1) for one in end])  # row by row: (N, N, L) would be large
        step = across / np.maximum(inside / 2, np.finfo(float).tiny)
        np.fill_diagonal(step, np.inf)  # a picture does not continue itself
        alike = max(ALIKE, CHANCE / length**0.5)
        for i, j in np.argwhere(_mutual_best(step) & (step <= STEP)):
            if _correlation(end[i], start[j]) >= alike:
                pairs.append((members[i], members[j]))
    return pairs


def _mutual_best(cost: np.ndarray) -> np.ndarray:
    """Where an (N, N) cost is the least of its row and of its column, and the only one: a tie says nothing."""
    of_row, of_column = cost == cost.min(1, keepdims=True), cost == cost.min(0)
    return of_row & of_column & (of_row.sum(1, keepdims=True) == 1) & (of_column.sum(0) == 1)


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's correlation of two (L,) borders; 0 where one is constant."""
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a @ a) * (b @ b))
    return float(a @ b / norm) if norm > 0 else 0.0


def _numbered(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """For each of `count` things the number of its connected component, in the order of first appearance."""
    parent = list(range(count))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    for a, b in pairs:
        low, high = sorted((root(a), root(b)))
        parent[high] = low
    numbers: dict[int, int] = {}
    return [numbers.setdefault(root(i), len(numbers)) for i in range(count)]
