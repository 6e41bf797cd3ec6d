"""Transforms: no label that was not there, padding that does not count, draws that do not repeat."""

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from seglib.transforms import augment, augmentation, describe, resize

FULL = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "rotate": 15, "brightness": 0.2, "contrast": 0.2, "noise": 0.1}


def picture(height=40, width=60):
    """A picture whose every pixel is different, and a mask of classes 3 and 9 far apart in value."""
    image = np.arange(height * width * 3).reshape(height, width, 3).astype(np.uint8)
    mask = np.where(np.indices((height, width)).sum(0) % 7 < 3, 9, 3).astype(np.uint8)
    return image, mask


def test_resize_takes_the_value_at_the_pixels_centre():
    mask = np.arange(8, dtype=np.uint8)[None]
    assert resize(1, 4)(image=np.zeros((1, 8, 3), np.uint8), mask=mask)["mask"].tolist() == [[1, 3, 5, 7]]
    up = resize(1, 8)(image=np.zeros((1, 4, 3), np.uint8), mask=mask[:, :4])["mask"]
    assert up.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]


def test_resize_averages_an_image_that_shrinks():
    image = np.tile(np.array([200, 0, 0, 0], np.uint8)[None, :, None], (8, 4, 3))  # interpolating would miss the 200s
    assert (resize(2, 4)(image=image)["image"] == 50).all()


@given(st.integers(0, 2**31), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=40, deadline=None)
def test_no_transform_makes_a_label_that_was_not_there(seed, height, width):
    image, mask = picture()
    changed = augment(augmentation(**FULL), image, mask, (seed, 1, 0))[1]
    assert set(np.unique(changed)) <= {3, 9, 255}
    assert set(np.unique(resize(height, width)(image=image, mask=mask)["mask"])) <= {3, 9}


def test_what_a_rotation_brings_in_does_not_count():
    image, mask = np.full((40, 40, 3), 200, np.uint8), np.ones((40, 40), np.uint8)
    turned, labels = augment(augmentation(rotate=45), image, mask, (3, 1, 0))
    came_in = (turned == 0).all(axis=-1)
    assert came_in.sum() > 20
    assert (labels[came_in] == 255).all() and (labels == 0).sum() == 0


def test_noise_changes_half_of_the_pictures_by_no_more_than_asked_and_no_label():
    image, mask = np.full((64, 64, 3), 128, np.uint8), picture(64, 64)[1]
    deviations = []
    for index in range(60):
        changed, labels = augment(augmentation(noise=0.1), image, mask, (0, 1, index))
        assert (labels == mask).all() and abs(changed.mean() - 128) < 1.5
        deviations.append(changed.std() / 255)
    assert 15 <= sum(value > 0 for value in deviations) <= 45
    assert 0.05 < max(deviations) < 0.105


def test_the_same_draw_gives_the_same_pictures_and_another_draw_others():
    image, mask = picture()
    pipeline = augmentation(**FULL)
    first = augment(pipeline, image, mask, (0, 1, 2))
    for seed, epoch, index in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert (augment(pipeline, image, mask, (seed, epoch, index))[0] != first[0]).any()
    again = augment(augmentation(**FULL), image, mask, (0, 1, 2))
    assert (again[0] == first[0]).all() and (again[1] == first[1]).all()


@pytest.mark.parametrize("nested", [False, True])
def test_two_flips_do_not_fall_together(nested):
    """Given one seed for all transforms, two flips of probability 0.5 always do the same."""
    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    pipeline = A.Compose([A.Sequential(flips, p=1)] if nested else flips)
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = 255
    corners = [tuple(np.argwhere(augment(pipeline, image, image[..., 0], (0, 1, i))[0])[0][:2]) for i in range(400)]
    shares = [corners.count((y, x)) / 400 for y in (0, 1) for x in (0, 1)]
    assert min(shares) > 0.18 and max(shares) < 0.32


def test_image_and_mask_move_together():
    image, mask = picture(64, 64)
    image[..., 0] = mask
    for index in range(20):
        changed, labels = augment(augmentation(horizontal_flip=0.5, vertical_flip=0.5), image, mask, (0, 1, index))
        assert (changed[..., 0] == labels).all()


def test_describe_is_plain_json():
    assert describe(None) is None
    assert describe(augmentation(**FULL))["transforms"][2]["fill_mask"] == 255.0
