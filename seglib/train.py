"""fit(): the training loop, and what it needs around it."""

import hashlib
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, Sampler
from tqdm import tqdm

from seglib import plots, runs
from seglib.datasets.common import class_names, file_names
from seglib.masks import IGNORE, check_values, write_index_png
from seglib.metrics import ConfusionMatrix
from seglib.models import logits_to_mask
from seglib.runs import Row, Run
from seglib.transforms import augment as apply_augmentation
from seglib.transforms import describe

Loss = Callable[[Tensor, Tensor], Tensor]
WHAT_TO_TRY = (
    "look at the files; if they are sound, try a tenth of the learning rate. The checkpoint of the epoch before is "
    "kept."
)
CURVES = ("loss.png", "miou.png")
CHECK_EVERY = 50  # steps between looks at the loss: looking makes the GPU wait


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run.

    Args:
        epochs: passes over the training data, at most.
        batch_size: images a step; two or more for a model with batch norm.
        lr: learning rate.
        weight_decay: of the optimizer; decoupled from the gradient in "adamw".
        optimizer: "adam", "adamw" or "sgd" (momentum 0.9).
        scheduler: None; "plateau", which multiplies the rate by `plateau_factor` when the validation loss has not
            fallen for `plateau_patience` epochs; "cosine", down to nothing at the last epoch.
        seed: of the order of the images, of augmentation and of dropout.
        workers: processes that read images; None: all cores where a GPU trains, none where the CPU does.
        patience: stop when the validation loss has not fallen for so many epochs; None: never.
        trackers: "tensorboard", "wandb".
        previews: so many validation images have their prediction saved after each epoch, under predictions/.
    """

    epochs: int
    batch_size: int
    lr: float
    weight_decay: float = 0.0
    optimizer: str = "adam"
    scheduler: str | None = None
    seed: int = 0
    workers: int | None = None
    plateau_patience: int = 3
    plateau_factor: float = 0.5
    patience: int | None = None
    trackers: tuple[str, ...] = ("tensorboard",)
    previews: int = 4

    def __post_init__(self) -> None:
        whole = (self.epochs, self.batch_size, self.seed, self.previews, self.plateau_patience, self.patience or 0)
        if any(not isinstance(value, int) or value < 0 for value in whole) or not self.lr > 0:
            raise ValueError(f"lr must be above 0, and all that is counted a whole number, none negative: {self}")
        if self.epochs < 1 or self.batch_size < 1 or self.patience == 0:
            raise ValueError(f"epochs, batch_size and patience must be at least 1: {self}")
        if self.optimizer not in ("adam", "adamw", "sgd"):
            raise ValueError(f"no optimizer {self.optimizer!r}; there are adam, adamw, sgd")
        if self.scheduler not in (None, "plateau", "cosine"):
            raise ValueError(f"no scheduler {self.scheduler!r}; there are None, plateau, cosine")


def fit(
    model: nn.Module,
    train_data: Dataset,
    val_data: Dataset,
    loss: Loss,
    config: TrainConfig,
    run_dir: str | Path,
    augment: Any = None,
) -> Run:
    """Train a model in one process; called again after an interruption, go on where it stopped.

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
        ValueError: settings other than those of the run in `run_dir`; images of different sizes in a training batch; a
            mask value that is no class; a batch size of one for a model with batch norm.
        FloatingPointError: the loss became NaN or infinite; says where.
    """
    accelerator = Accelerator(mixed_precision=precision())
    if accelerator.num_processes > 1:
        raise NotImplementedError("fit trains in one process: start it without a launcher")
    device = accelerator.device
    names, image_size = check_fit(model, train_data, val_data, config, augment)
    num_classes = len(names)
    settings = run_settings(model, train_data, val_data, loss, config, augment, image_size)
    run = runs.open_run(run_dir, settings, runs.about_this_machine())

    samples = Samples(train_data, num_classes, augment, config.seed)
    batches = Batches(len(samples), config.batch_size, config.seed)
    loader = make_loader(samples, device, config.workers, batch_sampler=batches, collate_fn=stack, keep_workers=True)
    model = model.to(device, memory_format=torch.channels_last)  # faster, on the CPU too
    optimizer = make_optimizer(model, config)
    scheduler = make_scheduler(optimizer, config)
    restore(run, accelerator, model, optimizer, scheduler)
    run.finished = is_finished(run.history, config)
    if run.finished:
        print(f"{run.dir} is finished ({len(run.history)} epochs): nothing to train. Another run_dir trains anew.")
        if not (run.dir / CURVES[-1]).is_file():  # killed after its last checkpoint
            write_summary(run)
        return run
    if run.history:
        print(f"Going on after epoch {len(run.history)} of {config.epochs} in {run.dir}.")
    trackers = runs.Trackers(config.trackers, run.dir, settings, len(run.history))
    with prepared(accelerator, model, optimizer, trackers) as (model, optimizer):
        while not run.finished:
            epoch, started = len(run.history) + 1, time.perf_counter()
            torch.manual_seed(config.seed * 1_000_003 + epoch)  # dropout: the same in an epoch that is done again
            batches.epoch = epoch
            model.train()
            values, weights, files = [], [], []
            for images, masks, batch_files in progress(loader, f"epoch {epoch}/{config.epochs}"):
                images = images.to(device, non_blocking=True).contiguous(memory_format=torch.channels_last)
                masks = masks.to(device, non_blocking=True)
                value = loss(model(images), masks)
                optimizer.zero_grad()
                accelerator.backward(value)
                optimizer.step()
                values.append(value.detach())
                weights.append((masks != IGNORE).sum())
                files.append(batch_files)
                if len(values) % CHECK_EVERY == 0:
                    check_finite(values, files, epoch, optimizer)
            check_finite(values, files, epoch, optimizer)

            measured = measure(model, val_data, loss, config.batch_size, config.workers, num_classes)
            if not np.isfinite(measured.loss):
                raise FloatingPointError(f"the validation loss became {measured.loss} in epoch {epoch}: {WHAT_TO_TRY}")
            row = {"epoch": epoch, "train_loss": weighted_mean(values, weights), **scores(measured, names)}
            row |= {"lr": optimizer.param_groups[0]["lr"], "seconds": time.perf_counter() - started}
            run.history.append(row)
            if config.scheduler == "plateau":
                scheduler.step(row["val_loss"])
            elif scheduler is not None:
                scheduler.step()

            # In this order a kill between any two leaves a folder from which the same call ends the same.
            save_previews(run, model, val_data, names, config.previews)
            weights_now = accelerator.unwrap_model(model).state_dict()
            if run.best is row:
                best = {"model": weights_now, "settings": settings["model"], "classes": names, "image_size": image_size}
                runs.save_torch(run.dir / "best_model.pth", best | {"epoch": epoch, "val_iou": row["val_iou"]})
            save_last(run, accelerator, weights_now, optimizer, scheduler)
            runs.write_history(run.dir / "history.csv", run.history)
            trackers.log(row)
            run.finished = is_finished(run.history, config)
            print(epoch_line(row, config.epochs, run), flush=True)

    write_summary(run)
    return run


@contextmanager
def prepared(
    accelerator: Accelerator, model: nn.Module, optimizer: torch.optim.Optimizer, trackers: runs.Trackers
) -> Iterator[tuple[nn.Module, Any]]:
    """Lend model and optimizer to accelerate while they train; afterwards, whatever happened, take the model back."""
    try:
        yield accelerator.prepare(model, optimizer)
    finally:
        trackers.close()
        accelerator.unwrap_model(model, keep_fp32_wrapper=False)
        model.__dict__.pop("_is_accelerate_prepared", None)  # else another fit would not wrap it again


def check_fit(
    model: nn.Module, train_data: Dataset, val_data: Dataset, config: TrainConfig, augment: Any
) -> tuple[list[str], tuple[int, int]]:
    """Look once at data and model before they are trained: the class names, and the (height, width) trained at.

    Raises:
        ValueError: no data; classes that differ between training, validation and model; a batch size of one for batch
            norm.
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
    num_classes = max(2, outputs)
    names, val_names = (list(class_names(data) or ()) for data in (train_data, val_data))
    if names != val_names:
        raise ValueError(f"training and validation differ in their classes: {names} and {val_names}")
    names = names or [f"class {index}" for index in range(num_classes)]
    if len(names) != num_classes:
        raise ValueError(f"the model tells {num_classes} classes apart but the data set has {len(names)}: {names}")
    return names, tuple(first.shape[-2:])


