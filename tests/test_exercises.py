"""The exercises: each check refuses the usual mistakes, accepts the solution and knows an empty answer."""

import ast
import math
from collections.abc import Callable
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import pytest
import torch

from seglib import lesson
from tests.helpers.notebooks import NOTEBOOKS, tagged

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


# Lesson 03, exercise 1: receptive_field(layers)


def field_of(layers, grow, stride_first=False):
    size, step = 1, 1
    for kernel_size, dilation, stride in layers:
        step *= stride if stride_first else 1
        size += grow(kernel_size, dilation) * step
        step *= 1 if stride_first else stride
    return size


def ignores_dilation(layers):
    return field_of(layers, lambda kernel_size, dilation: kernel_size - 1)


def ignores_strides(layers):
    return field_of([(*layer[:2], 1) for layer in layers], lambda kernel_size, dilation: (kernel_size - 1) * dilation)


def counts_the_own_stride(layers):
    return field_of(layers, lambda kernel_size, dilation: (kernel_size - 1) * dilation, stride_first=True)


def adds_kernel_sizes(layers):
    return sum((kernel_size - 1) * dilation + 1 for kernel_size, dilation, _ in layers)


def multiplies_kernel_by_dilation(layers):
    return field_of(layers, lambda kernel_size, dilation: kernel_size * dilation - 1)


def only_the_last_layer(layers):
    kernel_size, dilation, _ = layers[-1]
    return (kernel_size - 1) * dilation + 1


# Lesson 03, exercise 2: unpool(values, indices)


def repeats_values(values, indices):
    return values.repeat(2, axis=0).repeat(2, axis=1)


def first_of_each_block(values, indices):
    image = np.zeros(2 * np.array(values.shape), dtype=values.dtype)
    image[::2, ::2] = values
    return image


def counts_column_by_column(values, indices):
    image = np.zeros(4 * values.size, dtype=values.dtype)
    image[indices.ravel()] = values.ravel()
    return image.reshape(2 * values.shape[1], 2 * values.shape[0]).T


