"""The figures of the course.

Each function returns a matplotlib Figure that pyplot has already closed. As the last line of a notebook cell it is
shown once, and a script may draw many of them without leaking memory. Images are uint8 (H, W, 3) arrays or (3, H, W)
tensors, masks are uint8 (H, W) class indices.

matplotlib is imported when the first figure is drawn: `overlay`, `color_mask` and `draw_instances` work without it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from PIL import Image

from seglib.files import atomic_path
from seglib.masks import IGNORE, palette

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch, Rectangle
    from torch import Tensor, nn
    from torch.utils.hooks import RemovableHandle

    from seglib.instances import Instances

    ImageLike = np.ndarray | Tensor

__all__ = [
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
    "iou_ecdf",
    "loss_curves",
    "metric_curves",
    "overlay",
    "picture_grid",
    "present_classes",
    "save",
    "size_histogram",
    "stage_shapes",
    "triples",
]

_History = Sequence[Mapping[str, float]]

_LINE_STYLES = ("-", "--", "-.", ":", (0, (1, 4)), (0, (8, 2, 1, 2, 1, 2)))
_BLUE = "#33507a"
_RED = "#c04040"


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


def _as_array(image: ImageLike) -> np.ndarray:
    """An image or a mask as an array, channels last."""
    array = np.asarray(image)
    channels_first = array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3
    return array.transpose(1, 2, 0) if channels_first else array


# ------------------------------------------------------------------------------------------------ images and masks


def color_mask(mask: ImageLike) -> np.ndarray:
    """A class mask (H, W) in the colors of its classes: uint8 (H, W, 3). The value 255 is pale."""
    return palette()[_as_array(mask).astype(np.uint8)]


def overlay(image: ImageLike, mask: ImageLike, alpha: float = 0.45) -> np.ndarray:
    """An image with a class mask drawn over it: uint8 (H, W, 3). Outlines are opaque, the background is untouched.

    Args:
        image: uint8 (H, W, 3).
        mask: uint8 (H, W).
        alpha: the opacity of the colors, from 0 to 1.

    Raises:
        ValueError: image and mask differ in size.
    """
    image = _as_array(image)
    mask = _as_array(mask).astype(np.uint8)
    if image.shape[:2] != mask.shape:
        raise ValueError(f"the image has the size {image.shape[:2]} but the mask {mask.shape} (height, width)")
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    opacity = np.where(edge, 1.0, alpha)[..., None] * ((mask > 0) | edge)[..., None]
    padded = np.pad(mask, ((1, 0), (1, 0)))
    neighbor = np.maximum(padded[1:, :-1], padded[:-1, 1:])  # the class whose outline runs through a background pixel
    color = palette()[np.where(edge & (mask == 0), neighbor, mask)]
    return (image * (1 - opacity) + color * opacity).round().astype(np.uint8)


def draw_instances(image: ImageLike, instances: Instances, alpha: float = 0.45) -> np.ndarray:
    """An image with its instances drawn over it, each in one of twenty colors, which repeat: uint8 (H, W, 3)."""
    numbers = instances.numbered()
    return overlay(image, np.where(numbers > 0, (numbers - 1) % 20 + 1, 0), alpha)


def error_map(truth: ImageLike, prediction: ImageLike) -> np.ndarray:
    """The errors of a binary prediction: uint8 (H, W, 3).

    True positives are white, false negatives red, false positives blue, true negatives dark, and pixels of 255 pale.
    """
    truth = _as_array(truth)
    prediction = _as_array(prediction)
    colors = np.full((*truth.shape, 3), 30, dtype=np.uint8)
    colors[(truth == 1) & (prediction == 1)] = 255
    colors[(truth == 1) & (prediction != 1)] = (230, 57, 70)
    colors[(truth == 0) & (prediction == 1)] = (58, 110, 230)
    colors[truth == IGNORE] = palette()[IGNORE]
    return colors


def picture_grid(
    rows: Sequence[Sequence[ImageLike | None]],
    titles: Sequence[str],
    labels: Sequence[str] = (),
    classes: Sequence[str] | Mapping[int, str] = (),
    title: str = "",
    void: bool = False,
    width: float = 2.3,
) -> Figure:
    """Rows of images and masks, with a legend of the classes below.

    Args:
        rows: images (H, W, 3), masks (H, W) to be drawn in the colors of their classes, None for an empty place.
        titles: the title of each column.
        labels: the label of each row.
        classes: the classes of the legend: names, background first, or some of them by class index.
        void: whether the legend explains the value 255.
        width: the width of an image in inches. Keep it small: GitHub does not show large notebooks.
    """
    shapes = [_as_array(next(cell for cell in row if cell is not None)).shape for row in rows]
    heights = [width * min(max(shape[0] / shape[1], 0.5), 1.4) for shape in shapes]
    figure_width = width * len(titles) + (0.5 if labels else 0)
    figure_height = sum(heights) + 0.25 * len(rows) + 0.3 + (0.35 if title else 0) + (0.4 if classes else 0)
    layout = {"squeeze": False, "figsize": (figure_width, figure_height), "height_ratios": heights}
    figure, grid = _subplots(nrows=len(rows), ncols=len(titles), **layout)
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            _show_image(grid[i, j], cell)
        if labels:
            grid[i, 0].set_ylabel(labels[i], fontsize=8)
    for axes, column_title in zip(grid[0], titles, strict=True):
        axes.set_title(column_title, fontsize=10)
    if title:
        figure.suptitle(title, fontsize=12)
    if classes:
        entries = _class_patches(classes, void)
        figure.legend(handles=entries, loc="outside lower center", ncols=min(len(entries), 6), fontsize=9)
    return figure


def _show_image(axes: Axes, image: ImageLike | None) -> None:
    """Draw an image, a mask in the colors of its classes, or nothing, without ticks or a frame."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    if image is not None:
        array = _as_array(image)
        axes.imshow(color_mask(array) if array.ndim == 2 else array, interpolation="nearest")


