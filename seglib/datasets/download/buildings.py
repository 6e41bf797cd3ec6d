"""Buildings in aerial images: COCO annotations, written as YOLO-seg labels."""

import hashlib
import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from seglib.datasets.download.catalog import card
from seglib.datasets.download.fetch import check_count, check_files, unpack
from seglib.datasets.yolo import YOLO_PARTS, coco_to_yolo
from seglib.files import write_lines

__all__ = ["build"]

_ANNOTATIONS = "_annotations.coco.json"


def build(archives: Sequence[Path], staging: Path) -> None:
    """Unpack images and annotations, leave out images that are in a later part as well, and write YOLO's labels."""
    for (part, expected), archive in zip(card("buildings_yolo").counts.items(), archives, strict=True):
        images = staging / part / "unpacked"
        unpack(archive, images, lambda path: path.endswith((".jpg", ".png", _ANNOTATIONS)), 2 * 10**9)
        check_files(images, [_ANNOTATIONS])
        (images / _ANNOTATIONS).rename(staging / part / _ANNOTATIONS)
        check_count(len(list(images.iterdir())), expected, f"images in {archive.name}")
    seen: set[bytes] = set()
    for part, folder in reversed(YOLO_PARTS.items()):  # test first
        images = staging / folder / "unpacked"
        digests = {path.name: hashlib.sha256(path.read_bytes()).digest() for path in sorted(images.iterdir())}
        repeated = {name for name, digest in digests.items() if digest in seen}
        seen.update(digests.values())
        if repeated:
            print(f"{folder}: {len(repeated)} images were left out because they are in a later part as well.")
        _rewrite_annotations(staging / folder / _ANNOTATIONS, set(digests) - repeated)
        report = coco_to_yolo(images, staging / folder / _ANNOTATIONS, staging, part, on_error="skip")
        print(f"{folder}: {report}")
        shutil.rmtree(images)  # with those that are repeated or broken


def _rewrite_annotations(annotation_file: Path, names: set[str]) -> None:
    """Remove all images but these from an annotation file, and all categories but the one that is used.

    The publisher lists a second category without objects, which may have the same name.
    """
    content = json.loads(annotation_file.read_text(encoding="utf-8"))
    images = [entry for entry in content["images"] if entry["file_name"] in names]
    ids = {entry["id"] for entry in images}
    annotations = [entry for entry in content["annotations"] if entry["image_id"] in ids]
    used = {entry["category_id"] for entry in content["annotations"]}
    check_count(len(used), 1, "categories with objects")
    categories = [{"id": used.pop(), "name": card("buildings_yolo").classes[0]}]
    kept = {**content, "images": images, "categories": categories, "annotations": annotations}
    write_lines(annotation_file, [json.dumps(kept)])
