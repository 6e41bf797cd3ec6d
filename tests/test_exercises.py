"""The exercises: each check refuses the usual mistakes, accepts the solution and knows an empty answer."""

import ast
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from seglib import lesson
from tests.helpers.notebooks import REWRITTEN, tagged

# ------------------------------------------------------------------------------------------------ usual mistakes

# Lesson 01, exercise 1: class_1_iou(prediction, truth)


def counts_255_as_background(prediction, truth):
    return ((prediction == 1) & (truth == 1)).sum() / ((prediction == 1) | (truth == 1)).sum()


def counts_255_as_class_1(prediction, truth):
    person = (truth == 1) | (truth == 255)
    return ((prediction == 1) & person).sum() / ((prediction == 1) | person).sum()


def dice_in_place_of_iou(prediction, truth):
    counts = truth != 255
    found = (counts & (prediction == 1) & (truth == 1)).sum()
    return 2 * found / ((counts & (prediction == 1)).sum() + (counts & (truth == 1)).sum())


def recall_in_place_of_iou(prediction, truth):
    return ((prediction == 1) & (truth == 1)).sum() / (truth == 1).sum()


def pixel_accuracy(prediction, truth):
    return (prediction == truth)[truth != 255].mean()


def foreground_iou(prediction, truth):
    counts = truth != 255
    return (counts & (prediction > 0) & (truth > 0)).sum() / (counts & ((prediction > 0) | (truth > 0))).sum()


# Lesson 01, exercise 2: paint_smallest(objects, crowds, height, width)


def paint(objects, crowds, height, width, crowds_on_top=False):
    mask = np.zeros((height, width), dtype=np.uint8)
    layers = [(255, crowd) for crowd in crowds]
    for index, bitmap in [*objects, *layers] if crowds_on_top else [*layers, *objects]:
        mask[bitmap] = index
    return mask


def smallest_first(objects, *rest):
    return paint(sorted(objects, key=lambda item: (item[1].sum(), item[0])), *rest)


def order_of_the_file(objects, *rest):
    return paint(objects, *rest)


def rule_maximum(objects, *rest):
    return paint(sorted(objects, key=lambda item: item[0]), *rest)


def ties_in_the_order_of_the_file(objects, *rest):
    return paint(sorted(objects, key=lambda item: -item[1].sum()), *rest)


def lower_class_on_top_in_ties(objects, *rest):
    return paint(sorted(objects, key=lambda item: (item[1].sum(), item[0]), reverse=True), *rest)


def crowds_on_top(objects, *rest):
    return paint(sorted(objects, key=lambda item: (-item[1].sum(), item[0])), *rest, crowds_on_top=True)


def crowds_are_background(objects, crowds, height, width):
    return paint(sorted(objects, key=lambda item: (-item[1].sum(), item[0])), [], height, width)


# Lesson 02, exercise 1: dice_from_iou(iou)


def iou_itself(iou):
    return iou


def twice_the_iou(iou):
    return 2 * iou


def forgets_to_count_hits_twice(iou):
    return iou / (1 + iou)


def iou_from_dice(iou):
    return iou / (2 - iou)


# Lesson 02, exercise 2: best_cut(logits, mask, cuts)


def best_by(score, cuts):
    return max(cuts, key=lambda cut: score(cut).item())


def iou_of(guess, person):
    return (guess & person).sum() / (guess | person).sum()


def cut_with_255_as_background(logits, mask, cuts):
    return best_by(lambda cut: iou_of(logits > cut, mask == 1), cuts)


def cut_with_255_as_person(logits, mask, cuts):
    return best_by(lambda cut: iou_of(logits > cut, mask > 0), cuts)


def cut_by_accuracy(logits, mask, cuts):
    counted = mask != 255
    return best_by(lambda cut: ((logits > cut) == (mask == 1))[counted].float().mean(), cuts)


def cut_by_recall(logits, mask, cuts):
    return best_by(lambda cut: ((logits > cut) & (mask == 1)).sum(), cuts)


def cut_by_precision(logits, mask, cuts):
    counted = mask != 255
    return best_by(lambda cut: (mask == 1)[counted & (logits > cut)].float().mean(), cuts)


def cut_of_probabilities(logits, mask, cuts):
    counted = mask != 255
    return best_by(lambda cut: iou_of((torch.sigmoid(logits) > cut)[counted], (mask == 1)[counted]), cuts)


def position_of_the_cut(logits, mask, cuts):
    counted = mask != 255
    return cuts.index(best_by(lambda cut: iou_of((logits > cut)[counted], (mask == 1)[counted]), cuts))


def usual_cut(logits, mask, cuts):
    return 0


# Appendix a1, exercise 1: optimizer_steps(images, batch_size, accumulate)


def drops_the_last_step(images, batch_size, accumulate):
    return images // (batch_size * accumulate)


