"""fit(): the training loop, and what it needs around it."""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, Dataset

from seglib import plots, runs
from seglib.config import (
    Loss,
    TrainConfig,
    explain_out_of_memory,
    is_finished,
    precision,
    with_class_weights,
)
from seglib.datasets.base import get_class_names, get_filenames, get_transform
from seglib.files import short_path
from seglib.loading import (
    Batches,
    CheckedSamples,
    Samples,
    make_loader,
    read_sample,
    split,
    stack,
    stack_by_size,
    watching_workers,
)
from seglib.losses import weight_of, weighted_mean
from seglib.masks import write_index_png
from seglib.metrics import ConfusionMatrix
from seglib.models import logits_to_mask
from seglib.processes import Interrupts, Processes
from seglib.progress import progress_bar
from seglib.runs import Row, Run
from seglib.state import WHAT_TO_TRY, Training, saving_when_stopped
from seglib.trackers import Trackers
from seglib.transforms import describe, keeps_size

CURVES = ("loss.png", "miou.png")
CHECK_EVERY = 50  # steps between looks at the loss: looking makes the GPU wait


def fit(
    model: nn.Module,
    train_data: Dataset,
    val_data: Dataset,
    loss: Loss,
    config: TrainConfig,
    run_dir: str | Path,
    augment: Any = None,
) -> Run:
    """Train a model; called again after an interruption of any kind, go on where the last checkpoint stands.

    On a CPU the end is then the same, bit for bit, as without the interruption. Ctrl-C (a notebook's stop button) saves
    the step that was just done before KeyboardInterrupt goes on its way.

    Started by `torchrun` or accelerate's `notebook_launcher`, several processes train as one. They, and `accumulate`,
    make the step of one large batch, up to rounding, for cross-entropy and BCE: each part weighs as much as it has
    pixels that count. Not for Dice, whose ratio of sums over a batch is no sum over its parts; nor with batch norm,
    which normalises each part by that part's own statistics (those that are kept are the main process's). With several
    processes, each parameter that is trained has to have a part in the loss.

    Args:
        model: images (B, 3, H, W) uint8 -> logits (B, C, H, W), as all of seglib.models.
        train_data, val_data: any Dataset or Subset of (image uint8 (3, H, W), mask (H, W)) or (image, mask, name).
        loss: loss(logits, mask) -> scalar.
        run_dir: the run folder; see seglib.runs. The same call on a finished run returns it without training.
        augment: a pipeline of seglib.transforms.augmentation, for the training images only.

    Returns:
        The run. Its best epoch is that of the highest validation IoU: of class 1 where there are two classes, else the
        mean with background. Validation runs in the precision of training. `model` itself ends with the weights of the
        last epoch.

    Raises:
        ValueError: settings other than those of the run in `run_dir`; a damaged checkpoint; images of different sizes
            in a training batch; a mask value that is no class; a batch size of one for a model with batch norm.
        FloatingPointError: the loss became NaN or infinite; says where.
        torch.OutOfMemoryError: says what of, and which settings need less.
        RuntimeError: another process trains in `run_dir`; a worker died, and which file it was reading.
        OSError: the run folder cannot be written to.
    """
    accelerator = make_accelerator()
    processes, device = Processes(accelerator), accelerator.device
    loss = with_class_weights(loss, config.class_weights)
    names, image_size = check_fit(model, train_data, val_data, loss, config, augment)
    settings = run_settings(model, train_data, val_data, loss, config, augment, image_size, processes.count)
    told = {"classes": names, "image_size": photograph_size(train_data, augment, image_size)}
    model.class_names, model.image_size = told["classes"], told["image_size"]  # as `load_model` has them

    with ExitStack() as ending:
        processes.from_main(lambda: ending.enter_context(runs.locked(Path(run_dir))))
        about = runs.about_this_machine()
        run, state = processes.from_main(lambda: runs.open_run(run_dir, settings, about, config.mirror))
        model.to(device, memory_format=torch.channels_last)  # faster, on the CPU too
        training = Training(run, settings, config, model, told, accelerator, processes)
        if state is not None:
            training.restore(state)
        run.finished = is_finished(run.history, config)
        if run.finished:
            processes.from_main(lambda: tidy_finished(run, config))
            return run

        samples = Samples(train_data, len(names), augment, config.seed)
        batches = Batches(len(samples), config.batch_size, config.seed, config.accumulate, processes)
        loader = make_loader(samples, device, config.workers, batch_sampler=batches, collate_fn=stack)
        val_loader = make_val_loader(val_data, len(names), device, config.batch_size, config.workers, processes)
        trackers = Trackers(config.trackers if processes.main else (), run, settings)
        interrupts = Interrupts(processes)
        for watch in (  # the last is the first to see an error, the others see what it makes of it
            watching_workers(loader, val_loader),
            explain_out_of_memory(config, image_size, device),
            trackers,
            lent(accelerator, model),
            interrupts,
            saving_when_stopped(training, interrupts),
        ):
            ending.enter_context(watch)
        wrapped, optimizer = accelerator.prepare(model, training.optimizer)
        training.say_where_it_begins(len(batches))

        while not run.finished:
            epoch, tally = len(run.history) + 1, training.tally
            batches.epoch, batches.first = epoch, tally.steps
            training.begin_epoch(epoch)
            model.train()
            for step in progress_bar(loader, f"epoch {epoch}/{config.epochs}", done=tally.steps):
                with interrupts.held():
                    total, stop, due = training.agree(weight_of(loss, step[1]), interrupts.asked)
                    optimizer.zero_grad()
                    parts = split(*step, config.batch_size)
                    for part, (images, masks, files) in enumerate(parts, 1):
                        weight = weight_of(loss, masks)
                        images = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
                        masks = masks.to(device, non_blocking=True)
                        with nullcontext() if part == len(parts) else accelerator.no_sync(wrapped):
                            value = loss(wrapped(images), masks)
                            # Gradients are averaged over the processes; times their number, it is their sum.
                            accelerator.backward(value * (processes.count * weight / total))
                        tally.add(value.detach(), weight, files, training.rate)
                    if config.max_grad_norm is not None:
                        accelerator.clip_grad_norm_(model.parameters(), config.max_grad_norm)
                    optimizer.step()
                    training.warmup.step()
                    tally.steps += 1
                    if tally.steps % CHECK_EVERY == 0:
                        training.check()
                    if due:
                        training.save()
                if stop:
                    raise KeyboardInterrupt
            training.check()

            processes.copy_from_main(model.buffers())  # the statistics of batch norm
            measured = measure_batches(model, val_loader, loss, len(names), processes)
            if not np.isfinite(measured.loss):
                raise FloatingPointError(f"the validation loss became {measured.loss} in epoch {epoch}: {WHAT_TO_TRY}")
            row = {"epoch": epoch, "train_loss": training.mean_loss(), **scores(measured, names)}
            row |= {"lr": training.rate, "seconds": tally.seconds}
            with interrupts.held():
                training.end_epoch(processes.gather(row)[0])
                try:
                    processes.from_main(lambda: save_previews(run, model, val_data, names, config.previews))
                finally:  # pictures that cannot be written cost no epoch
                    training.save()
                trackers.log(row)
                if processes.main:
                    print(epoch_line(run, config.epochs), flush=True)
            if training.agree(0, interrupts.asked)[1]:  # several processes, of which one was asked while it measured
                raise KeyboardInterrupt

        processes.from_main(lambda: write_summary(run))
    return run


