# For tests/test_exercises.py. They need: from statistics import fmean.

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


# In MISTAKES:
LESSON_06 = {
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
}
