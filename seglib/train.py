"""fit(): the training loop. train_epoch() is its heart; measure() scores a trained model."""

import hashlib
import importlib.util
import json
import os
import sys
import time
import types
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import deepcopy
from dataclasses import InitVar, asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.optimizer import AcceleratedOptimizer
from accelerate.state import AcceleratorState
from accelerate.utils import ProjectConfiguration, broadcast, broadcast_object_list, gather_object
from torch import Tensor, nn
from torch.utils.data import DataLoader

from seglib.config import (
    ADVICE_AFTER_NAN,
    Loss,
    TrainConfig,
    add_class_weights,
    can_compute,
    check_precision,
    default_precision,
    explain_out_of_memory,
    is_finished,
    make_optimizer,
    make_schedule,
    make_warmup,
    step_schedule,
)
from seglib.datasets.base import SegmentationData, get_class_names, get_filenames, get_transform
from seglib.files import short_path
from seglib.loading import (
    Batch,
    Batches,
    Samples,
    ValidationSamples,
    make_loader,
    managed_workers,
    seed_everything,
    split_batch,
    stack,
    stack_by_size,
)
from seglib.losses import pixel_count, weighted_mean
from seglib.masks import write_index_png
from seglib.metrics import ConfusionMatrix
from seglib.models import logits_to_mask
from seglib.models.common import autocast
from seglib.progress import progress_bar
from seglib.runs import (
    HISTORY,
    LAST,
    Mirror,
    Row,
    Run,
    format_epoch,
    lock_run,
    open_run,
    save_checkpoint,
    stored_precision,
    write_history,
)
from seglib.transforms import describe_augmentation, keeps_size

__all__ = ["Evaluation", "LossMeter", "TrainConfig", "fit", "measure", "train_epoch"]

CHECK_EVERY = 50  # steps between checks of the loss for NaN: each check waits for the GPU
MAX_SKIPPED = 50  # steps in a row that fp16 may skip before training stops
CURVES = ("val_miou", "val_iou")
FREE_SETTINGS = ("workers", "trackers", "checkpoint_seconds", "mirror")  # may differ when a run resumes


def fit(
    model: nn.Module,
    train_data: SegmentationData,
    val_data: SegmentationData,
    loss: Loss,
    config: TrainConfig,
    run_dir: str | Path,
    augment: Any = None,
) -> Run:
    """Train a model, or resume its training from the last checkpoint in `run_dir`.

    However a run was interrupted, the same call repeats the epochs after the last checkpoint; on a CPU it ends with the
    same weights, bit for bit. Several processes average their gradients. With `accumulate`, a step equals that of one
    large batch up to rounding, except for Dice and batch norm.

    Args:
        model: images (B, 3, H, W) uint8 -> logits (B, C, H, W). It ends with the weights of the last epoch.
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
        RuntimeError: another process trains in `run_dir`, or a worker process died.
        OSError: the run folder cannot be written to.
    """
    run_dir = Path(run_dir)
    loss = add_class_weights(loss, config.class_weights)
    names, image_size = _check(model, train_data, val_data, loss, config, augment)
    mirror = None if config.mirror is None else Mirror(config.mirror)
    precision = stored_precision(run_dir, mirror) or default_precision()
    accelerator = _make_accelerator(config, run_dir, precision)
    settings = _describe(accelerator, precision, model, train_data, val_data, loss, config, augment, image_size)
    inference_size = _inference_size(train_data, augment, image_size)
    with _open_run(accelerator, run_dir, settings, mirror) as (run, state):
        model.to(accelerator.device).to(memory_format=torch.channels_last)  # faster, on a CPU too
        optimizer = make_optimizer(model, config)
        checkpoints = _Checkpoints(run, settings, config, mirror, accelerator, model, optimizer, names, inference_size)
        checkpoints.restore(state)
        if not run.finished:
            check_precision(precision)
            samples = Samples(train_data, len(names), augment, config.seed)
            val_samples = ValidationSamples(val_data, len(names))
            with (
                _explain_errors(run, config, image_size, accelerator),
                _tracking(accelerator, run, settings),
                checkpoints.undo_on_error(),
                _restored_forward(accelerator, model),
            ):
                _run_epochs(accelerator, model, optimizer, checkpoints, samples, val_samples, loss)
        checkpoints.complete()
    return run


