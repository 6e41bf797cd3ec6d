"""fit(): the training loop. train_epoch() is its heart; measure() scores a trained model."""

import hashlib
import json
import math
import os
import sys
import time
import traceback
import types
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator, PartialState
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, broadcast, broadcast_object_list, gather_object
from accelerate.utils.other import extract_model_from_parallel
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seglib import runs
from seglib.config import (
    Loss,
    TrainConfig,
    add_class_weights,
    check_precision,
    default_precision,
    explain_out_of_memory,
    make_optimizer,
    make_schedules,
    step_schedule,
)
from seglib.datasets.base import SegmentationData, get_class_names, get_filenames, get_transform
from seglib.files import short_path
from seglib.loading import Batch, Batches, Samples, make_loader, seed_everything, split_batch, to_device, val_batches
from seglib.losses import pixel_count, weighted_mean
from seglib.masks import write_index_png
from seglib.metrics import ConfusionMatrix
from seglib.models import logits_to_mask
from seglib.models.common import autocast
from seglib.progress import progress_bar
from seglib.transforms import describe_augmentation

__all__ = ["Evaluation", "LossMeter", "TrainConfig", "fit", "measure", "train_epoch"]

ADVICE_AFTER_NAN = (
    "look at the files; if they are sound, try a tenth of the learning rate, max_grad_norm=1 or some warmup_steps. "
    "Earlier checkpoints are kept."
)
CHECK_EVERY = 50  # batches between checks of the loss for NaN: each check waits for the GPU
MIN_SCALE = 2.0**-34  # of the loss in fp16, after about 50 steps whose gradient was infinite


def fit(
    model: nn.Module,
    train_data: SegmentationData,
    val_data: SegmentationData,
    loss: Loss,
    config: TrainConfig,
    run_dir: str | Path,
    augment: Any = None,
) -> runs.Run:
    """Train a model, or resume its training from the last checkpoint in `run_dir`.

    However a run was interrupted, the same call repeats the epochs after the last checkpoint; on a CPU it ends with the
    same weights, bit for bit. Several processes average their gradients. With `accumulate`, a step equals that of one
    large batch up to rounding, except for Dice and batch norm.

    Args:
        model: images (B, 3, H, W) uint8 -> logits (B, C, H, W). At the end it has the weights of the last
            epoch; after an interruption it has the weights that it came with.
        train_data: samples (image uint8 (3, H, W), mask uint8 (H, W)) or (image, mask, file name), all of one size.
        val_data: likewise, of any sizes.
        loss: (logits, mask (B, H, W) uint8) -> scalar.
        config: the settings of the training.
        run_dir: the run folder, see `seglib.runs`. A finished run is returned without training.
        augment: a pipeline of `seglib.transforms.augmentation` for the training images.

    Returns:
        The run. Its best epoch has the highest validation IoU: of class 1 if there are two classes, else their mean.

    Raises:
        ValueError: other settings than those of the run in `run_dir`, a damaged checkpoint, or data that do not fit.
        FloatingPointError: the loss became NaN or infinite; names epoch, step and files.
        torch.OutOfMemoryError: says which settings need less memory.
        RuntimeError: another process trains in `run_dir`.
    """
    loss = add_class_weights(loss, config.class_weights)
    names, image_size = _check(model, train_data, val_data, config, augment)
    # accelerate joins several processes on CPUs only when it is told that there is no GPU to use.
    process = PartialState(cpu=int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available())
    settings = _describe(model, loss, config, augment, train_data=train_data, val_data=val_data)
    settings["train_data"]["image_size"] = list(image_size)
    mirror = None if config.mirror is None else runs.Mirror(config.mirror)
    with runs.lock_run(Path(run_dir)) if process.is_main_process else nullcontext():
        opened = [runs.open_run(run_dir, settings, mirror) if process.is_main_process else None]
        run, state = broadcast_object_list(opened)[0]
        run.finished = _is_finished(run, config)
        if run.finished:
            process.print(f"{short_path(run_dir)} is finished: nothing to train. To train again, use another run_dir.")
            model.load_state_dict(state["model"])
        else:
            samples = Samples(train_data, len(names), augment, config.seed)
            val_samples = Samples(val_data, len(names))
            with explain_out_of_memory(config, image_size), _undone_on_error(model):
                _train(model, samples, val_samples, loss, config, run, state, mirror)
        if process.is_main_process:
            run.save_curves(("val_miou", "val_iou") if len(names) == 2 else ("val_miou",))
        process.wait_for_everyone()  # so that every process finds the files
    return run


