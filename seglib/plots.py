"""The figures of the course.

A figure is a matplotlib Figure that pyplot has already closed: as the last line of a notebook cell it is shown once,
and a script may draw many of them. Images are uint8 (H, W, 3) arrays or (3, H, W) tensors, masks are uint8 (H, W) class
indices. matplotlib is imported when the first figure is drawn; `overlay` and other images do without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain, cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image

from seglib.files import atomic_path
from seglib.masks import IGNORE, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from torch import Tensor, nn

    from seglib.grid import Cell
    from seglib.instances import Instances

    ImageLike = np.ndarray | Tensor

__all__ = [
    "ERROR_LEGEND",
    "architecture",
    "class_balance",
    "class_scores",
    "color_mask",
    "confusion_matrix",
    "count_scatter",
    "curves",
    "draw_instances",
    "error_map",
    "grid_comparison",
    "loss_curves",
    "metric_curves",
    "overlay",
    "picture_grid",
    "present_classes",
    "run_lengths",
    "save",
    "seed_scores",
    "size_histogram",
    "stage_shapes",
    "triples",
]

ERROR_LEGEND = {3: "found", 1: "missed", 2: "false alarm"}  # by index of the palette

_History = Sequence[Mapping[str, float]]
_Histories = _History | Mapping[str, _History]  # one, or several by name

_LINE_STYLES = ("-", "--", "-.", ":", (0, (1, 4)), (0, (8, 2, 1, 2, 1, 2)))


def save(figure: Figure | np.ndarray, path: str | Path) -> None:
    """Save a figure, or an image uint8 (H, W, 3), under a temporary name, then rename it."""
    with atomic_path(path) as temporary:
        if isinstance(figure, np.ndarray):
            Image.fromarray(figure).save(temporary, quality=92)
        else:
            figure.savefig(temporary, bbox_inches="tight")


def _subplots(**settings: Any) -> tuple[Figure, Any]:
    """A figure and its axes as `matplotlib.pyplot.subplots` returns them, closed for pyplot."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(layout="constrained", **settings)
    plt.close(figure)
    return figure, axes


def _chart(size: tuple[float, float], **labels: Any) -> tuple[Figure, Axes]:
    """A figure with one plot, which has a grid and labels as `Axes.set` takes them."""
    figure, axes = _subplots(figsize=size)
    axes.set(**labels)
    axes.grid(alpha=0.3, which="both")
    return figure, axes


def _as_array(image: ImageLike) -> np.ndarray:
    """An image or a mask as an array, channels last."""
    array = np.asarray(image)
    channels_first = array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3
    return array.transpose(1, 2, 0) if channels_first else array


def color_mask(mask: ImageLike, colors: np.ndarray | None = None) -> np.ndarray:
    """A class mask (H, W) in the colors of its classes: uint8 (H, W, 3). The value 255 is pale.

    Args:
        mask: class indices.
        colors: uint8 (256, 3); None: `seglib.masks.palette()`.
    """
    return (palette() if colors is None else colors)[_as_array(mask).astype(np.uint8)]


def overlay(image: ImageLike, mask: ImageLike, alpha: float = 0.45, colors: np.ndarray | None = None) -> np.ndarray:
    """An image with a class mask drawn over it: uint8 (H, W, 3). Outlines are opaque, the background is untouched.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        alpha: the opacity of the colors, from 0 to 1.
        colors: of the classes, as in `color_mask`.

    Raises:
        ValueError: image and mask differ in size.
    """
    image = _as_array(image)
    mask = _as_array(mask).astype(np.uint8)
    if image.shape[:2] != mask.shape:
        raise ValueError(f"the image has the size {image.shape[:2]} but the mask {mask.shape} (height, width)")
    padded = np.pad(mask, ((1, 0), (1, 0)), mode="edge")
    blended = np.empty_like(image)
    for start in range(0, len(mask), 256):  # in strips: the fractions of a whole large photograph fill the memory
        rows = slice(start, start + 256)
        classes = mask[rows]
        left = padded[1:, :-1][rows]
        above = padded[:-1, 1:][rows]
        edge = (classes != left) | (classes != above)
        opacity = np.where(edge, 1.0, alpha)[..., None] * ((classes > 0) | edge)[..., None]
        outlined = np.where(classes == 0, np.maximum(left, above), classes)  # an outline runs through background, too
        blended[rows] = (image[rows] * (1 - opacity) + color_mask(outlined, colors) * opacity).round()
    return blended