def drops_the_last_batch(images, batch_size, accumulate):
    return math.ceil(images // batch_size / accumulate)


def ignores_accumulate(images, batch_size, accumulate):
    return math.ceil(images / batch_size)


def multiplies_by_accumulate(images, batch_size, accumulate):
    return math.ceil(images / batch_size) * accumulate


def is_no_whole_number(images, batch_size, accumulate):
    return images / (batch_size * accumulate)


# Appendix a1, exercise 2: repeated_epochs(ends, interrupted, checkpoint_seconds)


def the_interrupted_epoch(ends, interrupted, checkpoint_seconds):
    return [sum(end <= interrupted for end in ends) + 1]


def all_epochs_so_far(ends, interrupted, checkpoint_seconds):
    return list(range(1, sum(end <= interrupted for end in ends) + 2))


def without_the_interrupted_epoch(ends, interrupted, checkpoint_seconds):
    return epochs_after_checkpoints(ends, interrupted, checkpoint_seconds, lambda end, saved, start: end - saved)[:-1]


def saves_after_each_long_epoch(ends, interrupted, checkpoint_seconds):
    return epochs_after_checkpoints(ends, interrupted, checkpoint_seconds, lambda end, saved, start: end - start)


def saves_once_since_the_start(ends, interrupted, checkpoint_seconds):
    return epochs_after_checkpoints(ends, interrupted, checkpoint_seconds, lambda end, saved, start: end)


def epochs_after_checkpoints(ends, interrupted, checkpoint_seconds, waited):
    saved_at, saved, start = 0, 0, 0
    for epoch, end in enumerate(ends, 1):
        if end > interrupted:
            return list(range(saved + 1, epoch + 1))
        if waited(end, saved_at, start) >= checkpoint_seconds:
            saved_at, saved = end, epoch
        start = end
    return []


# By notebook and number of the exercise.
MISTAKES: dict[str, dict[int, list[Callable[..., Any]]]] = {
    "01_coco_mask_prep": {
        1: [
            counts_255_as_background,
            counts_255_as_class_1,
            dice_in_place_of_iou,
            recall_in_place_of_iou,
            pixel_accuracy,
            foreground_iou,
        ],
        2: [
            smallest_first,
            order_of_the_file,
            rule_maximum,
            ties_in_the_order_of_the_file,
            lower_class_on_top_in_ties,
            crowds_on_top,
            crowds_are_background,
        ],
    },
    "02_unet_binary": {
        1: [iou_itself, twice_the_iou, forgets_to_count_hits_twice, iou_from_dice],
        2: [
            cut_with_255_as_background,
            cut_with_255_as_person,
            cut_by_accuracy,
            cut_by_recall,
            cut_by_precision,
            cut_of_probabilities,
            position_of_the_cut,
            usual_cut,
        ],
    },
    "a1_training_that_survives": {
        1: [
            drops_the_last_step,
            drops_the_last_batch,
            ignores_accumulate,
            multiplies_by_accumulate,
            is_no_whole_number,
        ],
        2: [
            the_interrupted_epoch,
            all_epochs_so_far,
            without_the_interrupted_epoch,
            saves_after_each_long_epoch,
            saves_once_since_the_start,
        ],
    },
}

# ------------------------------------------------------------------------------------------------ the checks

EXERCISES = [(path, number) for path in REWRITTEN for number in range(1, len(tagged(path, "exercise")) + 1)]
EXERCISE = pytest.mark.parametrize(("path", "number"), EXERCISES, ids=lambda value: getattr(value, "stem", str(value)))


class Exercise:
    """The three cells of an exercise. A check may use numpy, torch, `lesson` and the learner's function, no more."""

    def __init__(self, path: Path, number: int) -> None:
        self.stub, self.check, self.solution = (
            tagged(path, tag)[number - 1].source for tag in ("exercise", "check", "solution")
        )
        self.names: dict[str, Any] = {"np": np, "torch": torch, "lesson": lesson}
        functions = [node.name for node in ast.parse(self.stub).body if isinstance(node, ast.FunctionDef)]
        self.function = functions[-1]
        exec(self.stub, self.names)

    def answer(self, function: Callable[..., Any]) -> None:
        """Put the answer of a learner in place of the stub."""
        self.names[self.function] = function

    def run_solution(self) -> None:
        """Execute the cell of the solution up to its check. Cells may go on with the data of the notebook."""
        for node in ast.parse(self.solution).body:
            exec(ast.unparse(node), self.names)
            if ast.unparse(node).startswith("lesson.check("):
                return
        raise AssertionError("the solution is not checked")

    def run_check(self) -> None:
        """Execute the cell that checks the answer."""
        exec(self.check, self.names)


@EXERCISE
def test_a_check_knows_an_empty_answer(path, number, capsys):
    Exercise(path, number).run_check()
    printed = capsys.readouterr().out
    assert "Not answered yet" in printed
    assert "Right!" not in printed


@EXERCISE
def test_a_check_accepts_the_solution(path, number, capsys):
    exercise = Exercise(path, number)
    exercise.run_check()
    capsys.readouterr()
    exercise.run_solution()  # raises if the solution is wrong
    assert "Right!" in capsys.readouterr().out
    exercise.run_check()
    printed = capsys.readouterr().out
    assert "Right!" in printed
    assert "Not yet" not in printed


@EXERCISE
def test_a_check_refuses_the_usual_mistakes(path, number, capsys):
    mistakes = MISTAKES.get(path.stem, {}).get(number, [])
    assert len(mistakes) >= 2, "write down at least two usual mistakes above"
    for mistake in mistakes:
        exercise = Exercise(path, number)
        exercise.answer(mistake)
        exercise.run_check()
        printed = capsys.readouterr().out
        assert "Not yet" in printed and "Right!" not in printed, f"{mistake.__name__}:\n{printed}"


@EXERCISE
def test_a_check_does_not_hold_the_solution(path, number):
    exercise = Exercise(path, number)
    solutions = [node for node in ast.parse(exercise.solution).body if isinstance(node, ast.FunctionDef)]
    statements = [ast.unparse(node) for function in solutions for node in function.body if not _is_docstring(node)]
    check = ast.unparse(ast.parse(exercise.check))
    assert statements
    assert not [statement for statement in statements if statement in check]


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
