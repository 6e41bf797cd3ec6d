"""Profiles, data, where a lesson writes, what it says."""

import json
import os
import subprocess
import sys

import pytest
import torch

from seglib import lesson
from seglib.datasets import prepare
from seglib.datasets.download.catalog import CARDS


@pytest.fixture(autouse=True)
def _a_home_of_its_own(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGLIB_RUNS", str(tmp_path / "runs"))


@pytest.mark.parametrize(
    ("choice", "variable", "gpu", "profile"),
    [
        ("auto", None, False, "tiny"),
        ("auto", None, True, "demo"),
        ("auto", "full", False, "full"),
        ("auto", "tiny", True, "tiny"),
        ("demo", "full", False, "demo"),
        ("auto", "auto", False, "tiny"),
        ("auto", "", False, "tiny"),
    ],
)
def test_the_form_decides_then_the_variable_then_the_machine(monkeypatch, choice, variable, gpu, profile):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if variable is not None:
        monkeypatch.setenv("SEGLIB_PROFILE", variable)
    assert lesson.choose_profile(choice)[0] == profile


def test_a_profile_that_does_not_exist_is_refused(monkeypatch):
    monkeypatch.setenv("SEGLIB_PROFILE", "tinny")
    with pytest.raises(ValueError, match="no profile 'tinny'; there are tiny, demo, full"):
        lesson.choose_profile()


def test_settings_are_those_of_the_profile_and_are_printed(capsys):
    chosen = lesson.settings("99_test", "demo", epochs=(1, 2, 3), lr=(0.1, 0.2, 0.3))
    assert (chosen.epochs, chosen.lr, chosen.profile, chosen.seed) == (2, 0.2, "demo", 0)
    ids = {lesson.settings("99_test", "demo", epochs=(1, epochs, 3)).id for epochs in (2, 2, 4)}
    assert len(ids) == 2
    said = capsys.readouterr().out
    assert "Profile demo, because chosen above" in said and "epochs" in said
    with pytest.raises(ValueError, match="epochs has not"):
        lesson.settings("99_test", "demo", epochs=(1, 2))


def test_settings_seed_everything():
    draws = []
    for _ in range(2):
        lesson.settings("99_test", "tiny")
        draws.append(torch.rand(3).tolist())
    assert draws[0] == draws[1]


def test_tiny_gets_the_sample(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(lesson.SAMPLES, "tiny", {"images": 4, "size": 64})
    lesson.settings("99_test", "tiny")
    root = lesson.data("coco")
    assert (root / "annotations" / "instances_train.json").is_file() and tmp_path / "home" in root.parents
    assert "bundled sample" in capsys.readouterr().out


def test_full_says_what_is_missing_in_a_folder_that_is_there(tmp_path):
    (tmp_path / "home" / "coco" / "annotations").mkdir(parents=True)
    lesson.settings("99_test", "full")
    with pytest.raises(FileNotFoundError) as error:
        lesson.data("coco")
    for part in (str(tmp_path / "home" / "coco"), "instances_val.json", "seglib.datasets get coco", "SEGLIB_PROFILE"):
        assert part in str(error.value)


@pytest.mark.parametrize(("profile", "asked"), [("tiny", []), ("demo", []), ("full", [("coco_four", {"photos": 7})])])
def test_only_full_downloads_and_only_what_the_lesson_asks_for(tmp_path, monkeypatch, profile, asked, capsys):
    calls = []
    monkeypatch.setattr(lesson, "prepare", lambda name, **choice: calls.append((name, choice)) or tmp_path / "real")
    monkeypatch.setitem(lesson.SAMPLES, profile, {"images": 4, "size": 64})
    lesson.settings("99_test", profile)
    folder = lesson.data("coco_four", photos=7)
    assert calls == asked and (folder == tmp_path / "real") == bool(asked)
    assert ("COCO 2017, four categories" if asked else "COCO 2017 instances") in capsys.readouterr().out


def lay_out(folder):
    for pattern in CARDS["coco"].layout:
        path = folder / pattern.replace("*", "1")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")


def test_full_finds_the_real_set_where_it_was_put(tmp_path):
    lay_out(tmp_path / "home" / "coco")
    lesson.settings("99_test", "full")
    assert lesson.data("coco") == tmp_path / "home" / "coco" == prepare("coco")
    assert lesson.data("coco_four", photos=3) == tmp_path / "home" / "coco"


@pytest.mark.parametrize("profile", ["tiny", "full"])
def test_seglib_data_is_used_in_place_of_sample_and_download_and_has_runs_of_its_own(tmp_path, monkeypatch, profile):
    monkeypatch.setenv("SEGLIB_DATA", str(tmp_path / "mine"))
    lesson.settings("99_test", profile)
    with pytest.raises(FileNotFoundError, match="SEGLIB_DATA names .*mine, which is no folder"):
        lesson.data("coco")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileNotFoundError, match="is not in .*mine"):
        lesson.data("coco")
    lay_out(tmp_path / "mine" / "coco")
    assert lesson.data("coco") == lesson.data("coco_four") == tmp_path / "mine" / "coco"
    assert lesson.run_dir("a") == tmp_path / "runs" / "99_test" / f"{profile}-mine" / "a"


def test_seglib_data_may_be_named_from_the_courses_own_folder(tmp_path, monkeypatch):
    (tmp_path / "course" / "notebooks").mkdir(parents=True)
    lay_out(tmp_path / "mine" / "coco")
    monkeypatch.setattr(lesson, "CHECKOUT", tmp_path / "course")
    monkeypatch.chdir(tmp_path / "course" / "notebooks")
    lesson.settings("99_test", "tiny")
    for named in ("../mine", "../../mine", str(tmp_path / "mine")):
        monkeypatch.setenv("SEGLIB_DATA", named)
        assert lesson.data("coco") == tmp_path / "mine" / "coco"


def test_an_unknown_data_set_lists_those_there_are():
    with pytest.raises(ValueError, match="no data set 'cocoo'; there are coco"):
        lesson.data("cocoo")


def test_result_is_said_and_kept(tmp_path, capsys):
    lesson.settings("99_test", "tiny")
    lesson.result("IoU", 0.5)
    kept = json.loads((tmp_path / "runs" / "99_test" / "tiny" / "result.json").read_text())
    assert kept["metric"] == "IoU" and kept["value"] == 0.5 and kept["profile"] == "tiny" and kept["seconds"] >= 0
    assert "IoU: 0.500" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("answer", "right", "said"),
    [
        (None, 1, "Not answered yet"),
        (0.5, 0.50001, "Right!"),
        (0.5, 0.6, "Not yet: got 0.5. A hint"),
        ([1, 2], [1, 2], "Right!"),
        ([1], [1, 2], "Not yet"),
        ("cat", "cat", "Right!"),
        ({1}, {2}, "Not yet"),
        ("none", 3, "Not yet"),
        (["cat", "dog"], ["cat", "dog"], "Right!"),
        (torch.tensor([1.0], requires_grad=True), [1.0], "Right!"),
    ],
)
def test_check_says_right_or_wrong(capsys, answer, right, said):
    lesson.check(answer, right, "A hint")
    assert said in capsys.readouterr().out