def draw_instances(image: ImageLike, instances: Instances, alpha: float = 0.45) -> np.ndarray:
    """An image with its instances drawn over it, each in one of twenty colors, which repeat: uint8 (H, W, 3)."""
    numbers = instances.numbered()
    return overlay(image, np.where(numbers > 0, (numbers - 1) % 20 + 1, 0), alpha)


def picture_grid(
    rows: Sequence[Sequence[ImageLike]],
    titles: Sequence[str],
    labels: Sequence[str] = (),
    classes: Sequence[str] | Mapping[int, str] = (),
    title: str = "",
    void: bool = False,
    width: float = 2.3,
    captions: Sequence[Sequence[str]] = (),
    colors: np.ndarray | None = None,
) -> Figure:
    """Rows of images and masks, with a legend of the classes below.

    Args:
        rows: images (H, W, 3), and masks (H, W) to be drawn in the colors of their classes.
        titles: the title of each column.
        labels: the label of each row.
        classes: the classes of the legend: names, background first, or some of them by class index.
        void: whether the legend explains the value 255.
        width: the width of an image in inches. Keep it small: GitHub does not show large notebooks.
        captions: a text below each picture, row by row.
        colors: of the classes, as in `color_mask`.
    """
    from matplotlib.patches import Patch

    shapes = [_as_array(row[0]).shape for row in rows]
    heights = [width * min(max(shape[0] / shape[1], 0.5), 1.4) for shape in shapes]
    size = (width * len(titles) + 0.5, sum(heights) + 0.25 * len(rows) + 1)
    figure, grid = _subplots(nrows=len(rows), ncols=len(titles), squeeze=False, figsize=size, height_ratios=heights)
    for axes, image in zip(grid.flat, chain.from_iterable(rows), strict=True):
        picture = _as_array(image)
        axes.imshow(color_mask(picture, colors) if picture.ndim == 2 else picture, interpolation="nearest")
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
    for axes, column_title in zip(grid[0], titles, strict=True):
        axes.set_title(column_title, fontsize=10)
    for axes, label in zip(grid[:, 0], labels, strict=False):
        axes.set_ylabel(label, fontsize=8)
    for axes, caption in zip(grid.flat, chain.from_iterable(captions), strict=False):
        axes.set_xlabel(caption, fontsize=9)
    figure.suptitle(title, fontsize=12)
    if classes:
        names = dict(classes) if isinstance(classes, Mapping) else dict(enumerate(classes))
        if void:
            names[IGNORE] = "does not count (255)"
        patches = color_mask(np.array(list(names)), colors) / 255
        entries = [Patch(facecolor=c, edgecolor="gray", label=n) for c, n in zip(patches, names.values(), strict=True)]
        figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 6), fontsize=9)
    return figure


def error_map(image: ImageLike, truth: ImageLike, prediction: ImageLike) -> np.ndarray:
    """An image with the errors of a binary prediction drawn over it, in the colors of ERROR_LEGEND: uint8 (H, W, 3).

    Args:
        image: uint8 (H, W, 3).
        truth: uint8 (H, W): 1 for the class, 255 where nothing counts.
        prediction: uint8 (H, W): 1 for the class.
    """
    truth = _as_array(truth)
    found = _as_array(prediction) == 1
    codes = np.select([truth == IGNORE, (truth == 1) & found, truth == 1, found], [IGNORE, *ERROR_LEGEND], 0)
    return overlay(image, codes, alpha=0.6)


def present_classes(masks: Sequence[ImageLike], classes: Sequence[str]) -> dict[int, str]:
    """The names of background and of the classes that occur in some masks, by class index."""
    present = {0}.union(*(np.unique(_as_array(mask)).tolist() for mask in masks))
    return {index: name for index, name in enumerate(classes) if index in present}


