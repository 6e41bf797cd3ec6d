"""Every figure of the course.

A function here returns a matplotlib Figure that is already closed for pyplot: as the last line of a notebook cell it is
shown once, and a script that makes a hundred leaks none. Pictures go in as uint8 (H, W, 3) arrays or (3, H, W) tensors.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyArrowPatch, Patch, Rectangle
from matplotlib.ticker import MaxNLocator, NullFormatter, PercentFormatter
from PIL import Image

from seglib.files import atomic_path
from seglib.instances import Instances
from seglib.masks import IGNORE, palette

LINES = ("-", "--", "-.", ":")
History = Sequence[Mapping[str, float]]


def save(figure: Figure | np.ndarray, path: str | Path) -> None:
    """Save a figure, or a picture uint8 (H, W, 3), aside, then rename."""
    with atomic_path(path) as aside:
        if isinstance(figure, np.ndarray):
            Image.fromarray(figure).save(aside, quality=92)
        else:
            figure.savefig(aside, bbox_inches="tight")


def as_array(picture: Any) -> np.ndarray:
    """A picture or mask as a numpy array, (H, W, 3) or (H, W), whichever of tensor and array it was."""
    array = np.asarray(picture)
    return array.transpose(1, 2, 0) if array.ndim == 3 and array.shape[0] == 3 and array.shape[2] != 3 else array


# ------------------------------------------------------------------------------------------------ pictures and masks


def colour_mask(mask: Any) -> np.ndarray:
    """A class mask (H, W) in its classes' colours: uint8 (H, W, 3); 255 is pale."""
    return palette()[as_array(mask).astype(np.uint8)]


def overlay(image: Any, mask: Any, alpha: float = 0.45) -> np.ndarray:
    """A class mask laid over its picture, outlines solid, background clear: uint8 (H, W, 3).

    Args:
        image: uint8 (H, W, 3). mask: uint8 (H, W). alpha: how much of the picture the colour hides, 0 to 1.
    """
    image, mask = as_array(image), as_array(mask).astype(np.uint8)
    if image.shape[:2] != mask.shape:
        raise ValueError(f"picture {image.shape[:2]} and mask {mask.shape} differ in size")
    edge = np.zeros(mask.shape, dtype=bool)
    edge[:, 1:] |= mask[:, 1:] != mask[:, :-1]
    edge[1:] |= mask[1:] != mask[:-1]
    opacity = np.where(edge, 1.0, alpha)[..., None] * ((mask > 0) | edge)[..., None]
    colour = palette()[np.where(edge & (mask == 0), _neighbour(mask), mask)]
    return (image * (1 - opacity) + colour * opacity).round().astype(np.uint8)


def _neighbour(mask: np.ndarray) -> np.ndarray:
    """The larger of the values to the left and above: the class whose outline runs through a background pixel."""
    padded = np.pad(mask, ((1, 0), (1, 0)))
    return np.maximum(padded[1:, :-1], padded[:-1, 1:])


def picture_grid(
    rows: Sequence[Sequence[Any]],
    titles: Sequence[str],
    labels: Sequence[str] = (),
    classes: Sequence[str] | Mapping[int, str] = (),
    title: str = "",
    void: bool = False,
    width: float = 2.3,
) -> Figure:
    """Rows of pictures under column titles, with a legend of the classes below.

    Args:
        rows: pictures (H, W, 3) as they are, masks (H, W) in their colours, None for an empty place.
        titles: one a column. labels: one a row. classes: names, background first, or some by number. void: explain 255.
        width: of a picture, in inches: a notebook full of them has to stay small enough for GitHub to show.
    """
    columns = len(titles)
    shapes = [as_array(next(cell for cell in row if cell is not None)).shape for row in rows]
    heights = [width * min(max(shape[0] / shape[1], 0.5), 1.4) for shape in shapes]
    extra = (0.35 if title else 0) + 0.3 + (0.4 if classes else 0)
    figure, axes = plt.subplots(
        len(rows),
        columns,
        figsize=(width * columns + (0.5 if labels else 0), sum(heights) + 0.25 * len(rows) + extra),
        squeeze=False,
        layout="constrained",
        height_ratios=heights,
    )
    for i, row in enumerate(rows):
        for j, cell in enumerate(row):
            axis = axes[i, j]
            axis.set(xticks=[], yticks=[])
            axis.spines[:].set_visible(False)
            if i == 0:
                axis.set_title(titles[j], fontsize=10)
            if j == 0 and labels:
                axis.set_ylabel(labels[i], fontsize=8)
            if cell is not None:
                array = as_array(cell)
                axis.imshow(colour_mask(array) if array.ndim == 2 else array, interpolation="nearest")
    if title:
        figure.suptitle(title, fontsize=12)
    if classes:
        figure.legend(
            handles=class_patches(classes, void),
            loc="outside lower center",
            ncols=min(len(classes) + void, 6),
            fontsize=9,
        )
    return _closed(figure)


