"""Transforms: no new labels, padding that does not count, random numbers that do not repeat."""

import json

import albumentations as A
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from seglib.transforms import augment, augmentation, describe_augmentation, resize

ALL = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "rotate": 15, "brightness": 0.2, "contrast": 0.2, "noise": 0.1}
ALL |= {"scale": (0.5, 2.0), "crop": (48, 32), "saturation": 0.4, "hue": 0.1}


def make_sample(height=40, width=60):
    """An image in which neighbors differ, and a mask of classes 3 and 9, far apart in value."""
    image = np.arange(height * width * 3).reshape(height, width, 3).astype(np.uint8)
    mask = np.where(np.indices((height, width)).sum(0) % 7 < 3, 9, 3).astype(np.uint8)
    return image, mask


def plain_sample(height, width):
    return np.full((height, width, 3), 200, np.uint8), np.ones((height, width), np.uint8)


# ------------------------------------------------------------------------------------------------ resize


def test_resize_takes_the_mask_at_the_center_of_the_new_pixel():
    mask = np.arange(8, dtype=np.uint8)[None]
    assert resize(1, 4)(image=np.zeros((1, 8, 3), np.uint8), mask=mask)["mask"].tolist() == [[1, 3, 5, 7]]
    larger = resize(1, 8)(image=np.zeros((1, 4, 3), np.uint8), mask=mask[:, :4])["mask"]
    assert larger.tolist() == [[0, 0, 1, 1, 2, 2, 3, 3]]


def test_an_image_that_shrinks_is_averaged():
    image = np.tile(np.array([200, 0, 0, 0], np.uint8)[None, :, None], (8, 4, 3))  # interpolation would miss the 200s
    assert (resize(2, 4)(image=image)["image"] == 50).all()
    scaled, _ = augment(augmentation(scale=(0.25, 0.25)), image, np.zeros((8, 16), np.uint8), (0, 1, 0))
    assert scaled.shape == (2, 4, 3) and (scaled == 50).all()


@given(st.integers(0, 2**31), st.integers(1, 50), st.integers(1, 50))
@settings(max_examples=40)
def test_no_transform_makes_a_new_label(seed, height, width):
    image, mask = make_sample()
    assert set(np.unique(augment(augmentation(**ALL), image, mask, (seed, 1, 0))[1])) <= {3, 9, 255}
    assert set(np.unique(resize(height, width)(image=image, mask=mask)["mask"])) <= {3, 9}


# ------------------------------------------------------------------------------------------------ random numbers


def test_the_result_depends_on_seed_epoch_and_index_alone():
    image, mask = make_sample()
    pipeline = augmentation(**ALL)
    first = augment(pipeline, image, mask, (0, 1, 2))
    for draw in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not np.array_equal(augment(pipeline, image, mask, draw)[0], first[0])
    again = augment(augmentation(**ALL), image, mask, (0, 1, 2))
    assert (again[0] == first[0]).all() and (again[1] == first[1]).all()


@pytest.mark.parametrize("nested", [False, True])
def test_two_flips_are_independent(nested):
    """With one seed for all transforms, two flips of probability 0.5 would always do the same."""
    flips = [A.HorizontalFlip(p=0.5), A.VerticalFlip(p=0.5)]
    pipeline = A.Compose([A.Sequential(flips, p=1)] if nested else flips)
    image = np.zeros((2, 2, 3), np.uint8)
    image[0, 0] = 255
    corners = [tuple(np.argwhere(augment(pipeline, image, image[..., 0], (0, 1, i))[0])[0][:2]) for i in range(200)]
    assert all(30 < corners.count((y, x)) < 70 for y in (0, 1) for x in (0, 1))


# ------------------------------------------------------------------------------------------------ single changes


def test_the_corners_of_a_rotation_do_not_count():
    image, mask = plain_sample(40, 40)
    rotated, labels = augment(augmentation(rotate=45), image, mask, (3, 1, 0))
    corners = (rotated == 0).all(axis=-1)
    assert corners.sum() > 20
    assert (labels[corners] == 255).all() and not (labels == 0).any()


