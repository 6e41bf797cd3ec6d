"""Figures show the numbers that they were given."""

from pathlib import Path
from unittest.mock import patch

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from matplotlib.axes import Axes

from seglib import plots
from seglib.grid import Cell
from seglib.instances import Instances
from seglib.masks import palette, voc_palette
from seglib.models import SegNet, UNet, build_model
from seglib.runs import Run

HISTORY = [
    {"epoch": 1, "train_loss": 0.9, "val_loss": 0.8, "val_iou": 0.1, "val_dice": 0.2},
    {"epoch": 2, "train_loss": 0.5, "val_loss": 0.6, "val_iou": 0.6, "val_dice": 0.7},
    {"epoch": 3, "train_loss": 0.4, "val_loss": 0.7, "val_iou": 0.5, "val_dice": 0.6},
]
IMAGE = np.full((9, 9, 3), 100, np.uint8)


def texts(artists):
    return [artist.get_text() for artist in artists]


def test_an_overlay_colors_objects_and_their_outline_and_leaves_the_background(tmp_path):
    mask = np.zeros((9, 9), np.uint8)
    mask[3:8, 3:8] = 1
    result = plots.overlay(IMAGE, mask, alpha=0.5)
    assert (result[0, 0] == 100).all()
    assert (result[3, 5] == palette()[1]).all()
    assert (np.abs(result[5, 5] - (palette()[1] / 2 + 50)) <= 1).all()
    as_tensors = plots.overlay(torch.from_numpy(IMAGE).permute(2, 0, 1), torch.from_numpy(mask), alpha=0.5)
    assert (as_tensors == result).all()
    with pytest.raises(ValueError, match=r"the image has the size \(9, 9\) but the mask \(5, 4\)"):
        plots.overlay(IMAGE, np.zeros((5, 4), np.uint8))
    plots.save(result, tmp_path / "deep" / "overlay.png")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["overlay.png"]


def test_figures_take_the_colors_of_a_data_set():
    mask = np.full((9, 9), 15, np.uint8)
    person = voc_palette()[15]
    assert (plots.color_mask(mask, voc_palette()) == person).all()
    assert (plots.overlay(IMAGE, mask, 1.0, voc_palette()) == person).all()
    figure = plots.picture_grid([[mask]], [""], classes={15: "person"}, colors=voc_palette())
    assert (figure.axes[0].get_images()[0].get_array() == person).all()
    assert np.allclose(figure.legends[0].get_patches()[0].get_facecolor()[:3], person / 255)


def test_instances_have_twenty_colors_which_repeat():
    masks = np.zeros((41, 41, 2), bool)
    masks[np.arange(41), np.arange(41)] = True
    result = plots.draw_instances(np.zeros((41, 2, 3), np.uint8), Instances.of(masks), alpha=1.0)
    assert len({tuple(row) for row in result[:20, 0].tolist()}) == 20
    assert (result[:20, 0] == result[20:40, 0]).all()


def test_a_picture_grid_has_titles_labels_and_a_legend_and_is_closed():
    mask = np.zeros((4, 6), np.uint8)
    figure = plots.picture_grid([[IMAGE, mask], [IMAGE, mask]], ["one", "two"], ["a", "b"], ["background", "cup"])
    assert [axes.get_title() for axes in figure.axes[:2]] == ["one", "two"]
    assert [axes.get_ylabel() for axes in figure.axes[::2]] == ["a", "b"]
    assert texts(figure.legends[0].get_texts()) == ["background", "cup"]
    assert not plt.get_fignums()


def test_triples_name_the_classes_that_occur():
    mask = np.array([[0, 15, 255], [15, 3, 0]], np.uint8)
    sample = (np.zeros((2, 3, 3), np.uint8), mask, "a.png")
    legend = plots.triples([sample], [f"class {number}" for number in range(21)]).legends[0]
    assert texts(legend.get_texts()) == ["class 0", "class 3", "class 15", "does not count (255)"]
    assert legend.get_patches()[2].get_facecolor()[:3] == tuple(palette()[15] / 255)


def test_loss_curves_show_the_history():
    axes = plots.loss_curves({"A": HISTORY, "B": HISTORY[:1]}).axes[0]
    lines = {line.get_label(): line for line in axes.get_lines()}
    assert list(lines) == ["A validation", "A training", "B validation", "B training"]
    assert lines["A validation"].get_xydata().tolist() == [[1, 0.8], [2, 0.6], [3, 0.7]]
    assert lines["B training"].get_marker() == "."  # a line through a single epoch would be invisible


