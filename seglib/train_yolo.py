"""Trains YOLOv8-seg with Ultralytics; history and checkpoints are those of every other run.

The run folder has the layout of `seglib.runs`. Ultralytics writes only to its sub-folder ultralytics/: links to the
images, copies of the labels, results.csv and weights/last.pt. It writes nothing next to the user's images.
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
from torch import nn

from seglib import runs
from seglib.config import ADVICE_AFTER_NAN, default_precision
from seglib.datasets.base import SegmentationData, unwrap_subset
from seglib.datasets.yolo import YOLO_PARTS, YOLOSegmentationDataset, write_data_yaml
from seglib.files import check_choice, link_or_copy, short_path, write_lines
from seglib.models.common import YOLO_MODELS
from seglib.models.yolo import (
    YOLOSegmenter,
    check_image_size,
    download_weights,
    isolated_ultralytics,
    quiet_ultralytics,
)
from seglib.runs import Mirror, Row, Run, best_epoch, lock_run, open_run, save_checkpoint

__all__ = ["YOLOConfig", "fit_yolo", "measure_as_ultralytics", "weights_or_none"]

ULTRALYTICS_DIR = "ultralytics"  # the sub-folder of a run for the files of Ultralytics
_RESULTS = f"{ULTRALYTICS_DIR}/results.csv"
_LAST_WEIGHTS = f"{ULTRALYTICS_DIR}/weights/last.pt"
_SELECTION_COLUMN = "val_ap"
_CURVE_COLUMNS = ("val_ap50", "val_ap")
_OPTIMIZERS = {"adamw": "AdamW", "adam": "Adam", "sgd": "SGD"}
_RESERVED_SETTINGS = {
    "amp", "cache", "compile", "data", "deterministic", "device", "fraction", "mode", "model", "name", "pretrained",
    "project", "rect", "resume", "save", "save_dir", "split", "task", "time", "val", "workers",
}  # fmt: skip
# Columns of results.csv; (B) is measured on boxes, (M) on masks. Lesson 05 compares them with COCO's AP.
_RESULT_COLUMNS = {
    "val_ap": "metrics/mAP50-95(M)",
    "val_ap50": "metrics/mAP50(M)",
    "val_precision": "metrics/precision(M)",
    "val_recall": "metrics/recall(M)",
    "val_box_ap": "metrics/mAP50-95(B)",
    "val_box_ap50": "metrics/mAP50(B)",
}


@dataclass(frozen=True)
class YOLOConfig:
    """Settings for training a YOLO.

    The optimizer takes a step after every batch. Ultralytics by itself accumulates gradients over 64 images, whatever
    the batch size is.

    Args:
        epochs, batch_size, lr, weight_decay, seed, workers, mirror: see `seglib.train.TrainConfig`.
        model: "yolov8n-seg", "yolov8s-seg", "yolov8m-seg", "yolov8l-seg" or "yolov8x-seg".
        weights: "coco" or None, see `seglib.models.yolo.YOLOSegmenter`.
        image_size: longer side of the resized images in pixels, a multiple of 32.
        optimizer: "adamw", "adam" or "sgd".
        scheduler: "cosine" decreases the learning rate towards a hundredth of `lr`; None keeps it constant.
        warmup_epochs: epochs in which the learning rate increases from 0 (that of biases decreases from 0.1).
        mosaic: probability of combining four images into one.
        close_mosaic: number of epochs at the end without mosaic.
        flip_up_down: probability of flipping an image upside down, for images taken from above.
        patience: stop when the mask AP on the validation images has not increased for this number of epochs; None:
            never stop early. Epochs before the first AP above 0 are not counted.
        others: further augmentation and loss settings by Ultralytics' names, for example {"degrees": 10}.

    Raises:
        ValueError: a setting has a value that does not exist, or `others` has a setting that seglib decides.
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
        counts = (self.epochs, self.batch_size, 1 if self.patience is None else self.patience)
        if any(not isinstance(value, int) or value < 1 for value in counts) or not self.lr > 0:
            raise ValueError(f"epochs, batch_size and patience must be integers above 0 and lr must be above 0: {self}")
        if self.batch_size == 1:
            raise ValueError("batch_size must be at least 2: batch norm cannot be trained with a single image")
        check_choice("model", self.model, YOLO_MODELS)
        check_choice("weights", self.weights, (None, "coco"))
        check_choice("optimizer", self.optimizer, tuple(_OPTIMIZERS))
        check_choice("scheduler", self.scheduler, (None, "cosine"))
        reserved = set(self.others) & {*_ultralytics_settings(self), *_RESERVED_SETTINGS}
        if reserved:
            raise ValueError(f"others must not set {', '.join(sorted(reserved))}: seglib sets this itself")
        object.__setattr__(self, "lr", float(self.lr))
        if self.mirror is not None:
            object.__setattr__(self, "mirror", Path(self.mirror).expanduser())


