"""What every lesson needs: profile, data, seeds, folders, checks of exercises. Only this module knows of lessons."""

import hashlib
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from accelerate.utils import is_cuda_available, set_seed

from seglib import datasets
from seglib.datasets.download import check_layout
from seglib.datasets.download.catalog import card
from seglib.files import check_choice, write_json
from seglib.loading import available_cores

__all__ = ["check", "choose_profile", "data", "mirror", "result", "run_dir", "sample", "seed", "settings"]

_PROFILES = ("tiny", "demo", "full")
_SAMPLES = {"tiny": (80, 160), "demo": (1000, 320)}  # the bundled sample of a profile: images, and their side in pixels
_COURSE = Path(__file__).parents[1]

_session = SimpleNamespace(lesson="", profile="", started=0.0)  # the last call of `settings`


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


def settings(lesson: str, choice: str = "auto", **numbers: Sequence[Any]) -> SimpleNamespace:
    """Choose the profile, seed the random generators, print the settings and return them.

    CUDA is not initialized, so that accelerate's `notebook_launcher` can be used afterwards.

    Args:
        lesson: the name of the notebook, for example "02_unet_binary".
        choice: see `choose_profile`.
        numbers: three values for each setting: for tiny, demo and full.

    Returns:
        The values of the profile as attributes, and .profile, .device, .seed and .id, which depends on the values.
    """
    profile, reason = choose_profile(choice)
    _session.lesson = lesson
    _session.profile = profile
    _session.started = time.perf_counter()
    chosen = {name: dict(zip(_PROFILES, values, strict=True))[profile] for name, values in numbers.items()}
    device = "cuda" if is_cuda_available() else "cpu"
    digest = hashlib.sha256(repr(sorted(chosen.items())).encode()).hexdigest()[:6]
    result = SimpleNamespace(profile=profile, device=device, id=digest, **{"seed": 0, **chosen})
    seed(result.seed)
    print(f"Profile {profile}, because {reason}. Device: {_device_name()}. PyTorch {torch.__version__}.")
    for name, value in chosen.items():
        print(f"  {name:<16} {value}")
    return result


def _device_name() -> str:
    """The GPU as nvidia-smi names it, which does not initialize CUDA as torch would, or the CPU with its cores."""
    if not is_cuda_available():
        return f"{platform.machine()} CPU, {available_cores()} cores"
    query = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    except (OSError, subprocess.SubprocessError):  # the name is only printed
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


def result(metric: str, value: float) -> None:
    """Print the main result of the lesson, and write it to result.json for the table of the course."""
    seconds = time.perf_counter() - _session.started
    device = _device_name()
    content = {"metric": metric, "value": value, "profile": _session.profile, "device": device, "seconds": seconds}
    write_json(run_dir() / "result.json", content)
    print(f"{metric}: {value:.3f} ({_session.profile} profile, {device}, {seconds:.0f} s)")


def check(answer: Any, right: Any, hint: str = "", solution: bool = False) -> None:
    """Print whether the answer to an exercise is right.

    Args:
        answer: the answer of the reader; None if there is none yet.
        right: the right answer. Numbers and arrays may differ by one part in a thousand.
        hint: printed if the answer is wrong.
        solution: whether the answer is the solution of the course, which must be right.

    Raises:
        AssertionError: the solution is wrong.
    """
    if solution and not _equal(answer, right):
        raise AssertionError(f"the solution gives {answer!s:.80}, not {right!s:.80}")
    if answer is None:
        print("Not answered yet: replace None by your answer and run the cell again.")
    elif _equal(answer, right):
        print("Right!")
    else:
        print(f"Not yet: got {answer!s:.80}. {hint}".strip())


def _equal(answer: Any, right: Any) -> bool:
    if isinstance(answer, torch.Tensor):
        answer = answer.detach().cpu()
    try:
        return np.shape(answer) == np.shape(right) and np.allclose(answer, right, rtol=1e-3, atol=1e-6, equal_nan=True)
    except (TypeError, ValueError):  # not numbers: strings, sets, dicts, lists of different lengths
        return type(answer) is type(right) and answer == right
