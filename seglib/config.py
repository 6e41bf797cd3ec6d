"""The settings of a training run, and what they stand for."""

import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from seglib.runs import Row
from seglib.trackers import KNOWN

Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run.

    Args:
        epochs: passes over the training data, at most.
        batch_size: images that go through the model at once, in each process; two or more for batch norm.
        lr: learning rate.
        weight_decay: of the optimizer; decoupled from the gradient in "adamw".
        optimizer: "adam", "adamw" or "sgd" (momentum 0.9).
        scheduler: None; "plateau", which multiplies the rate by `plateau_factor` when the validation loss has not
            fallen for more than `plateau_patience` epochs; "cosine", down to nothing at the last epoch.
        seed: of the order of the images, of augmentation and of dropout.
        workers: processes that read images; None: all cores where a GPU trains, none where the CPU does.
        patience: stop when the validation loss has not fallen for so many epochs; None: never.
        trackers: "tensorboard", "wandb".
        previews: so many validation images have their prediction saved after each epoch, under predictions/.
        accumulate: batches whose gradients are added up to one step of the optimizer, for a step of more images than
            fit into memory. A step takes batch_size * accumulate * processes images; see `fit` for what is equal.
        max_grad_norm: a gradient longer than this is shortened to it before the step; None: none is.
        warmup_steps: steps over which the rate rises evenly to `lr` at the start, on top of the schedule.
        class_weights: how much a pixel of each class weighs, background being the first, for a loss that has
            cross-entropy in it and no weights of its own; see `seglib.losses.median_frequency_weights`.
        checkpoint_minutes: an epoch that takes longer is saved every so many minutes too; 0: after every step; None:
            only at its end.
        mirror: a second folder for the checkpoints, say on Google Drive, that may come and go; see
            `seglib.runs.mirror_run`. Where the run folder is gone, they come back from there.
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
    accumulate: int = 1
    max_grad_norm: float | None = None
    warmup_steps: int = 0
    class_weights: tuple[float, ...] | None = None
    checkpoint_minutes: float | None = 10.0
    mirror: Path | str | None = None

    def __post_init__(self) -> None:
        whole = (self.epochs, self.batch_size, self.seed, self.previews, self.plateau_patience, self.patience or 0)
        whole += (self.accumulate, self.warmup_steps)
        if any(not isinstance(value, int) or value < 0 for value in whole) or not self.lr > 0:
            raise ValueError(f"lr must be above 0, and all that is counted a whole number, none negative: {self}")
        if self.epochs < 1 or self.batch_size < 1 or self.accumulate < 1 or self.patience == 0:
            raise ValueError(f"epochs, batch_size, accumulate and patience must be at least 1: {self}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm is a length above 0, or None, not {self.max_grad_norm}")
        if self.checkpoint_minutes is not None and not self.checkpoint_minutes >= 0:
            raise ValueError(f"checkpoint_minutes is 0 or more, or None, not {self.checkpoint_minutes}")
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f"plateau_factor lies between 0 and 1, not {self.plateau_factor}")
        for name in ("lr", "weight_decay"):  # numpy's numbers are none that a checkpoint may hold
            object.__setattr__(self, name, float(getattr(self, name)))
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", tuple(map(float, self.class_weights)))
        if self.mirror is not None:
            object.__setattr__(self, "mirror", Path(self.mirror).expanduser())
        for name, value, choices in (
            ("optimizer", self.optimizer, ("adam", "adamw", "sgd")),
            ("scheduler", self.scheduler, (None, "plateau", "cosine")),
            *(("tracker", tracker, KNOWN) for tracker in self.trackers),
        ):
            if value not in choices:
                raise ValueError(f"no {name} {value!r}; there are {', '.join(map(str, choices))}")


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that the settings name."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.lr, momentum=0.9, weight_decay=config.weight_decay)
    kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, config.lr, weight_decay=config.weight_decay)


