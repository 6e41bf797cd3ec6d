"""`prepare`: miniatures of the data sets on a local server, from the publishers' archives to the course's layouts."""

import errno
import hashlib
import io
import json
import os
import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from seglib import masks
from seglib.datasets import (
    COCOSegmentationDataset,
    MaskFolderDataset,
    YOLOSegmentationDataset,
    prepare,
    read_groups,
)
from seglib.datasets.download import catalog, check_layout, coco, fetch, find
from seglib.datasets.download.fetch import DownloadError
from tests.conftest import ROOT
from tests.helpers import miniature
from tests.helpers.kill import run_killed
from tests.helpers.server import Server, cut, page, status

pytestmark = pytest.mark.filterwarnings("ignore:(?s).*polygon has 2 points")
every = pytest.mark.parametrize("name", catalog.CARDS)


@pytest.fixture(scope="module")
def miniatures(sample):
    return miniature.make_all(sample)


@pytest.fixture
def served(server, miniatures, monkeypatch, tmp_path) -> Server:
    """A server with all miniatures at their official addresses, and nothing at the mirrors."""
    monkeypatch.setenv("SEGLIB_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(fetch, "BACKOFF", 0.0)
    monkeypatch.setattr(catalog, "CARDS", dict(catalog.CARDS))
    monkeypatch.setattr(catalog, "COCO_HOSTS", catalog.COCO_HOSTS)
    miniature.install(server.url(""), miniature.describe(miniatures))
    for each in miniatures.values():
        for name, content in {**each.archives, **each.photographs}.items():
            server.files[f"/official/{name}"] = content
    return server


@pytest.fixture
def home(tmp_path) -> Path:
    return tmp_path / "home"


def digests(folder: Path) -> dict[str, str]:
    """The SHA-256 of each file below a folder."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


# ------------------------------------------------------------------------------------------------ every data set


@every
def test_a_data_set_is_prepared_and_found_the_second_time(served, home, name, capsys):
    assert find(name) == []
    folder = prepare(name)
    said = capsys.readouterr().out
    assert folder.parent == home and "to download" in said and f"is ready in {folder}" in said
    for pattern in (*catalog.CARDS[name].layout, *catalog.CARDS[name].extras):
        assert next(folder.glob(pattern), None), pattern
    before = digests(folder)
    requests = len(served.requests)
    assert prepare(name) == folder and find(name) == [folder]
    assert digests(folder) == before and len(served.requests) == requests
    assert {path.name for path in home.iterdir() if not path.name.endswith(".lock")} == {folder.name, "downloads"}
    archives = [path.name for path in (home / "downloads").rglob("*") if path.suffix in (".zip", ".tar")]
    assert archives == (["annotations_trainval2017.zip"] if name.startswith("coco") else [])


@every
def test_faults_of_the_server_change_nothing(served, home, name):
    right = digests(prepare(name))
    shutil.rmtree(home)
    for number, path in enumerate(list(served.files)):
        served.fault(path, (cut(50), status(503), cut(-1), page())[number % 4])
        served.files[path.replace("official", "mirror")] = served.files[path]
    assert digests(prepare(name)) == right


@every
def test_an_archive_may_be_put_there_by_hand(served, home, name):
    remote = catalog.CARDS[name].files[-1]
    content = served.files.pop(f"/official/{remote.name}")
    target = home / "downloads" / catalog.CARDS[name].folder / remote.name
    with pytest.raises(DownloadError) as error:
        prepare(name)
    for part in ("HTTP 404", str(target), *remote.urls):
        assert part in str(error.value)
    assert find(name) == []
    target.write_bytes(content)
    requests = len(served.requests)
    assert check_layout(name, prepare(name))
    assert f"/official/{remote.name}" not in [request.path for request in served.requests[requests:]]


@pytest.mark.parametrize(
    ("name", "part"), [("voc2012", "val"), ("buildings_yolo", "test"), ("camvid", "train"), ("dsb2018", "images")]
)
def test_an_archive_with_other_content_than_published_is_named_and_kept(served, home, name, part, monkeypatch):
    counts = catalog.CARDS[name].counts
    monkeypatch.setitem(counts, part, counts[part] + 1)
    archive = home / "downloads" / name / catalog.CARDS[name].files[-1].name
    with pytest.raises(DownloadError, match=f"instead of {counts[part]}.*Move .*{archive.name} away"):
        prepare(name)
    assert not (home / name).exists() and archive.is_file()
    counts[part] -= 1
    requests = len(served.requests)
    prepare(name)
    assert len(served.requests) == requests


def test_files_without_an_address_are_fetched_by_hand(home, monkeypatch):
    monkeypatch.setenv("SEGLIB_HOME", str(home))
    downloads = home / "downloads" / "isbi2012_em"
    downloads.mkdir(parents=True)
    archives = miniature.membranes().archives
    (downloads / "train-volume.tif").write_bytes(archives["train-volume.tif"])
    with pytest.raises(DownloadError, match="(?s)Fetch train-labels.tif with a browser, see https.*isbi2012_em\n"):
        prepare("isbi2012_em")
    assert not (home / "isbi2012_em").exists()


def test_the_pages_of_the_membranes_become_images(served):
    folder = prepare("isbi2012_em")
    data = MaskFolderDataset(folder / "image", folder / "label", ["cell", "membrane"], values=[255, 0])
    with Image.open(io.BytesIO(miniature.membranes().archives["train-labels.tif"])) as stack:
        stack.seek(2)
        assert data.filenames[2] == "2.png" and (data[2][1].numpy() == (np.asarray(stack) == 0)).all()


def test_an_incomplete_folder_in_the_way_is_named_and_kept(served, home):
    (home / "voc2012" / "JPEGImages").mkdir(parents=True)
    (home / "voc2012" / "mine.txt").write_text("mine")
    with pytest.raises(FileNotFoundError, match="(?s)is not complete in .*SegmentationClass.*move it away"):
        prepare("voc2012")
    assert (home / "voc2012" / "mine.txt").read_text() == "mine" and not served.requests


def test_a_disk_that_fills_up_while_an_archive_is_unpacked_is_named(served, home, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    with pytest.raises(OSError, match="CamVid cannot be stored in .*SEGLIB_HOME.*No space left"):
        prepare("camvid")


@pytest.mark.parametrize(
    "point",
    [
        "os.replace",
        "seglib.datasets.download.voc.check_files",
        "seglib.datasets.download.voc.check_count",
        "pathlib.Path.unlink",
    ],
    ids=["archive complete", "half unpacked", "lists unpacked", "folder ready"],
)
def test_after_a_kill_the_same_call_continues(served, home, tmp_path, monkeypatch, point):
    right = digests(prepare("voc2012"))
    monkeypatch.setenv("SEGLIB_HOME", str(tmp_path / "second"))
    requests = len(served.requests)
    run_killed(point, lambda: prepare("voc2012"))
    assert digests(prepare("voc2012")) == right
    assert len(served.requests) == requests + 1
    assert not [path for path in (tmp_path / "second").rglob("*.part") if path.exists()]


def test_after_a_kill_among_the_photographs_only_the_others_are_downloaded(served, tmp_path, monkeypatch):
    run_killed("seglib.datasets.download.coco.link_or_copy", lambda: prepare("coco_four"))
    requests = len(served.requests)
    assert check_layout("coco_four", prepare("coco_four"))
    assert len(served.requests) == requests


@pytest.mark.parametrize("name", ["coco_four", "voc2012"])
def test_callers_that_ask_at_once_download_once(served, name):
    with ThreadPoolExecutor(2) as pool:
        folders = list(pool.map(lambda _: prepare(name), range(2)))
    assert folders[0] == folders[1]
    paths = [request.path for request in served.requests]
    assert paths and len(paths) == len(set(paths))


# ------------------------------------------------------------------------------------------------ COCO


def test_coco_holds_the_requested_photographs_and_their_annotations(served, sample):
    folder = prepare("coco", categories=["cat", "book"], photos=5, test_photos=2)
    for part, photos in (("train", 5), ("val", 2)):
        data = COCOSegmentationDataset(folder / "images" / part, folder / f"annotations/instances_{part}.json")
        names = {path.name for path in (folder / "images" / part).iterdir()}
        assert names == set(data.filenames) and photos <= len(data) <= 2 * photos
        original = json.loads((sample / f"annotations/instances_{part}.json").read_text(encoding="utf-8"))
        images = [entry for entry in original["images"] if entry["file_name"] in names]
        ids = {entry["id"] for entry in images}
        annotations = [entry for entry in original["annotations"] if entry["image_id"] in ids]
        kept = json.loads((folder / f"annotations/instances_{part}.json").read_text(encoding="utf-8"))
        assert kept == {**original, "images": images, "annotations": annotations}


def make_content(*photographs: str, crowds: int = 0) -> dict:
    """An annotation file from strings such as "pc", a photograph of a person and a cat; the first show crowds."""
    names = {"p": "person", "c": "cat", "b": "sports ball", "k": "book"}
    return {
        "images": [{"id": n, "file_name": f"{n:012d}.jpg"} for n in range(len(photographs))],
        "categories": [{"id": ord(letter), "name": name} for letter, name in names.items()],
        "annotations": [
            {"image_id": n, "category_id": ord(letter), "iscrowd": int(n < crowds)}
            for n, letters in enumerate(photographs)
            for letter in letters
        ],
    }


def selected(content: dict, categories: list[str], photos: int | str, seed: int = 0) -> list[str]:
    return [entry["file_name"] for entry in coco.select_photos(content, categories, photos, seed)["images"]]


def test_a_selection_is_balanced_as_far_as_the_photographs_allow():
    content = make_content(*["p"] * 50, *["pc"] * 4, *["c"] * 10, *["pb"] * 8, *["k"] * 2)
    numbers = [int(name.split(".")[0]) for name in selected(content, [], 6)]
    groups = {"p": range(50), "pc": range(50, 54), "c": range(54, 64), "pb": range(64, 72), "k": range(72, 74)}
    counts = {key: sum(number in group for number in numbers) for key, group in groups.items()}
    assert counts["k"] == 2 and counts["pb"] == 6 and counts["pc"] + counts["c"] == 6
    assert counts["p"] == 0, "the photographs of balls show six people"


def test_a_selection_depends_on_seed_and_names_alone():
    content = make_content(*["p"] * 40)
    backwards = {**content, "images": content["images"][::-1], "annotations": content["annotations"][::-1]}
    names = set(selected(content, ["person"], 10))
    assert names == set(selected(backwards, ["person"], 10)) != set(selected(content, ["person"], 10, seed=1))
    everything = [entry["file_name"] for entry in content["images"]]
    assert names == set(sorted(everything, key=lambda name: hashlib.sha256(f"0:{name}".encode()).digest())[:10])


def test_crowds_and_empty_photographs_are_not_selected():
    assert selected(make_content("p", "p", "p", crowds=2), ["person"], 3) == ["000000000002.jpg"]
    assert len(selected(make_content("p", "", "ck"), [], "all")) == 2


def test_two_selections_share_what_was_downloaded(served):
    first = prepare("coco", categories=["person"], photos=4)
    requests = len(served.requests)
    second = prepare("coco", categories=["person"], photos=6)
    assert first != second and set(find("coco")) == {first, second} and find("coco_four") == []
    new = {Path(request.path).name for request in served.requests[requests:]}
    names = {path.name for path in first.rglob("*.jpg")}
    assert new and not new & names and "annotations_trainval2017.zip" not in new
    name = names.pop()
    assert os.path.samefile(next(first.rglob(name)), next(second.rglob(name)))


def test_coco_four_is_a_selection_of_coco(served):
    folder = prepare("coco_four")
    assert prepare("coco", categories=["person", "cat", "sports ball", "book"], photos=1000) == folder
    assert find("coco_four") == find("coco") == [folder]


def test_a_photograph_of_another_size_is_not_taken(served):
    path = sorted(path for path in served.files if "/train2017/" in path)[0]
    right = served.files[path]
    served.files[path] = miniature.photograph(0, 31, 33)
    with pytest.raises(DownloadError, match=f"(?s)1 of [0-9]+ photographs are still missing.*{Path(path).name}"):
        prepare("coco", photos="all")
    served.files[path] = right
    requests = len(served.requests)
    prepare("coco", photos="all")
    assert len(served.requests) == requests + 1


def test_photographs_unpacked_by_hand_are_found(served, home, miniatures):
    for name, content in miniatures["coco"].photographs.items():
        path = home / "downloads" / "coco" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    prepare("coco", photos="all")
    assert [request.path for request in served.requests] == ["/official/annotations_trainval2017.zip"]


def test_coco_laid_out_by_hand_is_used(served, home, sample):
    shutil.copytree(sample, home / "coco")
    assert prepare("coco_four") == prepare("coco", categories=["cat"]) == home / "coco" and not served.requests


@pytest.mark.parametrize(
    ("name", "arguments", "said"),
    [
        ("cocoo", {}, "no data set 'cocoo'; known data sets: coco, coco_four"),
        ("camvid", {"photos": 3}, "CamVid is always complete"),
        ("coco_four", {"categories": ["dog"]}, "coco_four has fixed categories"),
        ("coco", {"categories": ["unicorn"]}, "COCO has no category unicorn; its categories are person, bicycle"),
        ("coco", {"categories": "cat"}, "categories must be a list of names"),
        ("coco", {"categories": []}, "categories must be a list of names"),
        ("coco", {"photos": 0}, 'photos must be an integer of at least 1, or "all", not 0'),
        ("coco", {"test_photos": 2.5}, "test_photos must be an integer of at least 1"),
    ],
)
def test_an_impossible_selection_is_refused_before_the_download(served, name, arguments, said):
    with pytest.raises(ValueError, match=said):
        prepare(name, **arguments)
    assert not served.requests


def test_the_example_of_the_readme_runs(served, tmp_path, monkeypatch):
    text = (ROOT / "data" / "README.md").read_text(encoding="utf-8")
    match = re.search("```python\n(.*?)```", text, re.DOTALL)
    assert match
    code = match[1]
    for long, short in (
        ("epochs=30", "epochs=1"),
        ("(256, 256)", "(32, 32)"),
        ("classes=3", "classes=3, base_channels=4"),
    ):
        assert long in code
        code = code.replace(long, short)
    monkeypatch.chdir(tmp_path)
    exec(code.replace("photos=300", "photos=3"), {})
    assert (tmp_path / "runs/animals/best_model.pth").is_file()


# ------------------------------------------------------------------------------------------------ the other data sets


def test_of_voc_only_what_belongs_to_segmentation_is_kept(served):
    folder = prepare("voc2012")
    names = set(miniature.TRAIN + miniature.VAL)
    assert {path.stem for path in (folder / "JPEGImages").iterdir()} == names
    assert {path.stem for path in (folder / "SegmentationObject").iterdir()} == names
    assert not (folder / "Annotations").exists()


def test_buildings_become_yolo_labels_of_the_same_outlines(served, capsys):
    folder = prepare("buildings_yolo")
    assert "train: 1 images were left out because they are in a later part as well" in capsys.readouterr().out
    for part, name, count in (("train", "train", 5), ("val", "valid", 2), ("test", "test", 2)):
        data = YOLOSegmentationDataset(folder, part)
        assert len(data) == count and data.classes == ["background", "building"]
        content = json.loads((folder / name / "_annotations.coco.json").read_text(encoding="utf-8"))
        ids = {entry["file_name"]: entry["id"] for entry in content["images"]}
        assert set(ids) == set(data.filenames)
        for index, filename in enumerate(data.filenames):
            mask = data[index][1].numpy()
            expected = np.zeros(mask.shape, bool)
            for entry in content["annotations"]:
                if entry["image_id"] == ids[filename]:
                    shape = entry["segmentation"]
                    polygons = [] if isinstance(shape, dict) else [part for part in shape if len(part) > 4]
                    expected |= masks.polygons_to_mask(polygons, *mask.shape)
                    expected |= masks.rle_to_mask(shape) if isinstance(shape, dict) else False
            assert ((mask > 0) == expected).all()
        assert mask.shape == (64, 80)  # as annotated, in spite of the image's EXIF rotation
    images = [path.read_bytes() for path in folder.glob("*/images/*")]
    assert len(images) == len(set(images)), "an image is in one part only"


def test_camvid_is_split_by_video(served):
    folder = prepare("camvid")
    parts = {part: (folder / f"splits/{part}.txt").read_text().split() for part in ("train", "val", "test")}
    videos = {part: {name.split("/")[1].split("_")[0] for name in names} for part, names in parts.items()}
    assert videos == {"train": {"0001TP", "0016E5"}, "val": {"0006R0"}, "test": {"Seq05VD"}}
    for name in sum(parts.values(), []):
        assert (folder / f"{name}.png").is_file() and (folder / f"{name.replace('/', 'annot/')}.png").is_file()


def test_a_camvid_mask_with_an_unknown_value_is_found(served, monkeypatch):
    right = miniature.class_blocks
    monkeypatch.setattr(miniature, "class_blocks", lambda seed, *size: np.minimum(right(seed, *size), 254) + 1)
    served.files["/official/camvid.zip"] = miniature.camvid().archives["camvid.zip"]
    with pytest.raises(DownloadError, match="holds values above 11"):
        prepare("camvid")


def test_the_masks_of_nuclei_become_one_label_image(served, tmp_path):
    folder = prepare("dsb2018")
    data = MaskFolderDataset(folder / "images", folder / "labels", ["background", "nucleus"], instance_ids=True)
    assert len(data) == 10  # without the image that has no group
    assert [data.instances(0).boxes.tolist(), data.instances(0).areas.tolist()] == [
        [[8, 8, 12, 16], [12, 8, 20, 16]],  # the later mask covers the earlier
        [32, 64],
    ]
    image, mask, name = data[5]
    assert image.shape == (3, *mask.shape) and mask.sum() == 96
    listed = read_groups(tmp_path)
    assert read_groups(folder) == {Path(name).stem: listed[Path(name).stem] for name in data.filenames}
