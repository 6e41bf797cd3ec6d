"""What every lesson needs: profile, data, plan, folders, records, exercises. Only this module knows of lessons."""

import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.utils import is_cuda_available, set_seed
from torch import nn

from seglib import datasets
from seglib.config import Loss, default_precision
from seglib.datasets.base import SegmentationData
from seglib.datasets.download import check_layout
from seglib.datasets.download.catalog import card
from seglib.files import check_choice, write_json
from seglib.loading import Samples, available_cores
from seglib.models.common import autocast
from seglib.runs import package_versions, read_history

__all__ = [
    "check",
    "choose_profile",
    "data",
    "fingerprint",
    "machine",
    "mirror",
    "pick",
    "plan",
    "record",
    "results",
    "run_dir",
    "sample",
    "seed",
    "settings",
    "training_seconds",
]

_PROFILES = ("tiny", "demo", "full")
_SAMPLES = {"tiny": (80, 160), "demo": (800, 224)}  # the bundled sample of a profile: images, and their side in pixels
_COURSE = Path(__file__).parents[1]

# The last call of `settings`.
_session = SimpleNamespace(lesson="", profile="", started=0.0, settings={}, gpu_time="", id="")


def choose_profile(choice: str = "auto") -> tuple[str, str]:
    """The profile, and the reason for it.

    Args:
        choice: "tiny", "demo", "full" or "auto", which stands for the environment variable SEGLIB_PROFILE or, if it is
            not set, for "demo" on a machine with a GPU and "tiny" on any other.

    Raises:
        ValueError: there is no such profile.
    """
    profile = os.environ.get("SEGLIB_PROFILE") or "auto" if choice == "auto" else choice
    if profile == "auto":
        return ("demo", "there is a GPU") if is_cuda_available() else ("tiny", "there is no GPU")
    check_choice("the profile", profile, _PROFILES)
    return profile, "SEGLIB_PROFILE says so" if choice == "auto" else "it was chosen above"


def settings(
    lesson: str, choice: str = "auto", *, gpu_time: str = "", anyway: bool = False, **numbers: Sequence[Any]
) -> SimpleNamespace:
    """Choose the profile, seed the random generators, print the settings and return them.

    CUDA is not initialized, so that accelerate's `notebook_launcher` can be used afterwards.

    Args:
        lesson: the name of the notebook, for example "02_unet_binary".
        choice: see `choose_profile`.
        gpu_time: for a lesson that trains, how long the full profile takes on a T4.
        anyway: allow the full profile of such a lesson on a machine without a GPU.
        numbers: three values for each setting: for tiny, demo and full.

    Returns:
        The values of the profile as attributes, and .profile, .device, .seed and .id, which depends on the values.

    Raises:
        RuntimeError: the full profile needs a GPU, and there is none.
    """
    profile, reason = choose_profile(choice)
    _session.lesson = lesson
    _session.profile = profile
    _session.started = time.perf_counter()
    _session.gpu_time = gpu_time
    chosen = {name: dict(zip(_PROFILES, values, strict=True))[profile] for name, values in numbers.items()}
    _session.settings = chosen
    device = "cuda" if is_cuda_available() else "cpu"
    digest = hashlib.sha256(repr(sorted(chosen.items())).encode()).hexdigest()[:6]
    _session.id = digest
    result = SimpleNamespace(profile=profile, device=device, id=digest, **{"seed": 0, **chosen})
    seed(result.seed)
    _show_photographs_as_jpeg()
    print(f"Profile {profile}: {reason}. Device: {machine()}. PyTorch {torch.__version__}.")
    for name, value in chosen.items():
        print(f"  {name:<16} {value}")
    if profile == "full" and gpu_time and device == "cpu" and not anyway:
        raise RuntimeError(
            f"the full profile takes {gpu_time} on a T4 GPU (counted, not measured) and far longer on this machine, "
            'which has no GPU. Choose PROFILE = "demo"; or get a GPU (on Colab: Runtime > Change runtime type); or set '
            "ANYWAY = True."
        )
    return result


