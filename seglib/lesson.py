"""What a lesson needs around its experiment: profile, data, seeds, a folder. Only this module knows of lessons."""

import hashlib
import os
import platform
import random
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from seglib.datasets.download import prepare
from seglib.datasets.download.catalog import card, check_layout
from seglib.datasets.sample import render
from seglib.runs import write_json

PROFILES = ("tiny", "demo", "full")
SAMPLES = {"tiny": {"images": 80, "size": 160}, "demo": {"images": 1000, "size": 320}}  # a profile's bundled sample

CHECKOUT = Path(__file__).parents[1]

_now = SimpleNamespace(lesson=None, profile=None, started=0.0)


def choose_profile(choice: str = "auto") -> tuple[str, str]:
    """The profile and the reason for it.

    Args:
        choice: a profile, or "auto": SEGLIB_PROFILE where it is set, else "demo" on a GPU and "tiny" without.
    """
    asked = (os.environ.get("SEGLIB_PROFILE") or "auto") if choice == "auto" else choice
    if asked in PROFILES:
        return asked, "SEGLIB_PROFILE says so" if choice == "auto" else "chosen above"
    if asked != "auto":
        raise ValueError(f"no profile {asked!r}; there are {', '.join(PROFILES)}, and auto")
    if torch.cuda.is_available():
        return "demo", "there is a GPU"
    return "tiny", "there is no GPU"


def settings(lesson: str, choice: str = "auto", **numbers: tuple) -> SimpleNamespace:
    """Choose the profile, seed everything, report the machine, and return the profile's numbers.

    Args:
        lesson: the notebook's name, "02_unet_binary".
        choice: see `choose_profile`.
        numbers: three values each, for tiny, demo and full.

    Returns:
        The numbers as attributes, and .profile, .device, .seed, and .id, which changes with the numbers.
    """
    profile, reason = choose_profile(choice)
    wrong = [name for name, values in numbers.items() if len(values) != len(PROFILES)]
    if wrong:
        raise ValueError(f"each setting has a value for tiny, demo and full; {', '.join(wrong)} has not")
    _now.lesson, _now.profile, _now.started = lesson, profile, time.perf_counter()
    chosen = {name: values[PROFILES.index(profile)] for name, values in numbers.items()}
    device = "cuda" if torch.cuda.is_available() else "cpu"
    digest = hashlib.sha256(repr(sorted(chosen.items())).encode()).hexdigest()[:6]
    result = SimpleNamespace(profile=profile, device=device, id=digest, **{"seed": 0, **chosen})
    seed(result.seed)
    print(f"Profile {profile}, because {reason}. Device: {device_name()}. PyTorch {torch.__version__}.")
    for name, value in chosen.items():
        print(f"  {name:<16} {value}")
    return result


def device_name() -> str:
    """The GPU by name and memory, or the CPU by cores."""
    if torch.cuda.is_available():
        properties = torch.cuda.get_device_properties(0)
        return f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB"
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def seed(number: int) -> None:
    """Seed Python's, numpy's and torch's random generators."""
    random.seed(number)
    np.random.seed(number)
    torch.manual_seed(number)


def data(name: str, **choice) -> Path:
    """The folder of a data set: in SEGLIB_DATA where that is set, else the sample (tiny, demo) or the real set (full).

    Args:
        choice: what of the real set to download, see `seglib.datasets.prepare`; means nothing to the other two.

    Raises:
        DownloadError, FileNotFoundError: the real set is not there and could not be had.
    """
    folder_name = card(name).folder
    if os.environ.get("SEGLIB_DATA"):
        folder = check_layout(name, _own_data() / folder_name)
        print(f"Data: {folder}, as SEGLIB_DATA says.")
        return folder
    profile = _now.profile or choose_profile()[0]
    if profile == "full":
        folder = prepare(name, **choice)
        print(f"Data: {card(name).title} in {folder}.")
        return folder
    folder = render(folder_name, **SAMPLES[profile])
    scenes, kind = SAMPLES[profile]["images"], card(folder_name).title  # it holds more than a selection's categories
    print(f"Data: the bundled sample, {scenes} rendered scenes in the format of {kind}.")
    return folder