def _run_epochs(
    accelerator: Accelerator,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    checkpoints: "_Checkpoints",
    samples: Samples,
    val_samples: ValidationSamples,
    loss: Loss,
) -> None:
    """Train and validate epoch by epoch until the run is finished."""
    run = checkpoints.run
    config = checkpoints.config
    processes = (accelerator.num_processes, accelerator.process_index)
    batches = Batches(len(samples), config.batch_size, config.seed, config.accumulate, *processes)
    loader = make_loader(samples, accelerator.device, config.workers, batch_sampler=batches, collate_fn=stack)
    val_loader = _val_loader(val_samples, accelerator.device, config.batch_size, config.workers, *processes)
    prepared, prepared_optimizer = accelerator.prepare(model, optimizer)
    losses = LossMeter(prepared_optimizer)
    with managed_workers(loader, val_loader):
        while not run.finished:
            epoch = len(run.history) + 1
            started = time.perf_counter()
            batches.epoch = epoch
            seed_everything(config.seed, epoch, accelerator.process_index)  # a repeated epoch is the same epoch
            steps = progress_bar(loader, f"epoch {epoch}/{config.epochs}")
            train_loss = train_epoch(accelerator, prepared, steps, loss, prepared_optimizer, config, losses)
            evaluation = _evaluate(model, val_loader, loss, val_samples.num_classes, accelerator)
            row = {"epoch": epoch, "train_loss": train_loss, **_scores(evaluation, checkpoints.names)}
            row |= {"lr": optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - started}
            checkpoints.end_epoch(row, val_samples)
            _log(accelerator, row)
            accelerator.print(format_epoch(run, config.epochs, {"val IoU": "val_iou"}), flush=True)


def train_epoch(
    accelerator: Accelerator,
    model: nn.Module,
    loader: Iterable[Batch],
    loss: Loss,
    optimizer: AcceleratedOptimizer,
    config: TrainConfig,
    losses: "LossMeter",
) -> float:
    """Train for one epoch; `losses` collects the losses, whose mean is returned."""
    model.train()
    for step in loader:
        optimizer.zero_grad()
        for part in _split_step(step, loss, config, accelerator):  # one batch, or `accumulate` of them
            with nullcontext() if part.is_last else accelerator.no_sync(model):
                value = loss(model(part.images), part.masks)
                accelerator.backward(value * part.share)
            losses.add(value.detach(), part)
        if config.max_grad_norm is not None:
            accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        optimizer.step()
        losses.end_step()
    return losses.mean()


@dataclass(frozen=True)
class _Part:
    """One batch of a step of the optimizer, on the device."""

    images: Tensor  # (B, 3, H, W) uint8
    masks: Tensor  # (B, H, W) uint8
    files: list[str]
    pixels: float  # how many pixels count for the loss, weighted by the class weights if there are any
    share: float  # `pixels` as a share of those of the whole step
    is_last: bool


def _split_step(step: Batch, loss: Loss, config: TrainConfig, accelerator: Accelerator) -> Iterator[_Part]:
    """Split the images of a step into batches of `config.batch_size` and move them to the device, one at a time."""
    batches = split_batch(*step, config.batch_size)
    pixels = [pixel_count(loss, masks) for _, masks, _ in batches]
    total = sum(pixels) or 1.0
    for index, (images, masks, files) in enumerate(batches):
        images = images.to(accelerator.device, non_blocking=True).contiguous(memory_format=torch.channels_last)
        masks = masks.to(accelerator.device, non_blocking=True)
        yield _Part(images, masks, files, pixels[index], pixels[index] / total, index + 1 == len(batches))


