"""Trains YOLOv8-seg with Ultralytics; history and checkpoints are those of every other run.

Ultralytics runs in a process of its own, `python -m seglib.train_yolo`, so that nothing that it changes for a whole
process reaches the caller. That process has no network and ends when the caller ends. It writes only to the sub-folder
ultralytics/ of the run folder: links to the images, copies of the labels, its settings and its weights.
"""

import hashlib
import json
import os
import pickle
import shutil
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from subprocess import PIPE, STDOUT, Popen
from typing import Any

import numpy as np
import torch

from seglib import runs
from seglib.config import TrainConfig, default_precision, explain_out_of_memory
from seglib.datasets.base import SegmentationData, unwrap_subset
from seglib.datasets.yolo import YOLOSegmentationDataset
from seglib.files import atomic_path, check_choice, short_path, write_json, write_lines
from seglib.loading import available_cores
from seglib.models import yolo
from seglib.models.common import YOLO_MODELS

__all__ = ["YOLOConfig", "fit_yolo"]

# Files in the folder in which the process works.
_DATA = "data/data.yaml"
_PRETRAINED = "data/pretrained.pt"
_JOB = "job.pickle"
_RESULT = "result.pickle"

_ENVIRONMENT = {
    **yolo.OFFLINE,
    "YOLO_CONFIG_DIR": "settings",
    # Even offline, Ultralytics downloads a font, and a network to test mixed precision with, if it reaches somebody.
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
    "PYTHONIOENCODING": "utf-8",
}
_Sample = tuple[str, Path, list[str]]  # the file name, the path of the image, the label lines


@dataclass(frozen=True)
class YOLOConfig:
    """Settings for training a YOLO.

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
        patience: stop when the AP on the validation images, of boxes and masks together, has not increased for this
            number of epochs; None: never stop early. Epochs before the first AP above 0 are not counted.
        accumulate: number of batches whose gradients are summed before each step of the optimizer; during the
            warm-up Ultralytics raises it from 1. By default Ultralytics accumulates 64 images.
        others: further settings by Ultralytics' names, for example {"degrees": 10}.

    Raises:
        ValueError: a setting has a value that does not exist, or `others` repeats one.
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
        self.as_train_config()
        yolo.check_image_size(self.image_size)
        if self.batch_size == 1:
            raise ValueError("batch_size must be at least 2: batch norm cannot be trained with a single image")
        check_choice("model", self.model, YOLO_MODELS)
        check_choice("weights", self.weights, (None, "coco"))
        check_choice("scheduler", self.scheduler, (None, "cosine"))
        if taken := set(self.others) & set(_ultralytics_settings(self)):
            raise ValueError(f"others must not set {', '.join(sorted(taken))}, which another setting decides")
        object.__setattr__(self, "lr", float(self.lr))  # a checkpoint cannot hold numpy's numbers

    def as_train_config(self) -> TrainConfig:
        """Return the settings that `TrainConfig` has as well, which checks them."""
        names = ("epochs", "batch_size", "lr", "weight_decay", "optimizer", "seed", "patience", "accumulate", "mirror")
        return TrainConfig(**{name: getattr(self, name) for name in names})


def fit_yolo(
    train_data: SegmentationData, val_data: SegmentationData, config: YOLOConfig, run_dir: str | Path
) -> runs.Run:
    """Train a YOLOv8-seg on one GPU or the CPU; the same call resumes after the last finished epoch.

    A resumed run does not end with the same weights as an uninterrupted one, because Ultralytics stores its checkpoints
    in half precision. Its best epoch has the highest mask AP50-95 on the validation images as Ultralytics measures it;
    `seglib.evaluate.mask_ap` measures by COCO's rules. Ultralytics' own table is ultralytics/results.csv.

    Args:
        train_data, val_data: `YOLOSegmentationDataset`s or Subsets of them.
        config: the settings.
        run_dir: the run folder. If it holds a finished run, that run is returned.

    Raises:
        TypeError: the data is not in YOLO-seg format.
        ValueError: Ultralytics cannot use the data; the run folder holds a run with other settings.
        FloatingPointError: the loss became NaN or infinite.
        torch.OutOfMemoryError: the memory of the GPU is too small. Ultralytics would halve the batch size.
        OSError: the weights cannot be downloaded, or the run folder cannot be written.
        RuntimeError: another process trains in the run folder, or the process failed in another way.
    """
    run_dir = Path(run_dir).resolve()
    classes, train_samples = _read(train_data)
    val_classes, val_samples = _read(val_data)
    if classes != val_classes:
        raise ValueError(f"train_data and val_data have different classes: {classes} and {val_classes}")
    settings = {key: value for key, value in asdict(config).items() if key not in ("workers", "mirror")}
    settings |= {"train_data": _describe_samples(train_samples), "val_data": _describe_samples(val_samples)}
    settings["classes"] = classes
    mirror = runs.Mirror(Path(config.mirror).expanduser().resolve()) if config.mirror else None
    with runs.lock_run(run_dir):
        run, state = runs.open_run(run_dir, settings, mirror)
        if state and state["finished"]:
            run.finished = True
            print(f"{short_path(run_dir)} is finished ({len(run.history)} epochs): nothing to train.")
        else:
            folder = run_dir / "ultralytics"
            if len(train_samples) % config.batch_size == 1:  # batch norm cannot be trained with a single image
                train_samples.append(train_samples[0])
            _write_data(folder, classes, train_samples, val_samples)
            if state:
                print(f"Resuming after epoch {len(run.history)}.", flush=True)
            elif config.weights:
                _link(yolo.download_weights(config.model), folder / _PRETRAINED)
            run = _run_in_child(folder, _Training(run, config, mirror, torch.get_num_threads()))
        run.save_curves(("val_ap50", "val_ap"), "ap.png")
    return run


# ------------------------------------------------------------------------------------------------ settings and data


def _ultralytics_settings(config: YOLOConfig) -> dict[str, Any]:
    """Return the settings under Ultralytics' names."""
    names = ("epochs", "optimizer", "weight_decay", "warmup_epochs", "mosaic", "close_mosaic", "seed")
    return {
        **{name: getattr(config, name) for name in names},
        "batch": config.batch_size,
        "nbs": config.batch_size * config.accumulate,  # images for each step of the optimizer
        "lr0": config.lr,
        "lrf": 1.0 if config.scheduler is None else 0.01,
        "cos_lr": config.scheduler == "cosine",
        "imgsz": config.image_size,
        "flipud": config.flip_up_down,
        "patience": config.patience or 0,  # 0: never
        "pretrained": _PRETRAINED if config.weights else False,
        "amp": {"no": False, "fp16": True, "bf16": "bf16"}[default_precision()],
        "workers": min(available_cores(), 8) if config.workers is None else config.workers,
        "data": _DATA,
        "save_dir": ".",
        "plots": False,
    }