def _train(
    model: nn.Module,
    samples: Samples,
    val_samples: Samples,
    loss: Loss,
    config: TrainConfig,
    run: runs.Run,
    state: dict[str, Any] | None,
    mirror: runs.Mirror | None,
) -> None:
    """Train and validate epoch by epoch, from a checkpoint if there is one, until the run is finished."""
    accelerator = _make_accelerator(config, run)
    model.to(accelerator.device).to(memory_format=torch.channels_last)  # faster, on a CPU too
    optimizer = make_optimizer(model, config)
    parts: dict[str, Any] = {"model": model, "optimizer": optimizer, **make_schedules(optimizer, config)}
    if accelerator.scaler is not None:
        parts["scaler"] = accelerator.scaler
    best: dict[str, Any] = {}  # the contents of best_model.pth
    if state is not None:
        accelerator.print(f"Resuming after epoch {len(run.history)} of {config.epochs} in {short_path(run.dir)}.")
        best = state["best"]
        for name, part in parts.items():
            part.load_state_dict(state[name])
    count, index = accelerator.num_processes, accelerator.process_index
    batches = Batches(len(samples), config.batch_size, config.seed, config.accumulate, count, index)
    loader = make_loader(samples, batches, accelerator.device, config.workers)
    own_val_batches = val_batches(len(val_samples), config.batch_size)[index::count]
    val_loader = make_loader(val_samples, own_val_batches, accelerator.device, config.workers)
    saved = time.monotonic()
    prepared, prepared_optimizer = accelerator.prepare(model, optimizer)
    with _tracking(accelerator, run):
        while not run.finished:
            started = time.perf_counter()
            epoch = len(run.history) + 1
            batches.epoch = epoch
            seed_everything(config.seed, epoch, index)  # a repeated epoch is the same epoch
            train_loss = train_epoch(accelerator, prepared, loader, loss, prepared_optimizer, config, epoch)
            row = {"epoch": epoch, "train_loss": train_loss, **_validate(accelerator, model, val_loader, loss)}
            row |= {"lr": optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - started}
            if not math.isfinite(row["val_loss"]):
                raise FloatingPointError(f"epoch {epoch}: the validation loss became nan or inf: {ADVICE_AFTER_NAN}")
            run.history.append(row)
            run.finished = _is_finished(run, config)
            step_schedule(parts.get("schedule"), row["val_loss"])
            accelerator.log(row, step=epoch)
            if accelerator.is_main_process:
                if run.best is row:
                    best = _best_model(model, run)
                _save_previews(model, val_samples, config.previews, run.dir / "predictions" / f"epoch_{epoch:03d}")
                runs.write_history(run.dir / runs.HISTORY, run.history)
                if run.finished or time.monotonic() - saved >= config.checkpoint_seconds:
                    states = {name: part.state_dict() for name, part in parts.items()}
                    runs.save_checkpoint(run, {**states, "best": best}, mirror)
                    saved = time.monotonic()
                label = "val IoU" if val_samples.num_classes == 2 else "val mIoU"
                print(runs.format_epoch(run, config.epochs, {label: "val_iou"}), flush=True)


@contextmanager
def _undone_on_error(model: nn.Module) -> Iterator[None]:
    """Give the model its forward method back after the block and, if the block fails, its weights as well."""
    initial = deepcopy(model.state_dict())
    try:
        yield
    except BaseException as error:
        model.load_state_dict(initial)  # so that the same call begins with the same weights
        traceback.clear_frames(error.__traceback__)  # a notebook keeps the error, and with it the worker processes
        raise
    finally:  # accelerate has prepared it
        extract_model_from_parallel(model, keep_fp32_wrapper=False)
        model.__dict__.pop("_is_accelerate_prepared", None)


