"""fit_yolo(): Ultralytics trains a YOLOv8-seg; its data, its history and its checkpoints are those of every other run.

The run folder is that of `seglib.runs`, best_model.pth and history.csv included. What Ultralytics itself writes is in
its sub-folder ultralytics/: links to the images, the labels as they were read, results.csv, weights/last.pt. Nothing is
written beside the reader's own images, where it would leave its label caches.
"""

import csv
import hashlib
import io
import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from seglib import runs
from seglib.config import ADVICE_AFTER_NAN, default_precision
from seglib.datasets.base import get_class_names, unwrap_subset
from seglib.datasets.yolo import YOLO_PARTS, YOLOSegmentationDataset, write_data_yaml
from seglib.files import link_or_copy, short_path, write_lines
from seglib.models.common import YOLO_MODELS
from seglib.models.yolo import (
    YOLOSegmenter,
    check_image_size,
    download_weights,
    isolated_ultralytics,
    quiet_ultralytics,
)
from seglib.runs import Mirror, Row, Run, best_epoch, lock_run, open_run, save_checkpoint

METRIC = "val_ap"
THEIRS = "ultralytics"  # the sub-folder that Ultralytics writes to
RESULTS, LAST = f"{THEIRS}/results.csv", f"{THEIRS}/weights/last.pt"
CURVES = ("val_ap50", "val_ap")
NOT_OTHERS = {"save", "val", "time", "resume", "device", "amp", "workers", "data", "model", "pretrained", "save_dir"}
NOT_OTHERS |= {"task", "mode", "project", "name", "cache", "rect", "fraction", "split", "compile", "deterministic"}
OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}
# Columns of results.csv; (B) is of boxes, (M) of masks. All of them are Ultralytics' own measure: see lesson 05.
COLUMNS = {
    "val_ap": "metrics/mAP50-95(M)",
    "val_ap50": "metrics/mAP50(M)",
    "val_precision": "metrics/precision(M)",
    "val_recall": "metrics/recall(M)",
    "val_box_ap": "metrics/mAP50-95(B)",
    "val_box_ap50": "metrics/mAP50(B)",
}


@dataclass(frozen=True)
class YOLOConfig:
    """The settings of a YOLO's training.

    Args:
        epochs, batch_size, lr, weight_decay, seed, workers: as of `seglib.train.TrainConfig`. A step is taken after
            every batch; Ultralytics by itself gathers 64 images for each, whatever the size of a batch, so that a
            comparison of batch sizes would compare nothing.
        model: "yolov8n-seg" ... "yolov8x-seg". weights: "coco" or None, see `YOLOSegmenter`.
        image_size: the longer side that images are brought to.
        optimizer: "adamw", "adam" or "sgd".
        scheduler: "cosine" towards a hundredth of `lr`, which one epoch more would have; None for a constant rate.
        warmup_epochs: over which the rate rises from 0, and that of the biases falls from 0.1.
        mosaic: how often four images are put together to one. close_mosaic: not in so many of the last epochs.
        flip_up_down: how often an image is turned upside down: from above, there is no up.
        patience: stop when the mask AP on the validation images has not risen for so many epochs; None: never. Epochs
            before the first AP above 0 do not count.
        others: more of Ultralytics' settings for augmentation and loss, by its names: {"degrees": 10}.
        mirror: as of `TrainConfig`.
    """

    epochs: int
    batch_size: int
    lr: float
    model: str = "yolov8n-seg"
    weights: str | None = None
    image_size: int = 640
    weight_decay: float = 0.0005
    optimizer: str = "adamw"
    scheduler: str | None = "cosine"
    warmup_epochs: float = 3.0
    mosaic: float = 1.0
    close_mosaic: int = 10
    flip_up_down: float = 0.0
    patience: int | None = None
    seed: int = 0
    workers: int | None = None
    others: dict[str, Any] = field(default_factory=dict)
    mirror: Path | str | None = None

    def __post_init__(self) -> None:
        check_image_size(self.image_size)
        whole = (self.epochs, self.batch_size, 1 if self.patience is None else self.patience)
        if any(not isinstance(value, int) or value < 1 for value in whole) or not self.lr > 0:
            raise ValueError(f"epochs, batch_size and patience are whole numbers from 1 on, lr is above 0: {self}")
        if self.batch_size == 1:
            raise ValueError("batch_size=1 cannot train batch norm, which needs a second image to compare with")
        for name, value, choices in (
            ("model", self.model, YOLO_MODELS),
            ("weights", self.weights, (None, "coco")),
            ("optimizer", self.optimizer, tuple(OPTIMIZERS)),
            ("scheduler", self.scheduler, (None, "cosine")),
        ):
            if value not in choices:
                raise ValueError(f"no {name} {value!r}; there are {', '.join(map(str, choices))}")
        ours = set(self.others) & {*ultralytics_settings(self), *NOT_OTHERS}
        if ours:
            raise ValueError(f"{', '.join(sorted(ours))} cannot be set by others: that is decided by seglib")
        object.__setattr__(self, "lr", float(self.lr))
        if self.mirror is not None:
            object.__setattr__(self, "mirror", Path(self.mirror).expanduser())