def occurring(masks: Sequence[Any], classes: Sequence[str]) -> dict[int, str]:
    """The classes that occur in some masks, by number, background always: for the legend of a few of many classes."""
    seen = {0} | {value for mask in masks for value in np.unique(as_array(mask)).tolist()}
    return {number: name for number, name in enumerate(classes) if number in seen}


def class_patches(classes: Sequence[str] | Mapping[int, str], void: bool = False) -> list[Patch]:
    """Legend entries for the classes' colours."""
    named = classes.items() if isinstance(classes, Mapping) else enumerate(classes)
    entries = [*named, *([(IGNORE, "does not count (255)")] if void else [])]
    return [Patch(facecolor=palette()[index] / 255, edgecolor="grey", label=name) for index, name in entries]


def triples(samples: Sequence[tuple], classes: Sequence[str], title: str = "Image, mask and both") -> Figure:
    """Samples of a data set, a row each: image, mask, overlay.

    Args:
        samples: (image, mask, name).
    """
    rows = [(image, mask, overlay(image, mask)) for image, mask, _ in samples]
    classes = occurring([mask for _, mask, _ in samples], classes) if len(classes) > 12 else classes
    void = any((as_array(mask) == IGNORE).any() for _, mask, _ in samples)
    return picture_grid(rows, ("image", "mask", "overlay"), [name for *_, name in samples], classes, title, void)


def error_map(truth: Any, prediction: Any) -> np.ndarray:
    """Where a binary prediction is wrong: uint8 (H, W, 3), white found, red missed, blue false alarm, pale 255."""
    truth, prediction = as_array(truth), as_array(prediction)
    colours = np.full((*truth.shape, 3), 30, dtype=np.uint8)
    colours[(truth == 1) & (prediction == 1)] = 255
    colours[(truth == 1) & (prediction != 1)] = (230, 57, 70)
    colours[(truth == 0) & (prediction == 1)] = (58, 110, 230)
    colours[truth == IGNORE] = palette()[IGNORE]
    return colours


# ------------------------------------------------------------------------------------------------ curves and bars


def _runs(histories: History | Mapping[str, History]) -> dict[str, History]:
    return dict(histories) if isinstance(histories, Mapping) else {"": histories}


def loss_curves(histories: History | Mapping[str, History], title: str = "Loss") -> Figure:
    """Training (dashed) and validation loss (solid) by epoch.

    Args:
        histories: one history, or several by name.
    """
    return _curves(histories, {"train_loss": ("training", "--"), "val_loss": ("validation", "-")}, title, "loss")


def metric_curves(
    histories: History | Mapping[str, History],
    columns: Sequence[str] = ("val_iou", "val_dice"),
    title: str = "Validation metrics",
) -> Figure:
    """Columns of one or several histories by epoch, on a scale from 0 to 1, the best epoch of the first one marked."""
    styles = {column: (column.removeprefix("val_"), LINES[i % len(LINES)]) for i, column in enumerate(columns)}
    figure = _curves(histories, styles, title, "score", mark=columns[0])
    figure.axes[0].set_ylim(0, 1)
    return figure


