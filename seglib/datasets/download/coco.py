"""COCO 2017: a balanced selection of its photographs, with annotation files that list only these."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from seglib.datasets.download import catalog
from seglib.datasets.download.catalog import COCO_CLASSES, COCO_PHOTO_SIZE, Remote, card
from seglib.datasets.download.fetch import check_disk, check_files, download_all, unpack
from seglib.files import link_or_copy, read_image, write_lines

__all__ = ["Selection", "build", "select", "select_photos"]

Content = Mapping[str, Any]  # an annotation file


@dataclass(frozen=True)
class Selection:
    """Which photographs of COCO to take."""

    categories: tuple[str, ...]  # names, sorted; empty: all
    photos: int | str  # of each category, from the training part; or "all"
    test_photos: int | str  # likewise, from the validation part
    seed: int

    @property
    def folder(self) -> str:
        """Folder name, different for each selection."""
        digest = hashlib.sha256(json.dumps(asdict(self)).encode()).hexdigest()[:6]
        names = "-".join(self.categories).replace(" ", "_") if len(self.categories) <= 4 else "many"
        return f"coco-{names or 'all'}-{self.photos}-{digest}"


def select(
    name: str, categories: Sequence[str] | None, photos: int | str | None, test_photos: int | str | None, seed: int
) -> Selection:
    """Return the selection that the arguments of `prepare` describe; ValueError if it is not possible."""
    if name == "coco_four":
        if categories is not None:
            raise ValueError("coco_four has fixed categories: use coco to select others")
        categories = card("coco_four").classes[1:]
    if isinstance(categories, str) or (categories is not None and not categories):
        raise ValueError(f"categories must be a list of names, such as ['cat', 'dog'], not {categories!r}")
    unknown = [str(category) for category in categories or () if category not in COCO_CLASSES[1:]]
    if unknown:
        raise ValueError(f"COCO has no category {', '.join(unknown)}; its categories are {', '.join(COCO_CLASSES[1:])}")
    if photos is None:
        photos = 1000 if name == "coco_four" else 100
    if test_photos is None:
        test_photos = max(1, photos // 4) if isinstance(photos, int) else photos
    for key, number in (("photos", photos), ("test_photos", test_photos)):
        if number != "all" and not (isinstance(number, int) and number >= 1):
            raise ValueError(f'{key} must be an integer of at least 1, or "all", not {number!r}')
    return Selection(tuple(sorted(set(categories or ()))), photos, test_photos, seed)


def build(archives: Sequence[Path], staging: Path, selection: Selection) -> None:
    """Download the photographs of a selection and write annotation files that list only these."""
    downloads = archives[0].parent
    files = {part: f"annotations/instances_{part}2017.json" for part in ("train", "val")}
    unpack(archives[0], staging, lambda name: name in files.values(), 10**9)
    check_files(staging, files.values())
    print("Reading the annotations: this takes up to a minute and 3 GB of memory.", flush=True)
    contents: dict[str, Content] = {}
    for part, photos in (("train", selection.photos), ("val", selection.test_photos)):
        content = json.loads((staging / files[part]).read_text(encoding="utf-8"))
        (staging / files[part]).unlink()
        contents[part] = select_photos(content, selection.categories, photos, selection.seed)
    remotes = [_remote(part, entry) for part, content in contents.items() for entry in content["images"]]
    missing = sum(not (downloads / remote.name).is_file() for remote in remotes) * COCO_PHOTO_SIZE
    check_disk(f"{len(remotes):,} photographs", missing, missing, downloads)
    download_all(remotes, downloads, "photographs")
    for part, content in contents.items():
        images = staging / "images" / part
        images.mkdir(parents=True)
        for entry in content["images"]:
            link_or_copy(downloads / f"{part}2017" / entry["file_name"], images / entry["file_name"])
        write_lines(staging / "annotations" / f"instances_{part}.json", [json.dumps(content)])
    write_lines(staging / "selection.json", [json.dumps(asdict(selection))])


def select_photos(content: Content, categories: Sequence[str], photos: int | str, seed: int) -> Content:
    """Return the part of an annotation file that belongs to a balanced selection of photographs.

    The rarest category is served first, with its photographs in the order of the SHA-256 of seed and file name; a
    selected photograph counts for every category on it. A photograph that shows only a crowd does not count.

    Args:
        content: the annotation file.
        categories: category names; empty: all.
        photos: number of photographs of each category, or "all".
        seed: selects other photographs.
    """
    wanted = {entry["id"] for entry in content["categories"] if not categories or entry["name"] in categories}
    images_of: dict[int, set[int]] = defaultdict(set)
    for annotation in content["annotations"]:
        if annotation["category_id"] in wanted and not annotation["iscrowd"]:
            images_of[annotation["category_id"]].add(annotation["image_id"])
    names = {entry["id"]: entry["file_name"] for entry in content["images"]}
    order = sorted(names, key=lambda image: hashlib.sha256(f"{seed}:{names[image]}".encode()).digest())
    selected: set[int] = set()
    for _, images in sorted(images_of.items(), key=lambda item: (len(item[1]), item[0])):
        candidates = [image for image in order if image in images and image not in selected]
        needed = len(names) if isinstance(photos, str) else photos - len(selected & images)
        selected.update(candidates[: max(0, needed)])
    return {
        **content,
        "images": [entry for entry in content["images"] if entry["id"] in selected],
        "annotations": [entry for entry in content["annotations"] if entry["image_id"] in selected],
    }


def _remote(part: str, entry: Content) -> Remote:
    """The file of a photograph, which must decode and have the size that its annotations give."""
    name = f"{part}2017/{entry['file_name']}"
    check = partial(read_image, size=(entry["height"], entry["width"]))
    return Remote(name, tuple(f"{host}/{name}" for host in catalog.COCO_HOSTS), check=check)
