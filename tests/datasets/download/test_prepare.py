"""`prepare`, from publishers' archives to the course's layouts: miniatures, on a server that misbehaves."""

import errno
import hashlib
import itertools
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tqdm import tqdm

from seglib import masks
from seglib.datasets import (
    COCOSegmentationDataset,
    MaskFolderDataset,
    VOCSegmentationDataset,
    arrange,
    catalog,
    download,
    hold_out,
    prepare,
)
from seglib.datasets.base import get_filenames
from seglib.datasets.download.fetch import DownloadError
from tests.conftest import ROOT
from tests.helpers import miniature
from tests.helpers.server import PERFORMED, Server, cut, drip, flipped, page, status

NAMES = list(catalog.CARDS)


@pytest.fixture(scope="module")
def miniatures(sample):
    return miniature.every(sample)


@pytest.fixture
def served(server, miniatures, monkeypatch, tmp_path) -> Server:
    """A server with all miniatures at their official addresses, and nothing at the mirrors."""
    monkeypatch.setenv("SEGLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(download, "WAIT", 0.001)
    monkeypatch.setattr(download, "LONGEST_WAIT", 0.01)
    monkeypatch.setattr(catalog, "CARDS", dict(catalog.CARDS))
    monkeypatch.setattr(arrange, "COCO_HOSTS", arrange.COCO_HOSTS)
    miniature.install(server.url(""), miniature.facts(miniatures))
    for one in miniatures.values():
        for name, content in {**one.archives, **one.photographs}.items():
            server.files[f"/official/{name}"] = content
    return server


def tree(folder: Path) -> dict[str, str]:
    """Every file below a folder, with the digest of its content."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


# ------------------------------------------------------------------------------------------------ every card


@pytest.mark.parametrize("name", NAMES)
def test_a_card_is_prepared_from_end_to_end_and_found_the_second_time(served, home, name, capsys):
    folder = prepare(name)
    assert catalog.check_layout(name, folder) == folder and folder.parent == home
    for pattern in (*catalog.CARDS[name].layout, *catalog.CARDS[name].also):
        assert next(folder.glob(pattern), None), pattern
    assert "to download" in capsys.readouterr().out
    asked, before = len(served.requests), tree(folder)
    assert prepare(name) == folder and len(served.requests) == asked
    assert tree(folder) == before
    assert arrange.find(name) == [folder]
    beside = {path.name for path in home.iterdir() if not path.name.endswith(".lock")}
    assert beside == {folder.name, "downloads", *(["voc2012"] if name == "voc2012_sbd" else [])}
    kept = {path.name for path in (home / "downloads").rglob("*.*") if not path.name.endswith((".lock", ".jpg"))}
    assert kept == ({"annotations_trainval2017.zip"} if name.startswith("coco") else set())


@pytest.mark.parametrize("name", NAMES)
def test_a_server_on_a_bad_day_changes_nothing(served, home, name, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", (5, 0.1))
    monkeypatch.setattr(download, "TRIES", 8)
    right = tree(prepare(name))
    for seed in range(3):
        shutil.rmtree(home)
        served.performed.clear()
        served.chaos(random.Random(f"{name}{seed}"), share=1.0)
        assert tree(prepare(name)) == right, seed
        assert served.performed, seed


@pytest.mark.parametrize("name", NAMES)
def test_the_mirror_is_asked_where_the_official_address_fails(served, name):
    for remote in catalog.CARDS[name].files:
        served.files[f"/mirror/{remote.name}"] = served.files[f"/official/{remote.name}"]
        served.always(f"/official/{remote.name}", page("Blocked"))
    prepare(name)
    asked = {request.path for request in served.requests}
    assert {f"/mirror/{remote.name}" for remote in catalog.CARDS[name].files} <= asked


@pytest.mark.parametrize("name", NAMES)
def test_an_archive_that_cannot_be_had_is_named_and_may_be_put_there_by_hand(served, home, name):
    remote = catalog.CARDS[name].files[-1]
    content = served.files.pop(f"/official/{remote.name}")
    with pytest.raises(DownloadError) as error:
        prepare(name)
    target = arrange.downloads(catalog.CARDS[name]) / remote.name
    for part in (remote.name, "HTTP 404", "By hand", str(target), served.url(f"/mirror/{remote.name}")):
        assert part in str(error.value)
    assert arrange.find(name) == []
    target.write_bytes(content)
    asked = len(served.requests)
    assert arrange.find(name) == [] and catalog.check_layout(name, prepare(name))
    assert remote.name not in {Path(request.path).name for request in served.requests[asked:]}


@pytest.mark.parametrize(("name", "bad"), [("buildings_yolo", {"train.zip.bad"}), ("camvid", {"camvid.zip.bad"})])
def test_an_archive_with_less_in_it_than_its_publisher_says_is_set_aside(served, home, name, bad, monkeypatch):
    counts = catalog.CARDS[name].counts
    monkeypatch.setitem(counts, "train", counts["train"] + 1)
    with pytest.raises(DownloadError, match=f"in place of {counts['train']}.*kept as .*\\.bad"):
        prepare(name)
    assert not (home / name).exists()
    assert {path.name for path in (home / "downloads" / name).glob("*.bad")} == bad, "and no other"
    counts["train"] -= 1
    catalog.check_layout(name, prepare(name))


@pytest.mark.parametrize(("name", "count"), [("voc2012", "val"), ("voc2012_sbd", "trainaug"), ("dsb2018", "images")])
def test_an_archive_with_the_right_checksum_is_not_blamed(served, home, name, count, monkeypatch):
    counts = catalog.CARDS[name].counts
    monkeypatch.setitem(counts, count, counts[count] + 1)
    with pytest.raises(DownloadError, match=f"in place of {counts[count]}.*the fault is ours"):
        prepare(name)
    assert not (home / name).exists() and not list(home.rglob("*.bad"))
    counts[count] -= 1
    asked = len(served.requests)
    prepare(name)
    assert len(served.requests) == asked, "what was downloaded is used"


def test_an_archive_that_is_none_is_set_aside_and_fetched_anew(served, home):
    right = served.files["/official/camvid.zip"]
    served.files["/official/camvid.zip"] = right[: len(right) // 2]  # no checksum is published, and its server is sure
    with pytest.raises(DownloadError, match=r"(?s)camvid.zip is broken.*kept as camvid.zip.bad"):
        prepare("camvid")
    served.files["/official/camvid.zip"] = right
    prepare("camvid")


def test_what_lies_in_the_way_is_never_touched(served, home):
    (home / "voc2012" / "JPEGImages").mkdir(parents=True)
    (home / "voc2012" / "mine.txt").write_text("mine")
    for name in ("voc2012", "voc2012_sbd"):
        with pytest.raises(FileNotFoundError, match="(?s)not whole: .*SegmentationClass.*move it away"):
            prepare(name)
    assert (home / "voc2012" / "mine.txt").read_text() == "mine" and not served.requests


def test_sbd_wants_all_of_voc_and_says_so_before_it_is_downloaded(served, home):
    voc = prepare("voc2012")
    lists = voc / "ImageSets/Segmentation/train.txt"
    lists.write_text("\n".join(miniature.TRAIN[:3]))
    asked = len(served.requests)
    with pytest.raises(ValueError, match="lists {'train': 3, 'val': 4} images, where SBD needs the whole"):
        prepare("voc2012_sbd")
    assert len(served.requests) == asked


def test_a_disk_that_fills_up_while_an_archive_is_unpacked_is_named(served, home, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(OSError, match="cannot write .*camvid.*No space left.*SEGLIB_HOME"):
        prepare("camvid")


def test_a_web_page_that_was_saved_by_hand_is_called_one(served, home):
    (home / "downloads" / "camvid").mkdir(parents=True)
    (home / "downloads" / "camvid" / "camvid.zip").write_text("<!DOCTYPE html><html>Sign in")
    with pytest.raises(DownloadError, match="camvid.zip is not the file it should be: a web page"):
        prepare("camvid")


def test_a_choice_means_something_to_coco_only():
    for name in ("camvid", "voc2012_sbd"):
        with pytest.raises(ValueError, match="categories= is for coco, photos=, .* for coco and coco_four"):
            prepare(name, photos=3)
    with pytest.raises(ValueError, match="four categories is taken as it is"):
        prepare("coco_four", categories=["dog"])
    with pytest.raises(TypeError, match="fotos"):
        prepare("coco", fotos=3)
    with pytest.raises(ValueError, match="no data set 'cocoo'; there are coco, coco_four"):
        prepare("cocoo")


# -------------------------------------------------------------------------------------- killed, and many at once


def prepare_alone(name: str) -> None:
    """Prepare with a lock for progress bars that is not shared with the parent: it would die locked."""
    tqdm.set_lock(threading.RLock())
    prepare(name)


def killed_after(seconds: float, name: str, served: Server) -> None:
    """Prepare a data set in a process of its own, and kill it so many seconds after its first request."""
    asked = len(served.requests)
    process = multiprocessing.get_context("fork").Process(target=prepare_alone, args=(name,))
    process.start()
    patience = time.monotonic() + 2  # an earlier one may have come so far that nothing is left to ask for
    while process.is_alive() and len(served.requests) == asked and time.monotonic() < patience:
        time.sleep(0.001)
    time.sleep(seconds)
    PERFORMED["killed"] += process.is_alive()
    process.kill()
    process.join()


@pytest.mark.parametrize("name", NAMES)
def test_killed_at_any_moment_the_same_call_goes_on(served, tmp_path, monkeypatch, name):
    for path in served.files:
        served.always(path, drip(3000, 0.002))
    started = time.monotonic()
    right = tree(prepare(name))
    whole, rng, kills = time.monotonic() - started, random.Random(name), PERFORMED["killed"]
    for home in (tmp_path / "second", tmp_path / "third"):
        monkeypatch.setenv("SEGLIB_HOME", str(home))
        for _ in range(6):
            killed_after(rng.uniform(0, 0.7 * whole), name, served)
        assert tree(prepare(name)) == right
        assert not [path for path in home.rglob("*.part*") if path.is_file()]
    assert PERFORMED["killed"] > kills


CHILD = """
import json, sys
sys.path.insert(0, sys.argv[1])
from tests.helpers import miniature
from seglib.datasets import prepare
miniature.install(sys.argv[2], json.loads(sys.argv[3]))
print(prepare(sys.argv[4]))
"""


@pytest.mark.parametrize("name", ["coco_four", "voc2012_sbd"])
def test_two_processes_that_ask_at_once_download_once(served, miniatures, tmp_path, name):
    known = json.dumps(miniature.facts(miniatures))
    command = [sys.executable, "-c", CHILD, str(Path(__file__).parent), served.url(""), known, name]
    settings = {"env": {**os.environ, "SEGLIB_HOME": str(tmp_path / "shared")}, "stdout": subprocess.PIPE, "text": True}
    children = [subprocess.Popen(command, **settings) for _ in range(2)]
    folders = {process.communicate(timeout=120)[0].splitlines()[-1] for process in children}
    assert len(folders) == 1 and all(process.returncode == 0 for process in children)
    paths = [request.path for request in served.requests]
    assert paths and len(paths) == len(set(paths))


# ------------------------------------------------------------------------------------------------ COCO


def test_coco_holds_the_photographs_that_were_asked_for_and_annotations_of_these_alone(served, home, sample):
    folder = prepare("coco", categories=["cat", "book"], photos=5, test_photos=2)
    for part, photos in (("train", 5), ("val", 2)):
        data = COCOSegmentationDataset(folder / "images" / part, folder / "annotations" / f"instances_{part}.json")
        lying = {path.name for path in (folder / "images" / part).iterdir()}
        assert lying == set(data.filenames) and photos <= len(data) <= 2 * photos
        assert len({name for name, _ in showing(data, ("cat", "book"))}) == len(data)
        original = json.loads((sample / f"annotations/instances_{part}.json").read_text())
        wanted = [entry for entry in original["images"] if entry["file_name"] in lying]
        ids = {entry["id"] for entry in wanted}
        assert data.images == wanted
        kept = json.loads((folder / f"annotations/instances_{part}.json").read_text())
        assert kept["annotations"] == [entry for entry in original["annotations"] if entry["image_id"] in ids]
        assert kept["categories"] == original["categories"] and kept["licenses"] == original["licenses"]
    photographs = [request.path for request in served.requests if request.path.endswith(".jpg")]
    assert len(photographs) == sum(len(list((folder / "images" / part).iterdir())) for part in ("train", "val"))


def showing(data: COCOSegmentationDataset, categories: tuple[str, ...]) -> set[tuple[str, str]]:
    """Pairs of file name and category, of objects that are no crowds."""
    content = json.loads(data.annotation_file.read_text())
    names = {entry["id"]: entry["name"] for entry in content["categories"]}
    files = {entry["id"]: entry["file_name"] for entry in content["images"]}
    pairs = ((files[a["image_id"]], names[a["category_id"]]) for a in content["annotations"] if not a["iscrowd"])
    return {pair for pair in pairs if pair[1] in categories}


def content_of(*photographs: str, crowds: int = 0) -> dict:
    """An annotation file from strings such as "pc": a photograph of a person and a cat."""
    letters = "pcbk"
    names = ["person", "cat", "sports ball", "book"]
    return {
        "images": [{"id": n, "file_name": f"{n:012d}.jpg"} for n in range(len(photographs))],
        "categories": [{"id": 10 * n, "name": name} for n, name in enumerate(names)],
        "annotations": [
            {
                "id": 100 * n + i,
                "image_id": n,
                "category_id": 10 * letters.index(letter),
                "iscrowd": int(n < crowds),
            }
            for n, photograph in enumerate(photographs)
            for i, letter in enumerate(photograph)
        ],
    }


def count(content: dict) -> dict[str, int]:
    """How many photographs there are of each category."""
    return {
        entry["name"]: len({a["image_id"] for a in content["annotations"] if a["category_id"] == entry["id"]})
        for entry in content["categories"]
    }


def test_a_choice_is_balanced_as_far_as_the_photographs_allow():
    content = content_of(*["p"] * 50, *["pc"] * 4, *["c"] * 10, *["pb"] * 8, *["k"] * 2)
    chosen = arrange.choose_photos(content, ["person", "cat", "sports ball", "book"], 6, seed=0)
    found = count(chosen)
    assert found["book"] == 2 and found["sports ball"] == 6 and found["cat"] == 6
    assert found["person"] == 6 + sum(i["id"] in range(50, 54) for i in chosen["images"])
    alone = [i["id"] for i in chosen["images"] if i["id"] < 50]
    assert alone == [], "six people came with the balls: nobody else is needed"


def test_a_choice_depends_on_seed_and_names_alone():
    content = content_of(*["p"] * 40)
    first = arrange.choose_photos(content, ["person"], 10, seed=0)
    shuffled = {**content, "images": content["images"][::-1], "annotations": content["annotations"][::-1]}
    again = arrange.choose_photos(shuffled, ["person"], 10, seed=0)
    other = arrange.choose_photos(content, ["person"], 10, seed=1)
    names = [{entry["file_name"] for entry in chosen["images"]} for chosen in (first, again, other)]
    assert names[0] == names[1] != names[2] and len(names[0]) == 10
    order = sorted(names_of(content), key=lambda name: hashlib.sha256(f"0:{name}".encode()).digest())
    assert names[0] == set(order[:10])


def names_of(content: dict) -> list[str]:
    return [entry["file_name"] for entry in content["images"]]


def test_it_is_said_how_many_photographs_there_are_of_what():
    content = content_of("p", "pc", "c", "c", crowds=1)
    assert arrange.describe_choice(content, ["cat", "person"]) == "4 photographs (person 1, cat 3)"
    names = [f"thing {n}" for n in range(10)]
    content["categories"] = [{"id": 10 * n, "name": name} for n, name in enumerate(names)]
    found = arrange.describe_choice(content, [])
    assert found == "4 photographs (10 categories, from 0 of thing 2 to 3 of thing 1)"


def test_fewer_photographs_than_were_asked_for_are_said_to_be_all(served, capsys):
    prepare("coco", categories=["dog"], photos=500)
    said = capsys.readouterr().out
    dogs = len(list(arrange.find("coco")[0].glob("images/train/*")))
    assert f"train: {dogs} photographs (dog {dogs})" in said and dogs < 20
    assert "annotations, then at most 80 photographs" in said


def test_the_example_of_the_readme_runs(served, tmp_path, monkeypatch):
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    code = re.search("```python\n(.*?)```", text, re.DOTALL)[1]
    little = {"epochs=30": "epochs=1", "(256, 256)": "(32, 32)", "classes=3": "classes=3, base_channels=4"}
    for long, short in little.items():
        assert long in code
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(code, names)
    assert (tmp_path / "runs/animals/best_model.pth").is_file() and len(names["test_data"]) > 0


def test_a_crowd_alone_makes_no_photograph_of_its_category():
    content = content_of("p", "p", "p", crowds=2)
    assert names_of(arrange.choose_photos(content, ["person"], 3, seed=0)) == ["000000000002.jpg"]


def test_all_photographs_are_those_that_show_something():
    content = content_of("p", "", "ck")
    assert len(arrange.choose_photos(content, [], "all", seed=0)["images"]) == 2


def test_the_choice_of_real_annotations_is_balanced(real_coco):
    content = json.loads((real_coco / "annotations/instances_train.json").read_text())
    found = count(arrange.choose_photos(content, catalog.FOUR, 10, seed=0))
    assert all(found[name] >= 10 for name in catalog.FOUR)
    assert found["cat"] < 14 and found["sports ball"] <= 12 and found["book"] < 20


def test_two_selections_share_what_was_downloaded(served, home):
    first = prepare("coco", categories=["person"], photos=4)
    asked = len(served.requests)
    second = prepare("coco", categories=["person"], photos=6)
    assert first != second and tree(first) != tree(second)
    new = [request.path for request in served.requests[asked:]]
    old = {
        f"/official/{part}2017/{path.name}" for part in ("train", "val") for path in (first / "images" / part).iterdir()
    }
    assert new and not old & set(new) and "/official/annotations_trainval2017.zip" not in new
    shared = next((first / "images/train").iterdir())
    assert os.path.samefile(shared, second / "images/train" / shared.name)
    assert prepare("coco", categories=["person"], photos=4) == first


def test_photographs_are_copied_where_the_disk_knows_no_second_names(served, monkeypatch):
    def refuse(*_):
        raise OSError("not here")

    right = tree(prepare("coco_four"))
    shutil.rmtree(prepare("coco_four"))
    monkeypatch.setattr(os, "link", refuse)
    assert tree(prepare("coco_four")) == right


def test_the_four_categories_are_a_selection_like_any_other(served, home):
    folder = prepare("coco_four")
    assert folder == prepare("coco", categories=["person", "cat", "sports ball", "book"], photos=1000)
    assert arrange.find("coco_four") == arrange.find("coco") == [folder]
    other = prepare("coco", categories=["cat"], photos=2)
    assert arrange.find("coco_four") == [folder] and set(arrange.find("coco")) == {folder, other}


def test_a_photograph_that_is_broken_or_of_another_size_is_not_taken(served, home):
    path = sorted(path for path in served.files if "/train2017/" in path)[0]
    right = served.files[path]
    for wrong in (right[: len(right) // 2], miniature.encoded(miniature.picture(0, 31, 33), "JPEG")):
        served.files[path] = wrong
        with pytest.raises(DownloadError, match="1 of 75 files") as error:
            prepare("coco", photos="all")
        assert Path(path).name in str(error.value)
    served.files[path] = right
    torn = home / "downloads" / "coco" / path.removeprefix("/official/")
    torn.write_bytes(right[: len(right) // 2])  # by hand, it may be
    with pytest.raises(DownloadError, match=f"{torn.name} is not the file it should be"):
        prepare("coco", photos="all")
    torn.unlink()
    asked = len(served.requests)
    prepare("coco", photos="all")
    assert len(served.requests) == asked + 1, "only the one that was missing"


def test_photographs_unpacked_by_hand_are_found(served, home, miniatures):
    for name, content in miniatures["coco"].photographs.items():
        path = home / "downloads" / "coco" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    prepare("coco", photos="all")
    assert [request.path for request in served.requests] == ["/official/annotations_trainval2017.zip"]


def test_coco_laid_out_by_hand_is_taken_as_it_is(served, home, sample):
    shutil.copytree(sample, home / "coco")
    assert prepare("coco_four") == prepare("coco", categories=["cat"]) == home / "coco" and not served.requests


@pytest.mark.parametrize(
    ("choice", "said"),
    [
        ({"categories": ["unicorn"]}, "COCO has no category unicorn; it has person, bicycle"),
        ({"categories": "cat"}, "categories must be a list of names"),
        ({"categories": []}, "categories must be a list of names"),
        ({"seed": "x"}, "seed must be a whole number"),
        ({"categories": [17, "cat"]}, "COCO has no category 17; it has"),
        ({"photos": 0}, "photos must be a whole number, at least 1, or .all., not 0"),
        ({"photos": "5"}, "photos must be a whole number, at least 1, or .all., not '5'"),
        ({"photos": 2.5}, "photos must be a whole number"),
        ({"test_photos": -1}, "test_photos must be a whole number, at least 1"),
    ],
)
def test_a_choice_that_cannot_be_met_is_refused_before_anything_is_downloaded(served, choice, said):
    with pytest.raises(ValueError, match=said):
        prepare("coco", **choice)
    assert not served.requests


# ------------------------------------------------------------------------------------------------ VOC and SBD


def test_of_voc_only_what_belongs_to_segmentation_is_kept(served):
    folder = prepare("voc2012")
    names = set(miniature.TRAIN + miniature.VAL)
    assert {path.stem for path in (folder / "JPEGImages").iterdir()} == names
    assert {path.stem for path in (folder / "SegmentationObject").iterdir()} == names
    assert not (folder / "Annotations").exists()
    data = MaskFolderDataset(folder / "JPEGImages", folder / "SegmentationClass", catalog.VOC_CLASSES)
    assert len(data) == len(names) and 255 in data[0][1]


def test_sbd_shares_no_image_with_vocs_validation_part_and_keeps_vocs_own_masks(served):
    voc = prepare("voc2012")
    before = tree(voc)
    folder = prepare("voc2012_sbd")
    assert tree(voc) == before, "VOC itself is as it was"
    trainaug = (folder / "ImageSets/Segmentation/trainaug.txt").read_text().split()
    assert set(trainaug) == set(miniature.TRAIN + miniature.OTHERS) and not set(trainaug) & set(miniature.VAL)
    after = tree(folder)
    for name in miniature.TRAIN + miniature.VAL:
        for path in (f"SegmentationClass/{name}.png", f"JPEGImages/{name}.jpg"):
            assert after[path] == before[path]
    for name in miniature.OTHERS:
        seed = 100 + (miniature.TRAIN[:3] + miniature.VAL[:2] + miniature.OTHERS).index(name)
        mask = masks.read_index_png(folder / f"SegmentationClass/{name}.png")
        assert (mask == miniature.blocks(seed, 40, 60, 20)).all()
        assert Image.open(folder / f"JPEGImages/{name}.jpg").size == (60, 40)
    data = MaskFolderDataset(folder / "JPEGImages", folder / "SegmentationClass", catalog.VOC_CLASSES)
    assert len(data) == len(trainaug) + len(miniature.VAL)


@pytest.mark.parametrize(("name", "image_set"), [("voc2012", "train"), ("voc2012_sbd", "trainaug")])
def test_training_validation_and_test_share_no_photograph_of_voc(served, name, image_set):
    """As lesson 04 splits it; by name, and by what is in the files."""
    folder = prepare(name)
    train_data, val_data = hold_out(VOCSegmentationDataset(folder, image_set))
    parts = [get_filenames(part) for part in (train_data, val_data, VOCSegmentationDataset(folder, "val"))]
    assert sorted(parts[2]) == sorted(f"{name}.jpg" for name in miniature.VAL)
    assert sorted(parts[0] + parts[1]) == sorted(VOCSegmentationDataset(folder, image_set).filenames)
    digests = [
        {hashlib.sha256((folder / "JPEGImages" / file).read_bytes()).digest() for file in part} for part in parts
    ]
    for one, other in itertools.combinations(range(3), 2):
        assert not set(parts[one]) & set(parts[other]) and not digests[one] & digests[other]


# ------------------------------------------------------------------------------------------------ buildings


def test_buildings_become_yolo_labels_that_read_as_the_outlines_they_were(served, miniatures, capsys):
    folder = prepare("buildings_yolo")
    said = capsys.readouterr().out
    assert "train: 1 images that are in a later part as well were left out" in said
    for part, images in (("train", 5), ("valid", 2), ("test", 2)):
        content = json.loads((folder / part / "_annotations.coco.json").read_text())
        labels = sorted((folder / part / "labels").iterdir())
        assert len(labels) == len(content["images"]) == len(list((folder / part / "images").iterdir())) == images
        entries = {Path(entry["file_name"]).stem: entry["id"] for entry in content["images"]}
        for path in labels:
            mine = [a["segmentation"] for a in content["annotations"] if a["image_id"] == entries[path.stem]]
            drawn = np.zeros((64, 64), bool)
            for line in path.read_text().splitlines():
                number, polygons = masks.yolo_to_polygons(line, 64, 64)
                assert number == 0
                drawn |= masks.polygons_to_mask(polygons, 64, 64)
            wanted = np.zeros((64, 64), bool)
            for shape in mine:
                if isinstance(shape, dict):
                    wanted |= masks.rle_to_mask(shape)
                else:
                    wanted |= masks.polygons_to_mask([part for part in shape if len(part) > 4], 64, 64)
            assert (drawn == wanted).all()
    assert re.search(r"\d+ outlines, or parts of one, could not be written as polygons", said)
    assert "names: [building]" in (folder / "data.yaml").read_text()


def test_no_building_image_is_in_two_parts(served):
    folder = prepare("buildings_yolo")
    digests = [
        {hashlib.sha256(path.read_bytes()).digest() for path in (folder / part / "images").iterdir()}
        for part in ("train", "valid", "test")
    ]
    assert not digests[0] & digests[1] and not digests[1] & digests[2] and not digests[0] & digests[2]
    assert (folder / "test/images" / f"test0_png.rf.{0:032x}.jpg").is_file()


# ------------------------------------------------------------------------------------------------ CamVid and nuclei


def test_camvid_is_split_by_video(served):
    folder = prepare("camvid")
    parts = {part: (folder / f"splits/{part}.txt").read_text().split() for part in ("train", "val", "test")}
    videos = {part: {name.split("/")[1].split("_")[0] for name in names} for part, names in parts.items()}
    assert videos == {"train": {"0001TP", "0016E5"}, "val": {"0006R0"}, "test": {"Seq05VD"}}
    assert sum(map(len, parts.values())) == len(set(sum(parts.values(), []))) == 10
    for name in sum(parts.values(), []):
        assert (folder / f"{name}.png").is_file()
        assert (folder / f"{name.replace('/', 'annot/')}.png").is_file()


def test_a_camvid_mask_with_an_unknown_value_is_found(served, monkeypatch):
    right = miniature.blocks
    monkeypatch.setattr(miniature, "blocks", lambda *arguments: right(*arguments) + 1)
    served.files["/official/camvid.zip"] = miniature.camvid().archives["camvid.zip"]
    with pytest.raises(DownloadError, match="holds values above 11"):
        prepare("camvid")


def test_nuclei_become_one_label_image_and_cuts_of_one_picture_stay_together(served):
    folder = prepare("dsb2018")
    names = [hashlib.sha256(f"{number}".encode()).hexdigest() for number in range(12)]
    for name in names:
        image, labels = Image.open(folder / f"images/{name}.png"), np.asarray(Image.open(folder / f"labels/{name}.png"))
        assert image.mode == "RGB" and labels.dtype == np.uint16 and set(np.unique(labels)) == {0, 1, 2}
    part_of = {
        name: part for part in ("train", "val", "test") for name in (folder / f"splits/{part}.txt").read_text().split()
    }
    assert sorted(part_of) == sorted(names)
    for cuts in (names[:4], names[4:8]):
        assert len({part_of[name] for name in cuts}) == 1


def test_groups_are_never_torn_and_the_parts_have_their_share():
    rng = np.random.default_rng(0)
    names, groups = [f"{n}" for n in range(200)], rng.integers(0, 60, 200).tolist()
    parts = arrange.split_groups(names, groups)
    assert sorted(sum(parts.values(), [])) == sorted(names)
    of = {name: part for part, members in parts.items() for name in members}
    assert all(len({of[n] for n, g in zip(names, groups, strict=True) if g == group}) == 1 for group in set(groups))
    assert 40 <= len(parts["test"]) < 48 and 40 <= len(parts["val"]) < 48


def test_overlapping_masks_give_each_pixel_to_the_later_one(tmp_path):
    for number in (1, 2):
        mask = np.zeros((4, 4), np.uint8)
        mask[number - 1 : number + 1] = 255
        Image.fromarray(mask).save(tmp_path / f"{number}.png")
    labels = arrange.merge_masks([tmp_path / "1.png", tmp_path / "2.png"], (4, 4))
    assert labels[:, 0].tolist() == [1, 2, 2, 0]


# ------------------------------------------------------------------------------------------------ faults on the way


def test_a_wrong_checksum_everywhere_says_what_was_expected(served):
    path = "/official/VOCtrainval_11-May-2012.tar"
    served.always(path, flipped(1000))
    with pytest.raises(DownloadError) as error:
        prepare("voc2012")
    remote = catalog.CARDS["voc2012"].files[0]
    assert remote.checksum.replace(":", " ") in str(error.value) and "torchvision" in str(error.value)
    assert f"in place of {remote.checksum.split(':')[1]}" in str(error.value)


def test_one_bad_photograph_among_many_leaves_the_others(served, home):
    path = sorted(path for path in served.files if "/train2017/" in path)[3]
    served.always(path, status(404))
    with pytest.raises(DownloadError, match="1 of 75 files .photographs. are still to come"):
        prepare("coco", photos="all")
    assert len(list((home / "downloads/coco").rglob("*.jpg"))) == 74
    served.well(path)
    asked = len(served.requests)
    prepare("coco", photos="all")
    assert len(served.requests) == asked + 1


def test_an_archive_cut_off_again_and_again_is_put_together(served):
    path = "/official/benchmark.tgz"
    size = len(served.files[path])
    served.fault(path, *(cut(size // 12) for _ in range(10)))
    prepare("voc2012_sbd")
    assert len(served.ranges(path)) == 11 and served.ranges(path)[-1].startswith("bytes=")