# ------------------------------------------------------------------------------------------------ samples and batches


class Samples(Dataset):
    """The training samples of (epoch, index): checked, augmented by what (seed, epoch, index) draws."""

    def __init__(self, data: Dataset, num_classes: int | None, augment: Any, seed: int) -> None:
        self.data, self.num_classes, self.augment, self.seed = data, num_classes, augment, seed

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, position: tuple[int, int]) -> tuple[Tensor, Tensor, str]:
        """Image (3, H, W) uint8, mask (H, W) uint8, name."""
        epoch, index = position
        image, mask, name = read_sample(self.data, index, self.num_classes)
        if self.augment is not None:
            changed = apply_augmentation(
                self.augment, image.permute(1, 2, 0).numpy(), mask.numpy(), (self.seed, epoch, index)
            )
            image = torch.from_numpy(np.ascontiguousarray(changed[0].transpose(2, 0, 1)))
            mask = torch.from_numpy(np.ascontiguousarray(changed[1]))
        return image, mask, name


def read_sample(data: Dataset, index: int, num_classes: int | None = None) -> tuple[Tensor, Tensor, str]:
    """Sample `index` of any data set of pairs or triples, checked on the CPU: image, uint8 mask, name."""
    image, mask, *rest = data[index]
    name = str(rest[0]) if rest else f"sample {index}"
    if image.dtype != torch.uint8:
        raise ValueError(f"{name}: images are uint8, 0-255, not {image.dtype}: the model brings them to its own scale")
    if image.ndim != 3 or image.shape[1:] != mask.shape:
        raise ValueError(
            f"{name}: image {tuple(image.shape)} and mask {tuple(mask.shape)} do not fit: (3, H, W) "
            "and (H, W) were expected"
        )
    if num_classes is not None:
        check_values(mask.numpy(), num_classes, name)
    return image, mask.to(torch.uint8), name