def ultralytics_settings(config: YOLOConfig) -> dict[str, Any]:
    """The same settings by Ultralytics' names."""
    return {
        "epochs": config.epochs,
        "batch": config.batch_size,
        "nbs": config.batch_size,  # a step after every batch
        "lr0": config.lr,
        "lrf": 1.0 if config.scheduler is None else 0.01,
        "cos_lr": config.scheduler == "cosine",
        "optimizer": OPTIMIZERS[config.optimizer],
        "weight_decay": config.weight_decay,
        "imgsz": config.image_size,
        "warmup_epochs": config.warmup_epochs,
        "mosaic": config.mosaic,
        "close_mosaic": config.close_mosaic,
        "flipud": config.flip_up_down,
        "patience": config.patience or config.epochs + 1,
        "seed": config.seed,
        "plots": False,
        "verbose": False,
        "exist_ok": True,
    }


def fit_yolo(train_data: Dataset, val_data: Dataset, config: YOLOConfig, run_dir: str | Path) -> Run:
    """Train a YOLOv8-seg, on one GPU or the CPU; called again, go on after the last epoch that was finished.

    Unlike `seglib.train.fit`, an interrupted run does not end with the very weights of one that was not: Ultralytics
    keeps its checkpoints in half precision, and begins its random numbers anew. It is as good a run, but another one.

    Args:
        train_data, val_data: `YOLOSegmentationDataset`s, or Subsets of such.
        run_dir: the run folder. The same call on a finished run returns it without training.

    Returns:
        The run. Its best epoch is that of the highest mask AP50-95 on the validation images, as Ultralytics measures
        it. `seglib.evaluate.mask_ap` is what a test is measured by.

    Raises:
        ValueError: settings other than those of the run in `run_dir`; data with other classes; a damaged checkpoint.
        FloatingPointError: the loss became NaN or infinite.
        torch.OutOfMemoryError: Ultralytics by itself would halve the batch and go on, as another experiment.
        OSError: the publisher's weights cannot be had; the run folder cannot be written to.
    """
    if not isinstance(config, YOLOConfig):
        raise TypeError(f"fit_yolo takes a YOLOConfig, not {type(config).__name__}")
    names = check_data(train_data, val_data)
    check_others(config.others)
    settings = run_settings(train_data, val_data, names, config)
    mirror = None if config.mirror is None else Mirror(config.mirror)
    with lock_run(Path(run_dir)):
        run, state = open_run(run_dir, settings, mirror)
        if state is not None:
            run.finished = state["finished"]
        if run.finished:
            run.save_curves(CURVES, "ap.png")
            if mirror is not None and not mirror.has(len(run.history)):  # killed at its very end
                mirror.write(run.dir / runs.LAST, settings, len(run.history))
            print(f"{short_path(run.dir)} is finished ({len(run.history)} epochs): nothing to train.")
            return run
        weights = str(download_weights(config.model)) if config.weights and state is None else False
        overrides = {**ultralytics_settings(config), **config.others, "model": f"{config.model}.yaml"}
        data = write_data(run.dir / THEIRS, train_data, val_data, names, config.batch_size)
        overrides |= {"pretrained": weights, "data": str(data)}
        overrides |= where_and_how(config) | {"save_dir": str(run.dir / THEIRS)}
        if state is not None:
            overrides["resume"] = restore(run, state)
            print(f"Going on after epoch {len(run.history)}.")
        try:
            with isolated_ultralytics():
                make_trainer(overrides, Keeper(run, settings, config, names, state, mirror)).train()
        except KeyboardInterrupt:
            print(f"Stopped. The same call goes on after epoch {len(run.history)}.", flush=True)
            raise
        run.save_curves(CURVES, "ap.png")
    return run