def triples(
    samples: Sequence[tuple[ImageLike, ImageLike, str]],
    classes: Sequence[str],
    title: str = "Image, mask and both",
    colors: np.ndarray | None = None,
) -> Figure:
    """Samples of a data set, one in each row: image, mask, overlay. The legend names the classes that occur.

    Args:
        samples: (image, mask, name) of each sample.
        classes: the names of all classes.
        colors: of the classes, as in `color_mask`.
    """
    rows = [(image, mask, overlay(image, mask, colors=colors)) for image, mask, _ in samples]
    masks = [mask for _, mask, _ in samples]
    void = any((_as_array(mask) == IGNORE).any() for mask in masks)
    legend = present_classes(masks, classes)
    labels = [name for *_, name in samples]
    return picture_grid(rows, ("image", "mask", "overlay"), labels, legend, title, void, colors=colors)


def loss_curves(histories: _Histories, title: str = "Loss") -> Figure:
    """Training loss (dashed) and validation loss (solid) by epoch, of one history or of several by name."""
    return _history_curves(histories, {"val_loss": "validation", "train_loss": "training"}, title, "loss")


def metric_curves(
    histories: _Histories, columns: Sequence[str] = ("val_iou", "val_dice"), title: str = "Validation metrics"
) -> Figure:
    """Metrics from 0 to 1 by epoch, of one history or of several by name.

    A dot marks the best epoch of each history by the first column.
    """
    labels = {column: column.removeprefix("val_") for column in columns}
    figure = _history_curves(histories, labels, title, "score", columns[0])
    figure.axes[0].set_ylim(0, 1)
    return figure


def _history_curves(histories: _Histories, labels: dict[str, str], title: str, ylabel: str, marked: str = "") -> Figure:
    """Columns of histories by epoch, with their labels. A dot marks the best epoch by the column `marked`."""
    figure, axes = _chart((7, 4), title=title, xlabel="epoch", ylabel=ylabel)
    named = histories if isinstance(histories, Mapping) else {"": histories}
    for number, (name, history) in enumerate(named.items()):
        color = f"C{number}"
        epochs = [row["epoch"] for row in history]
        for (column, label), style in zip(labels.items(), cycle(_LINE_STYLES)):
            values = [row[column] for row in history]
            marker = "." if len(epochs) <= 60 else ""
            axes.plot(epochs, values, marker=marker, linestyle=style, color=color, label=f"{name} {label}".strip())
        scores = [row[marked] for row in history if marked]
        if not np.isnan(scores).all():
            best = int(np.nanargmax(scores))
            axes.plot(epochs[best], scores[best], "o", color=color, label=f"best: {scores[best]:.3f}")
    axes.locator_params(axis="x", integer=True)
    axes.legend()
    return figure


def grid_comparison(
    cells: Sequence[Cell],
    column: str,
    best: Cell | None = None,
    metric: str = "val_iou",
    title: str = "",
    steps: Sequence[int] = (),
    top: float | None = None,
) -> Figure:
    """A column of the history of every cell of a grid, by epoch or by step. Losses have a logarithmic scale.

    The first setting decides the color of a curve, the others its line style. The curve of the best cell is thick, with
    a star at its best epoch. A cross marks the epoch after which a cell over-fits (see `seglib.runs.overfits_after`).

    Args:
        cells: the cells of a `seglib.grid.Grid`.
        column: a column of their histories.
        best: the cell to emphasize.
        metric: the column by which the best epoch of that cell is chosen.
        steps: the number of steps in an epoch of each cell, to draw the curves by step.
        top: the upper end of the y axis, if it is to hide extreme values.
    """
    xlabel = "step of the optimizer" if steps else "epoch"
    figure, axes = _chart((9, 5), title=title or f"{column} of every cell", xlabel=xlabel, ylabel=column)
    colors: dict[object, str] = {}
    styles: dict[object, Any] = {}
    step = dict(zip((cell.name for cell in cells), steps or [1] * len(cells), strict=True))
    for cell in cells:
        first, *others = cell.settings.values()
        color = colors.setdefault(first, f"C{len(colors)}")
        style = styles.setdefault(tuple(others), _LINE_STYLES[len(styles) % len(_LINE_STYLES)])
        width = 3.0 if cell is best else 1.5
        label = cell.name if cell.status == "finished" else f"{cell.name} ({cell.status})"
        values = [row[column] for row in cell.history]
        places = [step[cell.name] * epoch for epoch in range(1, len(values) + 1)]
        axes.plot(places, values, marker=".", color=color, linestyle=style, linewidth=width, label=label)
        if cell.overfits_after is not None:
            onset = cell.overfits_after
            axes.plot(places[onset - 1], values[onset - 1], "X", color=color, ms=9)
    if best is not None and (row := best.best_row(metric)) is not None:
        label = f"best cell, at its best\nepoch by {metric}"
        axes.plot(step[best.name] * row["epoch"], row[column], "*", color="gold", mec="black", ms=17, label=label)
    if any(cell.overfits_after is not None for cell in cells):
        axes.plot([], [], "X", color="gray", ms=9, label="over-fits from here on")
    if "loss" in column:
        axes.set_yscale("log")
        axes.set_ylim(top=top)
        lowest, highest = axes.get_ylim()
        axes.yaxis.set_major_formatter("{x:g}")  # plain numbers instead of powers of ten
        axes.yaxis.set_minor_formatter("{x:g}" if highest < 20 * lowest else "")
    axes.locator_params(axis="x", integer=True)
    figure.legend(loc="outside right upper", fontsize=9)
    return figure