def _curves(histories: Any, styles: Mapping[str, tuple[str, str]], title: str, ylabel: str, mark: str = "") -> Figure:
    figure, axis = plt.subplots(figsize=(7, 4), layout="constrained")
    for number, (name, history) in enumerate(_runs(histories).items()):
        epochs = [row["epoch"] for row in history]
        for column, (label, style) in styles.items():
            values = [row[column] for row in history]
            point = "o" if len(values) == 1 else ""  # a line through one point is no line
            axis.plot(epochs, values, style, marker=point, color=f"C{number}", label=f"{name} {label}".strip())
            if column == mark and not np.isnan(values).all():
                best = int(np.nanargmax(values))
                axis.plot(epochs[best], values[best], "o", color=f"C{number}")
                above = (0, 6) if number % 2 == 0 else (0, -14)  # two runs that end alike must not be written over
                axis.annotate(f"{values[best]:.3f}", (epochs[best], values[best]), above, textcoords="offset points")
    axis.set(title=title, xlabel="epoch", ylabel=ylabel)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend()
    return _closed(figure)


def grid_comparison(
    cells: Sequence[Any], column: str, best: Any = None, metric: str = "val_iou", title: str = ""
) -> Figure:
    """One column of the history of every cell of a grid, each curve named at its end.

    The first setting that varies gives the colour, the others the kind of line. The best cell's curve is thick, with
    a star at its best epoch; a cross marks the epoch after which a cell over-fits (see `seglib.runs.overfits_after`).
    Losses are drawn on a logarithmic scale.

    Args:
        cells: of a `seglib.grid.Grid`. column: of their histories. best: the cell to make stand out.
        metric: the column that says which epoch of that cell was best.
    """
    cells, nothing = [cell for cell in cells if cell.history], [cell for cell in cells if not cell.history]
    there = cells[0].history[0] if cells else {column: 0, metric: 0}
    if column not in there or metric not in there:
        raise ValueError(f"no column {column!r} and {metric!r} in the history; there are {', '.join(there)}")
    varies = [name for name in (cells[0].settings if cells else ()) if len({cell.settings[name] for cell in cells}) > 1]
    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    ends = []
    for cell in cells:
        colour, line = _look(cell, cells, varies)
        epochs, values = [row["epoch"] for row in cell.history], [row[column] for row in cell.history]
        width, point = (3.0 if cell is best else 1.5), ("." if len(values) == 1 else "")
        axis.plot(epochs, values, linestyle=line, marker=point, color=colour, linewidth=width)
        if cell.overfits_after is not None:
            axis.plot(cell.overfits_after, values[cell.overfits_after - 1], "X", color=colour, markersize=9, zorder=3)
        if cell is best:
            at = cell.best_row(metric)
            axis.plot(at["epoch"], at[column], "*", color=colour, markeredgecolor="black", markersize=17, zorder=4)
        ended = "" if cell.status == "finished" else f" ({cell.status})"
        name = ", ".join(str(cell.settings[setting]) for setting in varies) or cell.name
        ends.append((epochs[-1], values[-1], name + ended, colour))
    drawn = [row[column] for cell in cells for row in cell.history]
    if "loss" in column and drawn and not min(drawn) <= 0:
        axis.set_yscale("log")
        axis.yaxis.set_major_formatter("{x:g}")
        axis.yaxis.set_minor_formatter("{x:g}" if max(drawn) < 10 * min(drawn) else NullFormatter())
    axis.set(title=title or f"{column} of every cell", xlabel="epoch", ylabel=column)
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3, which="both")
    heading = [f"colour: {name}" for name in varies[:1]] + [f"line: {', '.join(varies[1:])}"] * (len(varies) > 1)
    _name_ends(axis, ends, "\n".join(heading))
    if nothing:
        listed = "; ".join(f"{cell.name} ({cell.status})" for cell in nothing)
        figure.supxlabel(f"without a curve: {listed}", fontsize=8, wrap=True)
    marks = [("*", f"best cell, at its best epoch by {metric}")] * (best is not None)
    marks += [("X", "over-fits from here on")] * any(cell.overfits_after is not None for cell in cells)
    grey = {"color": "grey", "linestyle": "", "markersize": 10}
    if marks:
        axis.legend(handles=[Line2D([], [], marker=mark, label=text, **grey) for mark, text in marks], fontsize=9)
    return _closed(figure)