class LossMeter:
    """Collects the training losses, which stay on the device and are checked for NaN every 50 steps."""

    def __init__(self, optimizer: AcceleratedOptimizer) -> None:
        self.optimizer = optimizer
        self.steps = 0
        self.skipped_in_a_row = 0
        self._checked: list[tuple[float, float]] = []  # (loss, pixels) of each batch
        self._unchecked: list[tuple[Tensor, float, str]] = []  # the same on the device, and a description of the batch

    def add(self, value: Tensor, part: _Part) -> None:
        """Add the loss of one batch."""
        rate = self.optimizer.param_groups[0]["lr"]
        batch = f"step {self.steps + 1} (files: {', '.join(part.files)}; learning rate {rate:g})"
        self._unchecked.append((value, part.pixels, batch))

    def end_step(self) -> None:
        """Count a step of the optimizer.

        Raises:
            FloatingPointError: a loss is NaN or infinite, or fp16 has skipped too many steps in a row.
        """
        self.steps += 1
        self.skipped_in_a_row = self.skipped_in_a_row + 1 if self.optimizer.step_was_skipped else 0
        if self.skipped_in_a_row == MAX_SKIPPED:
            raise FloatingPointError(
                f"the gradient was infinite in {MAX_SKIPPED} steps in a row, which fp16 skips: {ADVICE_AFTER_NAN}"
            )
        if self.steps % CHECK_EVERY == 0:
            self._check()

    def mean(self) -> float:
        """The mean loss since the last call, over the counted pixels of all batches of all processes."""
        self._check()
        losses = self._checked
        self._checked = []
        self.steps = 0
        return weighted_mean(gather_object(losses))

    def _check(self) -> None:
        if not self._unchecked:
            return
        values = torch.stack([value for value, _, _ in self._unchecked]).tolist()
        for value, (_, pixels, batch) in zip(values, self._unchecked, strict=True):
            if not np.isfinite(value):
                raise FloatingPointError(f"the loss became {value} in {batch}: {ADVICE_AFTER_NAN}")
            self._checked.append((value, pixels))
        self._unchecked.clear()


# ------------------------------------------------------------------------------------------------ setting up


def _make_accelerator(config: TrainConfig, run_dir: Path, precision: str) -> Accelerator:
    """An Accelerator in the precision of the run, or in float32 where this machine does not offer it."""
    precision = precision if can_compute(precision) else "no"
    if AcceleratorState._shared_state.get("_mixed_precision", precision) != precision:
        AcceleratorState._reset_state()  # accelerate otherwise keeps the precision of the first `fit` of this process
    for name in config.trackers:
        if importlib.util.find_spec(name) is None:
            raise ModuleNotFoundError(f"the tracker {name} is not installed: pip install {name}")
    # accelerate joins several processes on CPUs only when it is told that there is no GPU to use.
    joined_on_cpu = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    folders = ProjectConfiguration(project_dir=str(run_dir), logging_dir=str(run_dir / "tensorboard"))
    trackers = list(config.trackers) or None
    accelerator = Accelerator(mixed_precision=precision, cpu=joined_on_cpu, log_with=trackers, project_config=folders)
    for name in set(config.trackers) - {str(tracker) for tracker in accelerator.log_with}:
        print(f"{name} was installed after accelerate was imported: restart the kernel to track with it.")
    return accelerator


def _check(
    model: nn.Module,
    train_data: SegmentationData,
    val_data: SegmentationData,
    loss: Loss,
    config: TrainConfig,
    augment: Any,
) -> tuple[list[str], tuple[int, int]]:
    """Check data and model before training; return the class names and the (height, width) of the training images.

    Raises:
        ValueError: there are no data; the classes of training, validation, model and class weights differ; the batch
            size is 1 and the model has batch norm.
    """
    if not len(train_data) or not len(val_data):
        raise ValueError(f"{len(train_data)} training and {len(val_data)} validation images: both need at least one")
    if config.batch_size == 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        raise ValueError("batch_size=1 cannot train a model with batch norm: use 2 or more")
    first = Samples(train_data, None, augment, config.seed)[(1, 0)][0]
    with torch.no_grad():
        logits = model.eval()(first[None].to(next(model.parameters()).device))
    if not isinstance(logits, Tensor):
        raise ValueError("fit trains models that return logits; train a YOLO with seglib.train_yolo.fit_yolo")
    channels = logits.shape[1]
    weights = getattr(loss, "class_weights", None)
    if weights is not None and len(weights) != channels:
        raise ValueError(f"{len(weights)} class weights for {channels} classes (background included)")
    names = list(get_class_names(train_data) or ())
    val_names = list(get_class_names(val_data) or ())
    if names != val_names:
        raise ValueError(f"training and validation differ in their classes: {names} and {val_names}")
    if len(set(names)) < len(names):
        raise ValueError(f"two classes have the same name: {names}")
    num_classes = max(2, channels)
    names = names or [f"class {index}" for index in range(num_classes)]
    if len(names) != num_classes:
        raise ValueError(f"the model has {num_classes} classes but the data set has {len(names)}: {names}")
    height, width = first.shape[-2:]
    return names, (height, width)