def _class_patches(classes: Sequence[str] | Mapping[int, str], void: bool) -> list[Patch]:
    """The entries of a legend of classes."""
    from matplotlib.patches import Patch

    names = dict(classes) if isinstance(classes, Mapping) else dict(enumerate(classes))
    if void:
        names[IGNORE] = "does not count (255)"
    return [Patch(facecolor=palette()[index] / 255, edgecolor="gray", label=name) for index, name in names.items()]


def present_classes(masks: Sequence[ImageLike], classes: Sequence[str]) -> dict[int, str]:
    """The names of background and of the classes that occur in some masks, by class index."""
    present = {0}
    for mask in masks:
        present.update(np.unique(_as_array(mask)).tolist())
    return {index: name for index, name in enumerate(classes) if index in present}


def triples(
    samples: Sequence[tuple[ImageLike, ImageLike, str]], classes: Sequence[str], title: str = "Image, mask and both"
) -> Figure:
    """Samples of a data set, one in each row: image, mask, overlay.

    Args:
        samples: (image, mask, name) of each sample.
        classes: the names of all classes. If there are more than twelve, the legend shows those that occur.
    """
    rows = [(image, mask, overlay(image, mask)) for image, mask, _ in samples]
    masks = [mask for _, mask, _ in samples]
    legend = present_classes(masks, classes) if len(classes) > 12 else classes
    void = any((_as_array(mask) == IGNORE).any() for mask in masks)
    return picture_grid(rows, ("image", "mask", "overlay"), [name for *_, name in samples], legend, title, void)


# ------------------------------------------------------------------------------------------------ training curves


def loss_curves(histories: _History | Mapping[str, _History], title: str = "Loss") -> Figure:
    """Training loss (dashed) and validation loss (solid) by epoch, of one history or of several by name."""
    styles = {"train_loss": ("training", "--"), "val_loss": ("validation", "-")}
    return _history_curves(histories, styles, title, "loss")


def metric_curves(
    histories: _History | Mapping[str, _History],
    columns: Sequence[str] = ("val_iou", "val_dice"),
    title: str = "Validation metrics",
) -> Figure:
    """Metrics from 0 to 1 by epoch, of one history or of several by name.

    A dot marks the best epoch of each history by the first column.
    """
    labels = [column.removeprefix("val_") for column in columns]
    styles = dict(zip(columns, zip(labels, cycle(_LINE_STYLES)), strict=True))
    figure = _history_curves(histories, styles, title, "score", columns[0])
    figure.axes[0].set_ylim(0, 1)
    return figure