@contextmanager
def lent(accelerator: Accelerator, model: nn.Module) -> Iterator[None]:
    """Let accelerate have the model while it trains; afterwards, whatever happened, take it back as it was."""
    try:
        yield
    finally:
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        model.__dict__.pop("_is_accelerate_prepared", None)  # else another fit would not wrap it again


def make_accelerator() -> Accelerator:
    """Where and how to compute. On a CPU accelerate has to be told that several processes belong together: left alone,
    each would train by itself."""
    together_on_cpu = int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.cuda.is_available()
    return Accelerator(mixed_precision=precision(), cpu=together_on_cpu)


def check_fit(
    model: nn.Module, train_data: Dataset, val_data: Dataset, loss: Loss, config: TrainConfig, augment: Any
) -> tuple[list[str], tuple[int, int]]:
    """Look once at data and model before they are trained: the class names, and the (height, width) trained at.

    Raises:
        ValueError: no data; classes that differ between training, validation, model and class weights; a batch size of
            one for batch norm.
    """
    if not len(train_data) or not len(val_data):
        raise ValueError(f"{len(train_data)} images to train on and {len(val_data)} to validate with: both need one")
    if config.batch_size == 1 and any(isinstance(part, nn.modules.batchnorm._BatchNorm) for part in model.modules()):
        raise ValueError(
            "batch_size=1 cannot train batch norm, which needs a second image to compare with: take 2 or more"
        )
    first = Samples(train_data, None, augment, config.seed)[(1, 0)][0]
    with torch.no_grad():
        outputs = model.eval()(first[None].to(next(model.parameters()).device)).shape[1]
    weights = getattr(loss, "class_weights", None)
    if weights is not None and len(weights) != outputs:
        raise ValueError(f"{len(weights)} class weights for {outputs} classes, background being one")
    num_classes = max(2, outputs)
    names, val_names = (list(get_class_names(data) or ()) for data in (train_data, val_data))
    if names != val_names:
        raise ValueError(f"training and validation differ in their classes: {names} and {val_names}")
    names = names or [f"class {index}" for index in range(num_classes)]
    if len(names) != num_classes:
        raise ValueError(f"the model tells {num_classes} classes apart but the data set has {len(names)}: {names}")
    return names, tuple(first.shape[-2:])