def _inference_size(train_data: SegmentationData, augment: Any, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) to which `predict` resizes a photograph; None: its own size.

    When augmentation crops, the model learns at the scale at which the data set gives its images: their own, unless a
    transform of the data set resizes them all to one size.
    """
    if augment is None:
        return image_size
    samples = Samples(train_data, None, None, 0)
    shapes = {samples[(1, index)][0].shape[-2:] for index in range(min(len(samples), 4))}
    height, width = next(iter(shapes))
    if keeps_size(augment, height, width):
        return image_size
    return (height, width) if len(shapes) == 1 and get_transform(train_data) is not None else None


def _describe(
    accelerator: Accelerator,
    precision: str,
    model: nn.Module,
    train_data: SegmentationData,
    val_data: SegmentationData,
    loss: Loss,
    config: TrainConfig,
    augment: Any,
    image_size: tuple[int, int],
) -> dict[str, Any]:
    """Everything that decides the outcome of a run, as plain JSON."""
    decisive = {key: value for key, value in asdict(config).items() if key not in FREE_SETTINGS}
    text = repr(loss)
    settings = {
        "config": decisive,
        "processes": accelerator.num_processes,
        "precision": precision,
        "model": getattr(model, "settings", None),
        "weights": getattr(model, "weights", None),  # the pretrained weights that training starts from
        "loss": getattr(loss, "__qualname__", type(loss).__name__) if " at 0x" in text else text,
        "augment": describe_augmentation(augment),
        "train_data": _describe_data(train_data) | {"image_size": list(image_size)},
        "val_data": _describe_data(val_data),
    }
    return json.loads(json.dumps(settings))


def _describe_data(data: SegmentationData) -> dict[str, Any]:
    """The number of samples, a digest of the file names, and the classes."""
    names = get_filenames(data)
    digest = None if names is None else hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return {"samples": len(data), "files": digest, "classes": get_class_names(data)}


@contextmanager
def _open_run(
    accelerator: Accelerator, run_dir: Path, settings: dict[str, Any], mirror: Mirror | None
) -> Iterator[tuple[Run, dict[str, Any] | None]]:
    """Open and lock the run folder in the main process, and send the others what it holds."""
    with lock_run(run_dir) if accelerator.is_main_process else nullcontext():
        opened = [open_run(run_dir, settings, mirror) if accelerator.is_main_process else None]
        yield broadcast_object_list(opened)[0]


@contextmanager
def _restored_forward(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Undo afterwards what `accelerator.prepare` changes in the model, so that the next `fit` prepares it again."""
    try:
        yield
    finally:
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        model.__dict__.pop("_is_accelerate_prepared", None)


@contextmanager
def _explain_errors(
    run: Run, config: TrainConfig, image_size: tuple[int, int], accelerator: Accelerator
) -> Iterator[None]:
    """Add the epoch to the errors of the loop, and advice about memory."""
    try:
        with explain_out_of_memory(config, image_size, accelerator.device):
            yield
    except FloatingPointError as error:
        raise FloatingPointError(f"epoch {len(run.history) + 1}: {error}") from None


# ------------------------------------------------------------------------------------------------ ending an epoch


