"""From the archives that a card names to the folder that its layout describes: `prepare`.

A folder is built beside its place and renamed when it is whole, so that what has its name is ready. Archives wait in
`downloads/`, where one that was fetched by hand may be put as well, and are deleted once they are unpacked (COCO's,
from which further selections may be made, stays). Nothing that lies there under another name is touched.
"""

import hashlib
import json
import os
import shutil
from collections import defaultdict
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image
from scipy.io import loadmat

from seglib.datasets.download.catalog import (
    CAMVID_VIDEOS,
    COCO_HOSTS,
    COCO_PHOTO,
    COCO_UNPACKED,
    FOUR,
    GB,
    MB,
    Card,
    card,
    check_layout,
    data_home,
)
from seglib.datasets.download.fetch import (
    DownloadError,
    Remote,
    announce,
    cannot_write,
    download,
    download_all,
    in_bytes,
    only_one,
)
from seglib.datasets.download.fields import same_field
from seglib.datasets.download.unpack import BLOCK, ArchiveError, unpack
from seglib.datasets.yolo import YOLO_PARTS, write_data_yaml
from seglib.files import link_or_copy, open_image, read_image, write_lines
from seglib.masks import mask_to_polygons, polygons_to_yolo, read_index_png, rle_to_mask, voc_palette, write_index_png
from seglib.progress import progress_bar

Build = Callable[[Sequence[Path], Path], None]  # archives, the empty folder to fill


def prepare(
    name: str,
    *,
    categories: Sequence[str] | None = None,
    photos: int | str | None = None,
    test_photos: int | str | None = None,
    seed: int = 0,
) -> Path:
    """The folder of a real data set, laid out as its card says: found, or downloaded, checked and unpacked.

    Killed at any moment, the same call goes on. Of several processes that ask at once, one does it and the others wait.

    Args:
        name: see `python -m seglib.datasets list`. The rest is for "coco" and "coco_four"; other sets are taken whole.
        categories: of "coco", by name; None: all 80. Objects of the others stay in the annotation file.
        photos: of each category, to train and validate with, or "all". None: 100, of "coco_four" 1000.
        test_photos: of each category, from the official validation part, or "all". None: a quarter of `photos`.
        seed: another one chooses others.

    Raises:
        ValueError: no such data set, or no such choice.
        DownloadError: it could not be had; says what was expected, what came and how to do it by hand.
        FileNotFoundError: something lies in its place that is not laid out as its card says.
    """
    chosen = card(name)
    if name == "coco":
        return coco(chosen, categories, 100 if photos is None else photos, test_photos, seed)
    if name == "coco_four" and categories is None:
        return coco(chosen, FOUR, 1000 if photos is None else photos, test_photos, seed)
    if (categories, photos, test_photos, seed) != (None, None, None, 0):
        raise ValueError(
            f"{chosen.title} is taken as it is: categories= is for coco, photos=, test_photos= and seed= for coco and "
            "coco_four"
        )
    folder = data_home() / chosen.folder
    if folder.exists():
        return check_layout(name, folder)
    return arrange(chosen, folder, partial(build_sbd, voc=_whole_voc()) if name == "voc2012_sbd" else BUILDERS[name])


def find(name: str) -> list[Path]:
    """The folders in which a data set lies ready; of COCO there may be several selections."""
    chosen = card(name)
    folders = [data_home() / chosen.folder]
    if chosen.folder == "coco":
        folders += sorted(path for path in data_home().glob("coco-*") if name == "coco" or _categories(path) == {*FOUR})
    return [path for path in folders if all(next(path.glob(pattern), None) for pattern in chosen.layout)]


def arrange(chosen: Card, folder: Path, build: Build) -> Path:
    """Download the card's archives and build `folder` from them, unless another process does."""
    with only_one(folder):
        if folder.exists():
            return folder
        announce(chosen.title, chosen.download - have_come(chosen), chosen.disk - have_come(chosen), data_home())
        archives = [download(remote, downloads(chosen)) for remote in chosen.files]
        staging = beside(folder)
        build_from(chosen, archives, staging, build)
        os.replace(staging, folder)
        for archive in archives:
            archive.unlink()
    print(f"{chosen.title} is ready in {folder}.", flush=True)
    return folder


