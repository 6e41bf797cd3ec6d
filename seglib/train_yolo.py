"""Trains YOLOv8-seg with Ultralytics; history and checkpoints are those of every other run.

Ultralytics runs in a process of its own, `python -m seglib.train_yolo`, so that nothing it changes reaches the caller.
That process has no network, ends with the caller, and writes only to the sub-folder ultralytics/ of the run folder.
"""

import hashlib
import json
import os
import pickle
import shutil
import sys
import threading
import time
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
from seglib.files import check_choice, short_path, write_json, write_lines
from seglib.models import yolo
from seglib.models.common import YOLO_MODELS

__all__ = ["YOLOConfig", "fit_yolo"]

# Files in the folder in which the process works.
_DATA = "data/data.yaml"
_START = "data/start.pt"  # pretrained weights, or the last checkpoint
_JOB = "job.pickle"
_ERROR = "error.pickle"

_ENVIRONMENT = {
    **yolo.OFFLINE,
    "YOLO_CONFIG_DIR": "settings",
    # Even offline, Ultralytics downloads a font, and a network to test mixed precision with, if it reaches somebody.
    "http_proxy": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
    "PYTHONIOENCODING": "utf-8",
}
_TRACKERS = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
_Samples = list[tuple[Path, list[str]]]  # images and their label lines


@dataclass(frozen=True)
class YOLOConfig:
    """Settings for training a YOLO with AdamW. The learning rate follows a cosine down to a hundredth of `lr`.

    Args:
        epochs, batch_size, lr, seed, mirror: see `seglib.train.TrainConfig`.
        model: "yolov8n-seg", "yolov8s-seg", "yolov8m-seg", "yolov8l-seg" or "yolov8x-seg".
        weights: "coco" or None, see `seglib.models.yolo.YOLOSegmenter`.
        image_size: longer side of the resized images in pixels, a multiple of 32.
        warmup_epochs: epochs in which the learning rate increases from 0 (that of biases decreases from 0.1).
        mosaic: probability of combining four images into one, except in the last ten epochs.
        flip_up_down: probability of flipping an image upside down, for images taken from above.
        patience: stop when the AP of boxes and masks on the validation images has not increased for so many epochs,
            counted from the first AP above 0; None: never stop early.
        accumulate: number of batches whose gradients are summed before each step of the optimizer.
        others: further settings by Ultralytics' names: {"degrees": 10, "optimizer": "sgd", "weight_decay": 0.001,
            "close_mosaic": 0, "workers": 2}. {"cos_lr": False, "lrf": 1.0} keeps the learning rate constant.

    Raises:
        ValueError: a setting has a value that does not exist.
    """

    epochs: int
    batch_size: int
    lr: float
    model: str = "yolov8n-seg"
    weights: str | None = None
    image_size: int = 640
    warmup_epochs: float = 3.0
    mosaic: float = 1.0
    flip_up_down: float = 0.0
    patience: int | None = None
    seed: int = 0
    accumulate: int = 1
    others: dict[str, Any] = field(default_factory=dict)
    mirror: Path | str | None = None

    def __post_init__(self) -> None:
        self.as_train_config()
        check_choice("model", self.model, YOLO_MODELS)
        check_choice("weights", self.weights, (None, "coco"))
        if self.image_size < 32 or self.image_size % 32:
            raise ValueError(f"image_size must be a multiple of 32, 32 or more, not {self.image_size}")
        if self.batch_size == 1:
            raise ValueError("batch_size must be at least 2: batch norm cannot be trained with a single image")
        if {"val", "save", "fraction", "single_cls"} & set(self.others):
            raise ValueError(f"others must not set val, save, fraction or single_cls: {self.others}")

    def as_train_config(self) -> TrainConfig:
        """Return the settings that `TrainConfig` has as well, which checks them."""
        names = ("epochs", "batch_size", "lr", "seed", "patience", "accumulate")
        return TrainConfig(**{name: getattr(self, name) for name in names})