def fit_yolo(train_data: SegmentationData, val_data: SegmentationData, config: YOLOConfig, run_dir: str | Path) -> Run:
    """Train a YOLOv8-seg on one GPU or the CPU; the same call resumes after the last finished epoch.

    A resumed run does not end with the same weights as an uninterrupted one, unlike with `seglib.train.fit`:
    Ultralytics stores its checkpoints in half precision and does not store the state of random generators.

    Args:
        train_data, val_data: `YOLOSegmentationDataset`s or Subsets of them.
        config: the settings.
        run_dir: the run folder. If it holds a finished run, that run is returned.

    Returns:
        The run. Its best epoch has the highest mask AP50-95 on the validation images as Ultralytics measures it;
        `seglib.evaluate.mask_ap` measures by COCO's rules.

    Raises:
        TypeError: the data is not in YOLO-seg format.
        ValueError: the data has no images or no objects, or the two data sets have different classes; the run folder
            holds a run with other settings; a checkpoint is damaged.
        FloatingPointError: the loss became NaN or infinite.
        torch.OutOfMemoryError: the memory of the GPU is too small. Ultralytics by itself would halve the batch size.
        OSError: the weights cannot be downloaded, or the run folder cannot be written.
    """
    if not isinstance(config, YOLOConfig):
        raise TypeError(f"fit_yolo takes a YOLOConfig, not {type(config).__name__}")
    classes = _check_data(train_data, val_data)
    _check_others(config.others)
    settings = _describe_run(train_data, val_data, classes, config)
    mirror = None if config.mirror is None else Mirror(config.mirror)
    with lock_run(Path(run_dir)):
        run, state = open_run(run_dir, settings, mirror)
        if state is not None:
            run.finished = state["finished"]
        if run.finished:
            run.save_curves(_CURVE_COLUMNS, "ap.png")
            if mirror is not None and not mirror.has(len(run.history)):  # the process was killed before the last copy
                mirror.write(run.dir / runs.LAST, settings, len(run.history))
            print(f"{short_path(run.dir)} is finished ({len(run.history)} epochs): nothing to train.")
            return run
        data_file = _write_data(run.dir / ULTRALYTICS_DIR, train_data, val_data, classes, config.batch_size)
        overrides = _trainer_settings(run, state, data_file, config)
        recorder = _EpochRecorder(run, settings, config, classes, state, mirror)
        try:
            with isolated_ultralytics():
                _make_trainer(overrides, recorder).train()
        except KeyboardInterrupt:
            print(f"Stopped. The same call resumes after epoch {len(run.history)}.", flush=True)
            raise
        run.save_curves(_CURVE_COLUMNS, "ap.png")
    return run


def weights_or_none(model: str, weights: str | None) -> str | None:
    """Return `weights` if they can be loaded or downloaded; else print why not and return None."""
    if weights is None:
        return None
    try:
        download_weights(model)
    except OSError as error:
        print(f"{str(error).splitlines()[0]}\nTraining starts from random weights.")
        return None
    return weights


# ------------------------------------------------------------------------------------------------ settings