def _read(data: SegmentationData) -> tuple[list[str], list[_Sample]]:
    """Return the classes and the samples of a data set or Subset."""
    source, indices = unwrap_subset(data)
    if not isinstance(source, YOLOSegmentationDataset):
        raise TypeError(f"Ultralytics needs a YOLOSegmentationDataset or a Subset of one, not {type(source).__name__}")
    samples = [(source.filenames[index], source.image_path(index), source.lines(index)) for index in indices]
    if not any(lines for _, _, lines in samples):
        raise ValueError(f"there is no object on {len(samples)} images of {source.images_dir}")
    return source.classes, samples


def _describe_samples(samples: list[_Sample]) -> str:
    """Return the number of samples and a digest of their file names and labels."""
    text = json.dumps([(name, lines) for name, _, lines in samples])
    return f"{len(samples)} images, digest {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _write_data(folder: Path, classes: list[str], train_samples: list[_Sample], val_samples: list[_Sample]) -> None:
    """Write links to the images, their labels and a data.yaml to folder/data.

    Files are numbered: Ultralytics finds labels by replacing a part of the path that the user's folders may repeat.
    """
    shutil.rmtree(folder / "data", ignore_errors=True)
    for part, samples in (("train", train_samples), ("val", val_samples)):
        for number, (_, image, lines) in enumerate(samples):
            _link(image, folder / f"data/{part}/images/{number:06d}{image.suffix.lower()}")
            write_lines(folder / f"data/{part}/labels/{number:06d}.txt", lines)
    write_json(folder / _DATA, {"train": "train/images", "val": "val/images", "names": classes[1:]})  # JSON is YAML