def test_metric_curves_mark_the_best_epoch():
    nothing = [HISTORY[0] | {"val_iou": float("nan")}]
    axes = plots.metric_curves({"A": HISTORY, "B": nothing}).axes[0]
    points = {line.get_label(): line.get_xydata().tolist() for line in axes.get_lines() if line.get_marker() == "o"}
    assert points["best: 0.600"] == [[2, 0.6]]
    assert texts(axes.get_legend().get_texts()) == ["A iou", "A dice", "best: 0.600", "B iou", "B dice"]


def cell(val_losses, status="finished", **settings):
    """A cell whose training loss falls."""
    rows = [
        {"epoch": epoch, "train_loss": 1 / epoch, "val_loss": loss, "val_iou": 1 - loss}
        for epoch, loss in enumerate(val_losses, 1)
    ]
    return Cell(settings, Run(Path(), rows), status)


def test_a_grid_comparison_tells_cells_apart_and_marks_the_best_one_and_over_fitting():
    cells = [cell([0.9, 0.8, 0.7, 0.6, 0.5], lr=lr, batch=batch) for lr in (0.1, 0.01) for batch in range(6)]
    cells[4] = cell([0.9, 0.3, 0.5, 0.6, 0.7], lr=0.1, batch=4)
    with patch.object(Axes, "plot", autospec=True, side_effect=Axes.plot) as plot:
        figure = plots.grid_comparison(cells, "val_loss", best=cells[4])
    options = [call.kwargs for call in plot.mock_calls if "linestyle" in call.kwargs]
    assert len({(each["color"], each["linestyle"]) for each in options}) == 12
    lines = [line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 5]
    assert lines[4].get_ydata().tolist() == [0.9, 0.3, 0.5, 0.6, 0.7]
    assert lines[4].get_linewidth() > lines[0].get_linewidth()
    marks = {line.get_marker(): line for line in figure.axes[0].get_lines() if len(line.get_xdata()) == 1}
    assert marks["X"].get_xydata().tolist() == marks["*"].get_xydata().tolist() == [[2, 0.3]]
    legend = texts(figure.legends[0].get_texts())
    assert legend[4] == "lr=0.1,batch=4"
    assert len(legend) == 12 + 2


def test_a_grid_comparison_names_cells_that_did_not_finish():
    cells = [cell([0.9, 0.8], lr=0.1), cell([float("nan")], "diverged", lr=1.0), cell([], "out of memory", lr=10.0)]
    figure = plots.grid_comparison(cells[::-1], "val_loss")
    assert texts(figure.legends[0].get_texts())[:3] == ["lr=10.0 (out of memory)", "lr=1.0 (diverged)", "lr=0.1"]
    assert figure.axes[0].get_yscale() == "log"


def test_a_grid_comparison_by_step_counts_the_steps_of_each_cell():
    cells = [cell([0.9, 0.8], batch=1), cell([0.9, 0.3, 0.5, 0.6, 0.7], batch=2)]
    axes = plots.grid_comparison(cells, "val_loss", best=cells[1], steps=[10, 5], top=0.85).axes[0]
    assert axes.get_ylim()[1] == 0.85
    lines = [line.get_xdata() for line in axes.get_lines() if len(line.get_xdata()) > 1]
    assert [list(line) for line in lines] == [[10, 20], [5, 10, 15, 20, 25]]
    marks = {line.get_marker(): line for line in axes.get_lines() if len(line.get_xdata()) == 1}
    assert marks["X"].get_xydata().tolist() == marks["*"].get_xydata().tolist() == [[10, 0.3]]


def test_curves_show_their_values_and_the_chosen_place():
    axes = plots.curves([0.2, 0.6], {"a": [0.75, 1.0], "b": [0.5, 0.25]}, "title", "x", "y", chosen=0.6).axes[0]
    assert [line.get_ydata().tolist() for line in axes.lines[:2]] == [[0.75, 1.0], [0.5, 0.25]]
    assert axes.lines[2].get_xdata()[0] == 0.6
    assert texts(axes.get_legend().get_texts()) == ["a", "b", "chosen: 0.60"]


def test_class_balance_shows_shares_of_pixels_and_of_images():
    axes = plots.class_balance({"background": 60, "cat": 40}, {"background": 4, "cat": 1}, 4).axes[0]
    assert texts(axes.texts) == ["60.0%", "40.0%", "100.0%", "25.0%"]