def _is_finished(run: runs.Run, config: TrainConfig) -> bool:
    """Whether all epochs are done, or the validation loss has not fallen for `config.patience` epochs."""
    epochs = len(run.history)
    stalled = epochs - runs.best_epoch(run.history, "val_loss") if epochs else 0
    return epochs >= config.epochs or (config.patience is not None and stalled >= config.patience)


def _validate(accelerator: Accelerator, model: nn.Module, loader: DataLoader, loss: Loss) -> runs.Row:
    """The columns of history.csv that validation fills; the processes share its images."""
    if accelerator.num_processes > 1:
        broadcast(list(model.buffers()))  # each process has its own statistics of batch norm
    names: Any = model.class_names
    matrix, losses = _evaluate(model, loader, loss, len(names))
    matrix.matrix = torch.stack(gather_object([matrix.matrix])).sum(dim=0)
    iou = matrix.iou()
    dice = matrix.dice()
    is_binary = len(names) == 2
    return {
        "val_loss": weighted_mean(gather_object(losses)),
        "val_iou": iou[1].item() if is_binary else matrix.miou(),  # chooses the best epoch
        "val_dice": dice[1].item() if is_binary else dice.nanmean().item(),
        "val_miou": matrix.miou(),
        "val_miou_no_background": matrix.miou(background=False),
        "val_accuracy": matrix.pixel_accuracy(),
        **{f"iou/{name}": value for name, value in zip(names, iou.tolist(), strict=True)},
    }


def _best_model(model: Any, run: runs.Run) -> dict[str, Any]:
    """The contents of best_model.pth; the weights are copied, since training goes on to change them."""
    return {
        "model": {name: tensor.detach().cpu().clone() for name, tensor in model.state_dict().items()},
        "classes": model.class_names,
        "image_size": model.image_size,
        "settings": run.settings["model"],
        "epoch": run.history[-1]["epoch"],
        "val_iou": run.history[-1]["val_iou"],
    }


@torch.no_grad()
def _save_previews(model: Any, samples: Samples, count: int, folder: Path) -> None:
    """Save the masks predicted for the first images of a data set."""
    device = next(model.parameters()).device
    for index in range(min(count, len(samples))):
        image, _, name = samples[0, index]
        mask = logits_to_mask(model(image[None].to(device)))[0].cpu().numpy()
        write_index_png(folder / f"{Path(name).stem}.png", mask, model.class_names)


def train_epoch(
    accelerator: Accelerator,
    model: nn.Module,
    loader: Iterable[Batch],
    loss: Loss,
    optimizer: AcceleratedOptimizer,
    config: TrainConfig,
    epoch: int,
) -> float:
    """Train for one epoch and return the mean loss."""
    model.train()
    losses = LossMeter(optimizer, epoch)
    for number, step in enumerate(progress_bar(loader, f"epoch {epoch}/{config.epochs}"), 1):
        optimizer.zero_grad()
        batches = split_batch(*step, config.batch_size)  # one batch, or `accumulate` of them
        pixels = [pixel_count(loss, masks) for _, masks, _ in batches]
        for part, (images, masks, files) in enumerate(batches):
            with accelerator.no_sync(model) if part + 1 < len(batches) else nullcontext():
                value = loss(model(to_device(images, accelerator)), to_device(masks, accelerator))
                accelerator.backward(value * (pixels[part] / (sum(pixels) or 1.0)))
            losses.add(value.detach(), pixels[part], f"step {number} (files: {', '.join(files)})")
        if config.max_grad_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
    return losses.mean()


