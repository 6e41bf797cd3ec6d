"""tools/results.py: experiments are listed, run, resumed and recorded."""

import json
import os
import sys
from pathlib import Path

import pytest

from seglib import lesson
from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "tools"))
import results

EXPERIMENT = '''
from pathlib import Path


def main(folder):
    """Two seeds of nothing.

    It is interrupted once, in its second run.
    """
    for seed in range(2):
        run = folder / f"seed{seed}"
        if run.exists():
            continue
        run.mkdir(parents=True)
        (run / "history.csv").write_text("epoch,seconds\\n1,30.5\\n2,29.5\\n")
        if seed == 0:
            raise KeyboardInterrupt
    data = Path(__file__).parent
    settings = {"epochs": 2}
    return dict(metric="IoU", split="none", settings=settings, data=data, images={"train": 3}, values=[0.5, 0.75])
'''
NEEDY = 'NEEDS = ("camvid",)\n\n\ndef main(folder):\n    """Needs CamVid."""\n'


REAL = '''
from pathlib import Path

NEEDS = ("camvid",)


def main(folder):
    """A network on CamVid."""
    published = {"value": "0.601", "source": "Somebody, 2015", "differs": "other videos"}
    data, images = Path(__file__).parent, {"train": 1234}
    return dict(metric="IoU", split="none", settings={}, data=data, images=images, value=0.5, published=published)
'''


@pytest.fixture(autouse=True)
def course(tmp_path, monkeypatch) -> Path:
    """A course with two experiments, one of which needs real data."""
    (tmp_path / "tools" / "experiments").mkdir(parents=True)
    (tmp_path / "assets" / "results").mkdir(parents=True)
    (tmp_path / "tools" / "experiments" / "seeds.py").write_text(EXPERIMENT)
    (tmp_path / "tools" / "experiments" / "needy.py").write_text(NEEDY)
    monkeypatch.setattr(results, "ROOT", tmp_path)
    monkeypatch.setenv("SEGLIB_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("SEGLIB_PROFILE", "tiny")
    return tmp_path


def call(monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["results.py", *arguments])
    return results.main()


def test_an_interrupted_experiment_resumes_and_is_recorded(course, monkeypatch, capsys):
    monkeypatch.setenv("SEGLIB_DATA", "elsewhere")
    assert call(monkeypatch, "seeds") == 130
    assert "Interrupted" in capsys.readouterr().out
    assert not (course / "assets" / "results" / "seeds.json").exists()
    assert call(monkeypatch, "seeds") == 0
    assert "assets/results/seeds.json: 2.0 minutes" in capsys.readouterr().out
    assert "SEGLIB_DATA" not in os.environ
    monkeypatch.setattr(lesson, "_COURSE", course)
    record = lesson.results("seeds")
    assert (record["name"], record["description"], record["profile"]) == ("seeds", "Two seeds of nothing.", "demo")
    assert (record["metric"], record["split"], record["values"]) == ("IoU", "none", [0.5, 0.75])
    assert (record["settings"], record["minutes"]) == ({"epochs": 2}, 2.0)
    assert record["data"].keys() == {"name", "images", "fingerprint"}
    assert record["machine"]
    assert record["versions"]


def test_experiments_are_listed_with_their_state(course, monkeypatch, capsys):
    (course / "assets" / "results" / "seeds.json").write_text(json.dumps({}))
    assert call(monkeypatch) == 0
    listed = "needy  no record  Needs CamVid.\nseeds  recorded   Two seeds of nothing.\n"
    assert capsys.readouterr().out == listed
    assert call(monkeypatch, "sneeds") == 2
    assert capsys.readouterr().out == "there is no experiment 'sneeds'. The experiments are:\n" + listed


def test_an_experiment_without_its_data_says_where_they_come_from(course, monkeypatch, capsys):
    assert call(monkeypatch, "needy") == 2
    assert "python -m seglib.datasets get camvid" in capsys.readouterr().out
    assert not (course / "runs").exists()


def test_an_experiment_on_real_images_gets_a_row_in_the_readme(course, monkeypatch, capsys):
    (course / "tools" / "experiments" / "real").mkdir()
    (course / "tools" / "experiments" / "real" / "streets.py").write_text(REAL)
    (course / "README.md").write_text(
        "<!-- measured: begin --><!-- measured: end --><!-- real: begin --><!-- real: end -->"
    )
    monkeypatch.setenv("SEGLIB_DATA", "elsewhere")
    assert call(monkeypatch, "real/streets") == 0
    assert (course / "assets" / "results" / "real" / "streets.json").is_file()
    assert "assets/results/real/streets.json: 0.0 minutes" in capsys.readouterr().out
    row = "| A network on CamVid | IoU | 0.500 | 0.601: Somebody, 2015 | other videos | real: 1,234 train |"
    assert row in (course / "README.md").read_text()