def _look(cell: Any, cells: Sequence[Any], varies: Sequence[str]) -> tuple[str, Any]:
    """Colour and kind of line of a cell: each value of the first setting has a colour, those of the rest a line."""
    first = list(dict.fromkeys(other.settings[name] for other in cells for name in varies[:1]))
    rest = list(dict.fromkeys(tuple(other.settings[name] for name in varies[1:]) for other in cells))
    colour = first.index(cell.settings[varies[0]]) if varies else 0
    line = rest.index(tuple(cell.settings[name] for name in varies[1:]))
    return f"C{colour % 10}", (*LINES, (0, (1, 4)), (0, (8, 2, 1, 2, 1, 2)))[line % 6]


def _name_ends(axis: Any, ends: Sequence[tuple[float, float, str, str]], heading: str) -> None:
    """Write names right of where curves end, with a line from each to its curve.

    Args:
        ends: x, y, name and colour of each.
    """
    axis.set_xlim(right=1.02 * max((x for x, *_ in ends), default=1))
    ends = [end for end in ends if np.isfinite(end[1])]
    to_axis = axis.transData + axis.transAxes.inverted()
    heights = [float(np.clip(to_axis.transform((x, y))[1], 0, 0.97)) for x, y, *_ in ends]
    for (x, y, name, colour), height in zip(ends, _moved_apart(heights), strict=True):
        line = {"arrowstyle": "-", "color": colour, "linewidth": 0.6, "alpha": 0.6, "relpos": (0, 0.5)}
        place = {"xytext": (1.04, height), "textcoords": "axes fraction", "va": "center", "annotation_clip": False}
        axis.annotate(name, (x, y), color=colour, fontsize=9, arrowprops=line, **place)
    axis.text(1.04, 1.01, heading, transform=axis.transAxes, fontsize=9, weight="bold")


def _moved_apart(heights: Sequence[float], top: float = 0.97, gap: float = 0.05) -> list[float]:
    """Heights in the same order, none within a line of text (`gap`) of another, none above `top`."""
    order, places = sorted(range(len(heights)), key=lambda i: heights[i]), list(heights)
    for below, i in zip(order, order[1:], strict=False):
        places[i] = max(places[i], places[below] + gap)
    for above, i in zip([None, *order[::-1]], order[::-1], strict=False):  # those that this has pushed out at the top
        places[i] = min(places[i], top if above is None else places[above] - gap)
    return places


def class_balance(pixels: Mapping[str, int], images: Mapping[str, int], total_images: int) -> Figure:
    """Two bar charts: the share of all pixels each class has, and the share of images on which it occurs."""
    figure, axes = plt.subplots(1, 2, figsize=(9, 0.45 * len(pixels) + 1.4), layout="constrained", sharey=True)
    share = {name: count / max(sum(pixels.values()), 1) for name, count in pixels.items()}
    occurs = {name: images[name] / max(total_images, 1) for name in pixels}
    colours = palette(len(pixels)) / 255
    for axis, values, title in ((axes[0], share, "share of all pixels"), (axes[1], occurs, "occurs on")):
        bars = axis.barh(list(values), list(values.values()), color=colours, edgecolor="grey")
        axis.bar_label(bars, [f"{value:.1%}" for value in values.values()], padding=3, fontsize=9)
        axis.set(title=title, xlim=(0, 1.2), xticks=np.arange(0, 1.1, 0.2))
        axis.xaxis.set_major_formatter(PercentFormatter(1))
    axes[0].set_xlabel("pixels that count")
    axes[1].set_xlabel("images")
    axes[0].invert_yaxis()
    return _closed(figure)