def _link(source: Path, target: Path) -> None:
    """Create a symbolic link to a file, or a copy where the system does not allow links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        target.symlink_to(source.resolve())
    except OSError:  # Windows requires a permission for links
        shutil.copyfile(source, target)


# ------------------------------------------------------------------------------------------------ the process


def _run_in_child(folder: Path, training: "_Training") -> runs.Run:
    """Train in a process that works in a folder, print its output, and return the run or raise the error."""
    result_file = folder / _RESULT
    result_file.unlink(missing_ok=True)
    (folder / _JOB).write_bytes(pickle.dumps(training))
    torch.cuda.empty_cache()  # the process needs the memory
    package = str(Path(__file__).resolve().parents[1])
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join([package, *filter(None, sys.path)])}
    command = [sys.executable, "-m", "seglib.train_yolo"]
    pipes: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": STDOUT, "encoding": "utf-8", "errors": "replace"}
    # Ctrl-C reaches the caller only. Leaving the block closes the standard input, which ends the process.
    with Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes) as child:
        for line in child.stdout or ():
            print(line, end="", flush=True)
    if not result_file.is_file():
        raise RuntimeError(
            f"the training process ended with exit code {child.returncode}, see its output; -9 or 137 means that the "
            "memory of the machine ran out: use fewer workers or a smaller batch_size"
        )
    result = pickle.loads(result_file.read_bytes())
    if isinstance(result, Exception):
        raise result
    return result


def _main() -> None:
    """Train in the current folder and write the run, or the error, to a file."""
    threading.Thread(target=_exit_with_caller, daemon=True).start()
    trackers = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
    try:
        yolo.import_ultralytics().settings.update(dict.fromkeys(trackers, False))
        result = pickle.loads(Path(_JOB).read_bytes()).run_epochs()
    except Exception as error:
        traceback.print_exc()
        result = error
    with atomic_path(_RESULT) as temporary:
        temporary.write_bytes(pickle.dumps(result))


def _exit_with_caller() -> None:
    os.read(0, 1)  # the caller writes nothing: this returns when it has ended or closed the pipe
    os._exit(1)


class _Finished(Exception):
    """Raised after the last epoch, when Ultralytics would measure the best one again."""


@dataclass
class _Training:
    """The training of a run. Methods named on_... are callbacks of Ultralytics' trainer."""

    run: runs.Run
    config: YOLOConfig
    mirror: runs.Mirror | None
    threads: int
    best: dict[str, Any] = field(default_factory=dict)  # the contents of best_model.pth
    epoch_start: float = 0.0

    def run_epochs(self) -> runs.Run:
        """Train on the data in the current folder, or resume from the last checkpoint of the run."""
        config = self.config
        start = Path(f"{config.model}.yaml")
        if self.run.history:
            state = torch.load(self.run.dir / runs.LAST, weights_only=True)
            self.best = state["best"]
            start = Path("resumed.pt")
            start.write_bytes(state["ultralytics"].numpy().tobytes())
        model = yolo.import_ultralytics().YOLO(start, task="segment")
        for event in ("on_train_start", "on_train_batch_end", "on_model_save"):
            model.add_callback(event, getattr(self, event))
        size = (config.image_size, config.image_size)
        with suppress(_Finished), explain_out_of_memory(config.as_train_config(), size):
            model.train(**_ultralytics_settings(config), **config.others, resume=bool(self.run.history))
        return self.run

    def on_train_start(self, trainer: Any) -> None:
        """Check that Ultralytics uses all images."""
        torch.set_num_threads(self.threads)  # Ultralytics leaves a core free
        self.epoch_start = time.monotonic()
        for part, loader in (("train", trainer.train_loader), ("val", trainer.test_loader)):
            used = {Path(name).name for name in loader.dataset.im_files}
            for path in sorted(Path(f"data/{part}/images").iterdir()):
                if path.name not in used:
                    raise ValueError(f"Ultralytics cannot use {path.resolve()}: repair the image, or remove it")

    def on_train_batch_end(self, trainer: Any) -> None:
        """Stop where Ultralytics would halve the batch size, or return to its last checkpoint."""
        if trainer.batch_size != self.config.batch_size:
            raise torch.OutOfMemoryError(f"CUDA out of memory in epoch {trainer.epoch + 1}")
        if not torch.isfinite(trainer.loss.detach()).all():
            raise FloatingPointError(
                f"the loss became NaN or infinite in epoch {trainer.epoch + 1}: try a tenth of the learning rate. "
                "Earlier checkpoints are kept."
            )

    def on_model_save(self, trainer: Any) -> None:
        """Save the checkpoint and the history of an epoch, and print a line about it."""
        seconds = time.monotonic() - self.epoch_start
        self.epoch_start += seconds
        losses = {**trainer.label_loss_items(trainer.tloss), **trainer.metrics}  # of boxes, masks and classes
        row = {
            "epoch": trainer.epoch + 1,
            "train_loss": sum(value for name, value in losses.items() if name.startswith("train/")),
            "val_loss": sum(value for name, value in losses.items() if name.startswith("val/")),
            "val_ap": trainer.metrics["metrics/mAP50-95(M)"],
            "val_ap50": trainer.metrics["metrics/mAP50(M)"],
            "lr": trainer.lr["lr/pg0"],
            "seconds": seconds,
        }
        history = self.run.history
        history.append(row)
        if runs.best_epoch(history, "val_ap") == len(history):
            self.best = self._best_checkpoint(trainer.ema.ema)
        self.run.finished = trainer.stop
        checkpoint = torch.from_numpy(np.fromfile(trainer.last, np.uint8))
        state = {"finished": trainer.stop, "best": self.best, "ultralytics": checkpoint}
        runs.save_checkpoint(self.run, state, self.mirror)
        runs.write_history(self.run.dir / runs.HISTORY, history)
        scores = {"mask AP50": "val_ap50", "AP50-95": "val_ap"}
        print(runs.format_epoch(self.run, self.config.epochs, scores), flush=True)
        if trainer.stop:
            raise _Finished

    def _best_checkpoint(self, network: torch.nn.Module) -> dict[str, Any]:
        """Return a checkpoint that `seglib.models.load_model` reads, with copies of the network's weights."""
        config = self.config
        classes = self.run.settings["classes"]
        model = {"name": config.model, "classes": len(classes), "image_size": config.image_size}
        return {
            "settings": {**model, "pretrained_classes": yolo.COCO_CLASSES if config.weights else None},
            "model": {f"network.{key}": value.detach().cpu().clone() for key, value in network.state_dict().items()},
            "classes": classes,
            "image_size": (config.image_size, config.image_size),
            "epoch": len(self.run.history),
        }


if __name__ == "__main__":
    _main()