def weights_or_none(model: str, weights: str | None) -> str | None:
    """The weights that were asked for where they can be had, else None, with a word about it."""
    if weights is None:
        return None
    try:
        download_weights(model)
    except OSError as error:
        print(f"{str(error).splitlines()[0]}\nThe training begins from random numbers instead.")
        return None
    return weights


def check_data(train_data: Dataset, val_data: Dataset) -> list[str]:
    """The classes of both, background first.

    Raises:
        ValueError: nothing to train on or to validate with; different classes.
        TypeError: no YOLO-seg folder.
    """
    for data in (train_data, val_data):
        if not isinstance(unwrap_subset(data)[0], YOLOSegmentationDataset):
            raise TypeError(
                f"Ultralytics reads YOLO-seg folders: give YOLOSegmentationDataset, not {type(data).__name__}"
            )
        if not len(data):
            raise ValueError("no images to train on or to validate with")
    if not any(lines for _, _, lines in members(train_data)):
        raise ValueError("there is not one object on the images to train on")
    names, others = get_class_names(train_data), get_class_names(val_data)
    if names != others:
        raise ValueError(f"training and validation differ in their classes: {names} and {others}")
    return names


def members(data: Dataset) -> Iterator[tuple[str, Path, list[str]]]:
    """The name, image file and label lines of each sample."""
    source, indices = unwrap_subset(data)
    for index in indices:
        yield source.filenames[index], source.image_path(index), source.lines(index)


def run_settings(train_data: Dataset, val_data: Dataset, names: list[str], config: YOLOConfig) -> dict[str, Any]:
    """All that decides how a run ends, as plain JSON."""
    decides = {key: value for key, value in asdict(config).items() if key not in ("workers", "mirror")}
    settings = {"yolo": decides, "classes": names, "precision": default_precision()}
    for part, data in (("train_data", train_data), ("val_data", val_data)):
        text = json.dumps([(name, lines) for name, _, lines in members(data)])
        settings[part] = {"samples": len(data), "files": hashlib.sha256(text.encode()).hexdigest()[:16]}
    return json.loads(json.dumps(settings))


def check_others(others: dict[str, Any]) -> None:
    """Raise ValueError for a name that Ultralytics has no setting of."""
    quiet_ultralytics()
    from ultralytics.utils import DEFAULT_CFG_DICT

    unknown = set(others) - set(DEFAULT_CFG_DICT)
    if unknown:
        raise ValueError(f"Ultralytics has no setting {', '.join(sorted(unknown))}")


def where_and_how(config: YOLOConfig) -> dict[str, Any]:
    """Device, precision and workers, by Ultralytics' names."""
    if not torch.cuda.is_available():
        return {"device": "cpu", "amp": False, "workers": 0, "deterministic": False}  # a CPU is so anyway
    workers = os.cpu_count() if config.workers is None else config.workers
    return {
        "device": torch.cuda.current_device(),
        "amp": "bf16" if default_precision() == "bf16" else not half_precision_fails(torch.cuda.get_device_name()),
        "workers": min(workers, 8),
        "deterministic": True,
    }


def half_precision_fails(card: str) -> bool:
    """Whether a GPU is one of those small Turing cards on which Ultralytics found NaN or an AP of 0 in fp16."""
    return bool(re.search(r"GTX 16\d0|\bT(4|6|10|12|20)00\b|\bT550\b", card))


# ------------------------------------------------------------------------------------------------ data and checkpoints


def write_data(
    folder: Path, train_data: Dataset, val_data: Dataset, names: Sequence[str], batch_size: int | None = None
) -> Path:
    """Lay out data for Ultralytics in a folder of our own: links to the images, the label lines that are whole.

    The files are numbered: it looks for labels by the path, in which a reader's own folders might lead it astray.

    Args:
        batch_size: where that would leave one training image over, the first comes a second time: batch norm cannot
            learn from a batch of one.

    Returns:
        The data.yaml, which names the folder as well.
    """
    data_dir = folder / "data"
    if data_dir.exists():
        shutil.rmtree(data_dir)
    for part, data in (("train", train_data), ("val", val_data)):
        write_data_yaml(data_dir, names[1:], part)
        listed = list(members(data))
        if part == "train" and batch_size is not None and len(listed) % batch_size == 1:
            listed.append(listed[0])
        for number, (_, image, lines) in enumerate(listed):
            place = data_dir / YOLO_PARTS[part]
            borrow(image, place / "images" / f"{number:06d}{image.suffix.lower()}")
            write_lines(place / "labels" / f"{number:06d}.txt", lines)
    lines = (data_dir / "data.yaml").read_text(encoding="utf-8").splitlines()
    path = json.dumps(str(data_dir.resolve()), ensure_ascii=False)
    write_lines(data_dir / "data.yaml", [*lines, f"path: {path}"])
    return data_dir / "data.yaml"