def class_scores(scores: Mapping[str, Sequence[float]], classes: Sequence[str], noise: Sequence[str] = ()) -> Figure:
    """IoU of each class, a bar a model.

    Args:
        scores: the IoU of every class, by model; NaN has no bar. noise: classes too rare for their score to mean much.
    """
    figure, axis = plt.subplots(figsize=(9, 3.6), layout="constrained")
    places, width = np.arange(len(classes)), 0.8 / len(scores)
    for number, (name, values) in enumerate(scores.items()):
        offset = (number - (len(scores) - 1) / 2) * width
        bars = axis.bar(places + offset, np.nan_to_num(values), width, label=name)
        axis.bar_label(bars, ["n/a" if np.isnan(value) else f"{value:.2f}" for value in values], fontsize=7)
    axis.set(title="IoU of each class on the test images", ylabel="IoU", ylim=(0, 1.05))
    turned = {"rotation": 30, "ha": "right"} if len(classes) > 8 else {}  # else long names lie over each other
    axis.set_xticks(places, [f"{name}\n(noise)" if name in noise else name for name in classes], **turned)
    axis.grid(axis="y", alpha=0.3)
    axis.legend(fontsize=9)
    return _closed(figure)


def confusion(matrix: Any, classes: Sequence[str], title: str = "Confusion") -> Figure:
    """A confusion matrix, each row as shares of the true class's pixels; a class that never occurs has an empty row.

    Args:
        matrix: (C, C) counts, rows are the truth, columns the prediction.
    """
    counts = np.asarray(matrix, dtype=float)
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full_like(counts, np.nan), where=totals > 0)
    many = len(classes) > 8
    side = 1.6 + (0.5 if many else 0.75) * len(classes)
    figure, axis = plt.subplots(figsize=(side + 1, side), layout="constrained")
    picture = axis.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    for row, column in np.argwhere(~np.isnan(shares)):
        colour = "white" if shares[row, column] > 0.6 else "black"
        text = f"{shares[row, column]:.2f}"
        axis.text(column, row, text, ha="center", va="center", color=colour, fontsize=7 if many else 9)
    axis.set_xticks(range(len(classes)), classes, rotation=30, ha="right")
    axis.set_yticks(range(len(classes)), classes)
    axis.set(title=title, xlabel="predicted", ylabel="true")
    figure.colorbar(picture, label="share of the true class's pixels", shrink=0.8)
    return _closed(figure)


# ------------------------------------------------------------------------------------------------ objects


def objects(image: Any, found: Instances, alpha: float = 0.45) -> np.ndarray:
    """The objects of an image laid over it, each in a colour of its own: uint8 (H, W, 3).

    Neighbours in the list differ in colour; of twenty colours the first comes again.
    """
    numbers = found.numbered()
    return overlay(image, np.where(numbers > 0, (numbers - 1) % 20 + 1, 0), alpha)


def object_sizes(areas: Mapping[str, Sequence[float]], ranges: Mapping[str, tuple[float, float]]) -> Figure:
    """How large objects are: the share of each part's objects by the side of a square of their area.

    Args:
        areas: pixels of each object, by part. ranges: from ... to, in pixels, by name; their limits are drawn.
    """
    figure, axis = plt.subplots(figsize=(8, 3.4), layout="constrained")
    sides = {name: np.sqrt(np.maximum(values, 1)) for name, values in areas.items()}
    bins = np.geomspace(1, max((1.1, *(float(side.max()) for side in sides.values() if len(side)))) * 1.05, 25)
    for number, (name, side) in enumerate(sides.items()):
        weights = np.full(len(side), 1 / max(len(side), 1))
        label = f"{name}: {len(side)} objects"
        axis.hist(side, bins, weights=weights, histtype="step", linestyle=LINES[number % 4], linewidth=1.8, label=label)
    for name, (low, high) in ranges.items():
        left, right = max(np.sqrt(low), bins[0]), min(np.sqrt(high), bins[-1])
        if low > 0:
            axis.axvline(np.sqrt(low), color="grey", linewidth=1)
        if left < right:
            top = {"transform": axis.get_xaxis_transform(), "ha": "center", "color": "grey"}
            axis.text(np.sqrt(left * right), 1.01, name, **top)
    axis.set(xscale="log", xlabel="side of a square of the same area, in pixels", ylabel="share of the objects")
    axis.xaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_title("How large objects are", pad=18)
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return _closed(figure)