def test_class_scores_show_the_iou_of_each_model():
    scores = {"A": [0.9, 0.5, float("nan")], "B": [0.8, 0.25, 0.0]}
    axes = plots.class_scores(scores, ["sky", "cat", "ball"], ["ball"]).axes[0]
    assert texts(axes.texts) == ["0.90", "0.50", "n/a", "0.80", "0.25", "0.00"]
    assert texts(axes.get_xticklabels()) == ["sky", "cat", "ball\n(noise)"]
    assert texts(axes.get_legend().get_texts()) == ["A", "B"]


def test_a_confusion_matrix_shows_shares_of_the_truth():
    axes = plots.confusion_matrix(torch.tensor([[6, 2], [0, 0]]), ["sky", "cat"]).axes[0]
    assert texts(axes.texts) == ["0.75", "0.25"]  # there is no cat
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted", "true")


def test_a_size_histogram_takes_splits_without_objects():
    axes = plots.size_histogram({"train": [400], "val": []}, {"small": (0, 100), "large": (100, 1e10)}).axes[0]
    assert sorted(texts(axes.get_legend().get_texts())) == ["train: 1 objects", "val: 0 objects"]
    assert texts(axes.texts) == ["small", "large"]


def test_a_count_scatter_has_larger_points_where_images_agree():
    points = plots.count_scatter([3, 3, 0], [3, 3, 1], "roofs").axes[0].collections[0]
    assert points.get_offsets().tolist() == [[0, 1], [3, 3]]
    assert points.get_sizes().tolist() == [25, 50]


def test_the_stages_of_the_standard_unet_have_the_shapes_of_the_paper():
    model = UNet(base_channels=64)
    shapes = dict(plots.stage_shapes(model, 64, 32))
    assert shapes["stem"] == (1, 64, 64, 32)
    assert shapes["encoder 4"] == (1, 512, 4, 2)
    assert shapes["decoder 4"] == (1, 64, 64, 32)
    assert shapes["head"] == (1, 1, 64, 32)
    assert model.training  # as before


@pytest.mark.parametrize(
    ("network", "settings", "stages", "connections"),
    [
        (UNet, {"base_channels": 4}, 10, 4),
        (UNet, {"base_channels": 4, "skip": False}, 10, 0),
        (SegNet, {"classes": 5, "skip": False}, 11, 5),
    ],
)
def test_an_architecture_has_a_box_a_stage_and_an_arrow_a_connection(network, settings, stages, connections):
    axes = plots.architecture(network(**settings), 32, 32).axes[0]
    assert len(axes.patches) == stages
    arrows = [text.arrow_patch.get_linestyle() for text in axes.texts if not text.get_text()]
    assert (arrows.count("solid"), arrows.count("--")) == (stages - 1, connections)


def test_an_architecture_shows_the_encoder_of_a_library():
    model = build_model("unet", 21, encoder="resnet18")
    stages = dict(plots.stage_shapes(model, 64, 64))
    assert stages["encoder 5"] == (1, 512, 2, 2)
    assert stages["decoder 5"] == (1, 16, 64, 64)
    assert stages["head"] == (1, 21, 64, 64)
    axes = plots.architecture(model, 64, 64).axes[0]
    arrows = [text.arrow_patch.get_linestyle() for text in axes.texts if not text.get_text()]
    assert len(axes.patches) == len(stages) == 11
    assert (arrows.count("solid"), arrows.count("--")) == (10, 4)


def test_errors_have_the_colors_of_their_legend():
    truth = np.array([[1, 1, 0, 0, 255]])
    prediction = np.array([[1, 0, 1, 0, 1]])
    drawn = plots.error_map(np.full((1, 5, 3), 90, np.uint8), truth, prediction)
    index = {name: number for number, name in plots.ERROR_LEGEND.items()}
    for column, name in enumerate(["found", "missed", "false alarm"]):
        color = drawn[0, column].astype(int)
        nearest = min(index, key=lambda other: np.abs(color - palette()[index[other]]).sum())
        assert nearest == name
    assert drawn[0, 4].tolist() == palette()[255].tolist()


def test_runs_are_numbered_column_by_column():
    figure = plots.run_lengths(np.array([[0, 1, 0, 0], [0, 1, 1, 0], [0, 1, 0, 0]]))
    assert [text.get_text() for text in figure.axes[0].texts] == list("123512451255")


def test_the_score_of_each_seed_and_their_mean_are_drawn():
    axes = plots.seed_scores({"A": [0.5, 0.7], "B": [0.8]}, "title", "IoU").axes[0]
    assert [list(line.get_xdata()) for line in axes.lines[::2]] == [[0.5, 0.7], [0.8]]
    assert [text.get_text() for text in axes.texts] == ["0.600", "0.800"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["A", "B"]