def borrow(image: Path, target: Path) -> None:
    """Put an image where Ultralytics may read it, by a link where the system lets us make one."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # else a copy would go through the link that is there
    try:
        target.symlink_to(image.resolve())
    except OSError:  # Windows lets few people
        link_or_copy(image, target)


def restore(run: Run, state: dict[str, Any]) -> str:
    """Lay Ultralytics' files as they were when the last epoch was finished; its checkpoint to go on from."""
    last = run.dir / LAST
    last.parent.mkdir(parents=True, exist_ok=True)
    last.write_bytes(state[THEIRS].numpy().tobytes())
    (run.dir / RESULTS).write_text(state["results"], encoding="utf-8")
    return str(last)


def read_results(text: str) -> list[Row]:
    """Read Ultralytics' results.csv as a history: a row an epoch.

    Its losses have several parts, of boxes, masks and classes, each with its weight in it: `train_loss` and `val_loss`
    are their sums. Its time counts from the start: `seconds` is what an epoch took.
    """
    history, before = [], 0.0
    for line in csv.DictReader(io.StringIO(text)):
        row = {key.strip(): float(value) for key, value in line.items()}
        parts = {key: value for key, value in row.items() if key.startswith(("train/", "val/"))}
        losses = {
            f"{part}_loss": sum(v for k, v in parts.items() if k.startswith(f"{part}/")) for part in ("train", "val")
        }
        scores = {ours: row[theirs] for ours, theirs in COLUMNS.items()}
        rest = {key.replace("/", "_"): value for key, value in parts.items() if value or "sem" not in key}  # none here
        rest |= {"lr": row["lr/pg0"]}
        seconds, before = row["time"] - before, row["time"]
        history.append({"epoch": int(row["epoch"]), **losses, **scores, **rest, "seconds": seconds})
    return history


# ------------------------------------------------------------------------------------------------ their own measure


def measure_as_ultralytics(model: YOLOSegmenter, data: Dataset) -> dict[str, float]:
    """What Ultralytics' own validation says of a model: "AP50-95" and "AP50" of masks, "box AP50-95", "box AP50".

    It lays a margin round each picture, compares masks at a quarter of the side that the network sees, not at the
    image's own size, and of true objects that overlap takes the smaller to cover the larger.

    Args:
        data: a `YOLOSegmentationDataset` or a Subset.
    """
    names = get_class_names(data)
    with TemporaryDirectory() as folder, isolated_ultralytics():
        figures = validate(model, write_data(Path(folder), data, data, names), names, folder)
    named = {"AP50-95": "val_ap", "AP50": "val_ap50", "box AP50-95": "val_box_ap", "box AP50": "val_box_ap50"}
    return {name: float(figures[COLUMNS[column]]) for name, column in named.items()}


def validate(model: YOLOSegmenter, yaml: Path, names: Sequence[str], folder: str) -> dict[str, float]:
    """The figures that Ultralytics' own val command gives, by its names."""
    settings = {"task": "segment", "mode": "val", "data": str(yaml), "imgsz": model.settings["image_size"]}
    settings |= {"rect": True, "plots": False, "verbose": False, "save_dir": folder, "workers": 0, "batch": 8}
    settings["device"] = "cpu" if next(model.parameters()).device.type == "cpu" else torch.cuda.current_device()
    network = deepcopy(model.network)  # it joins layers for speed
    network.names = dict(enumerate(names[1:]))
    return make_validator(settings)(model=network)


def make_validator(settings: dict[str, Any]) -> Any:
    """Ultralytics' own validator, with nobody listening."""
    from ultralytics.models.yolo.segment import SegmentationValidator

    class Validator(SegmentationValidator):
        def run_callbacks(self, event: str) -> None:
            """Call none of those who would send something."""

    return Validator(args=settings)


# ------------------------------------------------------------------------------------------------ around Ultralytics


