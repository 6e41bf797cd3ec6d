"""Rules that look at the color of one pixel only: what a network has to beat before it has learned any shape."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from seglib.datasets.base import SegmentationData, get_class_names
from seglib.masks import IGNORE, check_values
from seglib.metrics import ConfusionMatrix

__all__ = ["CHANNELS", "ColorTable", "Rule", "Threshold", "best_threshold", "color_table", "score"]

Rule = Callable[[Tensor], Tensor]  # image uint8 (3, H, W) -> mask uint8 (H, W)
CHANNELS = ("red", "green", "blue", "brightness", "colorfulness")


@dataclass(frozen=True)
class Threshold:
    """Calls a pixel class 1 if one channel is above a value, or if it is not.

    Args:
        channel: one of CHANNELS. Colorfulness is the largest of red, green and blue minus the smallest.
        value: from 0 to 255.
        above: whether class 1 is above the value; False: at or below it.
    """

    channel: str
    value: int
    above: bool

    def __call__(self, image: Tensor) -> Tensor:
        """The mask uint8 (H, W) of an image uint8 (3, H, W)."""
        channel = torch.from_numpy(_channels(image)[CHANNELS.index(self.channel)])
        return ((channel > self.value) == self.above).to(torch.uint8)


@dataclass(frozen=True)
class ColorTable:
    """Looks up the class of a pixel by its color.

    Args:
        classes: uint8 (N, N, N), the class of each range of red, green and blue.
    """

    classes: np.ndarray = field(repr=False)

    def __call__(self, image: Tensor) -> Tensor:
        """The mask uint8 (H, W) of an image uint8 (3, H, W)."""
        return torch.from_numpy(self.classes.ravel()[_color_bins(image, len(self.classes))])


def best_threshold(data: SegmentationData) -> Threshold:
    """The threshold with the highest IoU of class 1 on a data set of binary masks.

    One histogram a channel holds the pixels of either class by value; its sums give the IoU of all thresholds at once.

    Raises:
        ValueError: no pixel has class 1, or a mask holds another class.
    """
    histograms = np.zeros((len(CHANNELS), 2, 256), dtype=np.int64)
    for image, mask in _pairs(data, 2):
        for index, channel in enumerate(_channels(image)):
            for label in (0, 1):
                histograms[index, label] += np.bincount(channel[mask == label], minlength=256)
    not_above = histograms.cumsum(axis=2)
    totals = not_above[:, :, -1:]
    _check_class_1(totals[0, 1])
    scores = []
    for false_alarms, found in ((totals - not_above).swapaxes(0, 1), not_above.swapaxes(0, 1)):  # above, not above
        scores.append(found / (totals[:, 1] + false_alarms))
    side, channel, value = np.unravel_index(np.argmax(scores), (2, len(CHANNELS), 256))
    return Threshold(CHANNELS[channel], int(value), above=bool(side == 0))


def color_table(data: SegmentationData, bins: int = 16) -> ColorTable:
    """The table that gives each range of colors its most frequent class in a data set.

    For two classes it is instead the table with the highest IoU of class 1: it contains the colors whose share of
    class 1 is above a threshold.

    Args:
        data: samples with `classes`, background first.
        bins: ranges of each channel; 16 are 4,096 colors.

    Raises:
        ValueError: no pixel has class 1 (of two), or a mask holds a class that the data set has not.
    """
    num_classes = max(2, len(get_class_names(data) or ()))
    counts = np.zeros((bins**3, num_classes), dtype=np.int64)
    for image, mask in _pairs(data, num_classes):
        counted = mask != IGNORE
        pairs = _color_bins(image, bins)[counted] * num_classes + mask[counted]
        counts += np.bincount(pairs, minlength=counts.size).reshape(counts.shape)
    if num_classes > 2:
        table = counts.argmax(axis=1)
    else:
        background, positive = counts.T
        _check_class_1(positive.sum())
        order = np.argsort(-positive / np.maximum(background + positive, 1), kind="stable")
        iou = positive[order].cumsum() / np.maximum(positive.sum() + background[order].cumsum(), 1)
        table = np.zeros(len(counts), dtype=np.int64)
        table[order[: iou.argmax() + 1]] = 1
    return ColorTable(table.astype(np.uint8).reshape(bins, bins, bins))


def score(rule: Rule, data: SegmentationData) -> ConfusionMatrix:
    """The confusion matrix of a rule over a data set."""
    matrix = ConfusionMatrix(max(2, len(get_class_names(data) or ())))
    for index in range(len(data)):
        image, mask = data[index][:2]
        matrix.update(rule(image), mask)
    return matrix


def _pairs(data: SegmentationData, num_classes: int) -> Iterator[tuple[Tensor, np.ndarray]]:
    for index in range(len(data)):
        image, mask = data[index][:2]
        check_values(mask, num_classes, f"image {index}")
        yield image, np.asarray(mask)


def _check_class_1(pixels: int) -> None:
    if not pixels:
        raise ValueError("no pixel of the data set has class 1: there is nothing to learn a rule from")


def _channels(image: Tensor) -> np.ndarray:
    """The values of CHANNELS: uint8 (5, H, W)."""
    colors = np.asarray(image).astype(np.int16)
    derived = [colors.mean(axis=0), np.ptp(colors, axis=0)]
    return np.concatenate([colors, derived]).astype(np.uint8)


def _color_bins(image: Tensor, bins: int) -> np.ndarray:
    """The index of each pixel's color among bins**3: int64 (H, W)."""
    red, green, blue = np.asarray(image).astype(np.int64) * bins // 256
    return (red * bins + green) * bins + blue