def photograph_size(train_data: Dataset, augment: Any, image_size: tuple[int, int]) -> tuple[int, int] | None:
    """The (height, width) that a photograph is brought to before the trained model sees it; None: its own.

    Where augmentation crops, the model learns from pictures at the scale that the data set gives them: their own,
    unless a transform of the data set brings them all to one size.
    """
    if augment is None:
        return image_size
    as_they_are = Samples(train_data, None, None, 0)
    sizes = {tuple(as_they_are[(1, index)][0].shape[-2:]) for index in range(min(len(as_they_are), 4))}
    if keeps_size(augment, *next(iter(sizes))):
        return image_size
    return sizes.pop() if len(sizes) == 1 and get_transform(train_data) is not None else None


# ------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Measured:
    """What a model scores on a data set: the confusion matrix of all its pixels, and the loss (NaN without one)."""

    matrix: ConfusionMatrix
    loss: float


def measure(
    model: nn.Module,
    data: Dataset,
    loss: Loss | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    num_classes: int | None = None,
    processes: Processes | None = None,
) -> Measured:
    """Measure a model on a data set, at whatever sizes its images have.

    Args:
        data: a Dataset or Subset of (image, mask) or (image, mask, name).
        num_classes: None: two, or as many as `data` has names for.
        processes: those that measure together, every one of which has to make this call; None: this one alone. They
            share out whole batches, so that each image counts once, and in the batch that one process would put it in.

    Returns:
        One confusion matrix of all pixels, and the loss averaged over the pixels that count; the same in each process.
    """
    processes, num_classes = processes or Processes(), num_classes or max(2, len(get_class_names(data) or ()))
    loader = make_val_loader(data, num_classes, next(model.parameters()).device, batch_size, workers, processes)
    with watching_workers(loader):
        return measure_batches(model, loader, loss, num_classes, processes)


def make_val_loader(
    data: Dataset, num_classes: int, device: torch.device, batch_size: int, workers: int | None, processes: Processes
) -> DataLoader:
    """Batches to measure on, of which each process has every so manieth."""
    batches = np.split(np.arange(len(data)), range(batch_size, len(data), batch_size))
    mine = [batch.tolist() for batch in batches[processes.index :: processes.count]]
    return make_loader(CheckedSamples(data, num_classes), device, workers, batch_sampler=mine, collate_fn=stack_by_size)


@torch.no_grad()
def measure_batches(
    model: nn.Module, loader: DataLoader, loss: Loss | None, num_classes: int, processes: Processes
) -> Measured:
    """What `measure` does, on the batches of `make_val_loader`."""
    device, matrix = next(model.parameters()).device, ConfusionMatrix(num_classes)
    model.eval()
    found = []  # for each batch: (loss, weight) of its images of each size
    for groups in loader:
        found.append([])
        for images, masks, _ in groups:
            logits, on_device = model(images.to(device)), masks.to(device)
            matrix.update(logits_to_mask(logits), on_device)
            if loss is not None:
                found[-1].append((loss(logits, on_device), weight_of(loss, masks)))
    processes.sum(matrix.matrix)
    everyones = processes.gather([[(value.item(), weight) for value, weight in batch] for batch in found])
    in_order = [batch for round in zip_longest(*everyones, fillvalue=[]) for batch in round]
    return Measured(matrix, weighted_mean(sum(in_order, [])))