def precision_recall(measured: Mapping[str, Any], ious: Sequence[float] = (0.5, 0.75, 0.9)) -> Figure:
    """Precision by recall, a colour a model, a line a threshold of IoU.

    Args:
        measured: a `seglib.evaluate.MaskAP` by name.
    """
    figure, axis = plt.subplots(figsize=(6, 4.2), layout="constrained")
    for number, (name, one) in enumerate(measured.items()):
        for line, iou in zip(LINES, ious, strict=False):
            label = f"{name} IoU {iou:.2f}: AP {np.nanmean(one.curve(iou)):.3f}".strip()
            axis.plot(one.recall, one.curve(iou), line, color=f"C{number}" if len(measured) > 1 else None, label=label)
    axis.set(title="Precision and recall of masks", xlabel="recall: objects found", xlim=(0, 1), ylim=(0, 1.02))
    axis.set_ylabel("precision: detections that are right")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return _closed(figure)


def thresholds(counts: Sequence[Any], chosen: float | None = None, title: str = "How sure is sure enough?") -> Figure:
    """Precision, recall and F1 by the score from which a detection is taken for an object.

    Args:
        counts: a `seglib.evaluate.Counts` for each score. chosen: a score to mark.
    """
    figure, axis = plt.subplots(figsize=(6.5, 3.8), layout="constrained")
    scores = [one.score for one in counts]
    for name, line in (("precision", "--"), ("recall", "-."), ("f1", "-")):
        label = {"f1": "F1, their harmonic mean"}.get(name, name)
        axis.plot(scores, [getattr(one, name) for one in counts], line, marker=".", label=label)
    if chosen is not None:
        axis.axvline(chosen, color="grey", linewidth=1, label=f"chosen: {chosen:.2f}")
    axis.set(title=title, xlabel="lowest score that counts", ylabel="share", xlim=(0, 1), ylim=(0, 1.02))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9)
    return _closed(figure)


def counted(true: Sequence[int], found: Sequence[int], what: str = "objects") -> Figure:
    """How many objects were found on each image by how many there are; images alike share a larger point."""
    figure, axis = plt.subplots(figsize=(4.6, 4.4), layout="constrained")
    points, sizes = np.unique(np.stack([true, found], axis=1), axis=0, return_counts=True)
    most = 1.05 * max(points.max(), 1)
    axis.plot([0, most], [0, most], "--", color="grey", label="as many as there are")
    axis.scatter(*points.T, s=25 * sizes, alpha=0.7, label=f"{len(true)} images")
    axis.set(title=f"Counting {what}", xlabel=f"{what} there are", ylabel=f"{what} found", aspect="equal")
    axis.set(xlim=(-0.03 * most, most), ylim=(-0.03 * most, most))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.yaxis.set_major_locator(MaxNLocator(integer=True))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="upper left")
    return _closed(figure)


def kept_shares(ious: Mapping[str, Sequence[float]], title: str) -> Figure:
    """How much of each mask is left: for every IoU, the share of the masks that keep less than that."""
    figure, axis = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for number, (name, values) in enumerate(ious.items()):
        values = np.sort(values)
        label = f"{name}: mean {values.mean():.3f}, {np.mean(values < 0.99):.1%} below 0.99"
        heights = np.arange(1, len(values) + 1) / len(values)
        axis.step(values, heights, where="post", linestyle=LINES[number % 4], linewidth=2, label=label)
    axis.set(title=title, xlabel="IoU of a mask before and after", ylabel="share of masks up to there", xlim=(0, 1.01))
    axis.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=9, loc="upper left")
    return _closed(figure)