def _show_photographs_as_jpeg() -> None:
    """In a notebook, keep figures with photographs as JPEG: as PNG they are three times as large."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    if shell is None:
        return
    import matplotlib.pyplot as plt
    from IPython.core.pylabtools import print_figure
    from matplotlib.figure import Figure

    def photographs(figure: Figure) -> bool:
        return any(getattr(image.get_array(), "ndim", 0) == 3 for axes in figure.axes for image in axes.images)

    plt.switch_backend(plt.get_backend())  # loads the backend, which would otherwise replace these functions later
    formatters = shell.display_formatter.formatters
    jpeg = {"pil_kwargs": {"quality": 80}}
    formatters["image/png"].for_type(Figure, lambda f: None if photographs(f) else print_figure(f))
    formatters["image/jpeg"].for_type(Figure, lambda f: print_figure(f, "jpeg", **jpeg) if photographs(f) else None)
    formatters["image/jpeg"].enabled = True


def machine() -> str:
    """The GPU as nvidia-smi names it, which does not initialize CUDA as torch would, or the CPU with its cores."""
    if not is_cuda_available():
        cores = available_cores()
        return f"{platform.machine()} CPU, {cores} core{'s' if cores > 1 else ''}"
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError, IndexError):  # the name is only printed
        return "a GPU"


def seed(number: int) -> None:
    """Seed the random generators of Python, numpy and torch."""
    set_seed(number)


def data(name: str, **selection: Any) -> Path:
    """The folder of a data set.

    It lies in the folder that SEGLIB_DATA names, if it is set. Otherwise it is the bundled sample for tiny and demo,
    and the real data set, downloaded if needed, for full.

    Args:
        name: the name of a data set; `python -m seglib.datasets list` shows them.
        selection: the part of the real data set to download, see `seglib.datasets.prepare`.

    Raises:
        FileNotFoundError: the data set in SEGLIB_DATA is not there or not complete.
        DownloadError: the real data set could not be downloaded.
    """
    folder_name = card(name).folder
    if os.environ.get("SEGLIB_DATA"):
        folder = check_layout(name, _own_data() / folder_name)
        print(f"Data: {folder}, as SEGLIB_DATA says.")
        return folder
    profile = _session.profile or choose_profile()[0]
    if profile == "full":
        folder = datasets.prepare(name, **selection)
        print(f"Data: {card(name).title} in {folder}.")
        return folder
    title = card(folder_name).title  # the sample is that of the whole data set, not of a selection
    print(f"Data: the bundled sample, {_SAMPLES[profile][0]} rendered scenes in the format of {title}.")
    return datasets.render(folder_name, *_SAMPLES[profile])


def sample(name: str) -> Path:
    """The folder of a data set to look at, never downloaded: that of SEGLIB_DATA or the bundled sample."""
    if os.environ.get("SEGLIB_DATA") and (_own_data() / card(name).folder).is_dir():
        return data(name)
    return datasets.render(card(name).folder, *_SAMPLES["tiny"])


def _own_data() -> Path:
    """The folder that SEGLIB_DATA names, relative to the current folder or (`make course`) to the course."""
    given = Path(os.environ["SEGLIB_DATA"]).expanduser()
    for folder in (given.resolve(), (_COURSE / given).resolve()):
        if folder.is_dir():
            return folder
    raise FileNotFoundError(f"SEGLIB_DATA is {given}, which is not a folder: set it to the one that holds coco/")


def run_dir(*parts: str) -> Path:
    """The folder runs/<lesson>/<profile>/<parts>. The environment variable SEGLIB_RUNS replaces `runs`.

    With SEGLIB_DATA the name of its folder is added to the profile, as these runs are not those of the sample.
    """
    default = _COURSE / "runs" if (_COURSE / "notebooks").is_dir() else "runs"
    return Path(os.environ.get("SEGLIB_RUNS") or default).expanduser().resolve() / _lesson_path(*parts)


def mirror(folder: str, *parts: str) -> Path | None:
    """The place in `folder`, for example on Google Drive, for copies of the checkpoints of `run_dir(*parts)`.

    Training creates this sub-folder, but not `folder`: its drive may not be mounted yet. None if `folder` is "".
    """
    return Path(folder).expanduser().resolve() / "-".join(_lesson_path(*parts).parts) if folder else None


def _lesson_path(*parts: str) -> Path:
    if not _session.lesson:
        raise RuntimeError("run the settings cell of the lesson first: it calls lesson.settings(...)")
    profile = f"{_session.profile}-{_own_data().name}" if os.environ.get("SEGLIB_DATA") else _session.profile
    return Path(_session.lesson, profile, *parts)


def plan(
    model: nn.Module,
    loss: Loss,
    train_data: SegmentationData,
    val_data: SegmentationData,
    batch_size: int,
    epochs: int,
    augment: Any = None,
) -> None:
    """Print the device, its memory, and about how long training will take, from a few steps of a copy of the model.

    Args:
        model, loss, train_data, val_data, augment: as in `seglib.train.fit`.
        batch_size: images in a step.
        epochs: those of all trainings of the lesson together.
    """
    device = torch.device("cuda" if is_cuda_available() else "cpu")
    precision = None if default_precision() == "no" else default_precision()
    samples = Samples(train_data, augment=augment)
    started = time.perf_counter()
    images, masks, _ = zip(*(samples[1, index % len(samples)] for index in range(batch_size)), strict=True)
    reading = (time.perf_counter() - started) / batch_size
    trial = deepcopy(model).to(device).train()
    batch = torch.stack(images).to(device, memory_format=torch.channels_last)
    target = torch.stack(masks).to(device)
    times = []
    for _ in range(4):  # the first one also allocates memory
        started = time.perf_counter()
        with autocast(device, precision):
            value = loss(trial(batch), target)
        value.backward()
        value.item()  # waits for the GPU
        times.append(time.perf_counter() - started)
    step = min(times[1:])
    if device.type == "cuda":  # worker processes read while the GPU computes
        seconds_per_image = max(step / batch_size, reading / min(available_cores(), 8))
    else:
        seconds_per_image = step / batch_size + reading
    seconds = epochs * (len(train_data) + len(val_data) / 3) * seconds_per_image  # validation has no backward pass
    print(f"Plan: {epochs} epochs of {len(train_data)} training and {len(val_data)} validation images on {machine()}.")
    print(f"A step of {batch_size} images takes {step:.2f} s{_memory(device)}: about {_duration(seconds)} in all.")
    if _session.profile == "full" and _session.gpu_time:
        print(f"A T4 takes {_session.gpu_time} (counted, not measured).")


def _memory(device: torch.device) -> str:
    """The memory that the trial has used on a GPU, or that the machine has."""
    if device.type == "cuda":
        return f" and {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB of the GPU's memory"
    if not hasattr(os, "sysconf"):  # Windows
        return ""
    return f" on a machine with {os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB of memory"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} seconds"
    return f"{seconds / 60:.0f} minutes" if seconds < 6000 else f"{seconds / 3600:.1f} hours"


def record(
    metric: str,
    value: float | None,
    *,
    baseline: float | None = None,
    spread: float | None = None,
    networks: Mapping[str, Mapping[str, Any]] | None = None,
    comparisons: Mapping[str, Mapping[str, Any]] | None = None,
    data: Path | None = None,
    images: Mapping[str, int] | None = None,
) -> None:
    """Print the main result of the lesson, and write all results to result.json.

    Args:
        metric: what `value` is, for example "test IoU of person".
        value: the main result; None for a lesson without a network.
        baseline: the score of the strongest rule that needs no network.
        spread: the largest minus the smallest value over several seeds.
        networks: the networks that solve the task, by name: each a mapping with metric, value, baseline and spread.
        comparisons: what is shown only to be compared, by name: each a mapping with metric and value.
        data: the folder of the data set.
        images: the number of images of each split.
    """
    seconds = time.perf_counter() - _session.started
    seconds = max(seconds, training_seconds(run_dir(), _session.id))  # of a lesson that was interrupted and resumed
    content = {
        "lesson": _session.lesson,
        "profile": _session.profile,
        "metric": metric,
        "value": value,
        "baseline": baseline,
        "spread": spread,
        "networks": networks or {},
        "comparisons": comparisons or {},
        "data": {
            "name": data.name if data else None,
            "images": images or {},
            "fingerprint": fingerprint(data) if data else None,
        },
        "settings": _session.settings,
        "machine": machine(),
        "versions": package_versions(),
        "seconds": seconds,
    }
    write_json(run_dir() / "result.json", content)
    shown = metric if value is None else f"{metric}: {value:.3f}"
    print(f"{shown} ({_session.profile} profile, {machine()}, {seconds:.0f} s)")


def results(name: str) -> dict[str, Any]:
    """The record that `make results NAME=name` has written to assets/results/."""
    path = _COURSE / "assets" / "results" / f"{name}.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist: make it with `make results NAME={name}`")
    return json.loads(path.read_text(encoding="utf-8"))


def training_seconds(folder: Path, name: str = "") -> float:
    """The duration of all epochs of the runs in a folder whose path contains `name`, interrupted or not."""
    histories = [path for path in folder.rglob("history.csv") if name in str(path.relative_to(folder))]
    return sum(row["seconds"] for path in histories for row in read_history(path))


def fingerprint(folder: Path) -> str:
    """A digest of the names and sizes of the files of a data set, to tell one version from another."""
    files = sorted(path for path in Path(folder).rglob("[!.]*") if path.is_file())
    lines = [f"{path.relative_to(folder).as_posix()} {path.stat().st_size}" for path in files]
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def pick(scores: Sequence[float], which: str, count: int = 1) -> list[int]:
    """The indices of the "highest", "median" or "lowest" scores, in descending order; NaN is left out."""
    check_choice("which", which, ("highest", "median", "lowest"))
    ranked = [
        index for index in np.argsort(-np.asarray(scores, dtype=float), kind="stable") if scores[index] == scores[index]
    ]
    first = {"highest": 0, "median": (len(ranked) - count) // 2, "lowest": len(ranked) - count}[which]
    return [int(index) for index in ranked[max(first, 0) :][:count]]


def check(
    function: Callable[..., Any],
    cases: Mapping[str, tuple[tuple[Any, ...], Any]],
    hint: str = "",
    solution: bool = False,
) -> None:
    """Print whether the function that a reader wrote is right, case by case.

    Args:
        function: the answer of the reader. It returns None until it is written.
        cases: by name, the arguments and the right result, which is printed beside what the function returns. Numbers
            and arrays may differ by one part in a thousand.
        hint: printed if a case is wrong.
        solution: whether the function is the solution of the course, which must be right.

    Raises:
        AssertionError: the solution is wrong.
    """
    answers = {name: _call(function, arguments) for name, (arguments, _) in cases.items()}
    if all(answer is None for answer in answers.values()) and not solution:
        print("Not answered yet: replace None in the function above, and run both cells again.")
        return
    wrong = [name for name, (_, right) in cases.items() if not _equal(answers[name], right)]
    if solution and wrong:
        raise AssertionError(f"the solution is wrong in the case {wrong[0]!r}: it gives {answers[wrong[0]]!s:.80}")
    for name, (_, right) in cases.items():
        print(f"{'wrong' if name in wrong else 'right'}: {name}")
        print(f"       expected {_plain(right)}")
        print(f"       got      {_plain(answers[name])}")
    print(f"Not yet. {hint}".strip() if wrong else "Right!")


def _call(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    """What the reader's function returns, or the error that it raises, in words."""
    try:
        return function(*deepcopy(arguments))
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _plain(value: Any) -> str:
    """An answer on one line."""
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu().numpy()
    if isinstance(value, np.ndarray | np.generic):
        value = value.tolist()
    return f"{value:.4g}" if isinstance(value, float) else f"{value!s:.200}"


def _equal(answer: Any, right: Any) -> bool:
    """Whether two answers are equal: numbers and arrays up to one part in a thousand, whole numbers exactly."""
    if isinstance(answer, Mapping) and isinstance(right, Mapping):
        return answer.keys() == right.keys() and all(_equal(answer[key], right[key]) for key in right)
    if isinstance(answer, list | tuple) and isinstance(right, list | tuple):
        return len(answer) == len(right) and all(map(_equal, answer, right))
    first, second = (np.asarray(x.detach().cpu() if isinstance(x, torch.Tensor) else x) for x in (answer, right))
    if first.shape != second.shape:
        return False
    if first.dtype.kind == "f" or second.dtype.kind == "f":
        numbers = first.dtype.kind in "biuf" and second.dtype.kind in "biuf"
        return numbers and np.allclose(first, second, rtol=1e-3, atol=1e-6, equal_nan=True)
    return bool(np.array_equal(first, second))
