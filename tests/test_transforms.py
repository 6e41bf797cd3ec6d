"""Transforms: no label that was not there, padding that does not count, draws that do not repeat."""

import albumentations as A
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from seglib.losses import CEDiceLoss, CrossEntropyLoss
from seglib.metrics import ConfusionMatrix
from seglib.transforms import augment, augmentation, describe_augmentation, keeps_size, resize

FULL = {"horizontal_flip": 0.5, "vertical_flip": 0.5, "rotate": 15, "brightness": 0.2, "contrast": 0.2, "noise": 0.1}
FULL |= {"scale": (0.5, 2.0), "crop": (48, 32), "saturation": 0.4, "hue": 0.1}


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
    assert describe_augmentation(None) is None
    assert describe_augmentation(augmentation(**FULL))["transforms"][4]["fill_mask"] == 255.0


# ------------------------------------------------------------------------------------------------ scale and crop


@given(st.integers(0, 2**31), st.integers(2, 90), st.integers(2, 90))
@settings(max_examples=60, deadline=None)
def test_a_crop_has_its_size_and_what_it_adds_does_not_count(seed, height, width):
    image, mask = np.full((height, width, 3), 200, np.uint8), np.ones((height, width), np.uint8)
    cropped, labels = augment(augmentation(crop=(32, 48)), image, mask, (seed, 1, 0))
    assert cropped.shape == (32, 48, 3) and labels.shape == (32, 48)
    came_in = (cropped == 0).all(axis=-1)
    assert ((labels == 255) == came_in).all() and ((labels == 1) == ~came_in).all()
    assert (~came_in).sum() == min(height, 32) * min(width, 48)


def test_a_picture_too_small_lies_anywhere_in_its_margin_and_a_window_anywhere_in_a_large_one():
    places = set()
    for index in range(40):
        image, mask = np.full((8, 8, 3), 200, np.uint8), np.ones((8, 8), np.uint8)
        labels = augment(augmentation(crop=(12, 12)), image, mask, (0, 1, index))[1]
        places.add(tuple(np.argwhere(labels == 1)[0]))
    assert len(places) > 12 and {row for row, _ in places} == {column for _, column in places} == set(range(5))
    image, mask = picture(40, 60)
    corners = [augment(augmentation(crop=(8, 8)), image, mask, (0, 1, index))[0][0, 0, 0] for index in range(20)]
    assert len({int(corner) for corner in corners}) > 10


def test_scale_keeps_the_aspect_and_covers_its_range():
    image, mask = np.full((40, 60, 3), 200, np.uint8), np.ones((40, 60), np.uint8)
    shapes = [augment(augmentation(scale=(0.5, 2)), image, mask, (0, 1, index))[1].shape for index in range(200)]
    factors = np.array([height / 40 for height, _ in shapes])
    assert all(abs(width / 60 - height / 40) < 1 / 40 for height, width in shapes)
    assert 0.5 <= factors.min() < 0.56 and 1.93 < factors.max() <= 2.0 and 1.15 < factors.mean() < 1.35
    assert {augment(augmentation(scale=(1, 1)), image, mask, (0, 1, index))[1].shape for index in range(9)} == {
        (40, 60)
    }


def test_image_and_mask_are_scaled_and_cropped_alike():
    mask = np.zeros((60, 80), np.uint8)
    mask[20:45, 30:60] = 7
    image = np.where(mask[..., None] == 7, 220, 30).repeat(3, axis=2).astype(np.uint8)
    found = 0
    for index in range(30):
        changed, labels = augment(augmentation(scale=(0.5, 2), crop=(40, 40)), image, mask, (0, 1, index))
        inside = (labels == 7) & (labels != 255)
        found += inside.sum()
        wrong = (changed[..., 0] > 125) != inside
        edge = np.zeros_like(inside)  # but for the pixels along the edge, where the image is interpolated
        edge[1:] |= labels[1:] != labels[:-1]
        edge[:-1] |= labels[1:] != labels[:-1]
        edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
        edge[:, :-1] |= labels[:, 1:] != labels[:, :-1]
        assert not (wrong & ~edge).any()
    assert found > 1000


def test_colour_jitter_turns_colours_and_changes_no_label():
    image, mask = np.zeros((16, 16, 3), np.uint8) + np.array([200, 60, 60], np.uint8), picture(16, 16)[1]
    greens, changed = [], 0
    for index in range(60):
        jittered, labels = augment(augmentation(hue=0.1, saturation=0.4), image, mask, (0, 1, index))
        assert (labels == mask).all() and jittered.dtype == np.uint8
        changed += (jittered != image).any()
        greens.append(int(jittered[0, 0, 1]))
    assert 15 <= changed <= 45 and max(greens) > 80 and min(greens) < 50
    grey = np.full((8, 8, 3), 90, np.uint8)
    for index in range(10):
        assert (augment(augmentation(hue=0.1, saturation=0.4), grey, mask[:8, :8], (0, 1, index))[0] == 90).all()


def test_padding_enters_neither_loss_nor_metric():
    """A picture in a large crop scores what it scores by itself, whatever a model says of the margin."""
    image, mask = picture(20, 28)
    mask[:, 5] = 255
    padded = augment(augmentation(crop=(48, 40)), image, mask, (3, 1, 0))[1]
    top, left = (int(np.flatnonzero((padded != 255).any(axis))[0]) for axis in (1, 0))
    inside = (slice(top, top + 20), slice(left, left + 28))
    torch.manual_seed(0)
    logits, whole = torch.randn(1, 10, 48, 40), torch.from_numpy(padded)[None]
    part_logits, part = logits[..., *inside], whole[:, *inside]
    for loss in (CrossEntropyLoss(), CEDiceLoss()):
        assert loss(logits, whole).item() == pytest.approx(loss(part_logits, part).item(), rel=1e-5)
    one, other = (ConfusionMatrix(10).update(x.argmax(1), m) for x, m in ((logits, whole), (part_logits, part)))
    assert torch.equal(one.matrix, other.matrix) and one.matrix.sum() == 20 * 27


def test_a_pipeline_that_crops_is_told_from_one_that_does_not():
    assert keeps_size(augmentation(horizontal_flip=0.5, rotate=20, noise=0.1), 40, 60) and keeps_size(
        A.Compose([]), 9, 9
    )
    for height, width in ((64, 64), (40, 90), (100, 100)):
        assert not keeps_size(augmentation(crop=(64, 64)), height, width)
    assert not keeps_size(augmentation(scale=(0.5, 2)), 40, 60) and not keeps_size(
        A.Compose([A.RandomCrop(9, 9)]), 9, 9
    )


def test_a_picture_that_shrinks_is_averaged():
    image = np.tile(np.array([200, 0, 0, 0], np.uint8)[None, :, None], (8, 4, 3))  # interpolating would miss the 200s
    smaller, _ = augment(augmentation(scale=(0.25, 0.25)), image, np.zeros((8, 16), np.uint8), (0, 1, 0))
    assert smaller.shape == (2, 4, 3) and (smaller == 50).all()


@pytest.mark.parametrize("wrong", [{"crop": 64}, {"crop": (0, 64)}, {"scale": 0.5}, {"scale": (2, 0.5)}])
def test_what_is_no_scale_and_no_crop_is_refused(wrong):
    with pytest.raises(ValueError, match="scale"):
        augmentation(**wrong)
