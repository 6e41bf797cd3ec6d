"""TrainConfig: the settings of a training run, and the optimizer, schedules and precision that they name."""

import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from seglib.files import check_choice

__all__ = [
    "ADVICE_AFTER_NAN",
    "Loss",
    "TrainConfig",
    "add_class_weights",
    "can_compute",
    "check_precision",
    "default_precision",
    "explain_out_of_memory",
    "is_finished",
    "is_out_of_memory",
    "make_optimizer",
    "make_schedule",
    "make_warmup",
    "step_schedule",
]

Loss = Callable[[Tensor, Tensor], Tensor]
TRACKERS = ("tensorboard", "wandb")
ADVICE_AFTER_NAN = (
    "look at the files; if they are sound, try a tenth of the learning rate, max_grad_norm=1 or some warmup_steps. "
    "Earlier checkpoints are kept."
)


@dataclass(frozen=True)
class TrainConfig:
    """The settings of a training run.

    Args:
        epochs: maximum number of passes over the training data.
        batch_size: images in one forward pass of each process; at least 2 for a model with batch norm.
        lr: learning rate.
        weight_decay: weight decay of the optimizer; "adamw" decouples it from the gradient.
        optimizer: "adam", "adamw" or "sgd" (with momentum 0.9).
        scheduler: None; "plateau" multiplies the learning rate by `plateau_factor` when the validation loss has not
            fallen for more than `plateau_patience` epochs; "cosine" lowers it to 0 at the last epoch.
        seed: seed of the order of the images, of augmentation and of dropout.
        workers: processes that read images; None: one per core on a GPU, none on a CPU.
        patience: stop when the validation loss has not fallen for this many epochs; None: never.
        trackers: any of "tensorboard" and "wandb".
        previews: number of validation images whose prediction is saved after each epoch.
        accumulate: number of batches whose gradients are summed before each step of the optimizer. Each batch is
            weighted by its counted pixels, so the step equals that of one large batch (see `fit`).
        max_grad_norm: clip the norm of the gradient to this value; None: no clipping.
        warmup_steps: number of steps over which the learning rate rises linearly to `lr`.
        class_weights: weight of a pixel of each class, background first, for a loss that contains cross-entropy and
            has no weights of its own; see `seglib.losses.median_frequency_weights`.
        checkpoint_seconds: write a checkpoint at the end of an epoch when this many seconds have passed since the
            last one; 0: after every epoch. The last epoch always has one.
        mirror: a second folder for the checkpoints, for example on Google Drive; see `seglib.runs.Mirror`. A run whose
            folder is lost is restored from it.
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
    checkpoint_seconds: float = 60.0
    mirror: Path | str | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "accumulate"):
            _check_count(name, getattr(self, name), minimum=1)
        for name in ("seed", "previews", "plateau_patience", "warmup_steps"):
            _check_count(name, getattr(self, name), minimum=0)
        if self.patience is not None:
            _check_count("patience", self.patience, minimum=1)
        if not self.lr > 0:
            raise ValueError(f"lr must be above 0, not {self.lr}")
        if not self.weight_decay >= 0:
            raise ValueError(f"weight_decay must be 0 or more, not {self.weight_decay}")
        if self.max_grad_norm is not None and not self.max_grad_norm > 0:
            raise ValueError(f"max_grad_norm must be above 0, or None, not {self.max_grad_norm}")
        if not self.checkpoint_seconds >= 0:
            raise ValueError(f"checkpoint_seconds must be 0 or more, not {self.checkpoint_seconds}")
        if not 0 < self.plateau_factor < 1:
            raise ValueError(f"plateau_factor must lie between 0 and 1, not {self.plateau_factor}")
        check_choice("optimizer", self.optimizer, ("adam", "adamw", "sgd"))
        check_choice("scheduler", self.scheduler, (None, "plateau", "cosine"))
        for tracker in self.trackers:
            check_choice("tracker", tracker, TRACKERS)
        self._convert()

    def _convert(self) -> None:
        """Convert numpy's numbers, which a checkpoint cannot hold, and paths given as text."""
        object.__setattr__(self, "lr", float(self.lr))
        object.__setattr__(self, "weight_decay", float(self.weight_decay))
        if self.class_weights is not None:
            object.__setattr__(self, "class_weights", tuple(map(float, self.class_weights)))
        if self.mirror is not None:
            object.__setattr__(self, "mirror", Path(self.mirror).expanduser())