def build_from(chosen: Card, archives: Sequence[Path], staging: Path, build: Build) -> None:
    """Let `build` fill the folder `staging`; set aside what turns out to be a bad archive.

    Raises:
        DownloadError: says what is wrong with which archive, and what to do.
        OSError: the disk is full or may not be written to.
    """
    try:
        build(archives, staging)
    except (ValueError, LookupError) as error:  # an ArchiveError is a ValueError
        blamed = getattr(error, "archive", None)
        unsure = [path for path, remote in zip(archives, chosen.files, strict=True) if not remote.checksum]
        bad = [path for path in unsure if blamed in (None, path)]  # what has its published checksum is right
        for path in bad:
            os.replace(path, path.with_name(f"{path.name}.bad"))
        advice = "It has the checksum that was published, so that the fault is ours: please report it."
        if bad:
            names = ", ".join(f"{path.name}.bad" for path in bad)
            advice = (
                f"It is kept as {names} in {archives[0].parent}; run this again to download it anew. If it is the same "
                "again, its publisher has changed it."
            )
        raise DownloadError(f"what was downloaded is not what was expected: {error!r}. {advice}") from error
    except OSError as error:
        raise cannot_write(staging, error) from error


def downloads(chosen: Card) -> Path:
    """Where the archives and single files of a data set are kept until it is built."""
    return data_home() / "downloads" / chosen.folder


def have_come(chosen: Card) -> int:
    """How many bytes of a data set's archives are there already."""
    folder = downloads(chosen)
    there = (folder / name for remote in chosen.files for name in (remote.name, f".{remote.name}.part"))
    return min(chosen.download, sum(path.stat().st_size for path in there if path.is_file()))


def beside(folder: Path) -> Path:
    """An empty folder next to `folder`, to build it in; what an interrupted call left there is thrown away."""
    staging = folder.with_name(f".{folder.name}.part")
    if staging.exists():
        shutil.rmtree(staging)
    staging.mkdir(parents=True)
    return staging


def expect(found: int, wanted: int, what: str, archive: Path | None = None) -> None:
    """Raise ArchiveError unless an archive held as many things as its publisher says."""
    if found != wanted:
        raise ArchiveError(f"{found:,} {what} in place of {wanted:,}", archive)


# ----------------------------------------------------------------------------------------------------------------- COCO


def coco(
    chosen: Card, categories: Sequence[str] | None, photos: int | str, test_photos: int | str | None, seed: int
) -> Path:
    """A selection of COCO, in a folder of its own; or all of what lies in the folder `coco`, where somebody put it."""
    choice = _check_choice(categories, photos, test_photos, seed)
    if (data_home() / "coco").exists():
        return check_layout("coco", data_home() / "coco")
    digest = hashlib.sha256(json.dumps(choice).encode()).hexdigest()[:6]
    named = "-".join(choice["categories"]).replace(" ", "_") if len(choice["categories"]) <= 4 else "many"
    folder = data_home() / f"coco-{named or 'all'}-{photos}-{digest}"
    if folder.exists():
        return check_layout("coco", folder)
    with only_one(folder):
        if not folder.exists():
            staging = beside(folder)
            _select_coco(chosen, choice, staging)
            write_lines(staging / "selection.json", [json.dumps(choice)])
            os.replace(check_layout("coco", staging), folder)
            print(f"{chosen.title} is ready in {folder}.", flush=True)
    return folder


def _categories(folder: Path) -> set[str]:
    """The categories that a selection was made for."""
    try:
        return {*json.loads((folder / "selection.json").read_text())["categories"]}
    except (OSError, ValueError, LookupError):
        return set()