@dataclass
class _Checkpoints:
    """Saves and restores everything that training changes, and keeps the weights of the best epoch.

    A checkpoint is written at the end of an epoch when `config.checkpoint_seconds` have passed since the last one, and
    at the last epoch.
    """

    run: Run
    settings: dict[str, Any]
    config: TrainConfig
    mirror: Mirror | None
    accelerator: Accelerator
    model: nn.Module
    optimizer: InitVar[torch.optim.Optimizer]
    names: list[str]
    image_size: tuple[int, int] | None
    best: dict[str, Any] = field(default_factory=dict)  # the contents of best_model.pth
    saved: float = field(default_factory=time.monotonic)

    def __post_init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.schedule = make_schedule(optimizer, self.config)
        parts = {
            "model": self.model,
            "optimizer": optimizer,
            "warmup": make_warmup(optimizer, self.config),
            "schedule": self.schedule,
            "scaler": self.accelerator.scaler,
        }
        self.parts = {name: part for name, part in parts.items() if part is not None}
        self.run.finished = is_finished(self.run.history, self.config)
        model: Any = self.model
        model.class_names = self.names  # as on a model that `load_model` returns
        model.image_size = self.image_size

    @contextmanager
    def undo_on_error(self) -> Iterator[None]:
        """Put the initial weights back if training ends by an error before the first checkpoint.

        The same call then begins from the same weights again.
        """
        initial = None if self.run.history else deepcopy(self.model.state_dict())
        try:
            yield
        except BaseException:
            if initial is not None and not (self.run.dir / LAST).is_file():
                self.model.load_state_dict(initial)
            raise

    def restore(self, state: dict[str, Any] | None) -> None:
        """Put everything back to a checkpoint, if there is one, and say where training begins."""
        epochs = len(self.run.history)
        where = short_path(self.run.dir)
        say = self.accelerator.print
        if state is not None:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.best = state["best"]
        if self.run.finished:
            say(f"{where} is finished ({epochs} epochs): nothing to train. Choose another run_dir to train again.")
        elif epochs:
            precision = self.settings["precision"]
            how = "" if precision == default_precision() else f", in {precision} as it began"
            say(f"Resuming after epoch {epochs} of {self.config.epochs} in {where}{how}.")

    def end_epoch(self, row: Row, val_samples: ValidationSamples) -> None:
        """Record an epoch, save predictions for some validation images, and a checkpoint if one is due.

        Raises:
            FloatingPointError: the validation loss or a weight became NaN or infinite.
        """
        run = self.run
        if not np.isfinite(row["val_loss"]):
            raise FloatingPointError(f"the validation loss became {row['val_loss']}: {ADVICE_AFTER_NAN}")
        if not all(tensor.isfinite().all() for tensor in self.model.state_dict().values()):
            raise FloatingPointError(f"a weight became NaN or infinite: {ADVICE_AFTER_NAN}")
        if self.accelerator.is_main_process:
            self._save_previews(int(row["epoch"]), val_samples)
        run.history.append(row)
        step_schedule(self.schedule, row["val_loss"])
        run.finished = is_finished(run.history, self.config)
        if not self.accelerator.is_main_process:
            return
        if run.best is row:
            self.best = self._describe_model(row)
        write_history(run.dir / HISTORY, run.history)
        if run.finished or time.monotonic() - self.saved >= self.config.checkpoint_seconds:
            self._save()

    def complete(self) -> None:
        """Draw the curves of a finished run and complete its mirror, unless that was done before."""
        run = self.run
        if self.accelerator.is_main_process:
            run.save_curves(CURVES)
            if self.mirror is not None and not self.mirror.has(len(run.history)):
                self.mirror.write(run.dir / LAST, self.settings, len(run.history))
        self.accelerator.wait_for_everyone()  # so that every process finds the files

    def _describe_model(self, row: Row) -> dict[str, Any]:
        """The contents of best_model.pth; the weights are copied, since training goes on to change them."""
        weights = {name: tensor.detach().cpu().clone() for name, tensor in self.model.state_dict().items()}
        return {
            "model": weights,
            "classes": self.names,
            "image_size": self.image_size,
            "settings": self.settings["model"],
            "epoch": row["epoch"],
            "val_iou": row["val_iou"],
        }

    @torch.no_grad()
    def _save_previews(self, epoch: int, val_samples: ValidationSamples) -> None:
        """Save the masks predicted for the first validation images as predictions/epoch_001/<name>.png."""
        self.model.eval()
        for index in range(min(self.config.previews, len(val_samples))):
            image, _, name = val_samples[index]
            mask = logits_to_mask(self.model(image[None].to(self.accelerator.device)))[0].cpu().numpy()
            path = self.run.dir / "predictions" / f"epoch_{epoch:03d}" / f"{Path(name).stem}.png"
            write_index_png(path, mask, self.names)

    def _save(self) -> None:
        state = {name: part.state_dict() for name, part in self.parts.items()}
        best = self.best
        if best["epoch"] == len(self.run.history):
            best = {**best, "model": state["model"]}  # torch.save writes tensors that are shared once
        save_checkpoint(self.run, {**state, "settings": self.settings, "best": best}, self.mirror)
        self.saved = time.monotonic()


