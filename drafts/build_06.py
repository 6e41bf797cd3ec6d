"""Builds the draft of lesson 06 from the cells below."""
import json
import re
from pathlib import Path

CELLS = []
OUT = Path(__file__).parent / "06_unet_ablations.ipynb"


def md(text):
    CELLS.append(("markdown", text.strip("\n"), {}))


def code(text, *tags, **more):
    metadata = dict(more)
    if tags:
        metadata["tags"] = list(tags)
    CELLS.append(("code", text.strip("\n"), metadata))


lesson_02 = json.load(open("notebooks/02_unet_binary.ipynb"))
SETUP = "".join(lesson_02["cells"][1]["source"])
model_metadata = lesson_02["metadata"]

md("""
# Lesson 06 · What matters in a U-Net

**The question.** Which parts of a U-Net and of its training improve the result, and in what? How large must a difference between two networks be before it is more than chance?

![Test images with the errors of four variants of a U-Net](../assets/06_unet_ablations.jpg)

| profile | time | download |
|---|---|---|
| `tiny` | under a minute on two CPU cores | none |
| `demo` | about 15 minutes on one CPU core; about 3 minutes on a T4 (counted, not measured) | none |
| `full` | 4 to 6 hours on a T4 (counted, not measured) | 83 MB, once |

**What to know first:** lesson 02 (U-Net, Dice, BCE, seeds) and lesson 05 (objects and their masks).
""")
code(SETUP)
md("""
## Settings

An **ablation** changes one thing in a network or its training, to measure what it contributes. We start from the tuned training of lesson 02 and flip one switch at a time. Every run sees the same images in the same order for the same number of epochs.
""")
code("""
from seglib import lesson

# @markdown ANYWAY: run `full` without a GPU. MIRROR: see appendix a1.
PROFILE = "auto"  # @param ["auto", "tiny", "demo", "full"]
ANYWAY = False  # @param {type:"boolean"}
MIRROR = ""  # @param {type:"string"}
settings = lesson.settings(
    "06_unet_ablations",
    PROFILE,
    gpu_time="4 to 6 hours",
    anyway=ANYWAY,
    image_size=(64, 96, 256),  # the small nuclei must keep some pixels; half of it is tried
    base_channels=(8, 16, 64),  # of the first block; 64 in the paper of U-Net
    train_images=(48, 128, 100_000),  # few, so that over-fitting is possible; full: all
    val_images=(16, 48, 100_000),  # enough to choose the best epoch
    batch_size=(4, 8, 8),  # half of it is tried
    lr=(3e-3, 2e-3, 1e-4),  # short trainings need larger steps
    epochs=(12, 32, 50),  # the same for every run
    epochs_split=(4, 9, 50),  # of two runs with all training images, at the end
    weight_decay=(1e-5, 1e-5, 1e-5),  # that of lesson 02; 0 is tried
    alpha=(0.5, 0.5, 0.5),  # share of BCE in the loss; Dice has the rest
    pos_weight=(3.0, 3.0, 3.0),  # of nucleus pixels, in one variant
    live=(4, 4, 12),  # variants that this notebook trains, from the top of the list below
    live_seeds=((0,), (0,), (0, 1, 2)),  # more seeds and variants come from a record
)
""")
md("""
## The data

The [2018 Data Science Bowl](https://www.kaggle.com/c/data-science-bowl-2018) (Caicedo et al., 2019, [doi:10.1038/s41592-019-0612-7](https://doi.org/10.1038/s41592-019-0612-7)) asked for the nuclei in microscope images of many kinds. Each pixel of a label image holds the number of its nucleus; 0 is background. Here every nucleus is class 1, and we keep the nuclei one by one only to measure the small ones.

Several images were cut from one larger field. Such a **group** must lie in one part: otherwise the network is tested on fields that it has seen. The split is 60 % of the groups for training, 20 % each for validation and test.
""")
code("""
import numpy as np
from torch.utils.data import Subset

from seglib import plots
from seglib.datasets import MaskFolderDataset, all_instances, read_groups, split_by_group
from seglib.transforms import resize

PARTS = ("train", "val", "test")
classes = ["background", "nucleus"]
root = lesson.data("dsb2018")
groups = read_groups(root)  # by file name without suffix


def all_nuclei(size=None):  # None: every image at its own size
    folders = root / "images", root / "labels"
    to_size = resize(size, size) if size else None
    return MaskFolderDataset(*folders, classes, transform=to_size, instance_ids=True)


def nuclei(part, size=None):
    limits = {"train": settings.train_images, "val": settings.val_images, "test": 100_000}
    images = dict(zip(PARTS, split_by_group(all_nuclei(size), groups), strict=True))[part]
    count = min(limits[part], len(images))
    spread_out = np.linspace(0, len(images) - 1, count).round().astype(int)  # from all groups
    return Subset(images, spread_out.tolist())
""")
code("""
from seglib.datasets.base import get_filenames


def groups_of(data):
    return [groups[name.rsplit(".", 1)[0]] for name in get_filenames(data)]


photos = {part: nuclei(part) for part in PARTS}
objects = {part: all_instances(photos[part]) for part in PARTS}
areas = np.concatenate([instances.areas for instances in objects["train"]])
small_area = int(np.quantile(areas, 1 / 3))
for part in PARTS:
    images, count = len(photos[part]), sum(map(len, objects[part]))
    print(f"{part:<6}{images:4} images of {len(set(groups_of(photos[part]))):3} groups, ", end="")
    print(f"{count:6,} nuclei")
print(f"a third of the training nuclei have at most {small_area} pixels")
""")
code("""
brightness = [image.float().mean().item() for image, _, _ in photos["train"]]
from_bright_to_dark = lesson.pick(brightness, "highest", len(brightness))
rows = []
for i in from_bright_to_dark[:: max(1, len(brightness) // 3)][:3]:
    image, mask, _ = photos["train"][i]
    picture = image.permute(1, 2, 0).numpy()
    rows.append([image, plots.draw_instances(picture, objects["train"][i]), mask])
titles = ["image", "its nuclei, one color each", "mask"]
plots.picture_grid(rows, titles, (), classes, "Training images, from bright to dark")
""")
md("""
## What is measured

Every network is scored on the test images at their own size; its logits are enlarged if need be.

* **IoU** and **Dice**, as before, over all pixels.
* **Boundary IoU** (Cheng et al., 2021, [arXiv:2103.16562](https://arxiv.org/abs/2103.16562)): the IoU of the inner edges only, that is, of the pixels of truth and prediction that lie within a few pixels of their outlines (here 1 % of the diagonal; the 2 % that its authors use for COCO would cover a small nucleus almost completely). IoU hardly notices a ragged edge of a large object; boundary IoU does.
* **IoU of small nuclei**: the IoU around the smallest third of the nuclei (by the areas in the training images). Of each, only the box counts, grown by half its size on every side; larger nuclei in it do not count. A small nucleus has few pixels, so missing it hardly changes the IoU over all.
* **Over-fitting**: the IoU on the training images minus that on the test images, without augmentation and with the same weights.
* **Jumps**: how much the validation IoU changes from one epoch to the next, in the second half of training (standard deviation).
* **Time**: milliseconds for one image, the median of 20 passes after 3 that warm up. The first passes are slower, because memory is allocated; the median ignores single passes that another program slows down.
""")
code("""
from seglib.metrics import ConfusionMatrix, boundary_iou, small_object_iou

EDGE = 0.01  # the width of the edges that are scored, as a share of the image's diagonal


def scores(guesses, part="test"):  # of one prediction for each image
    matrix = ConfusionMatrix(2)
    truths = [mask for _, mask, _ in photos[part]]
    for guess, truth in zip(guesses, truths, strict=True):
        matrix.update(guess, truth)
    return {
        "IoU": matrix.iou()[1].item(),
        "Dice": matrix.dice()[1].item(),
        "boundary IoU": boundary_iou(guesses, truths, ratio=EDGE)[1].item(),
        "small IoU": small_object_iou(guesses, objects[part], max_area=small_area)[1].item(),
    }
""")
code("""
import time

import torch

from seglib.baselines import score
from seglib.predict import predict


def milliseconds(model, size):
    image = torch.zeros(1, 3, size, size, dtype=torch.uint8, device=settings.device)
    times = []
    with torch.no_grad():
        for _ in range(23):
            started = time.perf_counter()
            model(image).sum().item()  # waits for the GPU
            times.append(1000 * (time.perf_counter() - started))
    return float(np.median(times[3:]))
""")
code("""
import torch.nn.functional as F


def small_share(instances):  # of the nucleus pixels of an image
    areas = instances.areas
    return areas[areas <= small_area].sum() / max(areas.sum(), 1) or np.nan  # nan: none is small


i = lesson.pick([small_share(instances) for instances in objects["test"]], "lowest", 10)[0]
(image, truth, _), instances = photos["test"][i], objects["test"][i]
small = torch.from_numpy(instances.pick(instances.areas <= small_area).numbered() > 0)
wider = F.max_pool2d(truth[None].float(), 3, stride=1, padding=1)[0].to(torch.uint8)
examples = {
    "all edges one pixel too far out": wider,
    "all small nuclei missed": truth.masked_fill(small, 0),
}
row, captions = [plots.overlay(image, truth)], [f"{len(instances)} nuclei"]
for guess in examples.values():
    row.append(plots.error_map(image, truth, guess))
    matrix = ConfusionMatrix(2).update(guess, truth)
    edges = boundary_iou([guess], [truth], ratio=EDGE)[1]
    of_small = small_object_iou([guess], [instances], max_area=small_area)[1]
    captions.append(f"IoU {matrix.iou()[1]:.2f}, boundary {edges:.2f}, small {of_small:.2f}")
legend = plots.ERROR_LEGEND
plots.picture_grid([row], ["truth", *examples], (), legend, width=3, captions=[captions])
""")
md("""
## What a network has to beat

The color rules of lesson 02, chosen on the training images. Some nuclei glow on a dark background, others are dark on a bright one, so no single threshold fits all images.
""")
code("""
from seglib.baselines import best_threshold, color_table

threshold = best_threshold(nuclei("train", settings.image_size))
rules = {
    "everything": lambda image: torch.ones_like(image[0]),
    "best threshold": threshold,
    "color table": color_table(nuclei("train", settings.image_size)),
}
baselines = {name: score(rule, photos["test"]).iou()[1].item() for name, rule in rules.items()}
side = "above" if threshold.above else "at most"
print(f"best threshold: a nucleus is where {threshold.channel} is {side} {threshold.value}")
for name, value in baselines.items():
    print(f"{name:<16} test IoU of nucleus {value:.3f}")
""")
md("""
## Twelve variants

The **tuned** network has skip connections, four levels, bilinear upsampling, BCE + Dice, augmentation and weight decay. Each other variant differs from it in one thing, which is an argument of `UNet`, of the loss or of the training.

* **Architecture**: no skip connections; five levels instead of four; transposed convolutions instead of bilinear upsampling.
* **Loss**: instead of BCE + Dice one of the two alone, or with nucleus pixels counted more often, or *cross-entropy* over two logits, background and nucleus. Softmax over two logits is the sigmoid of their difference, so cross-entropy and BCE are the same loss with another last layer: **how far these two lie apart is a measure of chance.**
* **Training**: no augmentation; images of half the size; batches of half the size, which take twice as many steps; no weight decay.
""")
code("""
from seglib.losses import BCEDiceLoss, BCELoss, CrossEntropyLoss, DiceLoss

TUNED = {"classes": 1, "depth": 4, "bilinear": True, "skip": True}
TUNED |= {"loss": BCEDiceLoss(settings.alpha), "augment": True, "size": settings.image_size}
TUNED |= {"batch_size": settings.batch_size, "weight_decay": settings.weight_decay}
weighted = BCEDiceLoss(settings.alpha, settings.pos_weight)
VARIANTS = {
    "tuned": {},
    "no skip connections": {"skip": False},
    "BCE": {"loss": BCELoss()},
    "no augmentation": {"augment": False},
    "five levels": {"depth": 5},
    "transposed convolutions": {"bilinear": False},
    "cross-entropy": {"loss": CrossEntropyLoss(), "classes": 2},
    "Dice": {"loss": DiceLoss()},
    "weighted BCE + Dice": {"loss": weighted},
    "half the image size": {"size": settings.image_size // 2},
    "half the batch": {"batch_size": settings.batch_size // 2},
    "no weight decay": {"weight_decay": 0.0},
}
""")
code("""
from seglib.models import UNet
from seglib.train import TrainConfig, fit
from seglib.transforms import augmentation

# Cells have no up and down, so every flip is an image that could occur.
flips = {"horizontal_flip": 0.5, "vertical_flip": 0.5}
augment = augmentation(**flips, rotate=15, brightness=0.2, contrast=0.2)


def new_model(name):
    numbers = TUNED | VARIANTS[name]
    switches = {key: numbers[key] for key in ("classes", "depth", "bilinear", "skip")}
    return UNet(base_channels=settings.base_channels, **switches)
""")
code("""
def train(name, seed=settings.seed, data=None, epochs=settings.epochs, prefix=""):
    numbers = TUNED | VARIANTS[name]
    data = data or {part: nuclei(part, numbers["size"]) for part in PARTS}
    folder = f"{prefix}{name}-{seed}-{settings.id}"
    options = {key: numbers[key] for key in ("batch_size", "weight_decay")}
    options |= {"seed": seed, "scheduler": "cosine", "previews": 0, "trackers": ()}
    options |= {"mirror": lesson.mirror(MIRROR, folder)}
    config = TrainConfig(epochs, lr=settings.lr, **options)
    lesson.seed(seed)  # the same initial weights, if the network is the same
    changes = augment if numbers["augment"] else None
    parts, run_dir = (data["train"], data["val"]), lesson.run_dir(folder)
    return fit(new_model(name), *parts, numbers["loss"], config, run_dir, changes)
""")
code("""
live = list(VARIANTS)[: settings.live]
train_data, val_data = (nuclei(part, settings.image_size) for part in ("train", "val"))
epochs = settings.epochs * len(live) * len(settings.live_seeds)
all_train = split_by_group(all_nuclei(), groups)[0]  # for the two runs at the end
epochs += round(2 * settings.epochs_split * len(all_train) / len(train_data))
model, loss = new_model("tuned"), TUNED["loss"]
lesson.plan(model, loss, train_data, val_data, settings.batch_size, epochs, augment)

runs = {name: [train(name, seed) for seed in settings.live_seeds] for name in live}
""")
code("""
histories = {name: runs[name][0].history for name in live[:4]}
figure = plots.metric_curves(histories, ["val_iou"], "Validation IoU of nucleus, one seed")
figure.axes[0].legend(loc="lower right", ncols=2, fontsize=9)
figure
""")
md("""
@FINDINGS_1@ (Which of the four is ahead, from when on? Do the curves cross late: would shorter runs have given another order?)

## Four variants, one seed
""")
code("""
def summary(run, size):
    model = run.model().to(settings.device)
    result = scores([predict(model, image) for image, _, _ in photos["test"]])
    seen = [predict(model, image) for image, _, _ in photos["train"]]
    result["over-fitting"] = scores(seen, "train")["IoU"] - result["IoU"]
    val_iou = run.column("val_iou")
    result["jumps"] = float(np.std(np.diff(val_iou[len(val_iou) // 2 :])))
    result["ms"] = milliseconds(model, size)
    return result


sizes = {name: (TUNED | VARIANTS[name])["size"] for name in VARIANTS}
tested = {name: [summary(run, sizes[name]) for run in runs[name]] for name in live}
COLUMNS = list(tested["tuned"][0])
print(f"{'':<24}" + "".join(f"{column:>15}" for column in COLUMNS))
for name in live:
    print(f"{name:<24}" + "".join(f"{tested[name][0][column]:15.3f}" for column in COLUMNS))
""")
code("""
models = {name: runs[name][0].model().to(settings.device) for name in live[:4]}


def test_iou(model, i):
    image, truth, _ = photos["test"][i]
    return ConfusionMatrix(2).update(predict(model, image), truth).iou()[1].item()


ious = {
    name: [test_iou(model, i) for i in range(len(photos["test"]))] for name, model in models.items()
}
gains = np.subtract(ious["tuned"], ious["no skip connections"]).tolist()
""")
code("""
def show_errors(chosen, title):
    rows, captions = [], []
    for i in chosen:
        image, truth, _ = photos["test"][i]
        guesses = [predict(model, image) for model in models.values()]
        rows.append([image, *(plots.error_map(image, truth, guess) for guess in guesses)])
        captions.append(["", *(f"IoU {ious[name][i]:.2f}" for name in models)])
    titles = ["image", *models]
    return plots.picture_grid(rows, titles, (), plots.ERROR_LEGEND, title, captions=captions)


chosen = [*lesson.pick(gains, "highest", 1), *lesson.pick(gains, "median", 2)]
show_errors(chosen, "Test images: most gained by skip connections (top), median gain (below)")
""", "readme")
md("""
@FINDINGS_2@ (Where are the errors of the network without skip connections: at the edges, or whole small nuclei? Can the eye tell the other three apart?)

## All variants, three seeds

One run of each says little. The table below was computed once, with the `demo` settings, by `make results NAME=unet_ablations`: twelve variants, three seeds each. The seed decides the initial weights, the order of the images and the augmentation, and a seed means the same order for every variant. (`full` trains all of them here.)
""")
code("""
from IPython.display import Markdown

record = lesson.results("unet_ablations")
if settings.profile == "full":
    values = {name: {c: [one[c] for one in ones] for c in COLUMNS} for name, ones in tested.items()}
else:
    values = record["values"]
    numbers, images = record["settings"], record["data"]["images"]["train"]
    print(f"{record['machine']}, {record['minutes']:.0f} minutes: {images} training images,")
    print(f"{numbers['epochs']} epochs, seeds {numbers['seeds']}")


def spread(numbers):
    return max(numbers) - min(numbers)


digits = [(column, 1 if column == "ms" else 3) for column in COLUMNS]
table = f"| variant | {' | '.join(COLUMNS)} | parameters |\\n" + "|---" * (len(COLUMNS) + 2) + "|\\n"
for name, columns in values.items():
    cells = [f"{np.mean(columns[c]):.{n}f} ({spread(columns[c]):.{n}f})" for c, n in digits]
    parameters = sum(weights.numel() for weights in new_model(name).parameters())
    table += f"| {name} | {' | '.join(cells)} | {parameters / 1e6:.2f} M |\\n"
Markdown(table + "\\nMean over the seeds, and in brackets the spread.")
""")
code("""
for column, label in (("IoU", "test IoU"), ("small IoU", "test IoU of small nuclei")):
    one = {name: columns[column] for name, columns in values.items()}
    display(plots.seed_scores(one, f"{label}: every seed and the mean", label))
""")
md("""
@FINDINGS_3@ (Which variants leave the cloud of the others, in which measure? How far do BCE and cross-entropy lie apart, which are the same loss: what does that say about the other differences?)

The same test image under every variant, seed 0, from the same record:
""")
code("""
from seglib.masks import rle_to_mask

pictures = record["pictures"]
names_of_files = [photos["test"][i][2] for i in range(len(photos["test"]))]
if pictures["file"] in names_of_files:
    image, truth, _ = photos["test"][names_of_files.index(pictures["file"])]
    guesses = {name: rle_to_mask(rle) for name, rle in pictures["predictions"].items()}
    maps = [plots.error_map(image, truth, guess) for guess in guesses.values()]
    found = [ConfusionMatrix(2).update(guess.astype("uint8"), truth) for guess in guesses.values()]
    below = [f"{name}: {m.iou()[1]:.2f}" for name, m in zip(guesses, found, strict=True)]
    rows = [maps[i : i + 4] for i in range(0, len(maps), 4)]
    captions = [below[i : i + 4] for i in range(0, len(maps), 4)]
    legend, title = plots.ERROR_LEGEND, "One test image under every variant, with its IoU"
    display(plots.picture_grid(rows, [""] * 4, (), legend, title, captions=captions))
else:
    print("The record is of other images: run the demo profile to see it.")
""")
md("""
## Which claims hold?

The first experiment reported what follows. For each claim we name a measure and two variants. The rule was fixed before the runs:

* *difference*: the mean of the claimed better variant minus that of the other (the other way round where less is better);
* *spread*: the larger of their two spreads over the seeds;
* **supported** if the difference is larger than the spread, **refuted** if it is below minus the spread, else **open**.

"Best" must hold against every other loss; it is refuted if one of them is better.
""")
code("""
LOSSES = ["tuned", "BCE", "cross-entropy", "Dice", "weighted BCE + Dice"]
LESS_IS_BETTER = ("over-fitting", "jumps", "ms")
CLAIMS = [  # claim, measure, the variant that should be better, those that should be worse
    ("Skip connections give finer edges", "boundary IoU", "tuned", ["no skip connections"]),
    ("Bilinear upsampling: cleaner edges", "boundary IoU", "tuned", ["transposed convolutions"]),
    ("Dice helps small objects", "small IoU", "Dice", ["BCE"]),
    ("BCE + Dice is best overall", "IoU", "tuned", LOSSES[1:]),
    ("Weighting mends missed small objects", "small IoU", "weighted BCE + Dice", ["tuned"]),
    ("A deeper network finds small objects", "small IoU", "five levels", ["tuned"]),
    ("A deeper network is slower", "ms", "tuned", ["five levels"]),
    ("Augmentation prevents over-fitting", "over-fitting", "tuned", ["no augmentation"]),
    ("Weight decay prevents over-fitting", "over-fitting", "tuned", ["no weight decay"]),
    ("Larger batches are steadier", "jumps", "tuned", ["half the batch"]),
]


def compare(measure, better, worse):  # difference in the direction of the claim, and spread
    first, second = values[better][measure], values[worse][measure]
    sign = -1 if measure in LESS_IS_BETTER else 1
    return sign * (np.mean(first) - np.mean(second)), max(spread(first), spread(second))
""")
code("""
def verdict(pairs):  # of (difference, spread): one, or several if it must hold against all
    if all(difference > spread for difference, spread in pairs):
        return "supported"
    return "refuted" if any(difference < -spread for difference, spread in pairs) else "open"


verdicts = {}
table = "| claim | measure | difference | spread | verdict |\\n|---|---|---|---|---|\\n"
for claim, measure, better, others in CLAIMS:
    pairs = [compare(measure, better, worse) for worse in others]
    verdicts[claim] = verdict(pairs)
    difference, margin = min(pairs, key=lambda pair: pair[0] - pair[1])  # the hardest one
    table += f"| {claim} | {measure} | {difference:+.3f} | {margin:.3f} | {verdicts[claim]} |\\n"
Markdown(table)
""")
md("""
One more claim compares *groups* of variants: the choice of the loss is said to matter more for small objects than the architecture. For each seed, take the range of the IoU of small nuclei over the five losses, and over the four architectures.
""")
code("""
ARCHITECTURES = ["tuned", "no skip connections", "five levels", "transposed convolutions"]


def ranges(names):  # one for each seed
    return np.ptp([values[name]["small IoU"] for name in names], axis=0)


by_loss, by_network = ranges(LOSSES), ranges(ARCHITECTURES)
without_skip = ranges([name for name in ARCHITECTURES if name != "no skip connections"])
pair = (by_loss.mean() - by_network.mean(), max(spread(by_loss), spread(by_network)))
claim = "Loss matters more than architecture"
verdicts[claim] = verdict([pair])
print(f"losses {by_loss.mean():.3f}, architectures {by_network.mean():.3f}: {verdicts[claim]}")
print(f"architectures that keep the skip connections: {without_skip.mean():.3f}")
""")
md("""
@FINDINGS_4@ (Go through the table: which claims are supported or refuted, and how many spreads large are their differences? Which open claims lie near the limit? Is over-fitting present at all, that is, is training minus test IoU clearly above 0? Does the last claim hang on the network without skip connections?)

"Open" does not mean "no effect". Either the effect is smaller than chance in these runs, or there are too few seeds to see it.

## What it gets wrong
""")
code("""
show_errors(lesson.pick(ious["tuned"], "lowest", 3), "The three test images with the lowest IoU")
""")
code("""
from scipy import ndimage

true_counts = [len(instances) for instances in objects["test"]]
blobs = [ndimage.label(mask == 1)[1] for _, mask, _ in photos["test"]]
guesses = [predict(models["tuned"], image) for image, _, _ in photos["test"]]
found = [ndimage.label(guess)[1] for guess in guesses]
print(f"{sum(true_counts):,} nuclei, {sum(blobs):,} separate blobs in the true masks, ", end="")
print(f"{sum(found):,} in the predicted ones")
plots.count_scatter(true_counts, found, "nuclei")
""")
md("""
@FINDINGS_5@ (Which images are worst: faint nuclei, crowded ones, another kind of image than most? How many nuclei are lost by merging?)

Nuclei that touch become one blob: a mask of two classes cannot separate them, however good it is. Remedies: a third class for the borders between nuclei, which was the idea behind the weight map in the paper of U-Net, or a network that finds objects one by one (lesson 05).

## What a split is worth

Most published results on these images come from splits that ignore the groups. The next cell trains the tuned network twice, for equally many epochs: split by group, and split by image. The second split is that of the lists `splits/train.txt` and `splits/val.txt`, which some copies of the data set bring along; elsewhere, as in the drawn sample, it goes by a hash of the file names. A quarter of its training images are held out for validation.

The two test parts have different images, so one may be easier by chance. A second comparison stays within one network: the test images of the split by image that have a **relative**, an image of the same group, among the training images, and those that have none.
""")
code("""
from seglib.datasets import hold_out


def torn(size=None):  # the split that ignores the groups
    data, lists = all_nuclei(size), root / "splits"
    if (lists / "train.txt").is_file():
        stems = [name.rsplit(".", 1)[0] for name in data.filenames]
        names = [set((lists / f"{part}.txt").read_text().split()) for part in ("train", "val")]
        chosen = [[i for i, stem in enumerate(stems) if stem in listed] for listed in names]
        rest, test = (Subset(data, indices) for indices in chosen)
    else:
        rest, test = hold_out(data, 0.2)
    return *hold_out(rest, 0.25), test


def grouped(size=None):
    return split_by_group(all_nuclei(size), groups)


def split_iou(model, data):
    matrix = score(lambda image: torch.from_numpy(predict(model, image)), data)
    return matrix.iou()[1].item()
""")
code("""
for name, split in (("by group", grouped), ("by image", torn)):
    parts = dict(zip(PARTS, split(settings.image_size), strict=True))
    run = train("tuned", data=parts, epochs=settings.epochs_split, prefix=f"{name}-")
    model, test = run.model().to(settings.device), split()[2]
    seen, tested_groups = set(groups_of(parts["train"])), groups_of(test)
    related = [i for i, group in enumerate(tested_groups) if group in seen]
    print(f"{name}: {len(parts['train'])} training images, test IoU {split_iou(model, test):.3f}")
    print(f"  {len(seen & set(tested_groups))} groups lie in training and test, ", end="")
    print(f"{len(related)} of {len(test)} test images have a relative in training")

others = [i for i in range(len(test)) if i not in related]
for name, chosen in (("with a relative", related), ("without", others)):
    value = split_iou(model, Subset(test, chosen))
    print(f"by image, the {len(chosen)} test images {name}: IoU {value:.3f}")
""")
md("""
@FINDINGS_6@ (How far do the two scores lie apart, compared with the spread over seeds? How many test images have a relative in the training part?)

## What was reported, what this run shows, what remains open
""")
code("""
value = tested["tuned"][0]["IoU"]
network_spread = spread(values["tuned"]["IoU"])
baseline = max(baselines.values())
verdict_list = list(verdicts.values())
words = ("supported", "refuted", "open")
counts = ", ".join(f"{verdict_list.count(word)} {word}" for word in words)
lost = np.mean(values["tuned"]["IoU"]) - np.mean(values["no skip connections"]["IoU"])
Markdown(f\"\"\"
| | reported | this run, {settings.profile} | open |
|---|---|---|---|
| what matters in a U-Net | {len(verdicts)} claims | {counts} | `full`; more seeds |
| U-Net on nuclei, test IoU | near 0.91, real images, other split | {value:.3f} | `full` |
| spread over seeds (stored runs) | not reported | {network_spread:.3f} | more seeds |
| loss of IoU without skip connections (stored runs) | not reported | {lost:.3f} | |
| strongest baseline, test IoU | not reported | {baseline:.3f} | |
\"\"\")
""")
code("""
metric = "IoU of class nucleus over all pixels of the test images, at their own size"
solved = {"metric": metric, "value": value, "baseline": baseline, "spread": network_spread}
compared = {f"U-Net, {name}": tested[name][0]["IoU"] for name in live[1:]} | baselines
lesson.record(
    "test IoU of nucleus",
    value,
    baseline=baseline,
    spread=network_spread,
    networks={"U-Net, tuned": solved},
    comparisons={name: {"metric": metric, "value": number} for name, number in compared.items()},
    data=root,
    images={part: len(nuclei(part)) for part in ("train", "val", "test")},
)
""")
md("""
**What to take away**

* Change one thing at a time, with the same images, order and number of epochs.
* Repeat every run with several seeds, and fix the rule that decides before you look.
* Choose the measure that can see the effect: edges and small objects hardly change the IoU over all pixels.
* Include a comparison in which nothing differs. It shows how large chance is.
* Images from one source belong in one part of the split.

## Exercises

Complete the function, run its cell, and then the next one, which checks it.

**1. Seeds in pairs.** Runs with the same seed share the order of the images, so they can be compared one by one. Write another rule: a claim is "supported" if the first variant is better with *every* seed, "refuted" if it is worse with every seed, and otherwise "open". More is better.
""")
code("""
def paired_verdict(first, second):  # two lists: the scores of each variant, seed by seed
    return None
""", "exercise")
code("""
CASES_1 = {
    "better with every seed": (([0.85, 0.90, 0.80], [0.84, 0.89, 0.79]), "supported"),
    "worse with every seed": (([0.84, 0.88, 0.79], [0.85, 0.90, 0.80]), "refuted"),
    "one seed disagrees": (([0.90, 0.90, 0.80], [0.80, 0.80, 0.81]), "open"),
    "two seeds disagree": (([0.95, 0.80, 0.80], [0.80, 0.81, 0.81]), "open"),
    "the order of the seeds counts": (([0.80, 0.90, 0.85], [0.89, 0.79, 0.84]), "open"),
    "equal with one seed": (([0.85, 0.90, 0.80], [0.84, 0.90, 0.79]), "open"),
    "equal with every seed": (([0.85, 0.90], [0.85, 0.90]), "open"),
    "five seeds": (([0.5, 0.6, 0.7, 0.8, 0.9], [0.4, 0.5, 0.6, 0.7, 0.8]), "supported"),
}
lesson.check(paired_verdict, CASES_1, "Compare the scores of each seed. What if they are equal?")
""", "check")
md("""
**2. A split that leaks.** `groups` gives the group of each image. Write a function that returns the share of the test images that have at least one relative, an image of the same group, in the training part.
""")
code("""
def leaked_share(train, test, groups):  # two lists of names; a dictionary from name to group
    return None
""", "exercise")
code("""
groups_2 = {"a1": 0, "a2": 0, "a3": 0, "b1": 1, "b2": 1, "c1": 2, "d1": 3, "e1": 4}
CASES_2 = {
    "grouped split": ((["a1", "a2", "a3"], ["b1", "b2"], groups_2), 0.0),
    "one group torn": ((["a1", "c1"], ["a2", "b1", "d1", "e1"], groups_2), 0.25),
    "two relatives, one test image": ((["a1", "a2"], ["a3", "d1"], groups_2), 0.5),
    "two test images of one torn group": ((["a1", "c1"], ["a2", "a3", "b1"], groups_2), 2 / 3),
    "relatives within the test part": ((["c1", "d1"], ["a1", "a2", "b1", "e1"], groups_2), 0.0),
    "all leak": ((["a1", "b1"], ["a2", "b2"], groups_2), 1.0),
}
lesson.check(leaked_share, CASES_2, "Which groups have training images? Then count test *images*.")
""", "check")
md("""
**3. An open question.** Choose a claim that came out open. What would you change to decide it: more seeds, longer runs, a harder test set, another measure? Estimate the hours that it would take, and what you would do with the answer.

**Next: [appendix a1](a1_training_that_survives.ipynb)**, on trainings that are interrupted and resumed.

## Solutions
""")
hidden = {"cellView": "form", "jupyter": {"source_hidden": True}}
code("""
# @title Solution 1
def paired_verdict(first, second):
    pairs = list(zip(first, second, strict=True))
    if all(a > b for a, b in pairs):
        return "supported"
    return "refuted" if all(a < b for a, b in pairs) else "open"


lesson.check(paired_verdict, CASES_1, solution=True)
for claim, measure, better, others in CLAIMS:
    scores_of = [values[name][measure] for name in (better, *others[:1])]
    if len(others) == 1:
        pair = scores_of[::-1] if measure in LESS_IS_BETTER else scores_of
        print(f"{claim:<40}{verdicts[claim]:>12} {paired_verdict(*pair):>12} in pairs")
seeds = len(values["tuned"]["IoU"])
chance = 2 * 0.5**seeds  # all the same way, one or the other
print(f"without any effect, {seeds} seeds agree by chance in {chance:.0%} of the cases")
""", "solution", **hidden)
code("""
# @title Solution 2
def leaked_share(train, test, groups):
    seen = {groups[name] for name in train}
    return sum(groups[name] in seen for name in test) / len(test)


lesson.check(leaked_share, CASES_2, solution=True)
for name, split in (("by group", grouped), ("by image", torn)):
    train_part, _, test_part = map(get_filenames, split())
    by_file = {file: groups[file.rsplit(".", 1)[0]] for file in (*train_part, *test_part)}
    print(f"{name}: {leaked_share(train_part, test_part, by_file):.0%} of the test images")
""", "solution", **hidden)


def main():
    cells = []
    for number, (kind, text, metadata) in enumerate(CELLS):
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": metadata, "source": text.splitlines(keepends=True)}
        if kind == "code":
            lines = text.splitlines()
            if len(lines) > 25:
                print("TOO MANY LINES", len(lines), lines[0], lines[-1])
            for line in lines:
                if len(line) > 100:
                    print("TOO LONG", line)
            compile(text, "cell", "exec")
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    notebook = {"cells": cells, "metadata": model_metadata, "nbformat": 4, "nbformat_minor": 5}
    OUT.write_text(json.dumps(notebook, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    prose = "\n".join(t for k, t, _ in CELLS if k == "markdown").split("## Exercises")[0]
    prose = re.sub(r"(?m)(?s:```.*?```)|\]\([^)]*\)|^\|.*$", " ", prose)
    first = next(i for i, c in enumerate(CELLS) if "## Exercises" in c[1])
    print("words", len([w for w in prose.split() if re.search("[A-Za-z]", w)]), "cells", len(CELLS), "before exercises", first + 1)


main()