class Keeper:
    """What is done at certain moments of Ultralytics' training: the method of a moment has its name."""

    def __init__(
        self,
        run: Run,
        settings: dict[str, Any],
        config: YOLOConfig,
        names: Sequence[str],
        state: dict[str, Any] | None,
        mirror: Mirror | None,
    ) -> None:
        self.run, self.settings, self.config, self.names = run, settings, config, list(names)
        self.mirror = mirror
        self.best = state["best"] if state else {}
        self.threads = torch.get_num_threads()

    def on_train_start(self, trainer: Any) -> None:
        """Let the time go on where an interruption left it; see that no image was dropped without a word."""
        trainer.train_time_start -= self.run.seconds
        for part, loader in (("train", trainer.train_loader), ("valid", trainer.test_loader)):
            given = {path.name: path for path in (self.run.dir / THEIRS / "data" / part / "images").iterdir()}
            left_out = set(given) - {Path(name).name for name in loader.dataset.im_files}
            if left_out:
                files = ", ".join(sorted(str(given[name].resolve()) for name in left_out)[:5])
                raise ValueError(
                    f"Ultralytics cannot use {len(left_out)} images ({files}): mend them or leave them out"
                )

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Undo what does harm: fewer threads than there are cores, and, out of memory, three smaller batches."""
        torch.set_num_threads(self.threads)
        trainer._oom_retries = 3

    def on_train_batch_end(self, trainer: Any) -> None:
        """Stop where the loss is no number: Ultralytics would go back to the last checkpoint and try again."""
        if not torch.isfinite(trainer.loss.detach()).all():
            files = ", ".join(str(Path(name).resolve()) for name in trainer.files)
            raise FloatingPointError(
                f"the loss became NaN or infinite in epoch {trainer.epoch + 1}; images of that step: {files}. "
                f"{ADVICE_AFTER_NAN}"
            )

    def on_model_save(self, trainer: Any) -> None:
        """Keep an epoch: in one file, written aside, so that a kill leaves the one before or this one, whole."""
        results = trainer.csv.read_text(encoding="utf-8")
        self.run.history = read_results(results)
        self.run.finished = bool(trainer.stop)
        if best_epoch(self.run.history, METRIC) == len(self.run.history):
            self.best = self.as_checkpoint(trainer.ema.ema)
        state = {
            "settings": self.settings,
            "finished": self.run.finished,
            "best": self.best,
            "results": results,
            THEIRS: torch.from_numpy(np.frombuffer(trainer.last.read_bytes(), dtype=np.uint8).copy()),
        }
        save_checkpoint(self.run, state, self.mirror)
        runs.write_history(self.run.dir / runs.HISTORY, self.run.history)
        scores = {"mask AP50": "val_ap50", "AP50-95": "val_ap"}
        print(runs.format_epoch(self.run, self.config.epochs, scores), flush=True)

    def as_checkpoint(self, network: torch.nn.Module) -> dict[str, Any]:
        """What `seglib.models.load_model` reads: the network's weights under the names that our model has for them."""
        config = self.config
        # Copies: the network is averaged on, and the best epoch's weights must stay what they were.
        weights = {f"network.{key}": value.detach().cpu().clone() for key, value in network.state_dict().items()}
        settings = {"name": config.model, "classes": len(self.names), "image_size": config.image_size}
        side = (config.image_size, config.image_size)
        epoch = len(self.run.history)
        return {"settings": settings, "model": weights, "classes": self.names, "image_size": side, "epoch": epoch}


def make_trainer(overrides: dict[str, Any], keeper: Any) -> Any:
    """Ultralytics' own trainer, with nobody listening but `keeper`."""
    from ultralytics.models.yolo.segment import SegmentationTrainer

    class Trainer(SegmentationTrainer):
        def run_callbacks(self, event: str) -> None:
            """Call the keeper, and none of those who would send or upload something, here or in validation."""
            for listening in self.callbacks.values():
                listening.clear()
            getattr(keeper, event, lambda trainer: None)(self)

        def validate(self) -> tuple[Any, Any]:
            """Judge an epoch by the masks alone: left to itself it adds the AP of the boxes."""
            before = self.best_fitness
            metrics, _ = super().validate()
            fitness = metrics[COLUMNS[METRIC]]
            self.best_fitness = fitness if before is None or fitness > before else before
            return metrics, fitness

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            """Remember the files, for the keeper to name."""
            self.files = batch["im_file"]
            return super().preprocess_batch(batch)

        def final_eval(self) -> None:
            """Nothing: it would measure the best epoch once more, as it was measured before."""

    return Trainer(overrides=overrides)
