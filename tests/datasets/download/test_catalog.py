"""The cards: complete, plausible, true of the real data, and shown in data/README.md; and the command line."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglib.datasets import __main__ as command_line
from seglib.datasets.download import check_layout
from seglib.datasets.download.camvid import VIDEOS
from seglib.datasets.download.catalog import CARDS, COCO_CLASSES, card
from seglib.datasets.voc import VOC_CLASSES
from seglib.masks import voc_palette
from tests.conftest import REAL, ROOT
from tools import cards

every = pytest.mark.parametrize("name", CARDS)


@every
def test_a_card_is_complete(name):
    chosen = card(name)
    assert chosen.name == name
    for key in ("title", "task", "license", "citation", "homepage", "splits"):
        assert len(getattr(chosen, key)) > 3, key
    colors = set(map(tuple, chosen.colors))
    assert len(chosen.classes) == len(chosen.colors) == len(set(chosen.classes)) == len(colors)
    assert chosen.files and chosen.layout and chosen.counts
    assert chosen.unpacked_size > 0 and chosen.download_size > 0


@every
def test_size_and_checksum_of_a_file_have_a_source(name):
    for remote in card(name).files:
        assert not remote.urls or remote.urls[0].startswith("https://"), "the first address cannot be tampered with"
        assert re.fullmatch("(md5:[0-9a-f]{32}|sha256:[0-9a-f]{64})?", remote.checksum)
        assert bool(remote.published) == bool(remote.checksum or remote.size)


def test_the_readme_shows_the_cards():
    written = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    assert written == cards.with_cards(written), "run: make data/README.md"
    for chosen in CARDS.values():
        urls = [url for remote in chosen.files for url in remote.urls]
        for fact in (chosen.citation, chosen.license, chosen.splits, *urls):
            assert fact in written


# ------------------------------------------------------------------------------------------------ the real data


def real(folder: str) -> Path:
    if not (REAL / folder).is_dir():
        pytest.skip(f"needs the real data of ../shared/data/{folder}")
    return REAL / folder


@every
def test_the_real_data_is_laid_out_as_its_card_says(name):
    folder = real(card(name).folder)
    assert check_layout(name, folder) == folder


def test_the_classes_of_coco_are_those_of_its_annotation_files():
    content = json.loads((real("coco") / "annotations/instances_val.json").read_text(encoding="utf-8"))
    categories = sorted(content["categories"], key=lambda category: category["id"])
    assert tuple(category["name"] for category in categories) == COCO_CLASSES[1:]


def test_the_colors_of_voc_are_those_of_its_masks():
    path = sorted((real("voc2012") / "SegmentationClass").glob("*.png"))[0]
    palette = np.array(Image.open(path).getpalette()).reshape(-1, 3)
    assert (palette[: len(VOC_CLASSES)] == np.array(card("voc2012").colors)).all()
    assert (palette[255] == voc_palette()[255]).all()


def test_the_parts_of_camvid_come_from_the_stated_videos():
    """Seq05VD, the test part, is not at hand."""
    folder = real("camvid")
    videos = {path.stem.split("_")[0] for part in ("train", "val") for path in (folder / f"{part}annot").iterdir()}
    assert videos == {*VIDEOS["train"], *VIDEOS["val"]}


# ------------------------------------------------------------------------------------------------ the command line


def test_list_and_where_show_what_is_ready(tmp_path, monkeypatch, capsys):
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


def test_get_passes_its_options_and_prints_only_the_folder(monkeypatch, capsys, tmp_path):
    calls = []

    def prepare(**options):
        print("Downloading ...")
        calls.append(options)
        return tmp_path

    monkeypatch.setattr(command_line, "prepare", prepare)
    words = "get coco --categories cat dog --photos 7 --test-photos all --seed 3"
    assert command_line.main(words.split()) == 0
    assert calls == [{"name": "coco", "categories": ["cat", "dog"], "photos": 7, "test_photos": "all", "seed": 3}]
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path}\n" and printed.err == "Downloading ...\n"


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [(OSError("no network"), 1, "no network"), (KeyboardInterrupt(), 130, "run the command again to continue")],
)
def test_get_fails_with_the_reason_alone(monkeypatch, capsys, error, status, said):
    def fail(**_):
        raise error

    monkeypatch.setattr(command_line, "prepare", fail)
    assert command_line.main(["get", "camvid"]) == status
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(("option", "value"), [("--photos", "many"), ("--seed", "x")])
def test_a_wrong_option_is_named(capsys, option, value):
    with pytest.raises(SystemExit):
        command_line.main(["get", "coco", option, value])
    error = capsys.readouterr().err
    assert f"argument {option}: invalid" in error and repr(value) in error