class Batches(Sampler):
    """Batches of (epoch, index), shuffled by (seed, epoch). The pairs carry the epoch to the workers.

    No batch holds a single image unless the batch size is one: a last one that would takes an image from the batch
    before it, or joins it; a data set of one image gives it twice. Batch norm in training needs two.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size, self.seed, self.epoch = count, batch_size, seed, 1

    def __len__(self) -> int:
        return len(self._batches())

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        for batch in self._batches():
            yield [(self.epoch, index) for index in batch]

    def _batches(self) -> list[list[int]]:
        order = np.random.default_rng((self.seed, self.epoch)).permutation(self.count).tolist()
        size = self.batch_size
        batches = [order[start : start + size] for start in range(0, self.count, size)]
        if size == 1 or len(batches[-1]) > 1:
            return batches
        if len(batches) == 1:
            return [batches[0] * 2]
        if size == 2:
            return [*batches[:-2], batches[-2] + batches[-1]]
        return [*batches[:-2], batches[-2][:-1], [batches[-2][-1], *batches[-1]]]


def stack(samples: Sequence[tuple[Tensor, Tensor, str]]) -> tuple[Tensor, Tensor, list[str]]:
    """Samples of one size -> images (B, 3, H, W), masks (B, H, W), names."""
    images, masks, names = zip(*samples, strict=True)
    if len({image.shape for image in images}) > 1:
        sizes = ", ".join(f"{name} {tuple(image.shape[1:])}" for image, name in zip(images, names, strict=True))
        raise ValueError(
            f"images of different sizes in one training batch: {sizes}. Give the data set "
            "transform=seglib.transforms.resize(height, width)"
        )
    return torch.stack(images), torch.stack(masks), list(names)


class CheckedSamples(Dataset):
    """Validation samples: checked, never augmented."""

    def __init__(self, data: Dataset, num_classes: int) -> None:
        self.data, self.num_classes = data, num_classes

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        return read_sample(self.data, index, self.num_classes)


def stack_by_size(samples: Sequence[tuple[Tensor, Tensor, str]]) -> list[tuple[Tensor, Tensor, list[str]]]:
    """Samples of any sizes -> a batch for each size: padding to the largest would change predictions."""
    by_size: dict[torch.Size, list] = {}
    for sample in samples:
        by_size.setdefault(sample[0].shape, []).append(sample)
    return [stack(group) for group in by_size.values()]


def make_loader(
    data: Dataset, device: torch.device, workers: int | None, keep_workers: bool = False, **settings: Any
) -> DataLoader:
    """A DataLoader with as many workers as suit the device: beside a CPU that trains they would only be in its way.

    Args:
        keep_workers: from one pass to the next.
    """
    if workers is None:
        workers = min(os.cpu_count() or 1, 8) if device.type == "cuda" else 0
    # A generator of its own: else it would draw from torch's, and dropout would depend on the number of workers.
    settings |= {"persistent_workers": keep_workers and workers > 0, "pin_memory": device.type == "cuda"}
    return DataLoader(data, num_workers=workers, generator=torch.Generator(), **settings)


# ------------------------------------------------------------------------------------------------ measuring


@dataclass(frozen=True)
class Measured:
    """What a model scores on a data set: the confusion matrix of all its pixels, and the loss (NaN without one)."""

    matrix: ConfusionMatrix
    loss: float


@torch.no_grad()
def measure(
    model: nn.Module,
    data: Dataset,
    loss: Loss | None = None,
    batch_size: int = 8,
    workers: int | None = None,
    num_classes: int | None = None,
) -> Measured:
    """Measure a model on a data set, at whatever sizes its images have.

    Args:
        data: a Dataset or Subset of (image, mask) or (image, mask, name).
        num_classes: None: two, or as many as `data` has names for.

    Returns:
        One confusion matrix of all pixels, and the loss averaged over the pixels that count.
    """
    device = next(model.parameters()).device
    num_classes = num_classes or max(2, len(class_names(data) or ()))
    matrix = ConfusionMatrix(num_classes)
    loader = make_loader(
        CheckedSamples(data, num_classes), device, workers, batch_size=batch_size, collate_fn=stack_by_size
    )
    model.eval()
    values, weights = [], []
    for groups in loader:
        for images, masks, _ in groups:
            logits, masks = model(images.to(device)), masks.to(device)
            matrix.update(logits_to_mask(logits), masks)
            if loss is not None:
                values.append(loss(logits, masks))
                weights.append((masks != IGNORE).sum())
    return Measured(matrix, weighted_mean(values, weights) if values else float("nan"))


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


def weighted_mean(values: list[Tensor], weights: list[Tensor]) -> float:
    """The mean of batch losses, each weighing as much as it has pixels that count; 0 where none has any."""
    value, weight = torch.stack(values).cpu().double(), torch.stack(weights).cpu().double()  # a Mac's GPU has no double
    return ((value * weight).sum() / weight.sum().clamp(min=1)).item()


def check_finite(values: list[Tensor], files: list[list[str]], epoch: int, optimizer: Any) -> None:
    """Raise FloatingPointError, naming epoch, step and files, where one of an epoch's losses is NaN or infinite."""
    bad = (~torch.stack(values).isfinite()).nonzero()
    if len(bad):
        step = int(bad[0])
        raise FloatingPointError(
            f"the loss became {values[step].item()} in epoch {epoch}, step {step + 1}, on {', '.join(files[step])}, at "
            f"learning rate {optimizer.param_groups[0]['lr']:g}: {WHAT_TO_TRY}"
        )