def _check_choice(
    categories: Sequence[str] | None, photos: int | str, test_photos: int | str | None, seed: int
) -> dict:
    """The choice, filled in, as JSON can hold it; ValueError for one that cannot be met."""
    known = card("coco").classes[1:]
    if isinstance(categories, str) or (categories is not None and not categories):
        raise ValueError(f"categories must be a list of names, such as ['cat', 'dog'], not {categories!r}")
    if unknown := [name for name in categories or () if name not in known]:
        raise ValueError(f"COCO has no category {', '.join(map(str, unknown))}; it has {', '.join(known)}")
    if test_photos is None:
        test_photos = max(1, photos // 4) if isinstance(photos, int) else photos
    for name, number in (("photos", photos), ("test_photos", test_photos)):
        if number != "all" and not (isinstance(number, int) and number >= 1):
            raise ValueError(f'{name} must be a whole number, at least 1, or "all", not {number!r}')
    if not isinstance(seed, int):
        raise ValueError(f"seed must be a whole number, not {seed!r}")
    return {"categories": sorted(set(categories or ())), "photos": photos, "test_photos": test_photos, "seed": seed}


def _select_coco(chosen: Card, choice: dict, staging: Path) -> None:
    """Fill `staging` with the photographs of a choice and with annotation files that list just these."""
    remote = chosen.files[0]
    most = sum(
        total if choice[key] == "all" else min(total, choice[key] * (len(choice["categories"]) or 80))
        for key, total in zip(("photos", "test_photos"), card("coco").counts.values(), strict=True)
    )
    print(f"{chosen.title}: annotations, then at most {most:,} photographs, {in_bytes(most * COCO_PHOTO)}.", flush=True)
    size = max(0, (remote.size or 0) - have_come(chosen))
    announce("Annotations", size, size + COCO_UNPACKED, data_home())
    archive = download(remote, downloads(chosen))
    build_from(chosen, [archive], staging, _unpack_coco)
    print("Reading the annotations: up to a minute, and for a moment 3 GB of memory.", flush=True)
    contents, remotes = {}, []
    for part, photos in (("train", choice["photos"]), ("val", choice["test_photos"])):
        content = json.loads((staging / f"instances_{part}2017.json").read_text(encoding="utf-8"))
        (staging / f"instances_{part}2017.json").unlink()
        contents[part] = choose_photos(content, choice["categories"], photos, choice["seed"])
        print(f"{part}: {describe_choice(contents[part], choice['categories'])}.", flush=True)
        remotes += [_photo(part, entry) for entry in contents[part]["images"]]
    missing = sum(not (downloads(chosen) / remote.name).is_file() for remote in remotes) * COCO_PHOTO
    announce(f"{len(remotes):,} photographs", missing, missing, data_home())
    download_all(remotes, downloads(chosen), "photographs")
    for part, content in contents.items():
        (staging / "images" / part).mkdir(parents=True)
        for entry in content["images"]:
            link_or_copy(
                downloads(chosen) / f"{part}2017" / entry["file_name"], staging / "images" / part / entry["file_name"]
            )
        write_lines(staging / "annotations" / f"instances_{part}.json", [json.dumps(content)])


def _unpack_coco(archives: Sequence[Path], staging: Path) -> None:
    wanted = {f"annotations/instances_{part}2017.json": f"instances_{part}2017.json" for part in ("train", "val")}
    expect(unpack(archives[0], staging, wanted.get, COCO_UNPACKED + 2 * BLOCK), 2, "annotation files")


def choose_photos(content: dict, categories: Sequence[str], photos: int | str, seed: int) -> dict:
    """The part of an annotation file that a balanced choice of photographs needs.

    The rarest category takes its photographs first, in the order of the SHA-256 of seed and file name; one that is
    taken counts for every category on it. A crowd alone does not make a photograph one of its category.

    Args:
        categories: by name; empty: all.
        photos: of each category, or "all".
    """
    names = {entry["id"]: entry["file_name"] for entry in content["images"]}
    order = sorted(names, key=lambda image: hashlib.sha256(f"{seed}:{names[image]}".encode()).digest())
    showing = _photos_of(content, categories)
    taken: set[int] = set()
    for category in sorted(showing, key=lambda category: (len(showing[category]), category)):
        lacking = len(names) if photos == "all" else photos - len(taken & showing[category])
        free = [image for image in order if image in showing[category] and image not in taken]
        taken.update(free[: max(0, lacking)])
    return {
        **content,
        "images": [entry for entry in content["images"] if entry["id"] in taken],
        "annotations": [entry for entry in content["annotations"] if entry["image_id"] in taken],
    }


def describe_choice(content: dict, categories: Sequence[str]) -> str:
    """How many photographs there are, and of what; of many categories the fewest and the most."""
    showing = _photos_of(content, categories)
    counts = {entry["name"]: len(showing.get(entry["id"], ())) for entry in content["categories"]}
    wanted = {name: count for name, count in counts.items() if not categories or name in categories}
    said = ", ".join(f"{name} {count:,}" for name, count in wanted.items())
    if len(wanted) > 8:
        low, high = min(wanted, key=wanted.get), max(wanted, key=wanted.get)
        said = f"{len(wanted)} categories, from {wanted[low]:,} of {low} to {wanted[high]:,} of {high}"
    return f"{len(content['images']):,} photographs ({said})"


def _photos_of(content: dict, categories: Sequence[str]) -> dict[int, set[int]]:
    """The ids of the photographs of each category, by its id; those of its crowds alone are left out."""
    wanted = {entry["id"] for entry in content["categories"] if not categories or entry["name"] in categories}
    showing: dict[int, set[int]] = defaultdict(set)
    for annotation in content["annotations"]:
        if annotation["category_id"] in wanted and not annotation["iscrowd"]:
            showing[annotation["category_id"]].add(annotation["image_id"])
    return showing


def _photo(part: str, entry: dict) -> Remote:
    """Where a photograph is, and what it must be."""
    name = f"{part}2017/{entry['file_name']}"
    check = partial(read_image, size=(entry["height"], entry["width"]))
    return Remote(name, tuple(f"{host}/{name}" for host in COCO_HOSTS), check=check)


# ------------------------------------------------------------------------------------------------------------------ VOC


def build_voc(archives: Sequence[Path], staging: Path) -> None:
    """Take what belongs to segmentation out of the devkit's archive."""
    root = PurePosixPath("VOCdevkit/VOC2012")
    lists, masks = root / "ImageSets/Segmentation", (root / "SegmentationClass", root / "SegmentationObject")
    unpack(archives[0], staging, lambda name: _below(root, name, lists), 10 * MB)
    parts = {part: _names(staging, part) for part in card("voc2012").counts}
    wanted = {root / f"JPEGImages/{name}.jpg" for names in parts.values() for name in names}

    def place(name: str) -> str | None:
        return _below(root, name, *masks) or (_below(root, name) if PurePosixPath(name) in wanted else None)

    unpack(archives[0], staging, place, 1000 * MB)
    for part, names in parts.items():
        expect(len(names), card("voc2012").counts[part], f"names in {part}.txt")
        for name in names:
            _expect_files(staging, f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png")


def _names(folder: Path, part: str) -> list[str]:
    """The image names that an image set of VOC's devkit lists."""
    _expect_files(folder, f"ImageSets/Segmentation/{part}.txt")
    return (folder / f"ImageSets/Segmentation/{part}.txt").read_text(encoding="utf-8").split()


def _expect_files(folder: Path, *paths: str) -> None:
    """Raise ArchiveError for a file that was not in an archive."""
    for path in paths:
        if not (folder / path).is_file():
            raise ArchiveError(f"no {path} in what was unpacked")


def _below(root: PurePosixPath, name: str, *folders: PurePosixPath) -> str | None:
    """The path of an archive's member counted from `root`, if it is in one of `folders` (anywhere below root: none)."""
    path = PurePosixPath(name)
    inside = any(folder in path.parents for folder in folders) if folders else root in path.parents
    return str(path.relative_to(root)) if inside else None


def _whole_voc() -> Path:
    """The folder of VOC, with all that its card says: somebody may have put a part of it there."""
    if not (data_home() / "voc2012").exists():
        print(f"{card('voc2012_sbd').title}: VOC itself first, then SBD.", flush=True)
    voc, counts = prepare("voc2012"), card("voc2012").counts
    found = {part: len(_names(voc, part)) for part in counts}
    if found != counts:
        raise ValueError(f"{voc} lists {found} images, where SBD needs the whole of VOC, {counts}: move it away")
    return voc


def build_sbd(archives: Sequence[Path], staging: Path, voc: Path) -> None:
    """Join SBD's masks and photographs to VOC's own, less what SBD has of VOC's two parts."""
    root = PurePosixPath("benchmark_RELEASE/dataset")
    wanted = {(root / "img", ".jpg"): "JPEGImages", (root / "cls", ".mat"): "cls"}
    train, val = _names(voc, "train"), _names(voc, "val")
    known, theirs = {*train, *val}, set()

    def place(name: str) -> str | None:
        path = PurePosixPath(name)
        if path.name.startswith(".") or (path.parent, path.suffix) not in wanted:
            return None
        theirs.add(path.stem)
        return None if path.stem in known else f"{wanted[path.parent, path.suffix]}/{path.name}"

    unpack(archives[0], staging, place, 4 * GB)
    expect(len(theirs), card("voc2012_sbd").counts["SBD"], "images")
    (staging / "SegmentationClass").mkdir()
    for path in progress_bar(sorted((staging / "cls").iterdir()), "masks"):
        mask = loadmat(path)["GTcls"][0]["Segmentation"][0]
        target = staging / "SegmentationClass" / f"{path.stem}.png"
        write_index_png(target, mask, card("voc2012").classes, voc_palette())
    trainaug = sorted({*train, *(path.stem for path in (staging / "cls").iterdir())})
    expect(len(trainaug), card("voc2012_sbd").counts["trainaug"], "masks")
    shutil.rmtree(staging / "cls")
    for name in known:
        for path in (f"JPEGImages/{name}.jpg", f"SegmentationClass/{name}.png"):
            link_or_copy(voc / path, staging / path)
    for part, names in (("train", train), ("val", val), ("trainaug", trainaug)):
        write_lines(staging / f"ImageSets/Segmentation/{part}.txt", names)


# ------------------------------------------------------------------------------------------------------------ buildings


def build_buildings(archives: Sequence[Path], staging: Path) -> None:
    """Take images and COCO annotations out of three archives, and write the annotations as YOLO-seg labels."""
    chosen, seen = card("buildings_yolo"), set()
    contents = {}
    for part, archive in zip(chosen.counts, archives, strict=True):
        unpack(archive, staging / part, _place_building, 2 * GB)
        expect(len(list(staging.glob(f"{part}/images/*"))), chosen.counts[part], f"images in {archive.name}", archive)
        _expect_files(staging, f"{part}/_annotations.coco.json")
        contents[part] = json.loads((staging / part / "_annotations.coco.json").read_text(encoding="utf-8"))
    lost = 0
    for part in reversed(chosen.counts):  # test first: an image that is in two parts stays there
        digests = {path: hashlib.sha256(path.read_bytes()).digest() for path in (staging / part / "images").iterdir()}
        repeated = {path.name for path, digest in digests.items() if digest in seen}
        seen.update(digests.values())
        for name in repeated:
            (staging / part / "images" / name).unlink()
        if repeated:
            print(f"{part}: {len(repeated)} images that are in a later part as well were left out.")
        lost += _write_yolo(staging / part, contents[part], repeated)
    if lost:
        print(f"{lost} outlines, or parts of one, could not be written as polygons and were left out.")
    for part in YOLO_PARTS:
        write_data_yaml(staging, chosen.classes, part)


def _place_building(name: str) -> str | None:
    if name == "_annotations.coco.json":
        return name
    return f"images/{name}" if name.lower().endswith((".jpg", ".jpeg", ".png")) else None


def _write_yolo(folder: Path, content: dict, repeated: set[str]) -> int:
    """Write a COCO annotation file, less some images, and a label file an image; how many polygons could not be."""
    if len({annotation["category_id"] for annotation in content["annotations"]}) > 1:
        raise ArchiveError("annotations of more than one category")
    content["images"] = [entry for entry in content["images"] if entry["file_name"] not in repeated]
    kept = {entry["id"]: entry for entry in content["images"]}
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] in kept]
    lines: dict[int, list[str]] = {image: [] for image in kept}
    lost = 0
    for annotation in content["annotations"]:
        height, width = (kept[annotation["image_id"]][side] for side in ("height", "width"))
        shape = annotation["segmentation"]
        polygons = mask_to_polygons(rle_to_mask(shape)) if isinstance(shape, dict) else shape
        lost += not polygons
        for polygon in polygons:
            try:
                lines[annotation["image_id"]] += polygons_to_yolo(0, [polygon], height, width)
            except ValueError:
                lost += 1
    for image, entry in kept.items():
        _expect_files(folder, f"images/{entry['file_name']}")
        write_lines(folder / "labels" / f"{Path(entry['file_name']).stem}.txt", lines[image])
    write_lines(folder / "_annotations.coco.json", [json.dumps(content)])
    return lost