def _ultralytics_settings(config: YOLOConfig) -> dict[str, Any]:
    """Return the settings under Ultralytics' names."""
    return {
        "epochs": config.epochs,
        "batch": config.batch_size,
        "nbs": config.batch_size,  # a step after every batch
        "lr0": config.lr,
        "lrf": 1.0 if config.scheduler is None else 0.01,
        "cos_lr": config.scheduler == "cosine",
        "optimizer": _OPTIMIZERS[config.optimizer],
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


def _trainer_settings(run: Run, state: dict[str, Any] | None, data_file: Path, config: YOLOConfig) -> dict[str, Any]:
    """Return all settings of Ultralytics' trainer; restore its files if the run resumes."""
    settings = {**_ultralytics_settings(config), **config.others, **_device_settings(config)}
    settings |= {"model": f"{config.model}.yaml", "data": str(data_file), "pretrained": False}
    settings |= {"save_dir": str(run.dir / ULTRALYTICS_DIR)}
    if state is not None:
        settings["resume"] = _restore_files(run, state)
        print(f"Resuming after epoch {len(run.history)}.")
    elif config.weights:
        settings["pretrained"] = str(download_weights(config.model))
    return settings


def _device_settings(config: YOLOConfig) -> dict[str, Any]:
    """Return device, precision and number of workers under Ultralytics' names."""
    if not torch.cuda.is_available():
        return {"device": "cpu", "amp": False, "workers": 0, "deterministic": False}  # the CPU is deterministic anyway
    workers = (os.cpu_count() or 1) if config.workers is None else config.workers
    bf16 = default_precision() == "bf16"
    return {
        "device": torch.cuda.current_device(),
        "amp": "bf16" if bf16 else not _fp16_is_unreliable(torch.cuda.get_device_name()),
        "workers": min(workers, 8),
        "deterministic": True,
    }


def _fp16_is_unreliable(device_name: str) -> bool:
    """Return whether Ultralytics reports NaN or an AP of 0 in fp16 for a GPU: some small cards of the Turing family."""
    return bool(re.search(r"GTX 16\d0|\bT(4|6|10|12|20)00\b|\bT550\b", device_name))


def _check_others(others: dict[str, Any]) -> None:
    """Raise ValueError for a setting that Ultralytics does not have."""
    quiet_ultralytics()
    from ultralytics.utils import DEFAULT_CFG_DICT

    unknown = set(others) - set(DEFAULT_CFG_DICT)
    if unknown:
        raise ValueError(f"Ultralytics has no setting {', '.join(sorted(unknown))}: check the names in `others`")


def _describe_run(
    train_data: SegmentationData, val_data: SegmentationData, classes: list[str], config: YOLOConfig
) -> dict[str, Any]:
    """Return everything that decides the result of a run, as plain JSON."""
    yolo = {key: value for key, value in asdict(config).items() if key not in ("workers", "mirror")}
    settings: dict[str, Any] = {"yolo": yolo, "classes": classes, "precision": default_precision()}
    for name, data in (("train_data", train_data), ("val_data", val_data)):
        text = json.dumps([(file_name, lines) for file_name, _, lines in _samples(data)])
        settings[name] = {"samples": len(data), "files": hashlib.sha256(text.encode()).hexdigest()[:16]}
    return json.loads(json.dumps(settings))


# ------------------------------------------------------------------------------------------------ data


def _unwrap(data: SegmentationData) -> tuple[YOLOSegmentationDataset, list[int]]:
    """Return the data set behind a Subset and the indices of its samples."""
    source, indices = unwrap_subset(data)
    if not isinstance(source, YOLOSegmentationDataset):
        raise TypeError(
            f"Ultralytics reads YOLO-seg folders only: pass a YOLOSegmentationDataset, not {type(source).__name__}"
        )
    return source, indices


def _samples(data: SegmentationData) -> Iterator[tuple[str, Path, list[str]]]:
    """Yield the file name, the path of the image and the label lines of each sample."""
    source, indices = _unwrap(data)
    for index in indices:
        yield source.filenames[index], source.image_path(index), source.lines(index)


def _check_data(train_data: SegmentationData, val_data: SegmentationData) -> list[str]:
    """Check both data sets and return their classes, background first."""
    classes, val_classes = (_unwrap(data)[0].classes for data in (train_data, val_data))
    for name, data in (("train_data", train_data), ("val_data", val_data)):
        if not len(data):
            raise ValueError(f"{name} has no images")
    if not any(lines for _, _, lines in _samples(train_data)):
        raise ValueError("train_data has no objects")
    if classes != val_classes:
        raise ValueError(f"train_data and val_data have different classes: {classes} and {val_classes}")
    return classes


def _write_data(
    folder: Path,
    train_data: SegmentationData,
    val_data: SegmentationData,
    classes: Sequence[str],
    batch_size: int | None = None,
) -> Path:
    """Write links to the images, their labels and a data.yaml to folder/data; return the path of the data.yaml.

    Files are numbered, because Ultralytics derives the path of a label from that of its image, and names of the user's
    folders could mislead it.

    Args:
        batch_size: if the last training batch would have one image, the first image is added to it: batch norm cannot
            be trained with a single image.
    """
    data_dir = folder / "data"
    if data_dir.exists():
        shutil.rmtree(data_dir)
    for split, data in (("train", train_data), ("val", val_data)):
        write_data_yaml(data_dir, classes[1:], split)
        samples = list(_samples(data))
        if split == "train" and batch_size is not None and len(samples) % batch_size == 1:
            samples.append(samples[0])
        for number, (_, image, lines) in enumerate(samples):
            split_dir = data_dir / YOLO_PARTS[split]
            _link_image(image, split_dir / "images" / f"{number:06d}{image.suffix.lower()}")
            write_lines(split_dir / "labels" / f"{number:06d}.txt", lines)
    yaml_lines = (data_dir / "data.yaml").read_text(encoding="utf-8").splitlines()
    path = json.dumps(str(data_dir.resolve()), ensure_ascii=False)
    write_lines(data_dir / "data.yaml", [*yaml_lines, f"path: {path}"])
    return data_dir / "data.yaml"


def _link_image(image: Path, target: Path) -> None:
    """Create a symbolic link to an image, or a copy if the system does not allow links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # writing a copy through an existing link would overwrite the image
    try:
        target.symlink_to(image.resolve())
    except OSError:  # Windows requires a permission for links
        link_or_copy(image, target)


# ------------------------------------------------------------------------------------------------ history and files


def _restore_files(run: Run, state: dict[str, Any]) -> str:
    """Restore Ultralytics' files as they were after the last finished epoch; return the path of its checkpoint."""
    weights = run.dir / _LAST_WEIGHTS
    weights.parent.mkdir(parents=True, exist_ok=True)
    weights.write_bytes(state[ULTRALYTICS_DIR].numpy().tobytes())
    (run.dir / _RESULTS).write_text(state["results"], encoding="utf-8")
    return str(weights)


def _read_results(text: str) -> list[Row]:
    """Convert Ultralytics' results.csv to a history, with one row for each epoch.

    `train_loss` and `val_loss` are the sums of the weighted losses of boxes, masks and classes. The column "time" of
    results.csv counts from the start of the run; `seconds` is the duration of an epoch.
    """
    history: list[Row] = []
    previous_time = 0.0
    for line in csv.DictReader(io.StringIO(text)):
        values = {key.strip(): float(value) for key, value in line.items()}
        parts = {key: value for key, value in values.items() if key.startswith(("train/", "val/"))}
        row: Row = {"epoch": int(values["epoch"])}
        for split in ("train", "val"):
            row[f"{split}_loss"] = sum(value for key, value in parts.items() if key.startswith(f"{split}/"))
        row |= {name: values[column] for name, column in _RESULT_COLUMNS.items()}
        # The semantic loss is 0 for these models.
        row |= {key.replace("/", "_"): value for key, value in parts.items() if value or "sem" not in key}
        row["lr"] = values["lr/pg0"]
        row["seconds"] = values["time"] - previous_time
        previous_time = values["time"]
        history.append(row)
    return history


# ------------------------------------------------------------------------------------------------ validation


def measure_as_ultralytics(model: YOLOSegmenter, data: SegmentationData) -> dict[str, float]:
    """Return the AP of a model as Ultralytics measures it: "AP50-95", "AP50", "box AP50-95" and "box AP50".

    Ultralytics pads each image and compares masks at a quarter of the size that the network sees, not at the size of
    the image. Where true objects overlap, the smaller one hides the larger one.

    Args:
        model: a trained model.
        data: a `YOLOSegmentationDataset` or a Subset of one.
    """
    classes = _unwrap(data)[0].classes
    with TemporaryDirectory() as folder, isolated_ultralytics():
        data_file = _write_data(Path(folder), data, data, classes)
        scores = _validate(model, data_file, classes, folder)
    columns = {"AP50-95": "val_ap", "AP50": "val_ap50", "box AP50-95": "val_box_ap", "box AP50": "val_box_ap50"}
    return {name: float(scores[_RESULT_COLUMNS[column]]) for name, column in columns.items()}


def _validate(model: YOLOSegmenter, data_file: Path, classes: Sequence[str], folder: str) -> dict[str, float]:
    """Return the scores of Ultralytics' validation under its names."""
    from ultralytics.models.yolo.segment import SegmentationValidator

    class Validator(SegmentationValidator):
        def run_callbacks(self, event: str) -> None:
            """Do not call the callbacks of Ultralytics, some of which send data."""

    settings = {"task": "segment", "mode": "val", "data": str(data_file), "imgsz": model.settings["image_size"]}
    settings |= {"rect": True, "plots": False, "verbose": False, "save_dir": folder, "workers": 0, "batch": 8}
    settings["device"] = "cpu" if next(model.parameters()).device.type == "cpu" else torch.cuda.current_device()
    network = deepcopy(model.network)  # validation fuses its layers
    network.names = dict(enumerate(classes[1:]))
    return Validator(args=settings)(model=network)


# ------------------------------------------------------------------------------------------------ training


class _EpochRecorder:
    """Writes history and checkpoints of a run. Each method is called at the event of Ultralytics that has its name."""

    def __init__(
        self,
        run: Run,
        settings: dict[str, Any],
        config: YOLOConfig,
        classes: Sequence[str],
        state: dict[str, Any] | None,
        mirror: Mirror | None,
    ) -> None:
        self.run = run
        self.settings = settings
        self.config = config
        self.classes = list(classes)
        self.mirror = mirror
        self.best: dict[str, Any] = state["best"] if state else {}
        self.threads = torch.get_num_threads()

    def on_train_start(self, trainer: Any) -> None:
        """Include the time before an interruption; raise ValueError if Ultralytics dropped images."""
        trainer.train_time_start -= self.run.seconds
        for split, loader in (("train", trainer.train_loader), ("valid", trainer.test_loader)):
            images_dir = self.run.dir / ULTRALYTICS_DIR / "data" / split / "images"
            links = {path.name: path for path in images_dir.iterdir()}
            dropped = set(links) - {Path(name).name for name in loader.dataset.im_files}
            if dropped:
                files = ", ".join(sorted(str(links[name].resolve()) for name in dropped)[:5])
                raise ValueError(f"Ultralytics cannot use {len(dropped)} images ({files}): repair or remove them")

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Restore the number of threads; keep Ultralytics from halving the batch size when memory runs out."""
        torch.set_num_threads(self.threads)
        trainer._oom_retries = 3

    def on_train_batch_end(self, trainer: Any) -> None:
        """Raise FloatingPointError if the loss is not finite; Ultralytics would return to its last checkpoint."""
        if not torch.isfinite(trainer.loss.detach()).all():
            files = ", ".join(str(Path(name).resolve()) for name in trainer.files)
            raise FloatingPointError(
                f"the loss became NaN or infinite in epoch {trainer.epoch + 1}; images of that step: {files}. "
                f"{ADVICE_AFTER_NAN}"
            )

    def on_model_save(self, trainer: Any) -> None:
        """Write the checkpoint of an epoch atomically, then the history, and print a line about the epoch."""
        results = trainer.csv.read_text(encoding="utf-8")
        self.run.history = _read_results(results)
        self.run.finished = bool(trainer.stop)
        if best_epoch(self.run.history, _SELECTION_COLUMN) == len(self.run.history):
            self.best = self._best_checkpoint(trainer.ema.ema)
        state = {
            "settings": self.settings,
            "finished": self.run.finished,
            "best": self.best,
            "results": results,
            ULTRALYTICS_DIR: torch.from_numpy(np.frombuffer(trainer.last.read_bytes(), dtype=np.uint8).copy()),
        }
        save_checkpoint(self.run, state, self.mirror)
        runs.write_history(self.run.dir / runs.HISTORY, self.run.history)
        scores = {"mask AP50": "val_ap50", "AP50-95": "val_ap"}
        print(runs.format_epoch(self.run, self.config.epochs, scores), flush=True)

    def _best_checkpoint(self, network: nn.Module) -> dict[str, Any]:
        """Return a checkpoint that `seglib.models.load_model` reads, with copies of the network's weights."""
        config = self.config
        return {
            "settings": {"name": config.model, "classes": len(self.classes), "image_size": config.image_size},
            "model": {f"network.{key}": value.detach().cpu().clone() for key, value in network.state_dict().items()},
            "classes": self.classes,
            "image_size": (config.image_size, config.image_size),
            "epoch": len(self.run.history),
        }


def _make_trainer(overrides: dict[str, Any], recorder: _EpochRecorder) -> Any:
    """Return Ultralytics' trainer, which calls only the recorder at its events."""
    from ultralytics.models.yolo.segment import SegmentationTrainer

    class Trainer(SegmentationTrainer):
        def run_callbacks(self, event: str) -> None:
            """Call the recorder, and none of the callbacks of Ultralytics, some of which send data."""
            for callbacks in self.callbacks.values():
                callbacks.clear()
            getattr(recorder, event, lambda trainer: None)(self)

        def validate(self) -> tuple[Any, Any]:
            """Select the best epoch by the AP of masks; Ultralytics adds the AP of boxes."""
            previous_best = self.best_fitness
            metrics, _ = super().validate()
            fitness = metrics[_RESULT_COLUMNS[_SELECTION_COLUMN]]
            self.best_fitness = fitness if previous_best is None or fitness > previous_best else previous_best
            return metrics, fitness

        def preprocess_batch(self, batch: dict[str, Any]) -> dict[str, Any]:
            """Store the files of the batch for error messages."""
            self.files = batch["im_file"]
            return super().preprocess_batch(batch)

        def final_eval(self) -> None:
            """Do not measure the best epoch again."""

    return Trainer(overrides=overrides)
