"""COCO annotation files as tools write them, brought to one form.

Ids are whole numbers or other texts, sizes are whole numbers where they are known, `iscrowd` is 0 or 1, and a
segmentation is a list of flat polygons or an RLE. What cannot be read is left as it is, for the reader to report.
"""

import json
import warnings
from pathlib import Path, PureWindowsPath
from typing import Any

from seglib.datasets.base import files_by_name, plain_name
from seglib.files import read_text

__all__ = ["Entry", "find_image", "read_annotation_file"]

Entry = dict[str, Any]  # an image, annotation or category of the file


def _other_kind(content: Any) -> str:
    """What a JSON file holds in place of COCO's annotations of instances, and what to do; "" if nothing is known."""
    entries = content.get("annotations") if isinstance(content, dict) else content
    first = entries[0] if isinstance(entries, list) and entries and isinstance(entries[0], dict) else {}
    if isinstance(content, list) and "score" in first:
        return "COCO's results: give the annotations here, and the results to seglib.evaluate.mask_ap"
    if "segments_info" in first:
        return "COCO's panoptic annotations: give instances_*.json"
    if "caption" in first or ("keypoints" in first and "segmentation" not in first):
        return "COCO's captions or keypoints, without masks: give instances_*.json"
    if isinstance(content, dict) and "shapes" in content:
        return "labelme's annotations of one image: python -m seglib.datasets convert FOLDER coco.json"
    if isinstance(content, dict) and "_via_img_metadata" in content:
        return "a project of VGG Image Annotator: export it in COCO's format"
    return ""


def read_annotation_file(path: Path, crowds: str = "ignore") -> dict[str, list[Entry]]:
    """The lists of images, annotations and categories of a COCO file, in one form.

    Args:
        path: the JSON file, in UTF-8 or UTF-16.
        crowds: "objects": `iscrowd` is 0 everywhere.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is no JSON, or is of another kind, which the message names.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no annotation file {path}: COCO's are named annotations/instances_*.json")
    try:
        content = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not JSON ({error}): it may be incomplete; copy or download it again") from None
    if kind := _other_kind(content):
        raise ValueError(f"{path} is not a file of COCO's instances, but holds {kind}")
    for key in ("images", "annotations", "categories"):
        entries = content.get(key) if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ValueError(f"{path} has no list of {key}, as a COCO file of instances has")
    annotations = [_normal_annotation(entry, number, crowds) for number, entry in enumerate(content["annotations"])]
    categories = [{**entry, "id": _normal_number(entry.get("id"))} for entry in content["categories"]]
    return {
        "images": [_normal_image(entry) for entry in content["images"]],
        "annotations": annotations,
        "categories": _without_root(categories, {entry["category_id"] for entry in annotations}, path),
    }


def _normal_number(value: Any) -> Any:
    """A whole number that is written as text ("1") or as a fraction (1.0) as int; anything else as it is."""
    if isinstance(value, str) and value.strip().isdecimal() and value.strip() == str(int(value)):
        return int(value)
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _normal_image(entry: Entry) -> Entry:
    return entry | {key: _normal_number(entry[key]) for key in ("id", "height", "width") if key in entry}


def _normal_annotation(entry: Entry, number: int, crowds: str) -> Entry:
    ids = {key: _normal_number(entry.get(key)) for key in ("id", "image_id", "category_id")}
    if ids["id"] is None:  # nothing refers to it
        ids["id"] = f"at place {number}"
    crowd = entry.get("iscrowd") or 0
    crowd = _normal_number(int(crowd) if isinstance(crowd, bool) else crowd) if crowds == "ignore" else 0
    return {**entry, **ids, "iscrowd": crowd, "segmentation": _normal_segmentation(entry.get("segmentation"))}


def _normal_segmentation(segmentation: Any) -> Any:
    """Flat polygons from one flat list, from pairs [x, y], or from polygons of pairs; anything else as it is."""
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation
    if all(_is_number(value) for value in segmentation) or (len(segmentation) > 2 and _has_pairs(segmentation)):
        segmentation = [segmentation]
    return [[value for pair in part for value in pair] if _has_pairs(part) else part for part in segmentation]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float)


def _has_pairs(part: Any) -> bool:
    """Whether a polygon is a list of pairs [x, y]."""
    is_list = isinstance(part, list) and len(part) > 2
    return is_list and all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in part)


def _without_root(categories: list[Entry], used: set[Any], path: Path) -> list[Entry]:
    """The categories without a root as Roboflow writes it: the parent of the others, which no annotation uses."""
    parents = {entry.get("supercategory") for entry in categories}
    names = [entry.get("name") for entry in categories]
    roots = [
        entry
        for entry in categories
        if entry.get("supercategory") == "none"
        and entry["id"] not in used
        and len(categories) > 1
        and (entry.get("name") in parents or names.count(entry.get("name")) > 1)
    ]
    for root in roots:
        warnings.warn(
            f"{path}: the category {root.get('name')!r} (id {root['id']}) only groups the others; it is left out",
            stacklevel=4,
        )
    return [entry for entry in categories if entry not in roots]


def find_image(images_dir: Path, name: str, index: dict[str, list[Path]]) -> str:
    """The path of an image relative to its folder; "" if there is none, or more than one.

    The name may have backslashes, accents in another form, letters in another case, or folders of another machine, of
    which the last that exist in `images_dir` count. It never leads out of `images_dir`.

    Args:
        images_dir: the folder of images.
        name: a `file_name` of an annotation file.
        index: empty at first; keeps the files of the folder between calls.
    """
    path = PureWindowsPath(name)  # takes slashes and backslashes
    parts = [part for part in path.parts if part != path.anchor]
    if path.parts == tuple(parts) and ".." not in parts and images_dir.joinpath(*parts).is_file():
        return "/".join(parts)
    if not index:
        index.update(files_by_name(images_dir))
    for start in range(len(parts)):
        found = index.get(plain_name("/".join(parts[start:])), [])
        if len(found) == 1:
            return found[0].relative_to(images_dir).as_posix()
    return ""