# --------------------------------------------------------------------------------------------------------------- CamVid


def build_camvid(archives: Sequence[Path], staging: Path) -> None:
    """Take SegNet's copy of CamVid out of its repository, and write down which frames belong to which part."""
    chosen = card("camvid")
    folders = {*chosen.counts, *(f"{part}annot" for part in chosen.counts)}

    def place(name: str) -> str | None:
        parts = PurePosixPath(name).parts
        wanted = len(parts) == 4 and parts[1] == "CamVid" and parts[2] in folders and parts[3].endswith(".png")
        return f"{parts[2]}/{parts[3]}" if wanted else None

    unpack(archives[0], staging, place, 600 * MB)
    frames = []
    for part, wanted in chosen.counts.items():
        names = sorted(path.stem for path in (staging / part).glob("*.png"))
        expect(len(names), wanted, f"frames in {part}")
        for name in progress_bar(names, part):
            _check_camvid(staging / part / f"{name}.png", staging / f"{part}annot" / f"{name}.png", len(chosen.classes))
        frames += [f"{part}/{name}" for name in names]
    for part, videos in CAMVID_VIDEOS.items():
        write_lines(staging / "splits" / f"{part}.txt", [f for f in frames if f.split("/")[1].split("_")[0] in videos])


def _check_camvid(frame: Path, mask: Path, classes: int) -> None:
    """Raise ArchiveError unless a mask is there, of its frame's size, with classes or the void value behind them."""
    try:
        values, image = read_index_png(mask), open_image(frame)
    except (FileNotFoundError, ValueError) as error:
        raise ArchiveError(str(error)) from None
    if values.shape != (image.height, image.width) or values.max() > classes:
        raise ArchiveError(f"{mask} is of another size than its frame, or holds values above {classes}")