def scores(measured: Measured, names: Sequence[str]) -> Row:
    """The columns of history.csv that validation fills. `val_iou` chooses the best epoch."""
    matrix = measured.matrix
    iou, dice = matrix.iou(), matrix.dice()
    binary = matrix.num_classes == 2
    return {
        "val_loss": measured.loss,
        "val_iou": iou[1].item() if binary else matrix.miou(),
        "val_dice": dice[1].item() if binary else dice.nanmean().item(),
        "val_miou": matrix.miou(),
        "val_miou_no_background": matrix.miou(background=False),
        "val_accuracy": matrix.pixel_accuracy(),
        **{f"iou/{name}": value for name, value in zip(names, iou.tolist(), strict=True)},
    }


# ------------------------------------------------------------------------------------------------ settings and state


def run_settings(
    model: nn.Module,
    train_data: Dataset,
    val_data: Dataset,
    loss: Loss,
    config: TrainConfig,
    augment: Any,
    image_size: tuple[int, int],
    processes: int,
) -> dict[str, Any]:
    """All that decides how a run ends, as plain JSON."""
    free = ("workers", "trackers", "checkpoint_minutes", "mirror")
    decides = {key: value for key, value in asdict(config).items() if key not in free}
    text = repr(loss)
    settings = {
        "config": decides,
        "processes": processes,
        "precision": precision(),
        "model": getattr(model, "settings", None),
        "weights": getattr(model, "weights", None),  # that it starts from; a checkpoint has its own
        "loss": getattr(loss, "__qualname__", type(loss).__name__) if " at 0x" in text else text,
        "augment": describe(augment),
        "train_data": describe_data(train_data) | {"image_size": list(image_size)},
        "val_data": describe_data(val_data),
    }
    return json.loads(json.dumps(settings))


def describe_data(data: Dataset) -> dict[str, Any]:
    """What identifies a data set: how many samples, which files, which classes."""
    names = get_filenames(data)
    digest = None if names is None else hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return {"samples": len(data), "files": digest, "classes": get_class_names(data)}


# ------------------------------------------------------------------------------------------------ what a person sees


def write_summary(run: Run) -> None:
    """Write the history as a table and as curves."""
    runs.write_history(run.dir / "history.csv", run.history)
    plots.save(plots.loss_curves(run.history), run.dir / CURVES[0])
    plots.save(plots.metric_curves(run.history, ["val_miou", "val_iou"]), run.dir / CURVES[1])


def tidy_finished(run: Run, config: TrainConfig) -> None:
    """Say that there is nothing to train; do what was left undone by a process that was killed at its very end."""
    print(
        f"{short_path(run.dir)} is finished ({len(run.history)} epochs): nothing to train. Another run_dir trains anew."
    )
    curves, last = run.dir / CURVES[-1], run.dir / runs.LAST
    if not curves.is_file() or curves.stat().st_mtime < last.stat().st_mtime:
        write_summary(run)
    if config.mirror is not None and not runs.is_mirrored(run.dir, config.mirror):
        runs.mirror_run(run.dir, config.mirror)


def epoch_line(run: Run, epochs: int) -> str:
    """The last finished epoch in one line."""
    row = run.history[-1]
    left = "" if run.finished else f", {duration((epochs - len(run.history)) * run.seconds / len(run.history))} left"
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  train loss {row['train_loss']:.4f}  "
        f"val loss {row['val_loss']:.4f}  val IoU {row['val_iou']:.4f}  lr {row['lr']:.1e}  "
        f"{row['seconds']:.1f} s{left}{'  best so far' if run.best is row else ''}"
    )


def duration(seconds: float) -> str:
    """A length of time as a person would say it: 40 s, 12 min, 3 h 20 min."""
    minutes = round(seconds / 60)
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


@torch.no_grad()
def save_previews(run: Run, model: nn.Module, data: Dataset, names: Sequence[str], count: int) -> None:
    """Save the prediction for the first `count` validation images as predictions/epoch_001/<name>.png."""
    device, folder = next(model.parameters()).device, run.dir / "predictions" / f"epoch_{len(run.history):03d}"
    model.eval()
    for index in range(min(count, len(data))):
        image, _, name = read_sample(data, index)
        mask = logits_to_mask(model(image[None].to(device)))[0].cpu().numpy()
        write_index_png(folder / f"{Path(name).stem}.png", mask, names)
