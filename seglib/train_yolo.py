"""Trains YOLOv8-seg with Ultralytics; history and checkpoints are those of every other run.

Ultralytics runs in a process of its own, `python -m seglib.train_yolo`, which `fit_yolo` starts in a folder that holds
the job. What Ultralytics changes for a whole process (threads, random generators, environment, functions of torch) does
not reach the caller. The process has no network and ends when the caller ends.

The run folder has the layout of `seglib.runs`. Ultralytics writes only to its sub-folder ultralytics/: links to the
images, copies of the labels, results.csv and weights/last.pt. It writes nothing next to the user's images.
"""

import csv
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import nn

from seglib import runs
from seglib.config import (
    ADVICE_AFTER_NAN,
    TrainConfig,
    check_precision,
    default_precision,
    explain_out_of_memory,
)
from seglib.datasets.base import SegmentationData, unwrap_subset
from seglib.datasets.yolo import YOLO_PARTS, YOLOSegmentationDataset, write_data_yaml
from seglib.files import check_choice, link_or_copy, short_path, write_json, write_lines
from seglib.loading import available_cores
from seglib.models import load_model
from seglib.models.common import YOLO_MODELS
from seglib.models.yolo import COCO_CLASSES, OFFLINE, YOLOSegmenter, check_image_size, download_weights
from seglib.runs import Mirror, Row, Run, best_epoch, lock_run, open_run, save_checkpoint

__all__ = ["YOLOConfig", "fit_yolo", "measure_as_ultralytics", "weights_or_none"]

_ULTRALYTICS_DIR = "ultralytics"  # the sub-folder of a run for the files of Ultralytics
# Files in that folder. The training process works there, so that paths given to Ultralytics are relative: it searches
# the Internet for a checkpoint whose path has an apostrophe.
_JOB = "job.json"
_ANSWER = "answer.json"
_RESULTS = "results.csv"
_LAST_WEIGHTS = "weights/last.pt"
_PRETRAINED = "weights/pretrained.pt"
_MODEL = "model.pth"
_DATA = "data/data.yaml"

# Errors that the process reports by name. Ultralytics raises SyntaxError for a setting that it does not have.
_ERRORS: dict[str, type[Exception]] = {
    "FloatingPointError": FloatingPointError,
    "OutOfMemoryError": torch.OutOfMemoryError,
    "ValueError": ValueError,
    "SyntaxError": ValueError,
    "ImportError": ImportError,
    "OSError": OSError,
}
_LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE")
# Ultralytics' settings. By default it reports to its publisher and uses every tracker that is installed; its folders
# may lie in the repository around the virtual environment.
_SETTINGS: dict[str, object] = {
    **dict.fromkeys(("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb"), False),
    **{f"{name}_dir": name for name in ("weights", "runs", "datasets")},
}

