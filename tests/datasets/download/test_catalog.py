"""The cards: whole, plausible, true of the real data where it is at hand, and what data/README.md says."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglib.datasets import __main__ as command_line
from seglib.datasets.download.catalog import CAMVID_VIDEOS, CARDS, COCO_CLASSES, VOC_CLASSES, card, check_layout
from seglib.masks import voc_palette
from tests.conftest import REAL, ROOT

EVERY = pytest.mark.parametrize("name", CARDS)


@EVERY
def test_a_card_is_whole(name):
    chosen = card(name)
    assert chosen.name == name and re.fullmatch("[a-z0-9_]+", name)
    for field in ("title", "task", "licence", "citation", "homepage", "splits"):
        assert len(getattr(chosen, field)) > 3, field
    assert len(chosen.classes) == len(chosen.colours) == len(set(chosen.classes)) == len(set(chosen.colours))
    assert all(len(colour) == 3 and all(0 <= value <= 255 for value in colour) for colour in chosen.colours)
    assert chosen.files and chosen.layout and chosen.counts
    assert chosen.disk > chosen.download > 0


@EVERY
def test_what_a_card_knows_of_a_file_says_where_it_stands(name):
    for remote in card(name).files:
        assert remote.urls and all(re.fullmatch(r"https?://[\w.-]+/\S+", url) for url in remote.urls)
        assert remote.urls[0].startswith("https://"), "the first address is one that cannot be tampered with"
        assert re.fullmatch("(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", remote.checksum)
        assert bool(remote.published) == bool(remote.checksum or remote.size)
        assert remote.size is None or remote.size <= card(name).download


def test_the_readme_of_the_data_is_written_from_the_cards():
    written = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert written == command_line.readme(), "run: make data/README.md"
    for chosen in CARDS.values():
        for fact in (
            chosen.citation,
            chosen.licence,
            chosen.splits,
            *(url for file in chosen.files for url in file.urls),
        ):
            assert fact in written


# ------------------------------------------------------------------------------------------------ the real data


def real(folder: str) -> Path:
    if not (REAL / folder).is_dir():
        pytest.skip(f"needs the real data of ../shared/data/{folder}")
    return REAL / folder


@pytest.mark.parametrize("name", [name for name in CARDS if name != "voc2012_sbd"])
def test_the_real_data_lies_as_its_card_says(name):
    folder = real(card(name).folder)
    assert check_layout(name, folder) == folder


def test_the_classes_of_coco_are_those_of_its_annotation_files():
    content = json.loads((real("coco") / "annotations/instances_val.json").read_text())
    categories = sorted(content["categories"], key=lambda category: category["id"])
    assert tuple(category["name"] for category in categories) == COCO_CLASSES[1:]


def test_the_colours_of_voc_are_those_of_its_masks():
    paths = sorted((real("voc2012") / "SegmentationClass").glob("*.png"))
    assert paths
    for path in paths[:5]:
        theirs = np.array(Image.open(path).getpalette()).reshape(-1, 3)
        assert (theirs[: len(VOC_CLASSES)] == np.array(card("voc2012").colours)).all()
        assert (theirs[255] == voc_palette()[255]).all()
    assert (voc_palette()[255] == (224, 224, 192)).all()


def test_camvids_parts_are_of_the_stated_videos_and_each_of_ours_shows_every_class():
    """Seq05VD, our test part, is not at hand."""
    values: dict[str, set] = {}
    for path in [*(real("camvid") / "trainannot").iterdir(), *(real("camvid") / "valannot").iterdir()]:
        values.setdefault(path.stem.split("_")[0], set()).update(np.unique(np.array(Image.open(path))).tolist())
    assert set(values) == {*CAMVID_VIDEOS["train"], *CAMVID_VIDEOS["val"]}
    for part in ("train", "val"):
        assert set.union(*(values[video] for video in CAMVID_VIDEOS[part])) >= set(range(11))


# ------------------------------------------------------------------------------------------------ the command line


def test_list_shows_every_set_and_whether_it_is_there(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("SEGLIB_HOME", str(tmp_path))
    for pattern in card("camvid").layout:
        path = tmp_path / "camvid" / pattern.replace("*", "1")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    assert command_line.main(["list"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line}
    assert set(CARDS) <= set(lines)
    assert " yes " in lines["camvid"] and " no " in lines["coco"] and "2 GB" in lines["voc2012"]
    assert command_line.main(["where", "camvid"]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'camvid'}\n"
    assert command_line.main(["where", "coco"]) == 1
    assert "python -m seglib.datasets get coco" in capsys.readouterr().err


def test_get_hands_over_what_was_asked_for_and_prints_the_folder(monkeypatch, capsys, tmp_path):
    calls = []

    def prepare(name, **choice):
        print("Downloading ...")
        calls.append((name, choice))
        return tmp_path

    monkeypatch.setattr(command_line, "prepare", prepare)
    words = "get coco --categories cat dog --photos 7 --test-photos 2 --seed 3"
    assert command_line.main(words.split()) == 0
    assert calls == [("coco", {"categories": ["cat", "dog"], "photos": 7, "test_photos": 2, "seed": 3})]
    said = capsys.readouterr()
    assert said.out == f"{tmp_path}\n" and said.err == "Downloading ...\n", "so that $(...) catches the folder alone"
    assert command_line.main(["get", "coco", "--photos", "all"]) == 0
    assert calls[1] == ("coco", {"categories": None, "photos": "all", "test_photos": None, "seed": 0})


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (OSError("no network"), 1, "no network"),
        (ValueError("no such"), 1, "no such"),
        (KeyboardInterrupt, 130, "goes on"),
    ],
)
def test_get_fails_with_the_reason_alone(monkeypatch, capsys, error, status, said):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(command_line, "prepare", fail)
    assert command_line.main(["get", "camvid"]) == status
    assert said in capsys.readouterr().err


def test_a_number_that_is_none_is_named(capsys):
    with pytest.raises(SystemExit):
        command_line.main(["get", "coco", "--photos", "many"])
    assert "argument --photos: a whole number or \"all\", not 'many'" in capsys.readouterr().err


def test_it_runs_as_a_user_runs_it(tmp_path):
    command = [sys.executable, "-m", "seglib.datasets", "get", "camvid", "--photos", "3"]
    environment = {**os.environ, "SEGLIB_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 1 and "CamVid is taken as it is" in done.stderr
    command[3:] = ["get", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=ROOT)
    assert done.returncode == 2 and "nonsense" in done.stderr and "Traceback" not in done.stderr