def fit_yolo(
    train_data: SegmentationData, val_data: SegmentationData, config: YOLOConfig, run_dir: str | Path
) -> runs.Run:
    """Train a YOLOv8-seg on one GPU or the CPU; the same call resumes after the last finished epoch.

    A resumed run does not end with the same weights as an uninterrupted one, because Ultralytics stores its checkpoints
    in half precision. Its best epoch has the highest mask AP50-95 on the validation images by Ultralytics' measure.

    Args:
        train_data, val_data: `YOLOSegmentationDataset`s or Subsets of them.
        config: the settings.
        run_dir: the run folder. If it holds a finished run, that run is returned.

    Raises:
        TypeError: the data is not in YOLO-seg format, or `others` repeats a setting.
        ValueError: Ultralytics cannot use the data; the run folder holds a run with other settings.
        FloatingPointError, torch.OutOfMemoryError: the loss became NaN or infinite; the GPU's memory is too small.
        OSError, RuntimeError: the weights cannot be downloaded; another process trains in the run folder.
    """
    run_dir = Path(run_dir).resolve()
    train_samples, train_settings = _read(train_data)
    val_samples, val_settings = _read(val_data)
    classes = train_settings["classes"]
    if classes != val_settings["classes"]:
        raise ValueError(f"train_data and val_data have different classes: {classes} and {val_settings['classes']}")
    settings = {**asdict(config), "train_data": train_settings, "val_data": val_settings}
    del settings["mirror"]
    settings["others"] = {name: value for name, value in config.others.items() if name != "workers"}
    settings = json.loads(json.dumps(settings, default=float))  # default: numpy's numbers
    mirror = runs.Mirror(Path(config.mirror).expanduser().resolve()) if config.mirror else None
    with runs.lock_run(run_dir):
        run, state = runs.open_run(run_dir, settings, mirror)
        if state and state["finished"]:
            print(f"{short_path(run_dir)} is finished ({len(run.history)} epochs): nothing to train.")
        else:
            folder = run_dir / "ultralytics"
            if len(train_samples) % config.batch_size == 1:  # batch norm cannot be trained with a single image
                train_samples.append(train_samples[0])
            _write_data(folder, classes, train_samples, val_samples)
            if state:
                print(f"Resuming after epoch {len(run.history)}.", flush=True)
                (folder / _START).write_bytes(state["ultralytics"].numpy().tobytes())
            elif config.weights:
                _link(yolo.download_weights(config.model), folder / _START)
            _run_in_child(folder, _Training(run, config, mirror, state["best"] if state else {}))
            run.history = runs.read_history(run_dir / runs.HISTORY)
        run.finished = True
        run.save_curves(("val_ap50", "val_ap"), "ap.png")
    return run


def _read(data: SegmentationData) -> tuple[_Samples, dict[str, Any]]:
    """The samples of a data set or Subset, and what a run records of them."""
    source, indices = unwrap_subset(data)
    if not isinstance(source, YOLOSegmentationDataset):
        raise TypeError(f"Ultralytics needs a YOLOSegmentationDataset or a Subset of one, not {type(source).__name__}")
    samples = [(source.image_path(index), source.lines(index)) for index in indices]
    if not any(lines for _, lines in samples):
        raise ValueError(f"there is no object on {len(samples)} images of {source.images_dir}")
    text = json.dumps([(source.filenames[index], source.lines(index)) for index in indices])
    digest = hashlib.sha256(text.encode()).hexdigest()[:16]
    return samples, {"samples": len(samples), "digest": digest, "classes": source.classes}


def _write_data(folder: Path, classes: list[str], train_samples: _Samples, val_samples: _Samples) -> None:
    """Write links to the images, their labels and a data.yaml to folder/data."""
    shutil.rmtree(folder / "data", ignore_errors=True)
    for part, samples in (("train", train_samples), ("val", val_samples)):
        (folder / f"data/{part}/images").mkdir(parents=True)
        for number, (image, lines) in enumerate(samples):  # a Subset may hold an image twice
            _link(image, folder / f"data/{part}/images/{number:06d}{image.suffix.lower()}")
            write_lines(folder / f"data/{part}/labels/{number:06d}.txt", lines)
    write_json(folder / _DATA, {"train": "train/images", "val": "val/images", "names": classes[1:]})  # JSON is YAML


def _link(source: Path, target: Path) -> None:
    try:
        target.symlink_to(source.resolve())
    except OSError:  # some drives have no links
        shutil.copyfile(source, target)


# ------------------------------------------------------------------------------------------------ the process


def _run_in_child(folder: Path, training: "_Training") -> None:
    """Train in a process that works in a folder, print its output, and raise its error."""
    (folder / _JOB).write_bytes(pickle.dumps(training))
    (folder / _ERROR).unlink(missing_ok=True)
    torch.cuda.empty_cache()  # the process needs the memory
    paths = [str(Path(__file__).resolve().parents[1]), *sys.path]
    environment = {**os.environ, **_ENVIRONMENT, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, "-m", "seglib.train_yolo"]
    pipes: dict[str, Any] = {"stdin": PIPE, "stdout": PIPE, "stderr": STDOUT, "encoding": "utf-8", "errors": "replace"}
    # Ctrl-C reaches the caller only. Leaving the block closes the standard input, which ends the process.
    with Popen(command, cwd=folder, env=environment, start_new_session=True, **pipes) as child:
        for line in child.stdout or ():
            print(line, end="", flush=True)
    if (folder / _ERROR).is_file():
        raise pickle.loads((folder / _ERROR).read_bytes())
    if child.returncode:
        raise RuntimeError(
            f"the training process ended with exit code {child.returncode}, see its output. After -9 or 137, the "
            "memory of the machine ran out: use fewer workers (others={'workers': 2}) or a smaller batch_size."
        )