_SELECTION_COLUMN = "val_ap"
_CURVE_COLUMNS = ("val_ap50", "val_ap")
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

    Args:
        epochs, batch_size, lr, weight_decay, seed, workers, mirror: see `seglib.train.TrainConfig`.
        accumulate: number of batches whose gradients are summed before each step of the optimizer; during the
            warm-up Ultralytics raises it from 1. By default Ultralytics accumulates 64 images.
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
    accumulate: int = 1
    others: dict[str, Any] = field(default_factory=dict)
    mirror: Path | str | None = None

    def __post_init__(self) -> None:
        check_image_size(self.image_size)
        counts = (self.epochs, self.batch_size, self.accumulate, 1 if self.patience is None else self.patience)
        if any(not isinstance(value, int) or value < 1 for value in counts):
            raise ValueError(f"epochs, batch_size, accumulate and patience must be integers above 0: {self}")
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, not {self.lr}")
        if self.batch_size == 1:
            raise ValueError("batch_size must be at least 2: batch norm cannot be trained with a single image")
        check_choice("model", self.model, YOLO_MODELS)
        check_choice("weights", self.weights, (None, "coco"))
        check_choice("optimizer", self.optimizer, ("adamw", "adam", "sgd"))
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
        ValueError: the data has no images or no objects, or the two data sets have different classes; Ultralytics
            cannot use an image or a setting; the run folder holds a run with other settings; a checkpoint is damaged.
        FloatingPointError: the loss became NaN or infinite.
        torch.OutOfMemoryError: the memory of the GPU is too small. Ultralytics would halve the batch size.
        OSError: the weights cannot be downloaded, or the run folder cannot be written.
        ImportError: Ultralytics is not installed.
        RuntimeError: another process trains in the run folder, or the training process failed in another way.
    """
    if not isinstance(config, YOLOConfig):
        raise TypeError(f"fit_yolo takes a YOLOConfig, not {type(config).__name__}")
    classes = _check_data(train_data, val_data)
    mirror = None if config.mirror is None else Mirror(config.mirror)
    precision = runs.stored_precision(Path(run_dir), mirror) or default_precision()
    settings = _describe_run(train_data, val_data, classes, config, precision)
    with lock_run(Path(run_dir)):
        run, _ = _open(run_dir, settings, mirror)
        if run.finished:
            if mirror is not None and not mirror.has(len(run.history)):  # the process was killed before the last copy
                mirror.write(run.dir / runs.LAST, settings, len(run.history))
            print(f"{short_path(run.dir)} is finished ({len(run.history)} epochs): nothing to train.")
        else:
            check_precision(precision)
            folder = run.dir / _ULTRALYTICS_DIR
            _write_data(folder, train_data, val_data, classes, config.batch_size)
            if config.weights and not run.history:  # a resumed run does not read them
                _link_image(download_weights(config.model), folder / _PRETRAINED)
            if run.history:
                print(f"Resuming after epoch {len(run.history)}.", flush=True)
            stored_config = {**asdict(config), "mirror": mirror and str(mirror.folder.resolve())}
            try:
                _run_child(folder, {"config": stored_config, "settings": settings})
            except KeyboardInterrupt:
                epochs = len(runs.read_run(run_dir).history)
                print(f"Stopped. The same call resumes after epoch {epochs}.", flush=True)
                raise
            run, _ = _open(run_dir, settings, mirror)
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
        "nbs": config.batch_size * config.accumulate,  # images for each step of the optimizer
        "lr0": config.lr,
        "lrf": 1.0 if config.scheduler is None else 0.01,
        "cos_lr": config.scheduler == "cosine",
        "optimizer": config.optimizer,
        "weight_decay": config.weight_decay,
        "imgsz": config.image_size,
        "warmup_epochs": config.warmup_epochs,
        "mosaic": config.mosaic,
        "close_mosaic": config.close_mosaic,
        "flipud": config.flip_up_down,
        "patience": 0,  # never: Ultralytics would stop by the AP of boxes and masks together
        "seed": config.seed,
        "plots": False,
        "verbose": False,
        "exist_ok": True,
    }


def _device_settings(config: YOLOConfig, precision: str) -> dict[str, Any]:
    """Return device, precision and number of workers under Ultralytics' names."""
    if not torch.cuda.is_available():
        return {"device": "cpu", "amp": False, "workers": 0, "deterministic": False}  # the CPU is deterministic anyway
    workers = min(available_cores(), 8) if config.workers is None else config.workers
    amp = "bf16" if precision == "bf16" else precision == "fp16"  # Ultralytics trains in fp32 where fp16 is unreliable
    return {"device": 0, "amp": amp, "workers": workers, "deterministic": True}


def _describe_run(
    train_data: SegmentationData, val_data: SegmentationData, classes: list[str], config: YOLOConfig, precision: str
) -> dict[str, Any]:
    """Return everything that decides the result of a run, as plain JSON."""
    yolo = {key: value for key, value in asdict(config).items() if key not in ("workers", "mirror")}
    settings: dict[str, Any] = {"yolo": yolo, "classes": classes, "precision": precision}
    for name, data in (("train_data", train_data), ("val_data", val_data)):
        text = json.dumps([(file_name, lines) for file_name, _, lines in _samples(data)])
        settings[name] = {"samples": len(data), "files": hashlib.sha256(text.encode()).hexdigest()[:16]}
    return json.loads(json.dumps(settings))