def sample(name: str) -> Path:
    """A data set to look at, never downloaded: the reader's own where SEGLIB_DATA has it, else the bundled sample."""
    if os.environ.get("SEGLIB_DATA") and (_own_data() / card(name).folder).is_dir():
        return data(name)
    return render(card(name).folder, **SAMPLES["tiny"])


def _own_data() -> Path:
    """The folder that SEGLIB_DATA names: from here or, where that is not there, from the course's own folder.

    A notebook runs in notebooks/, but who types `SEGLIB_DATA=../data make course` stands one folder further up.
    """
    named = Path(os.environ["SEGLIB_DATA"]).expanduser()
    from_course = CHECKOUT / named
    folder = (from_course if not named.exists() and from_course.exists() else named).resolve()
    if not folder.is_dir():
        raise FileNotFoundError(
            f"SEGLIB_DATA names {folder}, which is no folder: name the one that holds coco/ and others"
        )
    return folder


def run_dir(*parts: str) -> Path:
    """A folder of this lesson's own to write to: runs/<lesson>/<profile>/<parts>. SEGLIB_RUNS names another `runs`.

    With SEGLIB_DATA set, the profile's folder has that folder's name added: its runs are not those of the sample.
    """
    root = os.environ.get("SEGLIB_RUNS") or (CHECKOUT / "runs" if (CHECKOUT / "notebooks").is_dir() else "runs")
    return Path(root).expanduser().resolve() / _place(*parts)


def mirror(folder: str, *parts: str) -> Path | None:
    """Where in `folder`, on Google Drive say, the checkpoints of `run_dir(*parts)` are copied to; None if it is "".

    Raises:
        FileNotFoundError: there is no such folder. It is not made: its drive may only not be mounted yet.
    """
    if not folder:
        return None
    top = Path(folder).expanduser()
    if not top.is_dir():
        raise FileNotFoundError(
            f"no folder {top} for copies of the checkpoints: mount its drive, or make the folder. On Colab: "
            "from google.colab import drive; drive.mount('/content/drive')"
        )
    place = top.resolve() / _place(*parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    return place


def _place(*parts: str) -> Path:
    if _now.lesson is None:
        raise RuntimeError("run the lesson's settings cell first: it calls lesson.settings(...)")
    profile = f"{_now.profile}-{_own_data().name}" if os.environ.get("SEGLIB_DATA") else _now.profile
    return Path(_now.lesson, profile, *parts)


def result(metric: str, value: float) -> None:
    """Say the lesson's headline figure, and keep it in result.json for the course's table."""
    seconds = time.perf_counter() - _now.started
    content = {"metric": metric, "value": value, "profile": _now.profile, "device": device_name(), "seconds": seconds}
    write_json(run_dir() / "result.json", content)
    print(f"{metric}: {value:.3f} ({_now.profile} profile, {device_name()}, {seconds:.0f} s)")


def check(answer: Any, right: Any, hint: str = "", solution: bool = False) -> None:
    """Say whether the answer to an exercise is right.

    Args:
        answer: the reader's; None where there is none yet.
        right: what it should be. Numbers and arrays may differ by one part in a thousand.
        hint: said where the answer is wrong.
        solution: the answer is the course's own, which must be right.

    Raises:
        AssertionError: a solution that is not.
    """
    if answer is None and not solution:
        print("Not answered yet: put your answer in place of None and run the cell again.")
        return
    same = _same(answer, right)
    if solution and not same:
        raise AssertionError(f"the solution gives {_short(answer)}, not {_short(right)}")
    print("Right!" if same else f"Not yet: got {_short(answer)}. {hint}".strip())


def _same(answer: Any, right: Any) -> bool:
    try:
        wanted = np.asarray(right, dtype=float)
    except (TypeError, ValueError):  # words, sets, dicts
        return type(answer) is type(right) and answer == right
    try:
        given = np.asarray(answer.detach().cpu() if isinstance(answer, torch.Tensor) else answer, dtype=float)
    except (TypeError, ValueError):  # words where numbers were asked for
        return False
    return given.shape == wanted.shape and bool(np.allclose(given, wanted, rtol=1e-3, atol=1e-6, equal_nan=True))


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 80 else text[:77] + "..."