def _history_curves(
    histories: _History | Mapping[str, _History],
    styles: Mapping[str, tuple[str, Any]],
    title: str,
    ylabel: str,
    marked: str = "",
) -> Figure:
    """Columns of histories by epoch, a color for each history, with a label and a line style for each column.

    The highest value of the column `marked` has a dot and a number.
    """
    figure, axes = _epoch_axes(title, ylabel, (7, 4))
    named = histories if isinstance(histories, Mapping) else {"": histories}
    for number, (name, history) in enumerate(named.items()):
        color = f"C{number}"
        for column, (label, style) in styles.items():
            _plot_column(axes, history, column, linestyle=style, color=color, label=f"{name} {label}".strip())
        scores = [(row[marked], row["epoch"]) for row in history if marked and not np.isnan(row[marked])]
        if scores:
            score, epoch = max(scores, key=lambda pair: pair[0])
            axes.plot(epoch, score, "o", color=color)
            offset = 6 if number % 2 == 0 else -14  # points above: numbers of two runs that end alike must not overlap
            axes.annotate(f"{score:.3f}", (epoch, score), (0, offset), textcoords="offset points", ha="center")
    axes.legend()
    return figure


def _epoch_axes(title: str, ylabel: str, size: tuple[float, float]) -> tuple[Figure, Axes]:
    """A figure whose x axis shows epochs."""
    figure, axes = _subplots(figsize=size)
    axes.set(title=title, xlabel="epoch", ylabel=ylabel)
    axes.locator_params(axis="x", integer=True)
    axes.grid(alpha=0.3, which="both")
    return figure, axes


def _plot_column(axes: Axes, history: _History, column: str, **style: Any) -> None:
    """Draw a column of a history by epoch. A single epoch is a point, since a line through it would be invisible."""
    marker = "o" if len(history) == 1 else ""
    axes.plot([row["epoch"] for row in history], [row[column] for row in history], marker=marker, **style)


class _Cell(Protocol):
    """What `grid_comparison` needs of a `seglib.grid.Cell`."""

    settings: Any
    status: str

    @property
    def history(self) -> _History: ...

    @property
    def overfits_after(self) -> int | None: ...

    def best_row(self, metric: str) -> Mapping[str, float] | None: ...


def grid_comparison(
    cells: Sequence[_Cell], column: str, best: _Cell | None = None, metric: str = "val_iou", title: str = ""
) -> Figure:
    """A column of the history of every cell of a grid, by epoch.

    The first setting that varies decides the color of a curve, the others its line style. The curve of the best cell
    is thick, with a star at its best epoch. A cross marks the epoch after which a cell over-fits, by the rule of
    `seglib.runs.overfits_after`. Losses have a logarithmic scale.

    Args:
        cells: the cells of a `seglib.grid.Grid`.
        column: a column of their histories.
        best: the cell to emphasize.
        metric: the column by which the best epoch of that cell is chosen.

    Raises:
        ValueError: the histories have no such column.
    """
    columns = next((list(cell.history[0]) for cell in cells if cell.history), [column, metric])
    for name in (column, metric):
        if name not in columns:
            raise ValueError(f"no column {name!r} in the history; its columns are {', '.join(columns)}")
    figure, axes = _epoch_axes(title or f"{column} of every cell", column, (9, 5))
    settings = list(cells[0].settings)
    varying = [name for name in settings if len({cell.settings[name] for cell in cells}) > 1] or settings
    keys = [tuple(cell.settings[name] for name in varying) for cell in cells]
    colors = list(dict.fromkeys(key[:1] for key in keys))
    styles = list(dict.fromkeys(key[1:] for key in keys))
    for cell, key in zip(cells, keys, strict=True):
        color = f"C{colors.index(key[:1]) % 10}"
        style = _LINE_STYLES[styles.index(key[1:]) % len(_LINE_STYLES)]
        label = ", ".join(map(str, key)) + ("" if cell.status == "finished" else f" ({cell.status})")
        width = 3.0 if cell is best else 1.5
        _plot_column(axes, cell.history, column, color=color, linestyle=style, linewidth=width, label=label)
        if cell.overfits_after is not None:
            axes.plot(cell.overfits_after, cell.history[cell.overfits_after - 1][column], "X", color=color, ms=9)
        best_row = cell.best_row(metric) if cell is best else None
        if best_row is not None:
            axes.plot(best_row["epoch"], best_row[column], "*", color=color, mec="black", ms=17, zorder=4)
    if best is not None:
        axes.plot([], [], "*", color="gray", ms=12, label=f"best cell, at its best\nepoch by {metric}")
    if any(cell.overfits_after is not None for cell in cells):
        axes.plot([], [], "X", color="gray", ms=9, label="over-fits from here on")
    if "loss" in column:
        _use_log_scale(axes, [row[column] for cell in cells for row in cell.history])
    figure.legend(loc="outside right upper", title=", ".join(varying), fontsize=9)
    return figure