@pytest.mark.parametrize(
    "change", [{"noise": 0.1}, {"brightness": 0.2, "contrast": 0.2}, {"hue": 0.1, "saturation": 0.4}]
)
def test_colors_change_in_some_images_and_labels_in_none(change):
    image = np.zeros((16, 16, 3), np.uint8) + np.array([200, 60, 60], np.uint8)
    mask = make_sample(16, 16)[1]
    changed = 0
    for index in range(60):
        result, labels = augment(augmentation(**change), image, mask, (0, 1, index))
        assert (labels == mask).all() and result.dtype == np.uint8
        assert np.abs(result.astype(int) - image).mean() < 60
        changed += (result != image).any()
    assert 10 <= changed <= 45


@pytest.mark.parametrize("wrong", [{"scale": 1.5}, {"scale": (-0.2, 0.2)}, {"crop": 16}, {"crop": (16, 16, 3)}])
def test_scale_and_crop_are_pairs(wrong):
    with pytest.raises(ValueError, match="is a pair of numbers above 0"):
        augmentation(**wrong)


@pytest.mark.parametrize("change", ["brightness", "contrast"])
def test_images_become_lighter_and_darker(change):
    image = np.full((8, 8, 3), 120, np.uint8)
    mask = np.zeros((8, 8), np.uint8)
    results = [augment(augmentation(**{change: 0.3}), image, mask, (0, 1, index))[0] for index in range(40)]
    means = [result.mean() for result in results]
    assert min(means) < 110 and max(means) > 130


@given(st.integers(0, 2**31), st.integers(2, 90), st.integers(2, 90))
@settings(max_examples=40)
def test_a_crop_has_its_size_and_its_margin_does_not_count(seed, height, width):
    cropped, labels = augment(augmentation(crop=(32, 48)), *plain_sample(height, width), (seed, 1, 0))
    assert cropped.shape == (32, 48, 3) and labels.shape == (32, 48)
    margin = (cropped == 0).all(axis=-1)
    assert ((labels == 255) == margin).all() and ((labels == 1) == ~margin).all()
    assert (~margin).sum() == min(height, 32) * min(width, 48)


def test_scale_keeps_the_aspect_ratio_and_covers_its_range():
    shapes = [augment(augmentation(scale=(0.5, 2)), *plain_sample(40, 60), (0, 1, i))[1].shape for i in range(100)]
    factors = np.array([height / 40 for height, _ in shapes])
    assert all(abs(width / 60 - height / 40) < 1 / 40 for height, width in shapes)
    assert 0.5 <= factors.min() < 0.6 and 1.9 < factors.max() <= 2.0 and 1.1 < factors.mean() < 1.4


def test_image_and_mask_change_together():
    mask = np.zeros((60, 80), np.uint8)
    mask[20:45, 30:60] = 7
    image = np.where(mask[..., None] == 7, 220, 30).repeat(3, axis=2).astype(np.uint8)
    pipeline = augmentation(scale=(0.5, 2), crop=(40, 40), horizontal_flip=0.5, vertical_flip=0.5)
    pixels = 0
    for index in range(20):
        changed, labels = augment(pipeline, image, mask, (0, 1, index))
        inside = labels == 7
        pixels += inside.sum()
        edge = ndimage.binary_dilation(inside) ^ ndimage.binary_erosion(inside)  # there the image is interpolated
        assert (((changed[..., 0] > 125) == inside) | edge).all()
    assert pixels > 1000


# ------------------------------------------------------------------------------------------------ pipelines


def test_the_description_of_a_pipeline_is_json():
    assert describe_augmentation(None) is None
    description = describe_augmentation(augmentation(**ALL))
    assert json.loads(json.dumps(description)) == description
    assert description["transforms"][4]["fill_mask"] == 255.0
