"""Figures: what they say must be what went in."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch

from seglib import plots
from seglib.evaluate import Counts, mask_ap
from seglib.instances import Instances
from seglib.masks import palette
from seglib.models import SegNet, UNet

HISTORY = [
    {"epoch": 1, "train_loss": 0.9, "val_loss": 0.8, "val_iou": 0.1, "val_dice": 0.2},
    {"epoch": 2, "train_loss": 0.5, "val_loss": 0.6, "val_iou": 0.6, "val_dice": 0.7},
    {"epoch": 3, "train_loss": 0.4, "val_loss": 0.7, "val_iou": 0.5, "val_dice": 0.6},
]


def test_overlay_leaves_background_alone_colours_objects_and_draws_their_outline():
    image = np.full((9, 9, 3), 100, np.uint8)
    mask = np.zeros((9, 9), np.uint8)
    mask[3:8, 3:8] = 1
    laid = plots.overlay(image, mask, alpha=0.5)
    assert (laid[0, 0] == 100).all() and (laid[8, 0] == 100).all()
    inside, outline = laid[5, 5], laid[3, 5]
    assert (outline == palette()[1]).all()
    assert (np.abs(inside - (palette()[1] / 2 + 50)) <= 1).all()
    assert (plots.overlay(torch.from_numpy(image).permute(2, 0, 1), torch.from_numpy(mask), alpha=0.5) == laid).all()


def test_overlay_of_another_size_is_refused():
    with pytest.raises(ValueError, match="differ in size"):
        plots.overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((5, 4), np.uint8))


def test_loss_curves_show_the_numbers_of_the_history():
    axis = plots.loss_curves({"A": HISTORY, "B": HISTORY[:1]}).axes[0]
    lines = {line.get_label(): line for line in axis.get_lines()}
    assert list(lines) == ["A training", "A validation", "B training", "B validation"]
    assert lines["A validation"].get_xydata().tolist() == [[1, 0.8], [2, 0.6], [3, 0.7]]
    assert lines["B training"].get_marker() == "o"  # one epoch is a point, not an invisible line
    assert axis.get_xlabel() == "epoch" and axis.get_ylabel() == "loss" and axis.get_legend()


def test_metric_curves_mark_the_best_epoch():
    axis = plots.metric_curves(HISTORY).axes[0]
    assert [text.get_text() for text in axis.texts] == ["0.600"]
    assert [2, 0.6] in axis.get_lines()[1].get_xydata().tolist()
    plots.metric_curves([HISTORY[0] | {"val_iou": float("nan")}])


def test_error_map_tells_found_missed_false_and_ignored_apart():
    truth, guess = np.array([[1, 1, 0, 0, 255]], np.uint8), np.array([[1, 0, 1, 0, 1]], np.uint8)
    colours = plots.error_map(truth, guess)[0]
    assert len({tuple(colour) for colour in colours}) == 5
    assert colours[0].tolist() == [255] * 3


def test_a_grid_has_titles_labels_and_a_legend_and_leaks_no_figure():
    picture, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    figure = plots.picture_grid([[picture, mask], [picture, None]], ["one", "two"], ["a", "b"], ["background", "cup"])
    assert [axis.get_title() for axis in figure.axes[:2]] == ["one", "two"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["background", "cup"]
    assert not plt.get_fignums()


def test_triples_explain_255_where_it_occurs():
    image, mask = np.zeros((4, 6, 3), np.uint8), np.zeros((4, 6), np.uint8)
    assert len(plots.triples([(image, mask, "a")], ["background", "cup"]).legends[0].get_texts()) == 2
    mask[0] = 255
    assert len(plots.triples([(image, mask, "a")], ["background", "cup"]).legends[0].get_texts()) == 3


def test_stage_shapes_of_the_standard_unet():
    shapes = dict(plots.stage_shapes(UNet(base_channels=64), 224, 224))
    assert shapes["stem"] == (1, 64, 224, 224)
    assert shapes["encoder 4"] == (1, 512, 14, 14)
    assert shapes["decoder 4"] == (1, 64, 224, 224)
    assert shapes["head"] == (1, 1, 224, 224)


@pytest.mark.parametrize("settings", [{}, {"skip": False}, {"depth": 5}, {"depth": 1}])
def test_architecture_names_every_stage_and_draws_a_skip_connection_for_each_level(settings):
    model = UNet(base_channels=4, **settings)
    figure = plots.architecture(model, 64, 64)
    texts = [text.get_text() for text in figure.axes[0].texts]
    assert len(texts) == 2 + 2 * settings.get("depth", 4)
    assert "stem\n4 x 64 x 64" in texts
    dashed = [patch for patch in figure.axes[0].patches if patch.get_linestyle() == "--"]
    assert len(dashed) == (settings.get("depth", 4) if model.skip else 0)
    assert model.training  # left as it was


def test_save_writes_a_picture(tmp_path):
    plots.save(plots.loss_curves(HISTORY), tmp_path / "deep" / "loss.png")
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["loss.png"]


def test_class_scores_show_each_models_iou_and_name_noise():
    axis = plots.class_scores(
        {"A": [0.9, 0.5, float("nan")], "B": [0.8, 0.25, 0.0]}, ["sky", "cat", "ball"], ["ball"]
    ).axes[0]
    assert [bar.get_height() for bar in axis.containers[0]] == [0.9, 0.5, 0]
    assert [bar.get_height() for bar in axis.containers[1]] == [0.8, 0.25, 0]
    assert [text.get_text() for text in axis.texts] == ["0.90", "0.50", "n/a", "0.80", "0.25", "0.00"]
    assert [label.get_text() for label in axis.get_xticklabels()] == ["sky", "cat", "ball\n(noise)"]
    assert [text.get_text() for text in axis.get_legend().get_texts()] == ["A", "B"]


def test_confusion_rows_are_shares_of_the_truth_and_empty_where_there_is_none():
    figure = plots.confusion(torch.tensor([[6, 2], [0, 0]]), ["sky", "cat"])
    assert [text.get_text() for text in figure.axes[0].texts] == ["0.75", "0.25"]
    assert figure.axes[0].get_xlabel() == "predicted" and figure.axes[0].get_ylabel() == "true"


def test_segnet_is_drawn_with_a_skip_connection_at_each_of_its_five_sizes():
    axis = plots.architecture(SegNet(classes=5), 64, 64).axes[0]
    arrows = [patch for patch in axis.patches if type(patch).__name__ == "FancyArrowPatch"]
    assert sum(arrow.get_linestyle() == "--" for arrow in arrows) == 5
    assert "skip connection, indices of the maxima" in [text.get_text() for text in axis.get_legend().get_texts()]
    assert len([patch for patch in axis.patches if type(patch).__name__ == "Rectangle"]) == 11
    assert any("5 x 64 x 64" in text.get_text() for text in axis.texts)


def test_the_legend_of_many_classes_names_those_that_occur():
    mask = np.array([[0, 15, 255], [15, 3, 0]], np.uint8)
    classes = [f"class {number}" for number in range(21)]
    assert plots.occurring([mask, torch.from_numpy(mask)], classes) == {0: "class 0", 3: "class 3", 15: "class 15"}
    assert plots.occurring([mask[:1, 1:2]], classes) == {0: "class 0", 15: "class 15"}  # background is always named
    figure = plots.triples([(np.zeros((2, 3, 3), np.uint8), mask, "a.png")], classes)
    patches = figure.legends[0].get_patches()
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["class 0", "class 3", "class 15", "does not count (255)"]
    assert patches[2].get_facecolor()[:3] == tuple(palette()[15] / 255)


def test_names_are_moved_apart_and_keep_their_order():
    places = plots._moved_apart([0.5, 0.5, 0.96, 0.97, 0.1, 0.5])
    assert places[4] == 0.1 and max(places) <= 0.97
    ordered = sorted(places)
    assert all(above - below > 0.0499 for below, above in zip(ordered, ordered[1:], strict=False))
    assert places[2] < places[3] and max(places[0], places[1], places[5]) < places[2]


# ------------------------------------------------------------------------------------------------ objects


def two_objects() -> Instances:
    masks = np.zeros((2, 12, 12), bool)
    masks[0, 1:6, 1:11] = True
    masks[1, 7:11, 1:5] = True
    return Instances.of(masks, scores=[0.9, 0.4])


def test_each_object_has_a_colour_of_its_own():
    laid = plots.objects(np.zeros((12, 12, 3), np.uint8), two_objects(), alpha=1.0)
    assert (laid[3, 5] == palette()[1]).all() and (laid[9, 3] == palette()[2]).all() and (laid[0, 0] == 0).all()


def test_more_objects_than_colours_begin_again():
    masks = np.zeros((41, 41, 2), bool)
    masks[np.arange(41), np.arange(41)] = True
    laid = plots.objects(np.zeros((41, 2, 3), np.uint8), Instances.of(masks), alpha=1.0)
    assert (
        (laid[0, 0] == laid[20, 0]).all() and (laid[19, 0] == palette()[20]).all() and (laid[1, 0] != laid[0, 0]).any()
    )


def test_precision_by_recall_is_what_was_measured():
    measured = mask_ap([two_objects()], [two_objects()])
    axis = plots.precision_recall({"": measured}, ious=(0.5,)).axes[0]
    assert np.allclose(axis.lines[0].get_ydata(), 1) and "AP 1.000" in axis.get_legend().get_texts()[0].get_text()


def test_thresholds_mark_the_one_that_was_chosen():
    counts = [Counts(0.2, 3, 1, 1), Counts(0.6, 2, 0, 2)]
    axis = plots.thresholds(counts, 0.6).axes[0]
    precision, recall, f1, chosen = axis.lines
    assert precision.get_ydata().tolist() == [0.75, 1.0] and recall.get_ydata().tolist() == [0.75, 0.5]
    assert np.allclose(f1.get_ydata(), [0.75, 2 / 3]) and chosen.get_xdata()[0] == 0.6


def test_counted_draws_a_point_for_each_pair_and_larger_where_they_meet():
    axis = plots.counted([3, 3, 0], [3, 3, 1], "roofs").axes[0]
    points = axis.collections[0]
    assert sorted(map(tuple, points.get_offsets().tolist())) == [(0, 1), (3, 3)]
    assert sorted(points.get_sizes().tolist()) == [25, 50] and axis.get_xlabel() == "roofs there are"


def test_kept_shares_say_mean_and_losses():
    axis = plots.kept_shares({"split": [1.0, 1.0, 0.5, 1.0]}, "There and back").axes[0]
    assert axis.get_legend().get_texts()[0].get_text() == "split: mean 0.875, 25.0% below 0.99"
    assert axis.lines[0].get_xdata().tolist() == [0.5, 1, 1, 1] and axis.lines[0].get_ydata()[0] == 0.25


def test_object_sizes_hold_an_empty_part_and_a_single_object():
    axis = plots.object_sizes({"train": [400], "val": []}, {"small": (0, 100), "large": (100, 1e10)}).axes[0]
    texts = [text.get_text() for text in axis.get_legend().get_texts()]
    assert sorted(texts) == ["train: 1 objects", "val: 0 objects"]
    assert {text.get_text() for text in axis.texts} == {"small", "large"}