def _use_log_scale(axes: Axes, values: Sequence[float]) -> None:
    """Make the y axis logarithmic, with plain numbers at its ticks, if all values are positive."""
    if values and min(values) > 0:
        axes.set_yscale("log")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}" if max(values) < 10 * min(values) else "")


# ------------------------------------------------------------------------------------------------ data and results


def curves(
    x: Sequence[float] | np.ndarray,
    values: Mapping[str, Sequence[float] | np.ndarray],
    title: str,
    xlabel: str,
    ylabel: str,
    chosen: float | None = None,
) -> Figure:
    """Curves by label over one x axis, with both axes from 0 to 1. A vertical line marks the chosen x."""
    figure, axes = _subplots(figsize=(6.5, 4))
    for (label, y), style in zip(values.items(), cycle(_LINE_STYLES)):
        axes.plot(x, y, linestyle=style, label=label)
    if chosen is not None:
        axes.axvline(chosen, color="gray", linewidth=1, label=f"chosen: {chosen:.2f}")
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel, xlim=(0, 1.005), ylim=(0, 1.02))
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def iou_ecdf(ious: Mapping[str, Sequence[float]], title: str) -> Figure:
    """The share of masks up to each IoU (the empirical distribution), a curve for each named list of IoUs."""
    figure, axes = _subplots(figsize=(7, 3.6))
    for (name, values), style in zip(ious.items(), cycle(_LINE_STYLES)):
        label = f"{name}: mean {np.mean(values):.3f}, {np.mean(np.less(values, 0.99)):.1%} below 0.99"
        axes.ecdf(values, linestyle=style, linewidth=2, label=label)
    axes.set(title=title, xlabel="IoU of a mask before and after", ylabel="share of masks up to there", xlim=(0, 1.01))
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="upper left")
    return figure


def class_balance(pixels: Mapping[str, int], images: Mapping[str, int], total_images: int) -> Figure:
    """Two bar charts: the share of all pixels that each class has, and the share of images on which it occurs."""
    figure, (left, right) = _subplots(ncols=2, figsize=(9, 0.45 * len(pixels) + 1.4), sharey=True)
    pixel_shares = {name: count / max(sum(pixels.values()), 1) for name, count in pixels.items()}
    image_shares = {name: images[name] / max(total_images, 1) for name in pixels}
    for axes, shares in ((left, pixel_shares), (right, image_shares)):
        bars = axes.barh(list(shares), list(shares.values()), color=palette(len(pixels)) / 255, edgecolor="gray")
        axes.bar_label(bars, [f"{share:.1%}" for share in shares.values()], padding=3, fontsize=9)
        axes.set(xlim=(0, 1.2), xticks=np.arange(0, 1.1, 0.2))
        axes.xaxis.set_major_formatter("{x:.0%}")
    left.set(title="share of all pixels", xlabel="pixels that count")
    right.set(title="occurs on", xlabel="images")
    left.invert_yaxis()
    return figure