# --------------------------------------------------------------------------------------------------------------- nuclei


def build_nuclei(archives: Sequence[Path], staging: Path) -> None:
    """Write each image in RGB and its many masks as one 16-bit PNG, and split by the picture they were cut from."""
    raw = staging / "raw"
    unpack(archives[0], raw, _place_nuclei, 1000 * MB)
    names = sorted(path.name for path in raw.iterdir())
    expect(len(names), card("dsb2018").counts["images"], "images")
    images = []
    for name in progress_bar(names, "images"):
        try:
            images.append(read_image(raw / name / "images" / f"{name}.png"))
            labels = merge_masks(sorted((raw / name / "masks").iterdir()), images[-1].shape[:2])
        except (FileNotFoundError, ValueError) as error:
            raise ArchiveError(f"{name}: {error}") from None
        for folder, pixels in (("images", images[-1]), ("labels", labels)):
            (staging / folder).mkdir(exist_ok=True)
            Image.fromarray(pixels).save(staging / folder / f"{name}.png")
    shutil.rmtree(raw)
    for part, members in split_groups(names, same_field(images)).items():
        write_lines(staging / "splits" / f"{part}.txt", members)


def _place_nuclei(name: str) -> str | None:
    parts = PurePosixPath(name).parts
    return name if len(parts) == 3 and parts[1] in ("images", "masks") and name.endswith(".png") else None