def curves(
    x: ArrayLike, values: Mapping[str, ArrayLike], title: str, xlabel: str, ylabel: str, chosen: float | None = None
) -> Figure:
    """Curves by label over one x axis, with both axes from 0 to 1. A vertical line marks the chosen x."""
    figure, axes = _chart((6.5, 4), title=title, xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.005), ylim=(0, 1.02))
    for (label, y), style in zip(values.items(), cycle(_LINE_STYLES)):
        axes.plot(x, y, linestyle=style, label=label)
    if chosen is not None:
        axes.axvline(chosen, color="gray", linewidth=1, label=f"chosen: {chosen:.2f}")
    axes.legend(fontsize=9)
    return figure


def class_balance(pixels: Mapping[str, int], images: Mapping[str, int], total_images: int) -> Figure:
    """A bar chart of two shares of each class: its share of all pixels, and the share of images on which it occurs."""
    shares = {
        "share of all pixels that count": [count / max(sum(pixels.values()), 1) for count in pixels.values()],
        "share of images with the class": [images[name] / max(total_images, 1) for name in pixels],
    }
    return _grouped_bars(shares, list(pixels), "{:.1%}", title="How common the classes are", ylabel="share")


def class_scores(scores: Mapping[str, Sequence[float]], classes: Sequence[str], noise: Sequence[str] = ()) -> Figure:
    """A bar chart of the IoU of each class, with a bar for each model.

    Args:
        scores: the IoU of every class, by model. NaN has no bar.
        classes: the names of the classes.
        noise: classes that are too rare for their IoU to mean much.
    """
    names = [f"{name}\n(noise)" if name in noise else name for name in classes]
    return _grouped_bars(scores, names, "{:.2f}", title="IoU of each class on the test images", ylabel="IoU")


def _grouped_bars(groups: Mapping[str, Sequence[float]], names: Sequence[str], number: str, **labels: str) -> Figure:
    """Bars from 0 to 1: for each name, one of each group, with its value in this number format."""
    figure, axes = _chart((9, 3.6), ylim=(0, 1.1), **labels)
    places = np.arange(len(names))
    width = 0.8 / len(groups)
    for index, (group, values) in enumerate(groups.items()):
        bars = axes.bar(places + (index + 0.5) * width - 0.4, np.nan_to_num(values), width, label=group)
        axes.bar_label(bars, ["n/a" if np.isnan(value) else number.format(value) for value in values], fontsize=8)
    axes.set_xticks(places, names, rotation=30, ha="right")
    axes.grid(visible=False, axis="x")
    axes.legend(fontsize=9)
    return figure


def seed_scores(scores: Mapping[str, Sequence[float]], title: str, xlabel: str) -> Figure:
    """A row of dots for each experiment, one for each seed, with their mean as a line."""
    figure, axes = _chart((7, 0.5 * len(scores) + 1.2), title=title, xlabel=xlabel)
    for row, values in enumerate(scores.values()):
        mean = sum(values) / len(values)
        axes.plot(values, [row] * len(values), "o", color=f"C{row}", alpha=0.7)
        axes.plot([mean, mean], [row - 0.25, row + 0.25], color=f"C{row}")
        axes.text(mean, row - 0.3, f"{mean:.3f}", color=f"C{row}", ha="center", va="bottom")
    axes.set_yticks(range(len(scores)), list(scores))
    axes.set_ylim(len(scores) - 0.4, -0.8)
    return figure