@contextmanager
def _tracking(accelerator: Accelerator, run: Run, settings: dict[str, Any]) -> Iterator[None]:
    """Start the trackers and finish them after the block. One that fails is reported and does not stop training."""
    # TensorBoard imports TensorFlow where that is installed; with this module present it does not.
    sys.modules.setdefault("tensorboard.compat.notf", types.ModuleType("tensorboard.compat.notf"))
    wandb = {"name": run.dir.name, "id": run.about["id"], "resume": "allow", "dir": str(run.dir), "config": settings}
    options = {"tensorboard": {"purge_step": len(run.history)}, "wandb": wandb}
    started = []
    for name in accelerator.log_with:
        accelerator.log_with = [name]
        accelerator.trackers = []
        if _succeeds(str(name), accelerator.init_trackers, "seglib", init_kwargs=options):
            started += accelerator.trackers
    accelerator.trackers = started
    if run.history:
        _log(accelerator, run.history[-1])  # its process may have been killed before it logged it
    try:
        yield
    finally:
        for tracker in accelerator.trackers:
            _succeeds(tracker.name, tracker.finish)


def _log(accelerator: Accelerator, row: Row) -> None:
    """Send an epoch to the trackers, and drop those that fail."""
    values = {name: value for name, value in row.items() if name != "epoch"}
    trackers = accelerator.trackers
    accelerator.trackers = [one for one in trackers if _succeeds(one.name, one.log, values, step=int(row["epoch"]))]


def _succeeds(name: str, action: Callable[..., object], *arguments: Any, **settings: Any) -> bool:
    """Call a function of a tracker; report an error rather than raise it: no network, or a full disk."""
    try:
        action(*arguments, **settings)
    except Exception as error:
        print(f"{name} stopped ({type(error).__name__}: {error}). Training continues; history.csv has every epoch.")
        return False
    return True


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
    loader = _val_loader(ValidationSamples(data, classes), device, batch_size, workers)
    with managed_workers(loader), autocast(device, precision):
        return _evaluate(model, loader, loss, classes)


def _val_loader(
    samples: ValidationSamples,
    device: torch.device,
    batch_size: int,
    workers: int | None,
    process_count: int = 1,
    process_index: int = 0,
) -> DataLoader:
    """A loader of validation batches, of which each process gets its share."""
    batches = np.split(np.arange(len(samples)), range(batch_size, len(samples), batch_size))
    share = [batch.tolist() for batch in batches[process_index::process_count]]
    return make_loader(samples, device, workers, batch_sampler=share, collate_fn=stack_by_size)


@torch.no_grad()
def _evaluate(
    model: nn.Module,
    loader: DataLoader,
    loss: Loss | None,
    num_classes: int,
    accelerator: Accelerator | None = None,
) -> Evaluation:
    """Evaluate a model on the batches of `_val_loader`; with an accelerator, all processes share the work."""
    gather = gather_object if accelerator is not None else list
    if accelerator is not None and accelerator.num_processes > 1:
        broadcast(list(model.buffers()))  # each process has its own statistics of batch norm
    device = next(model.parameters()).device
    matrix = ConfusionMatrix(num_classes)
    losses = []
    model.eval()
    for groups in loader:
        for images, masks, _ in groups:
            logits = model(images.to(device))
            on_device = masks.to(device)
            matrix.update(logits_to_mask(logits), on_device)
            if loss is not None:
                losses.append((loss(logits, on_device), pixel_count(loss, masks)))
    matrix.matrix = torch.stack(gather([matrix.matrix])).sum(dim=0)
    return Evaluation(matrix, weighted_mean(gather([(value.item(), pixels) for value, pixels in losses])))


def _scores(evaluation: Evaluation, names: Sequence[str]) -> Row:
    """The columns of history.csv that validation fills; `val_iou` chooses the best epoch."""
    matrix = evaluation.matrix
    iou = matrix.iou()
    dice = matrix.dice()
    binary = matrix.num_classes == 2
    return {
        "val_loss": evaluation.loss,
        "val_iou": iou[1].item() if binary else matrix.miou(),
        "val_dice": dice[1].item() if binary else dice.nanmean().item(),
        "val_miou": matrix.miou(),
        "val_miou_no_background": matrix.miou(background=False),
        "val_accuracy": matrix.pixel_accuracy(),
        **{f"iou/{name}": value for name, value in zip(names, iou.tolist(), strict=True)},
    }
