"""Buildings in aerial images: COCO annotations, written as YOLO-seg labels."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from seglib.datasets.download.catalog import GB, card
from seglib.datasets.download.fetch import ArchiveError, check_count, check_files, unpack
from seglib.datasets.yolo import YOLO_PARTS, coco_to_yolo
from seglib.files import write_lines

__all__ = ["build"]

_ANNOTATIONS = "_annotations.coco.json"
_UNPACKED = "unpacked"  # the images of a part until its labels are written


def build(archives: Sequence[Path], staging: Path) -> None:
    """Unpack images and annotations, leave out images that are in a later part as well, and write YOLO's labels."""
    for (part, expected), archive in zip(card("buildings_yolo").counts.items(), archives, strict=True):
        unpack(archive, staging / part, _wanted, 2 * GB)
        check_count(len(list(staging.glob(f"{part}/{_UNPACKED}/*"))), expected, f"images in {archive.name}")
        check_files(staging / part, [_ANNOTATIONS])
    seen: set[bytes] = set()
    for part, folder in reversed(YOLO_PARTS.items()):  # test first
        images = staging / folder / _UNPACKED
        digests = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in sorted(images.iterdir())}
        repeated = {name for name, digest in digests.items() if digest in seen}
        seen.update(digests.values())
        if repeated:
            print(f"{folder}: {len(repeated)} images were left out because they are in a later part as well.")
        _rewrite_annotations(staging / folder / _ANNOTATIONS, set(digests) - repeated)
        report = coco_to_yolo(images, staging / folder / _ANNOTATIONS, staging, part, on_error="skip")
        print(f"{folder}: {report}")
        shutil.rmtree(images)  # with those that are repeated or broken


def _wanted(name: str) -> str | None:
    if name == _ANNOTATIONS:
        return name
    return f"{_UNPACKED}/{name}" if name.lower().endswith((".jpg", ".jpeg", ".png")) else None


def _rewrite_annotations(annotation_file: Path, names: set[str]) -> None:
    """Remove all images but these from an annotation file, and all categories but the one that is used.

    The publisher lists a second category without objects, which may have the same name.
    """
    content = json.loads(annotation_file.read_text(encoding="utf-8"))
    images = [entry for entry in content["images"] if entry["file_name"] in names]
    ids = {entry["id"] for entry in images}
    annotations = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    used = {entry["category_id"] for entry in content["annotations"]}
    if len(used) != 1:
        raise ArchiveError(f"annotations of {len(used)} categories instead of 1")
    categories = [{"id": used.pop(), "name": card("buildings_yolo").classes[0]}]
    kept = {**content, "images": images, "categories": categories, "annotations": annotations}
    write_lines(annotation_file, [json.dumps(kept)])