class LossMeter:
    """Collects the losses of an epoch, which stay on the device and are checked for NaN every 50 batches."""

    def __init__(self, optimizer: AcceleratedOptimizer, epoch: int) -> None:
        self.optimizer = optimizer
        self.epoch = epoch
        self._checked: list[tuple[float, float]] = []  # (loss, pixels) of each batch
        self._unchecked: list[tuple[Tensor, float, str]] = []  # the same on the device, and what batch it is

    def add(self, value: Tensor, pixels: float, batch: str) -> None:
        """Add the loss of one batch. Raises FloatingPointError if one of the last losses is NaN or infinite."""
        self._unchecked.append((value, pixels, batch))
        if len(self._unchecked) == CHECK_EVERY:
            self._check()

    def mean(self) -> float:
        """The mean loss over the counted pixels of all batches of all processes."""
        self._check()
        return weighted_mean(gather_object(self._checked))

    def _check(self) -> None:
        for value, pixels, batch in self._unchecked:
            number = value.item()
            if not math.isfinite(number):
                rate = self.optimizer.param_groups[0]["lr"]
                raise FloatingPointError(
                    f"epoch {self.epoch}: the loss became {number} in {batch} at a learning rate of {rate:g}: "
                    f"{ADVICE_AFTER_NAN}"
                )
            self._checked.append((number, pixels))
        self._unchecked.clear()
        scaler = self.optimizer.scaler
        if scaler is not None and scaler.get_scale() < MIN_SCALE:
            raise FloatingPointError(f"epoch {self.epoch}: the gradient is infinite in every step: {ADVICE_AFTER_NAN}")


# ------------------------------------------------------------------------------------------------ setting up


def _check(
    model: Any, train_data: SegmentationData, val_data: SegmentationData, config: TrainConfig, augment: Any
) -> tuple[list[str], tuple[int, int]]:
    """Check data and model; return the class names and the (height, width) of the training images."""
    if not len(train_data) or not len(val_data):
        raise ValueError(f"{len(train_data)} training and {len(val_data)} validation images: both need at least one")
    if config.batch_size == 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        raise ValueError("batch_size=1 cannot train a model with batch norm: use 2 or more")
    image = Samples(train_data, None, augment, config.seed)[1, 0][0]
    with torch.no_grad():
        logits = model.eval()(image[None].to(next(model.parameters()).device))
    if not isinstance(logits, Tensor):
        raise ValueError("fit trains models that return logits; train a YOLO with seglib.train_yolo.fit_yolo")
    default = [f"class {index}" for index in range(max(2, logits.shape[1]))]
    names, val_names = (list(get_class_names(data) or default) for data in (train_data, val_data))
    if names != val_names:
        raise ValueError(f"training and validation differ in their classes: {names} and {val_names}")
    if len(set(names)) < len(names):
        raise ValueError(f"two classes have the same name: {names}")
    if len(names) != len(default):
        raise ValueError(f"the model has {len(default)} classes but the data set has {len(names)}: {names}")
    height, width = image.shape[1:]
    model.class_names = names  # as on a model that `load_model` returns
    model.image_size = _inference_size(train_data, (height, width))
    return names, (height, width)