def class_scores(scores: Mapping[str, Sequence[float]], classes: Sequence[str], noise: Sequence[str] = ()) -> Figure:
    """A bar chart of the IoU of each class, with a bar for each model.

    Args:
        scores: the IoU of every class, by model. NaN has no bar.
        classes: the names of the classes.
        noise: classes that are too rare for their IoU to mean much.
    """
    figure, axes = _subplots(figsize=(9, 3.6))
    places = np.arange(len(classes))
    width = 0.8 / len(scores)
    for number, (name, values) in enumerate(scores.items()):
        offset = (number - (len(scores) - 1) / 2) * width
        bars = axes.bar(places + offset, np.nan_to_num(values), width, label=name)
        axes.bar_label(bars, ["n/a" if np.isnan(value) else f"{value:.2f}" for value in values], fontsize=7)
    axes.set(title="IoU of each class on the test images", ylabel="IoU", ylim=(0, 1.05))
    rotation = {"rotation": 30, "ha": "right"} if len(classes) > 8 else {}  # otherwise long names would overlap
    axes.set_xticks(places, [f"{name}\n(noise)" if name in noise else name for name in classes], **rotation)
    axes.grid(axis="y", alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def confusion_matrix(matrix: ImageLike, classes: Sequence[str], title: str = "Confusion") -> Figure:
    """A confusion matrix, each row as shares of the pixels of the true class. A class that never occurs has no numbers.

    Args:
        matrix: (C, C) counts, rows are the truth, columns the prediction.
        classes: the names of the C classes.
    """
    counts = np.asarray(matrix, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    many = len(classes) > 8
    side = 1.6 + (0.5 if many else 0.75) * len(classes)
    figure, axes = _subplots(figsize=(side + 1, side))
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.argwhere(~np.isnan(shares)):
        color = "white" if shares[row, column] > 0.6 else "black"
        text = f"{shares[row, column]:.2f}"
        axes.text(column, row, text, ha="center", va="center", color=color, fontsize=7 if many else 9)
    axes.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axes.set_yticks(range(len(classes)), classes)
    axes.set(title=title, xlabel="predicted", ylabel="true")
    figure.colorbar(image, label="share of the true class's pixels", shrink=0.8)
    return figure


def size_histogram(areas: Mapping[str, Sequence[float]], ranges: Mapping[str, tuple[float, float]]) -> Figure:
    """Histograms of the size of objects, which is the side of a square of the same area.

    Args:
        areas: the area of each object in pixels, by split.
        ranges: the smallest and the largest area of each size in pixels, by name. Their limits are drawn.
    """
    figure, axes = _subplots(figsize=(8, 3.4))
    sides = {name: np.sqrt(np.maximum(values, 1)) for name, values in areas.items()}
    largest = max([1.1, *(float(values.max()) for values in sides.values() if len(values))])
    bins = np.geomspace(1, 1.05 * largest, 25)
    for (name, values), style in zip(sides.items(), cycle(_LINE_STYLES)):
        weights = np.full(len(values), 1 / max(len(values), 1))
        label = f"{name}: {len(values)} objects"
        axes.hist(values, bins, weights=weights, histtype="step", linestyle=style, linewidth=1.8, label=label)
    for name, (low, high) in ranges.items():
        left = max(np.sqrt(low), bins[0])
        right = min(np.sqrt(high), bins[-1])
        if low > 0:
            axes.axvline(np.sqrt(low), color="gray", linewidth=1)
        if left < right:
            place = {"transform": axes.get_xaxis_transform(), "ha": "center"}
            axes.text(np.sqrt(left * right), 1.01, name, color="gray", **place)
    axes.set(xscale="log", xlabel="side of a square of the same area, in pixels", ylabel="share of the objects")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_major_formatter("{x:.0%}")
    axes.set_title("How large objects are", pad=18)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9)
    return figure


def count_scatter(true: Sequence[int], predicted: Sequence[int], name: str = "objects") -> Figure:
    """The number of objects found on each image, by the true number. A point is larger where images coincide."""
    figure, axes = _subplots(figsize=(4.6, 4.4))
    points, repeats = np.unique(np.stack([true, predicted], axis=1), axis=0, return_counts=True)
    limit = 1.05 * max(points.max(), 1)
    axes.plot([0, limit], [0, limit], "--", color="gray", label="equal numbers")
    axes.scatter(points[:, 0], points[:, 1], s=25 * repeats, alpha=0.7, label=f"{len(true)} images")
    axes.set(title=f"Counting {name}", xlabel=f"true number of {name}", ylabel=f"number of {name} found")
    axes.set(aspect="equal", xlim=(-0.03 * limit, limit), ylim=(-0.03 * limit, limit))
    axes.locator_params(integer=True)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=9, loc="upper left")
    return figure


# ------------------------------------------------------------------------------------------------ architectures