def merge_masks(paths: Sequence[Path], shape: tuple[int, int]) -> np.ndarray:
    """Nucleus after nucleus into one image: uint16 (H, W), 0 is background, n the nth file."""
    labels = np.zeros(shape, dtype=np.uint16)
    for number, path in enumerate(paths, start=1):
        mask = np.asarray(open_image(path).convert("L")) > 0
        if mask.shape != shape:
            raise ValueError(f"{path} is {mask.shape}, its image {shape}")
        labels[mask] = number
    return labels


def split_groups(names: Sequence[str], groups: Sequence[int], share: float = 0.2) -> dict[str, list[str]]:
    """Three parts, by whole groups in the order of the SHA-256 of their first name: the first `share` of the images
    tests, the next validates, the rest trains.

    Args:
        groups: the number of each name's group.
    """
    members = defaultdict(list)
    for name, group in sorted(zip(names, groups, strict=True)):
        members[group].append(name)
    parts: dict[str, list[str]] = {"test": [], "val": [], "train": []}
    for group in sorted(members.values(), key=lambda group: hashlib.sha256(group[0].encode()).digest()):
        room = next((part for part in ("test", "val") if len(parts[part]) < share * len(names)), "train")
        parts[room] += group
    return {part: sorted(parts[part]) for part in ("train", "val", "test")}


BUILDERS: dict[str, Build] = {
    "voc2012": build_voc,
    "buildings_yolo": build_buildings,
    "camvid": build_camvid,
    "dsb2018": build_nuclei,
}