def run_lengths(mask: ImageLike) -> Figure:
    """A small binary mask whose pixels show the number of their run: column by column, background first."""
    bitmap = _as_array(mask).astype(bool)
    flat = bitmap.ravel(order="F")
    numbers = np.cumsum(np.diff(flat, prepend=False)).reshape(bitmap.shape, order="F") + 1
    figure, axes = _subplots(figsize=(0.55 * bitmap.shape[1] + 0.5, 0.55 * bitmap.shape[0] + 0.6))
    axes.imshow(bitmap, cmap="Blues", vmax=2)
    for (row, column), number in np.ndenumerate(numbers):
        axes.text(column, row, str(number), ha="center", va="center")
    axes.set(xticks=np.arange(bitmap.shape[1]) - 0.5, yticks=np.arange(bitmap.shape[0]) - 0.5)
    axes.set(xticklabels=[], yticklabels=[], title="the number of each pixel's run")
    axes.grid(color="gray")
    return figure


def confusion_matrix(matrix: ImageLike, classes: Sequence[str], title: str = "Confusion") -> Figure:
    """A confusion matrix, each row as shares of the pixels of the true class. A class that never occurs has no numbers.

    Args:
        matrix: (C, C) counts, rows are the truth, columns the prediction.
        classes: the names of the C classes.
    """
    counts = np.asarray(matrix, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.where(totals > 0, counts / np.maximum(totals, 1), np.nan)
    side = 1.6 + 0.6 * len(classes)
    figure, axes = _subplots(figsize=(side + 1, side))
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.argwhere(~np.isnan(shares)):
        color = "white" if shares[row, column] > 0.6 else "black"
        axes.text(column, row, f"{shares[row, column]:.2f}", ha="center", va="center", color=color, fontsize=8)
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(title=title, xlabel="predicted", ylabel="true")
    figure.colorbar(image, label="share of the true class's pixels", shrink=0.8)
    return figure


def size_histogram(areas: Mapping[str, Sequence[float]], ranges: Mapping[str, tuple[float, float]]) -> Figure:
    """Histograms of the size of objects, which is the side of a square of the same area.

    Args:
        areas: the area of each object in pixels, by split.
        ranges: the smallest and the largest area of each size in pixels, by name. The smallest is drawn.
    """
    labels = {"xlabel": "side of a square of the same area, in pixels", "ylabel": "share of the objects"}
    figure, axes = _chart((8, 3.4), xscale="log", **labels)
    sides = {name: np.sqrt(values) for name, values in areas.items()}
    first = max(1, min(chain(*sides.values()), default=1))
    bins = np.geomspace(first, max(2 * first, *chain(*sides.values())), 25).tolist()
    for (name, values), style in zip(sides.items(), cycle(_LINE_STYLES)):
        weights = np.full(len(values), 1 / max(len(values), 1))
        label = f"{name}: {len(values)} objects"
        axes.hist(values, bins, weights=weights, histtype="step", linestyle=style, linewidth=1.8, label=label)
    for name, (smallest, _) in ranges.items():
        left = max(np.sqrt(smallest), first)
        axes.axvline(left, color="gray", linewidth=1)
        axes.text(left, 1.01, name, color="gray", transform=axes.get_xaxis_transform())
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_title("How large objects are", pad=18)
    axes.legend(fontsize=9)
    return figure


def count_scatter(true: Sequence[int], predicted: Sequence[int], name: str = "objects") -> Figure:
    """The number of objects found on each image, by the true number. A point is larger where images coincide."""
    labels = {"xlabel": f"true number of {name}", "ylabel": f"number of {name} found"}
    figure, axes = _chart((4.6, 4.4), title=f"Counting {name}", aspect="equal", **labels)
    points, repeats = np.unique(np.stack([true, predicted], axis=1), axis=0, return_counts=True)
    limits = (-0.03 * max(points.max(), 1), 1.05 * max(points.max(), 1))
    axes.plot(limits, limits, "--", color="gray", label="equal numbers")
    axes.scatter(points[:, 0], points[:, 1], s=25 * repeats, alpha=0.7, label=f"{len(true)} images")
    axes.set(xlim=limits, ylim=limits)
    axes.locator_params(integer=True)
    axes.legend(fontsize=9, loc="upper left")
    return figure


def stage_shapes(model: nn.Module, height: int, width: int) -> list[tuple[str, tuple[int, ...]]]:
    """The name and the output shape of each stage of a model for one image, in the order of execution.

    Stages are the children of the model, or of its `net` if it wraps a network of a library. The members of a
    ModuleList are stages of their own, and so are the feature maps that an encoder returns as a list.
    """
    import torch
    from torch import nn
    from torch.nn.modules.module import register_module_forward_hook

    names: dict[nn.Module, str] = {}
    for name, child in getattr(model, "net", model).named_children():
        blocks = getattr(child, "blocks", child)
        if isinstance(blocks, nn.ModuleList):
            names |= {stage: f"{name} {number}" for number, stage in enumerate(blocks, 1)}
        else:
            names[child] = "head" if name == "segmentation_head" else name
    shapes: list[tuple[str, tuple[int, ...]]] = []

    def record(module: nn.Module, _inputs: object, output: Tensor | list[Tensor]) -> None:
        if module not in names:
            return
        if isinstance(output, list):  # the first one is the image
            shapes.extend((f"{names[module]} {number}", tuple(o.shape)) for number, o in enumerate(output[1:], 1))
        else:
            shapes.append((names[module], tuple(output.shape)))

    first = next(model.parameters())  # the weights of a convolution: (channels out, channels in, height, width)
    training = model.training
    with register_module_forward_hook(record), torch.no_grad():
        model.eval()(first.new_zeros(1, first.shape[1], height, width))
    model.train(training)
    return shapes


def architecture(model: nn.Module, height: int = 224, width: int = 224) -> Figure:
    """An encoder-decoder drawn as a U: a box for each stage with its output shape, lower where the image is smaller.

    The height of a box stands for the side of its feature map, the width for its channels, both on a logarithmic scale.
    """
    stages = stage_shapes(model, height, width)
    channels, sides, _ = np.array([shape[1:] for _, shape in stages]).T
    widths = 0.12 * np.log2(channels + 1)
    heights = 0.35 + 0.25 * np.log2(sides / sides.min() + 1)
    gaps = 0.75 + 0.4 * (np.diff(sides, prepend=0) == 0)  # the labels of two stages of one size stand side by side
    lefts = np.cumsum(widths + gaps) - widths
    bottoms = -1.45 * np.log2(sides[0] / sides)
    figure, axes = _subplots(figsize=(13, 6))
    axes.use_sticky_edges = False  # leaves room below the lowest box
    axes.bar(lefts, heights, widths, bottoms, align="edge", color="#cfe0f5", edgecolor="#33507a")
    for (name, shape), x, y in zip(stages, lefts + widths / 2, bottoms, strict=True):
        text = f"{name}\n{' x '.join(map(str, shape[1:]))}"
        axes.text(x, y - 0.08, text, ha="center", va="top", fontsize=8)
    arrows = [(number, number + 1, 0.5, {"color": "#33507a"}) for number in range(len(stages) - 1)]
    settings = getattr(model, "settings", {})
    has_encoder = settings.get("name") == "unet" and "encoder" in settings  # a U-Net of a library
    decoder = int(sides.argmin()) + 1  # its first stage
    if settings.get("skip") or settings.get("name") == "segnet" or has_encoder:
        for number, side in enumerate(sides[:decoder]):
            if side in sides[decoder:]:  # the deepest stage of a U-Net has no partner in the decoder
                partner = decoder + int(np.argmax(sides[decoder:] == side))
                arrows.append((number, partner, 0.9, {"color": "#c04040", "linestyle": "--"}))
    for source, target, share, style in arrows:  # from box to box, at this share of their heights
        tail = (lefts[source] + widths[source], bottoms[source] + share * heights[source])
        head = (lefts[target], bottoms[target] + share * heights[target])
        axes.annotate("", head, tail, arrowprops={"arrowstyle": "->", **style})
    name = f"{settings['name']} with {settings['encoder']}" if "encoder" in settings else type(model).__name__
    title = f"{name}: channels x height x width after each stage, for an image of {height} x {width}"
    dashed = any("linestyle" in style for *_, style in arrows)
    axes.set_title(title + ("\ndashed: what the decoder takes from the encoder" if dashed else ""))
    axes.axis("off")
    return figure
