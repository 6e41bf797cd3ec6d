"""TrainConfig: the settings of a training run, and the optimizer, schedules and precision that they name."""

import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import lr_scheduler

from seglib.files import check_choice

__all__ = [
    "Loss",
    "TrainConfig",
    "add_class_weights",
    "check_precision",
    "default_precision",
    "explain_out_of_memory",
    "is_out_of_memory",
    "make_optimizer",
    "make_schedules",
    "step_schedule",
]

Loss = Callable[[Tensor, Tensor], Tensor]


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
        trackers: any of "tensorboard" and "wandb"; by default the first if it is installed.
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
    trackers: tuple[str, ...] = field(default_factory=lambda: ("tensorboard",) if find_spec("tensorboard") else ())
    previews: int = 4
    accumulate: int = 1
    max_grad_norm: float | None = None
    warmup_steps: int = 0
    class_weights: tuple[float, ...] | None = None
    checkpoint_seconds: float = 60.0
    mirror: Path | str | None = None

    def __post_init__(self) -> None:
        minimum = dict.fromkeys(("epochs", "batch_size", "accumulate", "patience"), 1)
        minimum |= dict.fromkeys(("seed", "previews", "plateau_patience", "warmup_steps"), 0)
        for name, least in minimum.items():
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise ValueError(f"{name} must be a whole number of at least {least}, not {value!r}")
        for name in ("lr", "max_grad_norm"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value}")
        check_choice("optimizer", self.optimizer, ("adam", "adamw", "sgd"))
        check_choice("scheduler", self.scheduler, (None, "plateau", "cosine"))
        for tracker in self.trackers:
            check_choice("tracker", tracker, ("tensorboard", "wandb"))
        if self.class_weights is not None:  # perhaps a tensor
            object.__setattr__(self, "class_weights", tuple(map(float, self.class_weights)))


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """The optimizer that `config` names, over the parameters that require a gradient."""
    kinds: dict[str, Callable[..., torch.optim.Optimizer]] = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "sgd": partial(torch.optim.SGD, momentum=0.9),
    }
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    settings = {"lr": float(config.lr), "weight_decay": float(config.weight_decay)}  # numpy's are not read back
    return kinds[config.optimizer](parameters, **settings)


def make_schedules(optimizer: torch.optim.Optimizer, config: TrainConfig) -> dict[str, Any]:
    """The schedules of the learning rate that `config` names; they multiply, so that they can be combined.

    "schedule" is stepped by `step_schedule`; "warmup" steps itself after each step that fp16 does not skip.
    """
    schedules: dict[str, Any] = {}
    if config.scheduler == "plateau":
        schedules["schedule"] = lr_scheduler.ReduceLROnPlateau(
            optimizer, factor=float(config.plateau_factor), patience=config.plateau_patience
        )
    elif config.scheduler == "cosine":
        schedules["schedule"] = lr_scheduler.CosineAnnealingLR(optimizer, T_max=config.epochs)
    if config.warmup_steps:
        steps = config.warmup_steps
        warmup = lr_scheduler.LinearLR(optimizer, start_factor=1 / steps, total_iters=steps - 1)
        optimizer.register_step_post_hook(lambda *_: _step_quietly(warmup))
        schedules["warmup"] = warmup
    return schedules


def _step_quietly(warmup: lr_scheduler.LinearLR) -> None:
    with warnings.catch_warnings(action="ignore"):  # torch takes accelerate's optimizer for one that was changed
        warmup.step()


def step_schedule(schedule: Any, val_loss: float) -> None:
    """Step a schedule at the end of an epoch; None for a constant learning rate."""
    if isinstance(schedule, lr_scheduler.ReduceLROnPlateau):
        schedule.step(val_loss)
    elif schedule is not None:
        schedule.step()


def add_class_weights(loss: Loss, weights: Sequence[float] | None) -> Loss:
    """The loss with the class weights of a config; ValueError if it takes none, or has weights of its own."""
    if weights is None:
        return loss
    if getattr(loss, "class_weights", weights) is not None:
        raise ValueError(
            f"class_weights do not fit {loss}: use CrossEntropyLoss() or CEDiceLoss(), without weights of its own; for "
            "BCELoss and BCEDiceLoss, use pos_weight"
        )
    weighted: Any = loss  # a dataclass of seglib.losses
    return replace(weighted, class_weights=tuple(map(float, weights)))


def default_precision() -> str:
    """The mixed precision to train in: on a GPU "bf16" if it computes in it, else "fp16"; on a CPU "no"."""
    if not torch.cuda.is_available():
        return "no"
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


def check_precision(precision: str) -> None:
    """Raise ValueError if this machine cannot resume a run that began in this precision; every GPU computes fp16."""
    available = default_precision()
    if precision in ("no", available) or (precision, available) == ("fp16", "bf16"):
        return
    raise ValueError(
        f"this run began in {precision}, but this machine offers {available}. Resume it on a GPU (for bf16 an L4, A100 "
        "or newer; on Colab: Runtime > Change runtime type), or choose another run_dir."
    )


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out. cuDNN, Apple's GPUs and the CPU's allocator raise plain RuntimeErrors or OSErrors."""
    phrases = ("out of memory", "allocate memory", "alloc_failed")
    has_phrase = any(phrase in str(error).lower() for phrase in phrases)
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError | OSError) and has_phrase)


@contextmanager
def explain_out_of_memory(config: TrainConfig, image_size: tuple[int, int]) -> Iterator[None]:
    """Turn an error that says that memory ran out into a torch.OutOfMemoryError that names settings that need less."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        traceback.clear_frames(error.__traceback__)  # a notebook keeps the error, and with it the tensors of the step
        height, width = image_size
        advice = f"Not enough memory for batches of {config.batch_size} images of {height}x{width}. "
        if config.batch_size > 3:
            smaller = config.batch_size // 2
            parts = round(config.accumulate * config.batch_size / smaller)
            advice += (
                f"Try batch_size={smaller}, accumulate={parts}: each step then has {smaller * parts} images, of which "
                f"batch norm and Dice see {smaller} at a time. "
            )
        advice += f"Or use smaller images: {height // 2}x{width // 2} needs about a quarter of the memory. "
        advice += "(Validation images are used at the size that their data set gives them.)"
        first_line = (str(error) or type(error).__name__).splitlines()[0]
        raise torch.OutOfMemoryError(f"{first_line}\n{advice}") from None