def test_a_solution_must_be_right():
    lesson.check(1, 1, solution=True)
    for wrong in (2, None):
        with pytest.raises(AssertionError, match="the solution gives"):
            lesson.check(wrong, 1, solution=True)


def test_importing_seglib_is_cheap():
    """A fresh interpreter: neither torch nor anything else heavy may come with it."""

    code = (
        "import sys, seglib; print([m for m in ('torch', 'numpy', 'matplotlib', 'albumentations') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=os.environ)
    assert found.stdout.strip() == "[]"


def test_a_mirror_lies_where_the_run_does_and_its_drive_is_never_made(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLIB_RUNS", str(tmp_path / "runs"))
    lesson.settings("99_test", "tiny")
    assert lesson.mirror("", "run") is None
    with pytest.raises(FileNotFoundError, match=r"mount its drive, or make the folder.*drive\.mount"):
        lesson.mirror(str(tmp_path / "drive"), "run")
    assert not (tmp_path / "drive").exists()
    (tmp_path / "drive").mkdir()
    place = lesson.mirror(str(tmp_path / "drive"), "run")
    assert place.relative_to(tmp_path / "drive") == lesson.run_dir("run").relative_to(tmp_path / "runs")
    assert place.parent.is_dir() and not place.exists()


def test_a_sample_to_look_at_is_the_readers_own_or_drawn_and_never_downloaded(tmp_path, monkeypatch, sample):
    monkeypatch.setitem(lesson.SAMPLES, "tiny", {"images": 4, "size": 64})
    monkeypatch.setenv("SEGLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGLIB_PROFILE", "full")
    assert lesson.sample("coco").name.startswith("sample_coco_4x64")
    own = tmp_path / "own"
    own.mkdir()
    monkeypatch.setenv("SEGLIB_DATA", str(own))
    assert lesson.sample("coco").name.startswith("sample_coco_4x64")  # there is no coco/ in it
    (own / "coco").symlink_to(sample)
    assert lesson.sample("coco") == sample.resolve() or lesson.sample("coco").samefile(sample)