def make_warmup(optimizer: torch.optim.Optimizer, config: TrainConfig) -> Any:
    """What raises the rate evenly, step by step, over the first `warmup_steps`: the last of them has the whole rate.

    It multiplies the rate step by step, as the schedule does epoch by epoch: neither is in the other's way.
    """
    steps = max(1, config.warmup_steps)
    return lr_scheduler.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig) -> Any:
    """The schedule that the settings name, stepped once an epoch; None for a constant rate."""
    if config.scheduler == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=config.plateau_factor, patience=config.plateau_patience)
    if config.scheduler == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    return None


def with_class_weights(loss: Loss, weights: Sequence[float] | None) -> Loss:
    """The loss with the class weights of the settings, where they have any."""
    if weights is None:
        return loss
    if not hasattr(loss, "class_weights"):
        raise ValueError(f"{loss} takes no class_weights: CrossEntropyLoss and CEDiceLoss do, BCELoss has pos_weight")
    if loss.class_weights is not None:
        raise ValueError(f"class_weights stand both in the settings, {weights}, and in the loss, {loss.class_weights}")
    return replace(loss, class_weights=tuple(weights))


def is_finished(history: list[Row], config: TrainConfig) -> bool:
    """Whether all epochs are done, or the validation loss has not fallen for `patience` epochs."""
    if len(history) >= config.epochs:
        return True
    if config.patience is None or not history:
        return False
    losses = [row["val_loss"] for row in history]
    return len(losses) - 1 - losses.index(min(losses)) >= config.patience


def precision() -> str:
    """Mixed precision on a GPU only: bf16 where the card computes in it, else fp16. A CPU is slower with it."""
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that the memory of the GPU or of the machine is used up.

    CUDA raises `torch.OutOfMemoryError`. cuDNN, Apple's GPUs and the CPU allocator raise a plain RuntimeError and the
    operating system an OSError: these are recognized by their text.
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    text = str(error).lower()
    phrases = ("out of memory", "allocate memory", "alloc_failed")
    return isinstance(error, RuntimeError | OSError) and any(phrase in text for phrase in phrases)


@contextmanager
def explain_out_of_memory(config: TrainConfig, image_size: tuple[int, int], device: torch.device) -> Iterator[None]:
    """Where the memory of the GPU runs out, say what filled it and which settings need less."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        traceback.clear_frames(error.__traceback__)  # a notebook keeps the error, and so all that the step had made
        told = what_needs_less_memory(config, image_size, device)
        raise torch.OutOfMemoryError(f"{str(error).splitlines()[0]}\n{told}") from None


def what_needs_less_memory(config: TrainConfig, image_size: tuple[int, int], device: torch.device) -> str:
    """What a step of these settings holds in memory, and settings that hold less."""
    size, height, width = config.batch_size, *image_size
    text = f"Not enough memory for batches of {size} images of {height}x{width}"
    if device.type == "cuda":
        free, whole = (number / 2**30 for number in torch.cuda.mem_get_info(device))
        used = torch.cuda.max_memory_allocated(device) / 2**30
        name = torch.cuda.get_device_name(device)
        text += f" on {name} ({whole:.1f} GiB, of which {free:.1f} are free; this process had up to {used:.1f})"
    if size > 3:
        smaller = next((part for part in range(size // 2, 1, -1) if size % part == 0), size // 2)
        parts = config.accumulate * size // smaller
        same = "so it is the same" if size % smaller == 0 else "so it is nearly the same"
        text += (
            f". Try batch_size={smaller}, accumulate={parts}: a step then takes {smaller * parts} images, {same} "
            f"optimisation (but for batch norm, which sees {smaller} images at a time, and Dice)"
        )
    return (
        f"{text}. Or smaller images: resized or cropped to {height // 2}x{width // 2}, they need about a quarter. "
        "Or a narrower model. "
        "(Validation takes images as large as its data set has them.)"
    )