# ------------------------------------------------------------------------------------------------ settings and state


def precision() -> str:
    """Mixed precision on a GPU only: bf16 where the card computes in it, else fp16. A CPU is slower with it."""
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that the settings name."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.lr, momentum=0.9, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, config.lr, weight_decay=config.weight_decay)


def make_scheduler(optimizer: torch.optim.Optimizer, config: TrainConfig) -> Any:
    """The schedule that the settings name, stepped once an epoch; None for a constant rate."""
    if config.scheduler == "plateau":
        return torch.optim.lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=config.plateau_factor, patience=config.plateau_patience
        )
    if config.scheduler == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    return None


def is_finished(history: list[Row], config: TrainConfig) -> bool:
    """Whether all epochs are done, or the validation loss has not fallen for `patience` epochs."""
    if len(history) >= config.epochs:
        return True
    if config.patience is None or not history:
        return False
    losses = [row["val_loss"] for row in history]
    return len(losses) - 1 - losses.index(min(losses)) >= config.patience


def run_settings(
    model: nn.Module,
    train_data: Dataset,
    val_data: Dataset,
    loss: Loss,
    config: TrainConfig,
    augment: Any,
    image_size: tuple[int, int],
) -> dict[str, Any]:
    """All that decides how a run ends, as plain JSON."""
    decides = {key: value for key, value in asdict(config).items() if key not in ("workers", "trackers")}
    text = repr(loss)
    return {
        "config": decides,
        "precision": precision(),
        "model": getattr(model, "settings", None),
        "weights": getattr(model, "weights", None),  # that it starts from; a checkpoint has its own
        "loss": type(loss).__name__ if " at 0x" in text else text,
        "augment": describe(augment),
        "train_data": describe_data(train_data) | {"image_size": list(image_size)},
        "val_data": describe_data(val_data),
    }


