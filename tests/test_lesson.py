"""Lessons: profiles, data, folders, and what is printed."""

import json
import subprocess
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from seglib import datasets, lesson
from seglib.datasets.download.catalog import CARDS
from seglib.losses import BCELoss
from seglib.models import UNet


@pytest.fixture(autouse=True)
def _own_folders(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("SEGLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setattr(lesson, "_SAMPLES", {"tiny": (4, 64), "demo": (4, 64)})
    monkeypatch.setattr(
        lesson, "_session", SimpleNamespace(lesson="", profile="", started=0.0, settings={}, gpu_time="")
    )


def lay_out(folder):
    """Create the files of the card of COCO."""
    for pattern in CARDS["coco"].layout:
        path = folder / pattern.replace("*", "1")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("{}")
    return folder


@pytest.mark.parametrize(
    ("choice", "variable", "gpu", "profile"),
    [
        ("auto", None, False, "tiny"),
        ("auto", "", True, "demo"),
        ("auto", "full", False, "full"),
        ("demo", "full", False, "demo"),
    ],
)
def test_the_choice_decides_then_the_variable_then_the_machine(monkeypatch, choice, variable, gpu, profile):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    if variable is not None:
        monkeypatch.setenv("SEGLIB_PROFILE", variable)
    assert lesson.choose_profile(choice)[0] == profile


def test_an_unknown_profile_is_refused(monkeypatch):
    monkeypatch.setenv("SEGLIB_PROFILE", "tinny")
    with pytest.raises(ValueError, match="the profile must be one of tiny, demo, full, not 'tinny'"):
        lesson.choose_profile()


def test_settings_are_the_values_of_the_profile_and_are_printed(capsys):
    chosen = lesson.settings("99_test", "demo", epochs=(1, 2, 3), lr=(0.1, 0.2, 0.3))
    assert (chosen.epochs, chosen.lr, chosen.profile, chosen.seed) == (2, 0.2, "demo", 0)
    printed = capsys.readouterr().out
    assert "Profile demo" in printed
    assert "epochs           2" in printed
    ids = [lesson.settings("99_test", "demo", epochs=(1, epochs, 3)).id for epochs in (2, 2, 4)]
    assert ids[0] == ids[1] != ids[2]


def test_settings_need_no_notebook():
    import ipykernel  # noqa: F401 - loads IPython, but starts no shell

    assert lesson.settings("99_test", "tiny").profile == "tiny"


def test_settings_seed_the_random_generators():
    lesson.settings("99_test", "tiny")
    numbers = torch.rand(3)
    lesson.settings("99_test", "tiny")
    assert torch.equal(torch.rand(3), numbers)


@pytest.mark.parametrize(
    ("command", "name"),
    [(["echo", "Tesla T4, 15360 MiB"], "Tesla T4, 15360 MiB"), (["false"], "a GPU"), (["no-nvidia-smi"], "a GPU")],
    ids=["named", "no answer", "no program"],
)
def test_a_gpu_is_reported_without_initializing_cuda(monkeypatch, capsys, command, name):
    run = subprocess.run
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(subprocess, "run", lambda _, **options: run(command, **options))
    assert lesson.settings("99_test").device == "cuda"
    assert f"Device: {name}." in capsys.readouterr().out
    assert not torch.cuda.is_initialized()


@pytest.mark.parametrize(("profile", "calls"), [("tiny", []), ("full", [("coco_four", {"photos": 7})])])
def test_only_full_downloads_the_selection_of_the_lesson(tmp_path, monkeypatch, capsys, profile, calls):
    made = []
    monkeypatch.setattr(datasets, "prepare", lambda name, **choice: made.append((name, choice)) or tmp_path / "real")
    lesson.settings("99_test", profile)
    folder = lesson.data("coco_four", photos=7)
    assert made == calls
    assert folder == tmp_path / "real" if calls else (folder / "annotations" / "instances_train.json").is_file()
    assert ("COCO 2017, four categories" if calls else "4 rendered scenes") in capsys.readouterr().out


def test_seglib_data_replaces_the_download(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLIB_DATA", str(tmp_path / "mine"))
    lesson.settings("99_test", "full")
    with pytest.raises(FileNotFoundError, match="SEGLIB_DATA is .*mine, which is not a folder"):
        lesson.data("coco")
    (tmp_path / "mine").mkdir()
    with pytest.raises(FileNotFoundError, match="COCO.* not complete in .*mine"):
        lesson.data("coco")
    folder = lay_out(tmp_path / "mine" / "coco")
    assert lesson.data("coco") == lesson.data("coco_four") == folder
    assert lesson.run_dir("a") == tmp_path / "runs" / "99_test" / "full-mine" / "a"


def test_seglib_data_may_be_relative_to_the_course(tmp_path, monkeypatch):
    (tmp_path / "course" / "notebooks").mkdir(parents=True)
    folder = lay_out(tmp_path / "mine" / "coco")
    monkeypatch.setattr(lesson, "_COURSE", tmp_path / "course")
    monkeypatch.chdir(tmp_path / "course" / "notebooks")
    for given in ("../mine", "../../mine"):  # as seen from the course, and from the notebook
        monkeypatch.setenv("SEGLIB_DATA", given)
        assert lesson.data("coco") == folder


def test_a_sample_is_never_downloaded(tmp_path, monkeypatch):
    monkeypatch.setenv("SEGLIB_PROFILE", "full")
    assert "sample_coco" in lesson.sample("coco").name
    (tmp_path / "mine").mkdir()
    monkeypatch.setenv("SEGLIB_DATA", str(tmp_path / "mine"))
    assert "sample_coco" in lesson.sample("coco").name
    folder = lay_out(tmp_path / "mine" / "coco")
    assert lesson.sample("coco") == folder


def test_the_nuclei_are_drawn_and_read_where_seglib_data_has_them(tmp_path, monkeypatch):
    drawn = []
    for profile in ("tiny", "demo"):
        lesson.settings("99_test", profile)
        drawn.append(lesson.data("dsb2018"))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "dsb2018").symlink_to(drawn[0])
    monkeypatch.setenv("SEGLIB_DATA", str(tmp_path / "mine"))
    assert lesson.data("dsb2018") == tmp_path / "mine" / "dsb2018" and drawn[0] == drawn[1]  # as both sizes are 4x64
    assert len(list((drawn[0] / "labels").iterdir())) == 4


def test_a_mirror_is_named_as_its_run_and_nothing_is_created(tmp_path):
    with pytest.raises(RuntimeError, match="run the settings cell"):
        lesson.run_dir()
    lesson.settings("99_test", "tiny")
    assert lesson.run_dir("grid", "run") == tmp_path / "runs" / "99_test" / "tiny" / "grid" / "run"
    assert lesson.mirror("", "run") is None
    assert lesson.mirror(str(tmp_path / "drive"), "grid", "run") == tmp_path / "drive" / "99_test-tiny-grid-run"
    assert not (tmp_path / "drive").exists()


def test_a_record_is_printed_and_written(tmp_path, capsys):
    lesson.settings("99_test", "tiny", lr=(0.1, 0.2, 0.3))
    (tmp_path / "data").mkdir()
    network = {"metric": "IoU", "value": 0.5, "baseline": 0.2, "spread": 0.01}
    lesson.record("IoU", 0.5, baseline=0.2, spread=0.01, networks={"U-Net": network}, data=tmp_path / "data")
    written = json.loads((tmp_path / "runs" / "99_test" / "tiny" / "result.json").read_text(encoding="utf-8"))
    assert (written["lesson"], written["profile"], written["metric"]) == ("99_test", "tiny", "IoU")
    assert (written["value"], written["baseline"], written["spread"]) == (0.5, 0.2, 0.01)
    assert written["networks"] == {"U-Net": network}
    assert written["settings"] == {"lr": 0.1}
    assert written["machine"] == lesson.machine()
    assert torch.__version__.startswith(written["versions"]["torch"])
    assert "IoU: 0.500 (tiny profile" in capsys.readouterr().out
    lesson.record("nothing is trained", None)
    assert "nothing is trained (tiny profile" in capsys.readouterr().out


def test_a_fingerprint_changes_with_a_file_of_the_data_set(tmp_path):
    digests = set()
    for text in ("a", "a", "ab"):
        (tmp_path / "labels.txt").write_text(text)
        digests.add(lesson.fingerprint(tmp_path))
    assert len(digests) == 2


def test_full_stops_without_a_gpu_if_the_lesson_trains(monkeypatch, capsys):
    with pytest.raises(RuntimeError, match="2 hours on a T4 GPU .*ANYWAY = True"):
        lesson.settings("99_test", "full", gpu_time="2 hours")
    for options in ({"anyway": True, "gpu_time": "2 hours"}, {}):
        assert lesson.settings("99_test", "full", **options).profile == "full"
    assert lesson.settings("99_test", "demo", gpu_time="2 hours").profile == "demo"


def test_a_plan_says_how_long_training_will_take(monkeypatch, capsys):
    lesson.settings("99_test", "full", gpu_time="2 hours", anyway=True)
    model = UNet(base_channels=2)
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    data = [(torch.zeros(3, 32, 32, dtype=torch.uint8), torch.zeros(32, 32, dtype=torch.uint8))] * 3
    seconds = iter([0, 8, *(time for step in range(4) for time in (10 * step, 10 * step + 4))])
    monkeypatch.setattr(lesson.time, "perf_counter", lambda: next(seconds))
    lesson.plan(model, BCELoss(), data, data, batch_size=4, epochs=150)
    printed = capsys.readouterr().out
    # 8 s to read and 4 s to train on 4 images: 3 s an image; an epoch counts as 3 and a third of 3 images
    assert "150 epochs of 3 training and 3 validation images" in printed
    assert "about 30 minutes in all" in printed
    assert "A T4 takes 2 hours (counted, not measured)" in printed
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("which", "count", "indices"),
    [("highest", 2, [3, 0]), ("lowest", 1, [1]), ("median", 1, [0]), ("median", 2, [3, 0]), ("lowest", 9, [3, 0, 1])],
)
def test_images_are_picked_by_their_scores(which, count, indices):
    assert lesson.pick([0.5, 0.1, float("nan"), 0.9], which, count) == indices


@pytest.mark.parametrize(
    ("answer", "right", "printed"),
    [
        (0.5, 0.50001, "Right!"),
        (0.5, 0.6, "Not yet. A hint"),
        ([1], [1, 2], "Not yet"),
        ("none", 3, "Not yet"),
        (["cat", "dog"], ["cat", "dog"], "Right!"),
        (torch.tensor([1.0], requires_grad=True), np.array([1.0]), "Right!"),
        (2001, 2000, "Not yet"),
        ({"a": torch.tensor([1, 2])}, {"a": [1, 3]}, "Not yet"),
        ((np.array(["a"]), 1), (np.array(["a"]), 1), "Right!"),
    ],
)
def test_a_check_compares_results_of_every_kind(capsys, answer, right, printed):
    lesson.check(lambda: answer, {"the only case": ((), right)}, "A hint")
    assert printed in capsys.readouterr().out


CASES = {"two": ((2,), 4), "three": ((3,), 9)}


@pytest.mark.parametrize(
    ("function", "printed"),
    [
        (lambda x: None, "Not answered yet"),
        (lambda x: x * x, "Right!"),
        (lambda x: x + x, "Not yet. A hint"),
        (lambda x: x[0], "got      TypeError"),
    ],
)
def test_a_function_is_checked_case_by_case(capsys, function, printed):
    lesson.check(function, CASES, "A hint")
    assert printed in capsys.readouterr().out


def test_expected_and_got_stand_side_by_side(capsys):
    lesson.check(lambda x: torch.tensor([x + x]), {"two": ((2,), [4]), "three": ((3,), [9])})
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[:3] == [["right:", "two"], ["expected", "[4]"], ["got", "[4]"]]
    assert lines[3:6] == [["wrong:", "three"], ["expected", "[9]"], ["got", "[6]"]]


def test_a_wrong_function_of_the_course_raises():
    lesson.check(lambda x: x * x, CASES, solution=True)
    with pytest.raises(AssertionError, match="the solution is wrong in the case 'three': it gives 6"):
        lesson.check(lambda x: x + x, CASES, solution=True)
    with pytest.raises(AssertionError):
        lesson.check(lambda x: None, CASES, solution=True)