def width_of_the_small_image(values, indices):
    image = np.zeros(2 * np.array(values.shape), dtype=values.dtype)
    for value, index in zip(values.ravel(), indices.ravel(), strict=True):
        image[index // values.shape[1] % len(image), index % values.shape[1]] = value
    return image


def always_four_wide(values, indices):
    image = np.zeros(2 * np.array(values.shape), dtype=values.dtype)
    for value, index in zip(values.ravel(), indices.ravel(), strict=True):
        image[index // 4, index % 4] = value
    return image


def drops_values_below_zero(values, indices):
    image = np.zeros(4 * values.size, dtype=values.dtype)
    image[indices.ravel()] = np.maximum(values.ravel(), 0)
    return image.reshape(2 * values.shape[0], 2 * values.shape[1])


# Lesson 04, exercise 1: steps_and_rate(images, batch_size, accumulate, epochs, lr_16)


def steps_without_accumulate(images, batch_size, accumulate, epochs, lr_16):
    return epochs * math.ceil(images / batch_size), lr_16 * batch_size * accumulate / 16


def rate_without_accumulate(images, batch_size, accumulate, epochs, lr_16):
    return epochs * math.ceil(images / (batch_size * accumulate)), lr_16 * batch_size / 16


def drops_the_smaller_step(images, batch_size, accumulate, epochs, lr_16):
    return epochs * (images // (batch_size * accumulate)), lr_16 * batch_size * accumulate / 16


def rounds_up_at_the_end(images, batch_size, accumulate, epochs, lr_16):
    return math.ceil(epochs * images / (batch_size * accumulate)), lr_16 * batch_size * accumulate / 16


def steps_of_one_epoch(images, batch_size, accumulate, epochs, lr_16):
    return math.ceil(images / (batch_size * accumulate)), lr_16 * batch_size * accumulate / 16


def scales_the_rate_down(images, batch_size, accumulate, epochs, lr_16):
    return epochs * math.ceil(images / (batch_size * accumulate)), lr_16 * 16 / (batch_size * accumulate)


def scales_by_the_square_root(images, batch_size, accumulate, epochs, lr_16):
    step_size = batch_size * accumulate
    return epochs * math.ceil(images / step_size), lr_16 * math.sqrt(step_size / 16)


def keeps_the_rate(images, batch_size, accumulate, epochs, lr_16):
    return epochs * math.ceil(images / (batch_size * accumulate)), lr_16


# Lesson 04, exercise 2: overfit_epoch(train_loss, val_loss)


def over_fits_by(train_loss, val_loss, follow=3, factor=1.05, settles=True, learns=True):
    """The rule, with conditions that can be left out."""
    lowest = val_loss.index(min(val_loss))
    after = val_loss[lowest + 1 :]
    half = len(after) // 2
    if len(after) < max(follow, 1) or fmean(after) <= factor * val_loss[lowest]:
        return 0
    if settles and half and fmean(after[half:]) < fmean(after[:half]):
        return 0
    return 0 if learns and fmean(train_loss[lowest + 1 :]) >= train_loss[lowest] else lowest + 1


def needs_one_epoch_only(train_loss, val_loss):
    return over_fits_by(train_loss, val_loss, follow=1)


def without_the_five_percent(train_loss, val_loss):
    return over_fits_by(train_loss, val_loss, factor=1.0)


def may_fall_again(train_loss, val_loss):
    return over_fits_by(train_loss, val_loss, settles=False)


def ignores_the_training_loss(train_loss, val_loss):
    return over_fits_by(train_loss, val_loss, learns=False)


def counts_epochs_from_0(train_loss, val_loss):
    return max(over_fits_by(train_loss, val_loss) - 1, 0)


def epoch_of_the_lowest_loss(train_loss, val_loss):
    return val_loss.index(min(val_loss)) + 1


def first_rise(train_loss, val_loss):
    return next((k + 1 for k in range(len(val_loss) - 1) if val_loss[k + 1] > val_loss[k]), 0)


def last_loss_is_higher(train_loss, val_loss):
    lowest = min(val_loss)
    return val_loss.index(lowest) + 1 if val_loss[-1] > 1.05 * lowest else 0


def one_high_loss_is_enough(train_loss, val_loss):
    lowest = val_loss.index(min(val_loss))
    return lowest + 1 if max(val_loss[lowest:]) > 1.05 * val_loss[lowest] else 0


# Lesson 05, exercise 1: suppress(boxes, scores, limit)


def area(box):
    return (box[2] - box[0]) * (box[3] - box[1])


def shared_area(a, b):
    return max(min(a[2], b[2]) - max(a[0], b[0]), 0) * max(min(a[3], b[3]) - max(a[1], b[1]), 0)


def iou_of_boxes(a, b):
    return shared_area(a, b) / (area(a) + area(b) - shared_area(a, b))


def nms(boxes, scores, limit, overlap=iou_of_boxes, sort=True, removed_remove=False, at_the_limit=True):
    """NMS with conditions that can be left out."""
    order = sorted(range(len(boxes)), key=lambda i: -scores[i]) if sort else range(len(boxes))
    kept, seen = [], []
    for i in order:
        overlaps = [overlap(boxes[i], boxes[k]) for k in (seen if removed_remove else kept)]
        if all(value < limit or (at_the_limit and value == limit) for value in overlaps):
            kept.append(i)
        seen.append(i)
    return kept


def without_order_of_scores(boxes, scores, limit):
    return nms(boxes, scores, limit, sort=False)


def in_the_order_of_the_list(boxes, scores, limit):
    return sorted(nms(boxes, scores, limit))


def removed_boxes_remove(boxes, scores, limit):
    return nms(boxes, scores, limit, removed_remove=True)


def removes_at_the_limit(boxes, scores, limit):
    return nms(boxes, scores, limit, at_the_limit=False)


def negative_sides(boxes, scores, limit):
    def overlap(a, b):
        shared = (min(a[2], b[2]) - max(a[0], b[0])) * (min(a[3], b[3]) - max(a[1], b[1]))
        return shared / (area(a) + area(b) - shared)

    return nms(boxes, scores, limit, overlap)


def share_of_the_smaller(boxes, scores, limit):
    return nms(boxes, scores, limit, lambda a, b: shared_area(a, b) / min(area(a), area(b)))


def sum_in_place_of_union(boxes, scores, limit):
    return nms(boxes, scores, limit, lambda a, b: shared_area(a, b) / (area(a) + area(b)))


def limit_of_its_own(boxes, scores, limit):
    return nms(boxes, scores, 0.5)


def returns_the_boxes(boxes, scores, limit):
    return [boxes[i] for i in nms(boxes, scores, limit)]


def keeps_the_best_only(boxes, scores, limit):
    return [max(range(len(boxes)), key=lambda i: scores[i])] if boxes else []


# Lesson 05, exercise 2: take_buildings(iou, limit)


def a_building_many_times(iou, limit):
    best = [max(range(len(row)), key=lambda b: row[b], default=-1) for row in iou]
    return [b if b >= 0 and row[b] >= limit else -1 for row, b in zip(iou, best, strict=True)]


def favorite_or_nothing(iou, limit):
    taken = []
    for b in a_building_many_times(iou, limit):
        taken.append(-1 if b in taken else b)
    return taken


def first_free_building(iou, limit):
    taken = []
    for row in iou:
        taken.append(next((b for b in range(len(row)) if b not in taken and row[b] >= limit), -1))
    return taken


def above_the_limit(iou, limit):
    taken = []
    for row in iou:
        free = [b for b in range(len(row)) if b not in taken and row[b] > limit]
        taken.append(max(free, key=lambda b: row[b], default=-1))
    return taken


def takes_without_the_limit(iou, limit):
    taken, used = [], set()
    for row in iou:
        best = max((b for b in range(len(row)) if b not in used), key=lambda b: row[b], default=-1)
        used.add(best)
        taken.append(best if best >= 0 and row[best] >= limit else -1)
    return taken


def largest_iou_first(iou, limit):
    taken = [-1] * len(iou)
    pairs = sorted(((value, d, b) for d, row in enumerate(iou) for b, value in enumerate(row)), reverse=True)
    for value, d, b in pairs:
        if value >= limit and taken[d] < 0 and b not in taken:
            taken[d] = b
    return taken


def most_pairs(iou, limit):
    """The assignment with the largest sum of IoUs."""

    def best(d, used):
        if d == len(iou):
            return 0.0, []
        rest, pairs = best(d + 1, used)
        options = [(rest, [-1, *pairs])]
        for b, value in enumerate(iou[d]):
            if b not in used and value >= limit:
                rest, pairs = best(d + 1, used | {b})
                options.append((value + rest, [b, *pairs]))
        return max(options, key=lambda option: option[0])

    return best(0, frozenset())[1]


def limit_of_one_half(iou, limit):
    return first_free_or_best(iou, 0.5)


def first_free_or_best(iou, limit):
    taken = []
    for row in iou:
        free = [b for b in range(len(row)) if b not in taken and row[b] >= limit]
        taken.append(max(free, key=lambda b: row[b], default=-1))
    return taken


# Lesson 06, exercise 1: paired_verdict(first, second)


def compares_the_means(first, second):
    difference = fmean(first) - fmean(second)
    return "supported" if difference > 0 else "refuted" if difference < 0 else "open"


def rule_of_the_lesson(first, second):
    difference = fmean(first) - fmean(second)
    spread = max(max(first) - min(first), max(second) - min(second))
    return "supported" if difference > spread else "refuted" if difference < -spread else "open"


def decides_by_majority(first, second):
    better = sum(a > b for a, b in zip(first, second, strict=True))
    worse = sum(a < b for a, b in zip(first, second, strict=True))
    return "supported" if better > worse else "refuted" if better < worse else "open"


def sorts_the_seeds(first, second):
    return signs_agree(sorted(first), sorted(second))


def counts_equal_as_better(first, second):
    pairs = list(zip(first, second, strict=True))
    return "supported" if all(a >= b for a, b in pairs) else "refuted" if all(a < b for a, b in pairs) else "open"


def leaves_out_equal_seeds(first, second):
    return signs_agree(*zip(*[(a, b) for a, b in zip(first, second, strict=True) if a != b], strict=True))


def one_seed_is_enough(first, second):
    pairs = list(zip(first, second, strict=True))
    return "supported" if any(a > b for a, b in pairs) else "refuted" if any(a < b for a, b in pairs) else "open"


def must_not_overlap(first, second):
    return "supported" if min(first) > max(second) else "refuted" if max(first) < min(second) else "open"


def open_means_refuted(first, second):
    return "supported" if all(a > b for a, b in zip(first, second, strict=True)) else "refuted"


def looks_at_two_seeds(first, second):
    return signs_agree(first[:2], second[:2])


def signs_agree(first, second):
    pairs = list(zip(first, second, strict=True))
    return "supported" if all(a > b for a, b in pairs) else "refuted" if all(a < b for a, b in pairs) else "open"


# Lesson 06, exercise 2: leaked_share(train, test, groups)


def share_of_torn_groups(train, test, groups):
    seen, tested = ({groups[name] for name in part} for part in (train, test))
    return len(seen & tested) / len(tested)


def share_of_training_images(train, test, groups):
    tested = {groups[name] for name in test}
    return sum(groups[name] in tested for name in train) / len(train)


def number_of_images(train, test, groups):
    seen = {groups[name] for name in train}
    return sum(groups[name] in seen for name in test)


def counts_pairs(train, test, groups):
    return sum(groups[a] == groups[b] for a in train for b in test) / len(test)


def same_image_in_both(train, test, groups):
    return len(set(train) & set(test)) / len(test)


def of_all_images(train, test, groups):
    seen = {groups[name] for name in train}
    return sum(groups[name] in seen for name in test) / len(groups)


def any_relative(train, test, groups):
    parts = [groups[name] for name in (*train, *test)]
    return sum(parts.count(groups[name]) > 1 for name in test) / len(test)


def share_without_relative(train, test, groups):
    seen = {groups[name] for name in train}
    return sum(groups[name] not in seen for name in test) / len(test)


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


# Appendix a2, exercise 1: leaking_places(train_names, test_names)


def places_by(train_names, test_names, place):
    return sorted({place(name) for name in train_names} & {place(name) for name in test_names})


def up_to_the_first_underscore(train_names, test_names):
    return places_by(train_names, test_names, lambda name: name.split("_")[0])


def compares_whole_names(train_names, test_names):
    return places_by(train_names, test_names, lambda name: name)


def compares_numbers(train_names, test_names):
    return places_by(train_names, test_names, lambda name: name.rsplit("_", 1)[1])


def the_word_before_the_number(train_names, test_names):
    return places_by(train_names, test_names, lambda name: name.split("_")[-2])


def names_a_place_twice(train_names, test_names):
    trained = {name.rsplit("_", 1)[0] for name in train_names}
    return sorted(name.rsplit("_", 1)[0] for name in test_names if name.rsplit("_", 1)[0] in trained)


def in_the_order_of_the_test_part(train_names, test_names):
    trained = {name.rsplit("_", 1)[0] for name in train_names}
    return list(dict.fromkeys(p for n in test_names if (p := n.rsplit("_", 1)[0]) in trained))


def all_places(train_names, test_names):
    return sorted({name.rsplit("_", 1)[0] for name in [*train_names, *test_names]})


# Appendix a2, exercise 2: to_classes(mask, values, void)


def replaces_in_place(mask, values, void):
    for k, value in enumerate(values):
        mask[mask == value] = k
    for value in void:
        mask[mask == value] = 255
    return mask


def void_becomes_background(mask, values, void):
    classes = np.zeros_like(mask)
    for k, value in enumerate(values):
        classes[mask == value] = k
    return classes


def void_stays_as_it_is(mask, values, void):
    classes = mask.copy()
    for k, value in enumerate(values):
        classes[mask == value] = k
    return classes


def values_in_ascending_order(mask, values, void):
    classes = np.zeros_like(mask)
    for k, value in enumerate(sorted(values)):
        classes[mask == value] = k
    for value in void:
        classes[mask == value] = 255
    return classes


def white_never_counts(mask, values, void):
    classes = np.full_like(mask, 255)
    for k, value in enumerate(values):
        if value != 255:
            classes[mask == value] = k
    return classes


def classes_become_values(mask, values, void):
    classes = np.full_like(mask, 255)
    for k, value in enumerate(values):
        classes[mask == k] = value
    return classes


# Appendix a3, exercise 1: coco_box(line, height, width)


def line_points(line, width, height):
    numbers = [float(text) for text in line.split()[1:]]
    return [value * width for value in numbers[0::2]], [value * height for value in numbers[1::2]]


def corners_in_place_of_sides(line, height, width):
    x, y = line_points(line, width, height)
    return [min(x), min(y), max(x), max(y)]


def box_with_center(line, height, width):
    x, y = line_points(line, width, height)
    return [(min(x) + max(x)) / 2, (min(y) + max(y)) / 2, max(x) - min(x), max(y) - min(y)]


def swaps_height_and_width(line, height, width):
    x, y = line_points(line, height, width)
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def swaps_x_and_y(line, height, width):
    x, y = line_points(line, width, height)
    return [min(y), min(x), max(y) - min(y), max(x) - min(x)]


def leaves_fractions(line, height, width):
    x, y = line_points(line, 1, 1)
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def reads_the_class_as_x(line, height, width):
    numbers = [float(text) for text in line.split()]
    x = [value * width for value in numbers[0::2]]
    y = [value * height for value in numbers[1::2]]
    return [min(x), min(y), max(x) - min(x), max(y) - min(y)]


def begins_at_the_first_point(line, height, width):
    x, y = line_points(line, width, height)
    return [x[0], y[0], max(x) - min(x), max(y) - min(y)]


# Appendix a3, exercise 2: mask_of_runs(text, height, width)


def runs(text, height, width, first=1, by_rows=False, ends=False):
    """The mask of start and length pairs, with choices that a learner may take."""
    pixels = np.zeros(height * width + 1, dtype=np.uint8)
    numbers = [int(word) for word in text.split()]
    for start, length in zip(numbers[0::2], numbers[1::2], strict=True):
        stop = length + 1 - first if ends else start - first + length
        pixels[start - first : stop] = 1
    pixels = pixels[: height * width]
    return pixels.reshape(height, width) if by_rows else pixels.reshape(width, height).T


def counts_from_zero(text, height, width):
    return runs(text, height, width, first=0)


def along_the_rows(text, height, width):
    return runs(text, height, width, by_rows=True)


def second_number_is_the_end(text, height, width):
    return runs(text, height, width, ends=True)


def only_the_first_run(text, height, width):
    return runs(" ".join(text.split()[:2]), height, width)


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
    "03_segnet_deeplabv3": {
        1: [
            ignores_dilation,
            ignores_strides,
            counts_the_own_stride,
            adds_kernel_sizes,
            multiplies_kernel_by_dilation,
            only_the_last_layer,
        ],
        2: [
            repeats_values,
            first_of_each_block,
            counts_column_by_column,
            width_of_the_small_image,
            always_four_wide,
            drops_values_below_zero,
        ],
    },
    "04_unet_voc": {
        1: [
            steps_without_accumulate,
            rate_without_accumulate,
            drops_the_smaller_step,
            rounds_up_at_the_end,
            steps_of_one_epoch,
            scales_the_rate_down,
            scales_by_the_square_root,
            keeps_the_rate,
        ],
        2: [
            needs_one_epoch_only,
            without_the_five_percent,
            may_fall_again,
            ignores_the_training_loss,
            counts_epochs_from_0,
            epoch_of_the_lowest_loss,
            first_rise,
            last_loss_is_higher,
            one_high_loss_is_enough,
        ],
    },
    "05_yolov8_buildings": {
        1: [
            without_order_of_scores,
            in_the_order_of_the_list,
            removed_boxes_remove,
            removes_at_the_limit,
            negative_sides,
            share_of_the_smaller,
            sum_in_place_of_union,
            limit_of_its_own,
            returns_the_boxes,
            keeps_the_best_only,
        ],
        2: [
            a_building_many_times,
            favorite_or_nothing,
            first_free_building,
            above_the_limit,
            takes_without_the_limit,
            largest_iou_first,
            most_pairs,
            limit_of_one_half,
        ],
    },
    "06_unet_ablations": {
        1: [
            compares_the_means,
            rule_of_the_lesson,
            decides_by_majority,
            sorts_the_seeds,
            counts_equal_as_better,
            leaves_out_equal_seeds,
            one_seed_is_enough,
            must_not_overlap,
            open_means_refuted,
            looks_at_two_seeds,
        ],
        2: [
            share_of_torn_groups,
            share_of_training_images,
            number_of_images,
            counts_pairs,
            same_image_in_both,
            of_all_images,
            any_relative,
            share_without_relative,
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
    "a2_your_own_photographs": {
        1: [
            up_to_the_first_underscore,
            compares_whole_names,
            compares_numbers,
            the_word_before_the_number,
            names_a_place_twice,
            in_the_order_of_the_test_part,
            all_places,
        ],
        2: [
            replaces_in_place,
            void_becomes_background,
            void_stays_as_it_is,
            values_in_ascending_order,
            white_never_counts,
            classes_become_values,
        ],
    },
    "a3_formats_and_rulers": {
        1: [
            corners_in_place_of_sides,
            box_with_center,
            swaps_height_and_width,
            swaps_x_and_y,
            leaves_fractions,
            reads_the_class_as_x,
            begins_at_the_first_point,
        ],
        2: [
            counts_from_zero,
            along_the_rows,
            second_number_is_the_end,
            only_the_first_run,
        ],
    },
}

# ------------------------------------------------------------------------------------------------ the checks

EXERCISES = [(path, number) for path in NOTEBOOKS for number in range(1, len(tagged(path, "exercise")) + 1)]
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