def _open(run_dir: str | Path, settings: dict[str, Any], mirror: Mirror | None) -> tuple[Run, dict[str, Any] | None]:
    """Open a run folder; return the run and its last checkpoint."""
    run, state = open_run(run_dir, settings, mirror)
    run.finished = state is not None and state["finished"]
    return run, state


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
) -> None:
    """Write links to the images, their labels and a data.yaml to folder/data.

    Files are numbered, because Ultralytics derives the path of a label from that of its image, and names of the user's
    folders could mislead it. If the last training batch would have one image, the first image is added to it: batch
    norm cannot be trained with a single image.
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


def _link_image(image: Path, target: Path) -> None:
    """Create a symbolic link to an image, or a copy if the system does not allow links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)  # writing a copy through an existing link would overwrite the image
    try:
        target.symlink_to(image.resolve())
    except OSError:  # Windows requires a permission for links
        link_or_copy(image, target)


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
    checkpoint = {"settings": model.settings, "model": model.state_dict(), "classes": classes}
    with TemporaryDirectory() as name:
        folder = Path(name)
        _write_data(folder, data, data, classes)
        runs.save_torch(folder / _MODEL, {**checkpoint, "image_size": model.image_size})
        scores = _run_child(folder, {"device": 0 if next(model.parameters()).is_cuda else "cpu"})
    columns = {"AP50-95": "val_ap", "AP50": "val_ap50", "box AP50-95": "val_box_ap", "box AP50": "val_box_ap50"}
    return {name: scores[_RESULT_COLUMNS[column]] for name, column in columns.items()}


def _validate(device: int | str) -> dict[str, float]:
    """Return the scores of the model in the current folder, under Ultralytics' names."""
    model: Any = load_model(_MODEL)
    model.network.names = dict(enumerate(model.class_names[1:]))
    settings = {"imgsz": model.settings["image_size"], "batch": 8, "workers": 0, "plots": False, "save_dir": "."}
    scores = model.as_ultralytics().val(data=_DATA, device=device, **settings)
    return {name: float(value) for name, value in scores.results_dict.items()}


# ------------------------------------------------------------------------------------------------ starting the process


def _run_child(folder: Path, job: dict[str, Any]) -> dict[str, float]:
    """Start a process that does a job in a folder, print its output, and return its answer.

    Raises:
        FloatingPointError, torch.OutOfMemoryError, ValueError, ImportError, OSError: what the process reports.
        RuntimeError: it failed in another way.
    """
    write_json(folder / _JOB, {**job, "threads": torch.get_num_threads()})
    write_json(folder / "settings/Ultralytics/settings.json", _SETTINGS)
    (folder / _ANSWER).unlink(missing_ok=True)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the process needs the memory
    command = [sys.executable, "-m", "seglib.train_yolo"]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
    with subprocess.Popen(
        command, cwd=folder, env=_environment(), text=True, encoding="utf-8", errors="replace", **pipes
    ) as child:
        try:
            for line in child.stdout or ():
                print(line, end="", flush=True)
        except BaseException:
            child.kill()  # its files are written completely or not at all
            child.wait()
            raise
    if not (folder / _ANSWER).is_file():
        raise RuntimeError(
            f"the process that runs Ultralytics ended with exit code {child.returncode}; see its output. A code of "
            "-9 or 137 means that the memory of the machine ran out: use fewer workers or a smaller batch_size."
        )
    answer = json.loads((folder / _ANSWER).read_text(encoding="utf-8"))
    if "error" in answer:
        raise _ERRORS.get(answer["error"], RuntimeError)(answer["message"])
    return answer


def _environment() -> dict[str, str]:
    """Return the environment variables of the process.

    By default Ultralytics downloads a font for its figures and a second network to test mixed precision with. The
    address of a proxy that does not exist prevents all traffic.
    """
    environment = {name: value for name, value in os.environ.items() if name not in _LAUNCHER_VARIABLES}
    for scheme in ("http", "https", "all"):
        environment[f"{scheme}_proxy"] = "http://127.0.0.1:9"
        environment[f"{scheme.upper()}_PROXY"] = "http://127.0.0.1:9"
    package = str(Path(__file__).resolve().parents[1])
    environment |= {"no_proxy": "", "NO_PROXY": "", "PYTHONIOENCODING": "utf-8"}
    environment["PYTHONPATH"] = os.pathsep.join([package, *filter(None, sys.path)])
    return {**environment, **OFFLINE, "YOLO_CONFIG_DIR": "settings", "YOLO_VERBOSE": "false"}