def describe_data(data: Dataset) -> dict[str, Any]:
    """What identifies a data set: how many samples, which files, which classes."""
    names = file_names(data)
    digest = None if names is None else hashlib.sha256("\n".join(names).encode()).hexdigest()[:16]
    return {"samples": len(data), "files": digest, "classes": class_names(data)}


def save_last(run: Run, accelerator: Accelerator, weights: dict, optimizer: Any, scheduler: Any) -> None:
    """Save all that the next epoch depends on."""
    state = {"model": weights, "optimizer": optimizer.state_dict(), "history": run.history}
    if scheduler is not None:
        state["scheduler"] = scheduler.state_dict()
    if accelerator.scaler is not None:
        state["scaler"] = accelerator.scaler.state_dict()
    runs.save_torch(run.dir / "last" / "checkpoint.pth", state)


def restore(run: Run, accelerator: Accelerator, model: nn.Module, optimizer: Any, scheduler: Any) -> None:
    """Bring everything to where the last checkpoint left it, if there is one."""
    path = run.dir / "last" / "checkpoint.pth"
    if not path.is_file():
        return
    state = torch.load(path, map_location="cpu", weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    if scheduler is not None:
        scheduler.load_state_dict(state["scheduler"])
    if accelerator.scaler is not None:
        accelerator.scaler.load_state_dict(state["scaler"])
    run.history = state["history"]


# ------------------------------------------------------------------------------------------------ what a person sees


def write_summary(run: Run) -> None:
    """Write the history as a table and as curves."""
    runs.write_history(run.dir / "history.csv", run.history)
    plots.save(plots.loss_curves(run.history), run.dir / CURVES[0])
    plots.save(plots.metric_curves(run.history, ["val_miou", "val_iou"]), run.dir / CURVES[1])


def progress(steps: Iterable, title: str) -> Any:
    """A plain text bar that is gone when the steps are done; none in a log file."""
    watched = sys.stdout.isatty() or "ipykernel" in sys.modules
    return tqdm(steps, desc=title, leave=False, file=sys.stdout, ncols=80, mininterval=0.5, disable=not watched)


def epoch_line(row: Row, epochs: int, run: Run) -> str:
    """One finished epoch in one line."""
    best = "  best so far" if run.best is row else ""
    return (
        f"epoch {row['epoch']:>{len(str(epochs))}}/{epochs}  train loss {row['train_loss']:.4f}  "
        f"val loss {row['val_loss']:.4f}  val IoU {row['val_iou']:.4f}  lr {row['lr']:.1e}  "
        f"{row['seconds']:.1f} s{best}"
    )


@torch.no_grad()
def save_previews(run: Run, model: nn.Module, data: Dataset, names: Sequence[str], count: int) -> None:
    """Save the prediction for the first `count` validation images as predictions/epoch_001/<name>.png."""
    device, folder = next(model.parameters()).device, run.dir / "predictions" / f"epoch_{len(run.history):03d}"
    model.eval()
    for index in range(min(count, len(data))):
        image, _, name = read_sample(data, index)
        mask = logits_to_mask(model(image[None].to(device)))[0].cpu().numpy()
        write_index_png(folder / f"{Path(name).stem}.png", mask, names)
