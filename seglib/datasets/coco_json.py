"""COCO annotation files as tools write them, brought to one form.

Ids are whole numbers or other texts, sizes are whole numbers where they are known, `iscrowd` is 0 or 1, and a
segmentation is a list of flat polygons or an RLE. What cannot be read is left as it is, for the reader to report.
"""

import json
import re
import warnings
from collections.abc import Iterable
from pathlib import Path, PureWindowsPath
from typing import Any
from urllib.parse import unquote, urlsplit

from seglib.datasets.base import files_by_name, plain_name
from seglib.files import read_text

__all__ = ["Entry", "find_image", "read_annotation_file", "whole_number"]

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
    parts = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in parts:
        if isinstance(value, dict) and {"images", "annotations"} <= value.keys():
            return f"one under {key!r}: save that part as a file of its own"
        if isinstance(value, dict) and "regions" in value:
            return "annotations of VGG Image Annotator: export them in COCO's format"
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
            found = f"the keys {', '.join(content)[:80]}" if isinstance(content, dict) else str(content)[:60]
            raise ValueError(f"{path} has no list of {key}, as a COCO file of instances has; it holds {found}")
    annotations = [_normal_annotation(entry, number, crowds) for number, entry in enumerate(content["annotations"])]
    categories = [{**entry, "id": whole_number(entry.get("id"))} for entry in content["categories"]]
    return {
        "images": [_normal_image(entry) for entry in content["images"]],
        "annotations": annotations,
        "categories": _without_root(categories, _distinct(entry["category_id"] for entry in annotations), path),
    }


def _distinct(ids: Iterable[Any]) -> list[Any]:
    """Each valid id once."""
    return list({value for value in ids if isinstance(value, int | str)})


def whole_number(value: Any) -> Any:
    """A whole number that is written as text ("1", "1.0", "01") or as 1.0 as int; anything else as it is."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?[0-9]{1,18}(\.0*)?", value.strip()):
        return int(value.strip().partition(".")[0])
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _normal_image(entry: Entry) -> Entry:
    return entry | {key: whole_number(entry[key]) for key in ("id", "height", "width") if key in entry}


def _normal_annotation(entry: Entry, number: int, crowds: str) -> Entry:
    ids = {key: whole_number(entry.get(key)) for key in ("id", "image_id", "category_id")}
    if ids["id"] is None:  # nothing refers to it
        ids["id"] = f"at place {number}"
    crowd = entry.get("iscrowd") or 0
    crowd = whole_number(int(crowd) if isinstance(crowd, bool) else crowd) if crowds == "ignore" else 0
    return {**entry, **ids, "iscrowd": crowd, "segmentation": _normal_segmentation(entry.get("segmentation"))}


def _normal_segmentation(segmentation: Any) -> Any:
    """Flat polygons of numbers from one flat list, from pairs [x, y], or from polygons of pairs; or an RLE.

    Anything else is returned as it is.
    """
    if isinstance(segmentation, list) and len(segmentation) == 1 and isinstance(segmentation[0], dict):
        segmentation = segmentation[0]
    if isinstance(segmentation, dict):
        lists = {key: value for key, value in segmentation.items() if isinstance(value, list)}
        return segmentation | {key: [whole_number(item) for item in value] for key, value in lists.items()}
    if not isinstance(segmentation, list) or not segmentation:
        return segmentation
    if all(_is_number(value) for value in segmentation) or (len(segmentation) > 2 and _has_pairs(segmentation)):
        segmentation = [segmentation]
    parts = [[value for pair in part for value in pair] if _has_pairs(part) else part for part in segmentation]
    return [[float(value) for value in part] if _is_text(part) else part for part in parts]


def _is_number(value: Any) -> bool:
    """Whether a value is a number or a text that holds one."""
    try:
        float(value)
    except (TypeError, ValueError):
        return False
    return True


def _is_text(part: Any) -> bool:
    """Whether a polygon holds numbers that are written as texts."""
    return isinstance(part, list) and bool(part) and isinstance(part[0], str) and all(map(_is_number, part))


def _has_pairs(part: Any) -> bool:
    """Whether a polygon is a list of pairs [x, y]."""
    is_list = isinstance(part, list) and len(part) > 2
    return is_list and all(isinstance(pair, list) and len(pair) == 2 and all(map(_is_number, pair)) for pair in part)


def _without_root(categories: list[Entry], used: list[Any], path: Path) -> list[Entry]:
    """The categories without those that no annotation uses and that repeat a used one, or are the root of the others.

    Roboflow writes such a root, whose name may be that of a class: {"id": 0, "supercategory": "none", ...}.
    """
    kept = []
    for entry in categories:
        name = entry.get("name")
        others = [other for other in categories if other is not entry]
        is_root = entry.get("supercategory") == "none" and name in [other.get("supercategory") for other in others]
        repeats = name in [other.get("name") for other in others if other["id"] in used]
        if entry["id"] in used or not (is_root or repeats):
            kept.append(entry)
            continue
        warnings.warn(
            f"{path}: the category {name!r} (id {entry['id']}) only groups the others or repeats one, and has no "
            "annotation; it is left out",
            stacklevel=4,
        )
    return kept


def find_image(images_dir: Path, name: str, index: dict[str, list[Path]]) -> str:
    """The path of an image relative to its folder; "" if there is none, or more than one.

    The name may have backslashes, accents in another form, letters in another case, characters as in an address on the
    web (%20), or folders of another machine, of which the last that exist in `images_dir` count. It never leads out of
    `images_dir`.

    Args:
        images_dir: the folder of images.
        name: a `file_name` of an annotation file.
        index: empty at first; keeps the files of the folder between calls.
    """
    plain = unquote(urlsplit(name).path if "://" in name else name)
    for form in dict.fromkeys((name, plain)):
        path = PureWindowsPath(form)  # takes slashes and backslashes
        parts = [part for part in path.parts if part != path.anchor]
        if path.parts == tuple(parts) and ".." not in parts and images_dir.joinpath(*parts).is_file():
            return "/".join(parts)
        if not index:
            index.update(files_by_name(images_dir))
        for start in range(len(parts)):
            key = plain_name("/".join(parts[start:]))
            found = {path.relative_to(images_dir).as_posix() for path in index.get(key, [])}
            found = {path for path in found if plain_name(path) == key} or found  # not one in a sub-folder
            if len(found) == 1:
                return found.pop()
    return ""