def stage_shapes(model: nn.Module, height: int, width: int) -> list[tuple[str, tuple[int, ...]]]:
    """The name and the output shape of each stage of a model for one image, in the order of execution.

    Stages are the children of the model. The members of a ModuleList are stages of their own.
    """
    import torch
    from torch import nn

    def record(name: str, stage: nn.Module) -> RemovableHandle:
        return stage.register_forward_hook(lambda _stage, _inputs, output: shapes.append((name, tuple(output.shape))))

    shapes: list[tuple[str, tuple[int, ...]]] = []
    hooks = []
    for name, child in model.named_children():
        if isinstance(child, nn.ModuleList):
            hooks += [record(f"{name} {number}", stage) for number, stage in enumerate(child, 1)]
        else:
            hooks.append(record(name, child))
    training = model.training
    device = next(model.parameters()).device
    channels = getattr(model, "settings", {}).get("in_channels", 3)
    with torch.no_grad():
        model.eval()(torch.zeros(1, channels, height, width, device=device))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return shapes


def architecture(model: nn.Module, height: int = 224, width: int = 224) -> Figure:
    """An encoder-decoder drawn as a U: a box for each stage with its output shape, lower where the image is smaller.

    The height of a box stands for the side of its feature map, the width for its channels, both on a logarithmic scale.
    """
    stages = stage_shapes(model, height, width)
    levels = [float(np.log2(stages[0][1][2] / shape[2])) for _, shape in stages]
    figure, axes = _subplots(figsize=(13, 6))
    boxes = _draw_stages(axes, stages, levels)
    axes.plot([], [], color=_BLUE, label="feature maps")
    for box, following in zip(boxes, boxes[1:], strict=False):
        _draw_arrow(axes, box, following, box.get_height() / 2, following.get_height() / 2, _BLUE, "-")
    connections = ["skip connection"] if getattr(model, "skip", False) else []
    if getattr(model, "settings", {}).get("upsampling") == "indices":
        connections.append("indices of the maxima")
    if connections:
        axes.plot([], [], "--", color=_RED, label=", ".join(connections))
        deepest = int(np.argmax(levels))
        for box, level in zip(boxes[: deepest + 1], levels, strict=False):
            if level in levels[deepest + 1 :]:  # the deepest stage of a U-Net has no partner in the decoder
                partner = boxes[levels.index(level, deepest + 1)]
                _draw_arrow(axes, box, partner, box.get_height() - 0.1, partner.get_height() - 0.1, _RED, "--")
    axes.legend(loc="lower right")
    top = max(box.get_y() + box.get_height() for box in boxes)
    axes.set(xlim=(-0.6, boxes[-1].get_x() + boxes[-1].get_width() + 0.75), ylim=(-1.45 * max(levels) - 0.9, top + 0.3))
    what = f"channels x height x width after each stage, for a 1x3x{height}x{width} input"
    axes.set_title(f"{type(model).__name__}: {what}")
    axes.axis("off")
    return figure


def _draw_stages(axes: Axes, stages: Sequence[tuple[str, tuple[int, ...]]], levels: Sequence[float]) -> list[Rectangle]:
    """Draw a box for each stage, from left to right, with its name and output shape below."""
    from matplotlib.patches import Rectangle

    smallest = min(shape[2] for _, shape in stages)
    boxes = []
    left = 0.0
    for (name, (_, channels, height, width)), level in zip(stages, levels, strict=True):
        box_width = 0.12 * float(np.log2(channels + 1))
        box_height = 0.35 + 0.25 * float(np.log2(height / smallest + 1))
        bottom = -1.45 * level
        box = Rectangle((left, bottom), box_width, box_height, facecolor="#cfe0f5", edgecolor=_BLUE)
        axes.add_patch(box)
        text = f"{name}\n{channels} x {height} x {width}"
        axes.text(left + box_width / 2, bottom - 0.08, text, ha="center", va="top", fontsize=8)
        boxes.append(box)
        left += box_width + 0.75
    return boxes


def _draw_arrow(
    axes: Axes, source: Rectangle, target: Rectangle, start: float, end: float, color: str, linestyle: str
) -> None:
    """Draw an arrow from the right side of one box to the left side of another, at these heights above their bases."""
    from matplotlib.patches import FancyArrowPatch

    tail = (source.get_x() + source.get_width(), source.get_y() + start)
    head = (target.get_x(), target.get_y() + end)
    arrow = FancyArrowPatch(tail, head, arrowstyle="->", mutation_scale=12, color=color, linestyle=linestyle)
    axes.add_patch(arrow)