def _inference_size(train_data: SegmentationData, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) to which `predict` resizes a photograph; None: its own size.

    When augmentation crops, the model learns at the scale at which the data set gives its images: their own, unless a
    transform of the data set resizes them all to one size.
    """
    samples = Samples(train_data)
    sizes = {tuple(samples[1, index][0].shape[1:]) for index in range(min(len(samples), 4))}
    if len(sizes) > 1:
        return None
    height, width = sizes.pop()
    return (height, width) if (height, width) == image_size or get_transform(train_data) is not None else None


def _describe(
    model: nn.Module, loss: Loss, config: TrainConfig, augment: Any, **data_sets: SegmentationData
) -> dict[str, Any]:
    """Everything that decides the outcome of a run, as plain JSON."""
    text = repr(loss)
    free = ("workers", "trackers", "checkpoint_seconds", "mirror")  # may differ when a run resumes
    settings: dict[str, Any] = {
        "config": {key: value for key, value in asdict(config).items() if key not in free},
        "processes": PartialState().num_processes,
        "precision": default_precision(),
        "model": getattr(model, "settings", None),
        "weights": getattr(model, "weights", None),  # the pretrained weights that training starts from
        "loss": getattr(loss, "__qualname__", type(loss).__name__) if " at 0x" in text else text,
        "augment": describe_augmentation(augment),
    }
    for name, data in data_sets.items():
        files = get_filenames(data)
        digest = None if files is None else hashlib.sha256("\n".join(files).encode()).hexdigest()[:16]
        settings[name] = {"samples": len(data), "files": digest, "classes": get_class_names(data)}
    return json.loads(json.dumps(settings, default=float))  # default: numpy's numbers


def _make_accelerator(config: TrainConfig, run: runs.Run) -> Accelerator:
    """An Accelerator in the precision of the run, with its trackers."""
    check_precision(run.settings["precision"])
    AcceleratorState._reset_state()  # accelerate otherwise keeps the precision of the first `fit` of this process
    folders = ProjectConfiguration(project_dir=str(run.dir), logging_dir=str(run.dir / "tensorboard"))
    trackers = list(config.trackers) or None
    accelerator = Accelerator(mixed_precision=run.settings["precision"], log_with=trackers, project_config=folders)
    for name in set(config.trackers) - {str(tracker) for tracker in accelerator.log_with}:
        raise ModuleNotFoundError(
            f"the tracker {name} is not installed: pip install 'seglib[{name}]', then restart the kernel"
        )
    return accelerator


@contextmanager
def _tracking(accelerator: Accelerator, run: runs.Run) -> Iterator[None]:
    """Start the trackers, and finish them after the block."""
    # TensorBoard imports TensorFlow where that is installed; with this module present it does not.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    wandb = {"id": run.about["id"], "name": run.dir.name, "resume": "allow", "dir": str(run.dir)}
    options = {"tensorboard": {"purge_step": len(run.history) + 1}, "wandb": {**wandb, "config": run.settings}}
    accelerator.init_trackers("seglib", init_kwargs=options)
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            tracker.finish()


# ------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Evaluation:
    """The scores of a model on a data set.

    Attributes:
        matrix: the confusion matrix of all pixels.
        loss: the mean loss over the counted pixels; NaN when no loss was given.
    """

    matrix: ConfusionMatrix
    loss: float


def measure(
    model: nn.Module,
    data: SegmentationData,
    loss: Loss | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    num_classes: int | None = None,
    precision: str | None = None,
) -> Evaluation:
    """Evaluate a model on a data set whose images may have any sizes.

    Args:
        model: on the device on which to evaluate it.
        data: samples (image, mask) or (image, mask, file name).
        loss: also compute this loss.
        batch_size: images in one forward pass; images of different sizes are never padded to one.
        workers: as in `TrainConfig`.
        num_classes: None: 2, or the number of `data.classes`.
        precision: "fp16" or "bf16": compute in mixed precision, which is faster on a GPU; None: in float32.

    Returns:
        One confusion matrix of all pixels, and the mean loss.
    """
    classes = num_classes or max(2, len(get_class_names(data) or ()))
    device = next(model.parameters()).device
    loader = make_loader(Samples(data, classes), val_batches(len(data), batch_size), device, workers)
    with autocast(device, precision):
        matrix, losses = _evaluate(model, loader, loss, classes)
    return Evaluation(matrix, weighted_mean(losses))


@torch.no_grad()
def _evaluate(
    model: nn.Module, loader: DataLoader, loss: Loss | None, num_classes: int
) -> tuple[ConfusionMatrix, list[tuple[float, float]]]:
    """The confusion matrix of the batches of a loader, and the (loss, pixel count) of each."""
    device = next(model.parameters()).device
    matrix = ConfusionMatrix(num_classes)
    losses = []
    model.eval()
    for images, masks, _ in chain.from_iterable(loader):  # a list of batches of one size each
        logits = model(images.to(device))
        on_device = masks.to(device)
        matrix.update(logits_to_mask(logits), on_device)
        if loss is not None:
            losses.append((loss(logits, on_device).item(), pixel_count(loss, masks)))
    return matrix, losses