# ------------------------------------------------------------------------------------------------ architectures


def stage_shapes(model: Any, height: int, width: int) -> list[tuple[str, tuple[int, ...]]]:
    """The name and output shape of each stage of a model, in the order they run, for one image of that size.

    Stages are the model's children; lists of modules count one by one.
    """
    import torch
    from torch import nn

    seen: list[tuple[str, tuple[int, ...]]] = []
    hooks = []
    for name, child in model.named_children():
        parts = child.named_children() if isinstance(child, nn.ModuleList) else [("", child)]
        for number, part in parts:
            label = f"{name} {int(number) + 1}" if number else name
            hooks.append(
                part.register_forward_hook(lambda _m, _i, out, label=label: seen.append((label, tuple(out.shape))))
            )
    training = model.training
    device = next(model.parameters()).device
    with torch.no_grad():
        model.eval()(torch.zeros(1, model.settings.get("in_channels", 3), height, width, device=device))
    model.train(training)
    for hook in hooks:
        hook.remove()
    return seen


def architecture(model: Any, height: int = 224, width: int = 224) -> Figure:
    """An encoder-decoder drawn as the U it is: a box a stage, lower where the picture is smaller, with its shape.

    The box's height stands for the picture's side, its width for the channels, both on a logarithmic scale.
    """
    stages = stage_shapes(model, height, width)
    figure, axis = plt.subplots(figsize=(13, 6), layout="constrained")
    deepest = min(shape[2] for _, shape in stages)
    levels = [np.log2(stages[0][1][2] / shape[2]) for _, shape in stages]
    x, centres, tops = 0.0, [], []
    for (name, shape), level in zip(stages, levels, strict=True):
        box_width, box_height = 0.12 * np.log2(shape[1] + 1), 0.35 + 0.25 * np.log2(shape[2] / deepest + 1)
        base = -1.45 * level
        axis.add_patch(Rectangle((x, base), box_width, box_height, facecolor="#cfe0f5", edgecolor="#33507a"))
        text = f"{name}\n{shape[1]} x {shape[2]} x {shape[3]}"
        axis.text(x + box_width / 2, base - 0.08, text, ha="center", va="top", fontsize=8)
        centres.append((x, x + box_width, base + box_height / 2))
        tops.append(base + box_height)
        x += box_width + 0.75
    for (_, right, y0), (left, _, y1) in zip(centres, centres[1:], strict=False):
        axis.add_patch(FancyArrowPatch((right, y0), (left, y1), arrowstyle="->", mutation_scale=12, color="#33507a"))
    carried = ["skip connection"] if getattr(model, "skip", False) else []
    carried += ["indices of the maxima"] if getattr(model, "settings", {}).get("upsampling") == "indices" else []
    if carried:
        bottom = int(np.argmax(levels))
        for i in range(bottom + 1):
            j = next((j for j in range(bottom + 1, len(levels)) if levels[j] == levels[i]), None)
            if j is None:  # the bottom of a U-Net; in a SegNet a pooling lies below the deepest stage
                continue
            ends = (centres[i][1], tops[i] - 0.1), (centres[j][0], tops[j] - 0.1)
            axis.add_patch(FancyArrowPatch(*ends, arrowstyle="->", mutation_scale=12, linestyle="--", color="#c04040"))
    axis.plot([], [], color="#33507a", label="feature maps")
    if carried:
        axis.plot([], [], "--", color="#c04040", label=", ".join(carried))
    axis.legend(loc="lower right")
    axis.set(xlim=(-0.6, x), ylim=(-1.45 * max(levels) - 0.9, max(tops) + 0.3))
    axis.set_title(
        f"{type(model).__name__}: channels x height x width after each stage, for a 1x3x{height}x{width} input"
    )
    axis.axis("off")
    return _closed(figure)


def _closed(figure: Figure) -> Figure:
    plt.close(figure)
    return figure