def _check_count(name: str, value: object, minimum: int) -> None:
    if not isinstance(value, int) or value < minimum:
        raise ValueError(f"{name} must be a whole number of at least {minimum}, not {value!r}")


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` names, over the parameters that require a gradient."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, config.lr, momentum=0.9, weight_decay=config.weight_decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(parameters, config.lr, weight_decay=config.weight_decay)
    return torch.optim.Adam(parameters, config.lr, weight_decay=config.weight_decay)


def make_warmup(optimizer: torch.optim.Optimizer, config: TrainConfig) -> lr_scheduler.LinearLR | None:
    """The linear warm-up; None without one. It steps itself after each step of the optimizer that fp16 does not skip.

    It multiplies the learning rate step by step, as the schedule does epoch by epoch, so the two can be combined.
    """
    steps = config.warmup_steps
    if steps == 0:
        return None
    warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)
    optimizer.register_step_post_hook(lambda *_: _step_quietly(warmup))
    return warmup


Schedule = lr_scheduler.ReduceLROnPlateau | lr_scheduler.CosineAnnealingLR


def make_schedule(optimizer: torch.optim.Optimizer, config: TrainConfig) -> Schedule | None:
    """The schedule that `config` names, stepped after each epoch; None for a constant learning rate."""
    if config.scheduler == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, factor=config.plateau_factor, patience=config.plateau_patience)
    if config.scheduler == "cosine":
        return lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    return None


def step_schedule(schedule: Schedule | None, val_loss: float) -> None:
    """Step the schedule at the end of an epoch."""
    if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
        schedule.step(val_loss)
    elif schedule is not None:
        _step_quietly(schedule)


def _step_quietly(schedule: lr_scheduler.LRScheduler) -> None:
    """Step a schedule without torch's warnings about skipped steps of fp16 and about accelerate's optimizer."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step|Seems like `optimizer.step")
        schedule.step()


def add_class_weights(loss: Loss, weights: Sequence[float] | None) -> Loss:
    """The loss with the class weights of a config.

    Raises:
        ValueError: the loss takes no class weights, or has some of its own.
    """
    if weights is None:
        return loss
    if not hasattr(loss, "class_weights"):
        raise ValueError(f"{loss} takes no class_weights: use CrossEntropyLoss or CEDiceLoss; BCELoss has pos_weight")
    if loss.class_weights is not None:
        raise ValueError(f"class_weights are given twice: {weights} in the config and {loss.class_weights} in the loss")
    weighted: Any = loss  # a dataclass of seglib.losses
    return replace(weighted, class_weights=tuple(weights))


def is_finished(history: Sequence[Mapping[str, float]], config: TrainConfig) -> bool:
    """Whether all epochs are done, or the validation loss has not fallen for `config.patience` epochs."""
    if len(history) >= config.epochs:
        return True
    if config.patience is None or not history:
        return False
    losses = [row["val_loss"] for row in history]
    return len(losses) - 1 - losses.index(min(losses)) >= config.patience


# ------------------------------------------------------------------------------------------------ precision and memory


def default_precision() -> str:
    """The mixed precision to train in: "bf16" or "fp16" on a GPU, whichever it computes; "no" on a CPU.

    A CPU is slower in mixed precision.
    """
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def can_compute(precision: str) -> bool:
    """Whether this machine computes in a precision: "no" works everywhere, "fp16" on every GPU."""
    available = default_precision()
    return precision in ("no", available) or (precision, available) == ("fp16", "bf16")


def check_precision(precision: str) -> None:
    """Raise ValueError when this machine cannot resume a run in the precision in which the run began."""
    if can_compute(precision):
        return
    available = default_precision()
    card = "a GPU that computes in bf16 (L4, A100 or newer)" if precision == "bf16" else "a GPU"
    raise ValueError(
        f"this run began in {precision}, which this machine does not offer (precision here: {available}). "
        f"Resume it on {card}: on Colab, choose it under Runtime > Change runtime type. Or choose another run_dir."
    )


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
    """Add to an out-of-memory error which settings need less memory.

    Raises:
        torch.OutOfMemoryError: whatever the kind of the original error.
    """
    try:
        yield
    except (RuntimeError, MemoryError, OSError) as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # a notebook keeps the error, and with it the tensors of the step
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        advice = _memory_advice(config, image_size, device)
        raise torch.OutOfMemoryError(f"{first_line}\n{advice}") from None


def _memory_advice(config: TrainConfig, image_size: tuple[int, int], device: torch.device) -> str:
    """What did not fit in memory, and settings that need less."""
    height, width = image_size
    text = f"Not enough memory for batches of {config.batch_size} images of {height}x{width}"
    if device.type == "cuda":
        free, total = (number / 2**30 for number in torch.cuda.mem_get_info(device))
        used = torch.cuda.max_memory_allocated(device) / 2**30
        name = torch.cuda.get_device_name(device)
        text += f" on {name} ({total:.1f} GiB, {free:.1f} GiB free; this process used up to {used:.1f} GiB)"
    if config.batch_size > 3:
        text += f". {_smaller_batches(config)}"
    return (
        f"{text}. Or use smaller images: {height // 2}x{width // 2} needs about a quarter of the memory. "
        "Or use a narrower model. (Validation images are used at the size that their data set gives them.)"
    )


def _smaller_batches(config: TrainConfig) -> str:
    """Advice to accumulate smaller batches: of the largest size, half or less, that divides the batch size."""
    size = config.batch_size
    smaller = next((part for part in range(size // 2, 1, -1) if size % part == 0), size // 2)
    parts = config.accumulate * size // smaller
    same = "the same" if size % smaller == 0 else "nearly the same"
    return (
        f"Try batch_size={smaller}, accumulate={parts}: each step then has {smaller * parts} images, so the "
        f"optimization is {same} (except for batch norm, which sees {smaller} images at a time, and Dice)"
    )