# ------------------------------------------------------------------------------------------------ the process


def _main() -> None:
    """Do the job of the current folder and write the answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the caller, which ends this process
    threading.Thread(target=_exit_with_caller, daemon=True).start()
    job = json.loads(Path(_JOB).read_text(encoding="utf-8"))
    try:
        answer: dict[str, Any] = _train(job) if "config" in job else _validate(job["device"])
    except Exception as error:
        traceback.print_exc()
        name = next((kind.__name__ for kind in type(error).__mro__ if kind.__name__ in _ERRORS), "RuntimeError")
        answer = {"error": name, "message": str(error)}
    write_json(Path(_ANSWER), answer)


def _exit_with_caller() -> None:
    os.read(0, 1)  # the caller writes nothing, so this returns when it has ended
    os._exit(1)


def _train(job: dict[str, Any]) -> dict[str, Any]:
    """Train or resume in the run folder above the current folder."""
    from ultralytics import YOLO

    config = YOLOConfig(**job["config"])
    mirror = None if config.mirror is None else Mirror(config.mirror)
    run, state = _open(Path.cwd().parent, job["settings"], mirror)
    if state is None:
        model = YOLO(f"{config.model}.yaml", task="segment")
    else:
        Path(_LAST_WEIGHTS).parent.mkdir(exist_ok=True)
        Path(_LAST_WEIGHTS).write_bytes(state[_ULTRALYTICS_DIR].numpy().tobytes())
        Path(_RESULTS).write_text(state["results"], encoding="utf-8")
        model = YOLO(_LAST_WEIGHTS, task="segment")
    recorder = _EpochRecorder(run, state, job, mirror)
    for event in ("on_train_start", "on_train_epoch_start", "on_train_batch_end", "on_model_save"):
        model.add_callback(event, getattr(recorder, event))
    settings = {
        **_ultralytics_settings(config),
        **config.others,
        **_device_settings(config, job["settings"]["precision"]),
    }
    settings |= {"data": _DATA, "save_dir": str(Path.cwd()), "pretrained": _PRETRAINED if config.weights else False}
    batches = TrainConfig(config.epochs, config.batch_size, config.lr, accumulate=config.accumulate)
    device = torch.device(settings["device"])
    with suppress(_Finished), explain_out_of_memory(batches, (config.image_size, config.image_size), device):
        model.train(resume=state is not None, **settings)
    return {}


class _Finished(Exception):
    """Raised after the last epoch, when Ultralytics would measure the best epoch again."""


class _EpochRecorder:
    """Writes history and checkpoints of a run. Each method is a callback for the event that has its name.

    The trainer is an `ultralytics.engine.trainer.BaseTrainer`, whose annotations do not say what it holds by then.
    """

    def __init__(self, run: Run, state: dict[str, Any] | None, job: dict[str, Any], mirror: Mirror | None) -> None:
        self.run = run
        self.config = YOLOConfig(**job["config"])
        self.settings: dict[str, Any] = job["settings"]
        self.threads: int = job["threads"]
        self.mirror = mirror
        self.best: dict[str, Any] = state["best"] if state else {}
        self.files: list[str] = []  # of the last batch
        self.epoch_start = 0.0

    def on_train_start(self, trainer: Any) -> None:
        """Restore the number of threads; raise ValueError if Ultralytics dropped images."""
        torch.set_num_threads(self.threads)
        self.epoch_start = time.monotonic()
        trainer.model.register_forward_pre_hook(self._store_files)
        for split, loader in (("train", trainer.train_loader), ("valid", trainer.test_loader)):
            links = {path.name: path for path in Path("data", split, "images").iterdir()}
            dropped = set(links) - {Path(name).name for name in loader.dataset.im_files}
            if dropped:
                files = ", ".join(sorted(str(links[name].resolve()) for name in dropped)[:5])
                raise ValueError(f"Ultralytics cannot use {len(dropped)} images ({files}): repair or remove them")

    def _store_files(self, model: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.files = [str(Path(name).resolve()) for name in arguments[0]["im_file"]]

    def on_train_epoch_start(self, trainer: Any) -> None:
        """Raise OutOfMemoryError if Ultralytics halved the batch size because memory ran out."""
        if trainer.batch_size != self.config.batch_size:
            raise torch.OutOfMemoryError(
                f"CUDA out of memory, or another CUDA error, in epoch {trainer.epoch + 1}: Ultralytics halved the batch"
            )

    def on_train_batch_end(self, trainer: Any) -> None:
        """Raise FloatingPointError if the loss is not finite; Ultralytics would return to its last checkpoint."""
        if not torch.isfinite(trainer.loss.detach()).all():
            raise FloatingPointError(
                f"the loss became NaN or infinite in epoch {trainer.epoch + 1}; images of that step: "
                f"{', '.join(self.files)}. {ADVICE_AFTER_NAN}"
            )

    def on_model_save(self, trainer: Any) -> None:
        """Write the checkpoint of an epoch atomically, then the history, and print a line about the epoch."""
        results = trainer.csv.read_text(encoding="utf-8")
        now = time.monotonic()
        history = self.run.history
        history.append(_read_row(results, now - self.epoch_start))
        if not np.isfinite(history[-1]["val_loss"]):
            raise FloatingPointError(f"the validation loss became NaN or infinite: {ADVICE_AFTER_NAN}")
        self.epoch_start = now
        best = best_epoch(history, _SELECTION_COLUMN)
        if best == len(history):
            self.best = self._best_checkpoint(trainer.ema.ema)
        if self.config.patience is not None and history[best - 1][_SELECTION_COLUMN] > 0:
            trainer.stop |= len(history) - best >= self.config.patience
        self.run.finished = bool(trainer.stop)
        state = {
            "settings": self.settings,
            "finished": self.run.finished,
            "best": self.best,
            "results": results,
            _ULTRALYTICS_DIR: torch.from_numpy(np.frombuffer(trainer.last.read_bytes(), dtype=np.uint8).copy()),
        }
        save_checkpoint(self.run, state, self.mirror)
        runs.write_history(self.run.dir / runs.HISTORY, history)
        scores = {"mask AP50": "val_ap50", "AP50-95": "val_ap"}
        print(runs.format_epoch(self.run, self.config.epochs, scores), flush=True)
        if self.run.finished:
            raise _Finished

    def _best_checkpoint(self, network: nn.Module) -> dict[str, Any]:
        """Return a checkpoint that `seglib.models.load_model` reads, with copies of the network's weights."""
        config = self.config
        classes = self.settings["classes"]
        settings = {"name": config.model, "classes": len(classes), "image_size": config.image_size}
        return {
            "settings": {**settings, "pretrained_classes": COCO_CLASSES if config.weights else None},
            "model": {f"network.{key}": value.detach().cpu().clone() for key, value in network.state_dict().items()},
            "classes": classes,
            "image_size": (config.image_size, config.image_size),
            "epoch": len(self.run.history),
        }


def _read_row(results: str, seconds: float) -> Row:
    """Convert the last line of Ultralytics' results.csv to a row of history.csv.

    `train_loss` and `val_loss` are the sums of the weighted losses of boxes, masks and classes.
    """
    line = list(csv.DictReader(results.splitlines()))[-1]
    values = {key.strip(): float(value) for key, value in line.items()}
    parts = {key: value for key, value in values.items() if key.startswith(("train/", "val/"))}
    row: Row = {"epoch": int(values["epoch"])}
    for split in ("train", "val"):
        row[f"{split}_loss"] = sum(value for key, value in parts.items() if key.startswith(f"{split}/"))
    row |= {name: values[column] for name, column in _RESULT_COLUMNS.items()}
    # The semantic loss is 0 for these models.
    row |= {key.replace("/", "_"): value for key, value in parts.items() if value or "sem" not in key}
    return {**row, "lr": values["lr/pg0"], "seconds": seconds}


if __name__ == "__main__":
    _main()