def _main() -> None:
    """Train in the current folder, and write an error to a file."""
    threading.Thread(target=_exit_with_caller, daemon=True).start()
    try:
        yolo.import_ultralytics().settings.update(dict.fromkeys(_TRACKERS, False))
        pickle.loads(Path(_JOB).read_bytes()).run_epochs()
    except Exception as error:
        Path(_ERROR).write_bytes(pickle.dumps(error))
        raise


def _exit_with_caller() -> None:
    os.read(0, 1)  # the caller writes nothing: this returns when it has ended or closed the pipe
    os._exit(1)


@dataclass
class _Training:
    """The training of a run. Methods named on_... are callbacks of Ultralytics' trainer."""

    run: runs.Run
    config: YOLOConfig
    mirror: runs.Mirror | None
    best: dict[str, Any]  # the contents of best_model.pth
    threads: int = field(default_factory=torch.get_num_threads)

    def run_epochs(self) -> None:
        """Train on the data in the current folder, or resume from the last checkpoint of the run."""
        config = self.config
        settings = {
            **{name: getattr(config, name) for name in ("epochs", "warmup_epochs", "mosaic", "seed")},
            "batch": config.batch_size,
            "nbs": config.batch_size * config.accumulate,  # images for each step of the optimizer
            "lr0": float(config.lr),  # Ultralytics does not read numpy's numbers back
            "imgsz": config.image_size,
            "flipud": config.flip_up_down,
            "patience": config.patience or 0,  # 0: never
            "pretrained": _START if config.weights else False,
            "amp": {"no": False, "fp16": True, "bf16": "bf16"}[default_precision()],
            "data": _DATA,
            "save_dir": ".",
            "plots": False,
        }
        free = {"optimizer": "adamw", "cos_lr": True, **config.others}  # its own default, "auto", ignores lr0
        model = yolo.import_ultralytics().YOLO(_START if self.run.history else f"{config.model}.yaml", task="segment")
        for event in ("on_train_start", "on_train_batch_end", "on_model_save"):
            model.add_callback(event, getattr(self, event))
        size = (config.image_size, config.image_size)
        with suppress(SystemExit), explain_out_of_memory(config.as_train_config(), size):
            model.train(**settings, **free, resume=bool(self.run.history))

    def on_train_start(self, trainer: Any) -> None:
        """Check that Ultralytics uses all images."""
        torch.set_num_threads(self.threads)  # Ultralytics leaves a core free
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
            raise FloatingPointError(f"the loss became NaN or infinite in epoch {trainer.epoch + 1}: try a tenth of lr")

    def on_model_save(self, trainer: Any) -> None:
        """Save the checkpoint and the history of an epoch, and print a line about it."""
        row = {
            "epoch": trainer.epoch + 1,
            "train_loss": sum(trainer.label_loss_items(trainer.tloss).values()),  # of boxes, masks and classes
            "val_loss": sum(value for name, value in trainer.metrics.items() if name.startswith("val/")),
            "val_ap": trainer.metrics["metrics/mAP50-95(M)"],
            "val_ap50": trainer.metrics["metrics/mAP50(M)"],
            "lr": trainer.lr["lr/pg0"],
            "seconds": time.time() - trainer.epoch_time_start,
        }
        run = self.run
        run.history.append(row)
        run.finished = trainer.stop
        if run.best is row:
            self.best = self._best_model(trainer.ema.ema)
        checkpoint = torch.from_numpy(np.fromfile(trainer.last, np.uint8))
        state = {"finished": run.finished, "best": self.best, "ultralytics": checkpoint}
        runs.save_checkpoint(run, state, self.mirror)
        runs.write_history(run.dir / runs.HISTORY, run.history)
        print(runs.format_epoch(run, self.config.epochs, {"mask AP50": "val_ap50", "AP50-95": "val_ap"}), flush=True)
        if run.finished:
            sys.exit()  # from training: Ultralytics would measure the best epoch again

    def _best_model(self, network: torch.nn.Module) -> dict[str, Any]:
        """The contents of best_model.pth; the weights are copied, since training goes on to change them."""
        size = self.config.image_size
        classes = self.run.settings["train_data"]["classes"]
        settings = {"name": self.config.model, "classes": len(classes), "image_size": size}
        return {
            "settings": {**settings, "coco_width": self.config.weights == "coco"},
            "model": {f"network.{key}": value.detach().cpu().clone() for key, value in network.state_dict().items()},
            "classes": classes,
            "image_size": (size, size),
            "epoch": len(self.run.history),
        }


if __name__ == "__main__":
    _main()
