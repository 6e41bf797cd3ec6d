"""Convert labels between formats, and count what a format could not keep.

`convert` reads every layout that `check` recognizes and writes COCO, YOLO, VOC, mask folders or masks of instance ids.
`labelme_to_coco`, `kaggle_rle_to_coco` and `cvat_masks_to_coco` read three formats that only annotation tools use.
"""

import base64
import csv
import io
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path, PureWindowsPath
from typing import Any

import numpy as np
from PIL import Image
from scipy import ndimage

from seglib.datasets.base import files_by_name, plain_name
from seglib.datasets.coco import Segmentation, write_coco
from seglib.datasets.folder import MaskFolderDataset, read_class_file
from seglib.datasets.layouts import find_parts
from seglib.datasets.yolo import YOLO_PARTS, place_image, segmentation_to_yolo, write_data_yaml
from seglib.files import atomic_path, check_choice, image_size, open_image, read_text, write_lines
from seglib.instances import Instances
from seglib.masks import (
    IGNORE,
    ids_to_rles,
    mask_to_polygons,
    mask_to_rle,
    polygons_to_mask,
    rle_to_mask,
    voc_palette,
    write_index_png,
    yolo_to_polygons,
)
from seglib.progress import progress_bar

__all__ = ["FORMATS", "convert", "cvat_masks_to_coco", "is_labelme", "kaggle_rle_to_coco", "labelme_to_coco"]

FORMATS = ("coco", "yolo", "voc", "masks", "instances")
_Object = tuple[int, Segmentation, bool]  # class, mask, whether it is a crowd
_KAGGLE_NAMES = ("imageid", "image_id", "imageid_classid", "image_label", "img", "image", "id")
_KAGGLE_RLES = ("encodedpixels", "rle", "rle_mask", "annotation", "segmentation", "encoding")


def convert(source: str | Path, to: str, out: str | Path, **settings: Any) -> Counter[str]:
    """Convert the labels of a folder, and return counts of what was written and of what could not be kept.

    Images become hard links where the disk has them. Class masks hold no objects: each connected part of a class
    becomes one. Where objects overlap, instance ids keep the smaller one, and class masks what the reader says.

    Args:
        source: a folder that `seglib.datasets.check` recognizes.
        to: "coco" (JSON), "yolo" (outlines), "voc" (palette masks), "masks" (class masks and classes.txt) or
            "instances" (masks of 16-bit ids).
        out: a new or empty folder.
        settings: settings of the reader, such as values=[0, 255].

    Raises:
        FileNotFoundError: there is no such folder.
        ValueError: an unknown layout or format, an `out` that holds files or lies in `source`, or labels with problems.
    """
    check_choice("to", to, FORMATS)
    out = Path(out)
    if out.resolve().is_relative_to(Path(source).resolve()) and not any(out.glob("*")):
        raise ValueError(f"{out} lies in {source}, and its files would be read as labels: give a folder outside of it")
    if out.is_file() or any(out.glob("*")):
        raise ValueError(f"{out} {'is a file' if out.is_file() else 'is not empty'}: give a new folder")
    reasons: list[str] = []
    parts = find_parts(source, reasons)
    if not parts:
        why = "; ".join(reasons) or f"python -m seglib.datasets check {source} says what is expected"
        raise ValueError(f"no known layout in {source}: {why}")
    counts: Counter[str] = Counter()
    for part in parts:
        _WRITERS[to](part.open(**settings), out, part.name, counts)
    return counts


def _has_objects(data: Any) -> bool:
    """Whether the labels are objects, not class masks."""
    return hasattr(data, "instances") and getattr(data, "has_objects", True)


def _objects(data: Any, index: int, counts: Counter[str]) -> Instances:
    """The objects of a sample; those of a class mask are its connected parts, and pixels of 255 are lost."""
    if _has_objects(data):
        return data.instances(index)
    mask = data[index][1].numpy()
    parts = [ndimage.label(mask == k, np.ones((3, 3)))[0] for k in range(1, len(data.classes))]
    rles = [(k, rle) for k, ids in enumerate(parts, 1) for rle in ids_to_rles(ids).values()]
    counts["objects made of the connected parts of a class"] += len(rles)
    counts["images that lose pixels that do not count"] += bool((mask == IGNORE).any())
    return Instances(mask.shape, [rle for _, rle in rles], np.array([k for k, _ in rles], dtype=int))


def _shapes(data: Any, index: int, counts: Counter[str]) -> tuple[tuple[int, int], list[_Object]]:
    """The (height, width) of a sample and its objects, with the polygons of its file if it has any."""
    found = _objects(data, index, counts)
    if hasattr(data, "annotations"):
        shapes = [item["segmentation"] for item in data.annotations(index)]
    elif hasattr(data, "lines"):
        shapes = [yolo_to_polygons(line, *found.size)[1] for line in data.lines(index)]
    else:
        shapes = [_trace(rle) for rle in found.rles]
    return found.size, list(zip(found.labels.tolist(), shapes, found.crowd.tolist(), strict=True))


def _trace(rle: dict[str, Any]) -> Segmentation:
    """The polygons of a mask if they give the same mask, else the RLE: polygons cannot hold holes."""
    mask = rle_to_mask(rle)
    polygons = mask_to_polygons(mask)
    return polygons if polygons and (polygons_to_mask(polygons, *mask.shape) == mask).all() else rle


def _place(data: Any, index: int, folder: Path, size: tuple[int, int], counts: Counter[str]) -> str:
    """Put an image into a folder; return its path within it, without suffix."""
    name = data.filenames[index]
    if (folder / name).exists():
        raise ValueError(f"two parts have an image {name}: rename one of them")
    counts["images"] += 1
    counts["images saved upright"] += place_image(data.images_dir / name, folder / name, size)
    return Path(name).with_suffix("").as_posix()


def _write_coco(data: Any, out: Path, part: str, counts: Counter[str]) -> None:
    def samples() -> Iterator[tuple[str, tuple[int, int], list[_Object]]]:
        for index in progress_bar(range(len(data)), f"converting {part}"):
            size, objects = _shapes(data, index, counts)
            _place(data, index, out / "images" / part, size, counts)
            counts["objects"] += len(objects)
            yield data.filenames[index], size, objects

    write_coco(out / "annotations" / f"instances_{part}.json", data.classes, samples())


def _write_yolo(data: Any, out: Path, part: str, counts: Counter[str]) -> None:
    name = next((known for known in ("test", "val") if known in part.lower()), "train")
    write_data_yaml(out, data.classes[1:], name)
    for index in progress_bar(range(len(data)), f"converting {part}"):
        size, objects = _shapes(data, index, counts)
        stem = _place(data, index, out / YOLO_PARTS[name] / "images", size, counts)
        lines = []
        for label, shape, is_crowd in objects:
            counts["crowds left out"] += is_crowd
            lines += [] if is_crowd else segmentation_to_yolo(label - 1, shape, size, counts=counts)
        write_lines(out / YOLO_PARTS[name] / "labels" / f"{stem}.txt", lines)


def _write_class_masks(
    data: Any, part: str, images: Path, masks: Path, colors: np.ndarray | None, counts: Counter[str]
) -> list[str]:
    """Write the images and class masks of a part; return their names without suffix."""
    stems = []
    for index in progress_bar(range(len(data)), f"converting {part}"):
        mask = data[index][1].numpy()
        stems.append(_place(data, index, images, mask.shape, counts))
        write_index_png(masks / f"{stems[-1]}.png", mask, data.classes, colors)
        if _has_objects(data):
            found = data.instances(index)
            counts["objects merged into class masks"] += len(found)
            counts["pixels of overlaps that one object gets"] += int(found.areas.sum() - (mask > 0).sum())
    return stems


def _write_voc(data: Any, out: Path, part: str, counts: Counter[str]) -> None:
    stems = _write_class_masks(data, part, out / "JPEGImages", out / "SegmentationClass", voc_palette(), counts)
    write_lines(out / "ImageSets/Segmentation" / f"{part}.txt", stems)
    colors = voc_palette()[: len(data.classes)].tolist()
    lines = [f"{name}:{red},{green},{blue}::" for name, (red, green, blue) in zip(data.classes, colors, strict=True)]
    write_lines(out / "labelmap.txt", ["# label:color_rgb:parts:actions", *lines])


def _write_mask_folder(data: Any, out: Path, part: str, counts: Counter[str]) -> None:
    _write_class_masks(data, part, out / part / "images", out / part / "masks", None, counts)
    write_lines(out / "classes.txt", data.classes)


def _write_instances(data: Any, out: Path, part: str, counts: Counter[str]) -> None:
    for index in progress_bar(range(len(data)), f"converting {part}"):
        found = _objects(data, index, counts)
        stem = _place(data, index, out / part / "images", found.size, counts)
        kept = found.pick(~found.crowd)
        ids = kept.numbered()
        if ids.max(initial=0) > 65535:
            raise ValueError(f"{data.filenames[index]} has {ids.max()} objects: 16 bits hold 65,535")
        with atomic_path(out / part / "instances" / f"{stem}.png") as temporary:
            Image.fromarray(ids.astype(np.uint16)).save(temporary, format="PNG")
        counts["objects"] += len(kept)
        counts["objects that others cover"] += len(kept) - len(np.unique(ids[ids > 0]))
        counts["crowds left out"] += len(found) - len(kept)
        counts["objects that lose their class"] += len(kept) if len(data.classes) > 2 else 0


_WRITERS = {
    "coco": _write_coco,
    "yolo": _write_yolo,
    "voc": _write_voc,
    "masks": _write_mask_folder,
    "instances": _write_instances,
}


# ------------------------------------------------------------------------------------------------ formats of tools


def is_labelme(folder: Path) -> bool:
    """Whether a folder holds labelme's JSON files, which begin with their shapes."""
    for path in list(folder.rglob("*.json"))[:20]:
        with path.open(encoding="utf-8", errors="replace") as file:
            if '"shapes"' in file.read(2000):
                return True
    return False


def _check_new(annotation_file: str | Path) -> None:
    """Raise ValueError if a file exists: it may be one of the labels that are converted."""
    if Path(annotation_file).exists():
        raise ValueError(f"{annotation_file} exists and is not overwritten: give a new file")


def labelme_to_coco(folder: str | Path, annotation_file: str | Path) -> Counter[str]:
    """Write the labelme JSON files of a folder as one COCO annotation file; images_dir is the folder.

    Polygons, rectangles, circles and masks are read; shapes of one label and one `group_id` are parts of one object.
    Classes are in alphabetical order. The result counts what was written and what was left out (points, lines).

    Raises:
        ValueError: there is no labelme file, an image is missing, a shape cannot be read, or the file to write exists.
    """
    _check_new(annotation_file)
    folder = Path(folder)
    files = [(path, json.loads(read_text(path))) for path in sorted(folder.rglob("*.json"))]
    files = [(path, content) for path, content in files if isinstance(content, dict) and "shapes" in content]
    if not files:
        raise ValueError(f"no labelme file, a JSON with shapes, in {folder}")
    labels = sorted({str(shape.get("label")) for _, content in files for shape in content["shapes"]})
    classes = ["background", *(label for label in labels if plain_name(label).strip("_") != "background")]
    counts: Counter[str] = Counter()
    samples = []
    for path, content in files:
        image = _labelme_image(folder, path, content)
        try:
            objects = _labelme_objects(content["shapes"], classes, image_size(folder / image), counts)
        except (KeyError, TypeError, IndexError, OSError, ValueError) as error:
            raise ValueError(f"{path}: a shape cannot be read: {error!r}. Open it in labelme and save it") from None
        counts["objects"] += len(objects)
        samples.append((image, image_size(folder / image), objects))
    counts["images"] = len(samples)
    write_coco(annotation_file, classes, samples)
    return counts


def _labelme_image(folder: Path, path: Path, content: dict[str, Any]) -> str:
    """The image of a labelme file, relative to the folder: beside the file, or where it says."""
    said = PureWindowsPath(str(content.get("imagePath")))  # takes slashes and backslashes
    for image in (path.parent / said.name, path.parent / said.as_posix()):
        if image.is_file() and image.resolve().is_relative_to(folder.resolve()):
            return image.resolve().relative_to(folder.resolve()).as_posix()
    raise ValueError(f"{path}: its image {said} is neither beside it nor there, below {folder}: copy it, or go one up")


def _labelme_objects(
    shapes: list[dict[str, Any]], classes: list[str], size: tuple[int, int], counts: Counter[str]
) -> list[_Object]:
    """The objects of a labelme file; shapes of one label and group are one."""
    groups: dict[tuple[str, Any], list[Segmentation]] = defaultdict(list)
    for number, shape in enumerate(shapes):
        label, group = str(shape["label"]), shape.get("group_id")
        found = _labelme_mask(shape, size) if shape.get("shape_type") == "mask" else _labelme_polygon(shape, size)
        if found and label in classes[1:]:
            groups[label, number + 0.5 if group is None else group].append(found)
        else:
            counts[f"shapes left out: {shape.get('shape_type')} {label}"] += 1
    objects: list[_Object] = []
    for (label, _), parts in groups.items():
        polygons = [polygon for part in parts if isinstance(part, list) for polygon in part]
        masks = [rle_to_mask(part) for part in parts if isinstance(part, dict)]
        masks += [polygons_to_mask(polygons, *size)] if masks and polygons else []
        objects.append((classes.index(label), mask_to_rle(np.any(masks, axis=0)) if masks else polygons, False))
    return objects


def _labelme_mask(shape: dict[str, Any], size: tuple[int, int]) -> Segmentation:
    """The mask of a labelme shape: a PNG as text, and the corners of its box."""
    left, top = (round(value) for value in shape["points"][0])
    with Image.open(io.BytesIO(base64.b64decode(shape["mask"]))) as image:
        pixels = np.array(image) > 0
    mask = np.zeros(size, dtype=bool)
    mask[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return mask_to_rle(mask)


def _labelme_polygon(shape: dict[str, Any], size: tuple[int, int]) -> list[list[float]]:
    """The flat polygon of a labelme shape; [] for points, lines and what lies outside of the image."""
    points = np.array(shape["points"], dtype=float).reshape(-1, 2)
    kind = shape.get("shape_type") or "polygon"
    if kind == "rectangle" and len(points) == 2:
        (x0, y0), (x1, y1) = points
        points = np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])
    elif kind == "circle":
        angles = np.linspace(0, 2 * np.pi, 64, endpoint=False)
        radius = np.linalg.norm(points[1] - points[0])
        points = points[0] + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)
    if kind not in ("polygon", "rectangle", "circle") or len(points) < 3:
        return []
    is_outside = (points.max(axis=0) <= 0).any() or (points.min(axis=0) >= size[::-1]).any()
    return [] if is_outside else [points.ravel().tolist()]


def kaggle_rle_to_coco(csv_file: str | Path, images_dir: str | Path, annotation_file: str | Path) -> Counter[str]:
    """Write a csv of run lengths, as Kaggle's competitions have it, as a COCO annotation file.

    A row is an object: the name of an image (columns "ImageId", "img", "id" or "image_id") and pairs "start length"
    ("EncodedPixels", "rle", "segmentation" ...). Starts count from 1, column by column from the top left pixel. An
    empty field or -1 means no object. A column "ClassId" or "class", or a name of the form image_class in a column
    "ImageId_ClassId" or "Image_Label", holds the class.

    Raises:
        ValueError: the columns are missing, an image does not exist, runs reach beyond the image, or the file to write
            exists.
    """
    _check_new(annotation_file)
    rows = list(csv.DictReader(read_text(csv_file).splitlines()))
    columns = {plain_name(column or "").strip(): column for column in (rows[0] if rows else {})}
    name_key = next((key for key in _KAGGLE_NAMES if key in columns), None)
    rle_key = next((key for key in _KAGGLE_RLES if key in columns), None)
    class_key = next((key for key in ("classid", "class", "label") if key in columns), None)
    if name_key is None or rle_key is None:
        raise ValueError(f"{csv_file} has the columns {list(columns)}: one must be ImageId, and one EncodedPixels")
    files = files_by_name(Path(images_dir))
    files |= {plain_name(path.stem): [path] for paths in list(files.values()) for path in paths}
    objects: dict[Path, list[tuple[str, Segmentation, bool]]] = {}
    for row in rows:
        name, label = row[columns[name_key]] or "", (row[columns[class_key]] or "") if class_key else "object"
        if name_key in ("imageid_classid", "image_label"):
            name, _, label = name.rpartition("_")
        path = next(iter(files.get(plain_name(name), [])), None)
        if path is None:
            raise ValueError(f"{csv_file}: there is no image {name!r} in {images_dir}")
        found = objects.setdefault(path, [])
        runs = (row[columns[rle_key]] or "").split()
        if runs and runs != ["-1"]:
            found.append((label, _kaggle_rle(runs, image_size(path), f"{csv_file}: {name}"), False))
    labels = {label for found in objects.values() for label, _, _ in found}
    classes = ["background", *sorted(labels, key=lambda label: (len(label) if label.isdecimal() else 0, label))]
    samples = [
        (
            path.relative_to(images_dir).as_posix(),
            image_size(path),
            [(classes.index(label), rle, crowd) for label, rle, crowd in found],
        )
        for path, found in objects.items()
    ]
    write_coco(annotation_file, classes, samples)
    return Counter({"images": len(samples), "objects": sum(len(found) for found in objects.values())})


def _kaggle_rle(texts: Sequence[str], size: tuple[int, int], where: str) -> dict[str, Any]:
    """COCO's RLE from pairs of a one-based start and a length, column by column."""
    if not all(text.isdecimal() for text in texts):
        raise ValueError(f"{where}: runs must be whole numbers, not {' '.join(texts)[:60]!r}")
    runs = [int(text) for text in texts]
    starts = np.array(runs[0::2]) - 1
    ends = starts + np.array(runs[1::2]) if len(runs) % 2 == 0 else starts - 1
    pixels = size[0] * size[1]
    if len(runs) % 2 or (ends <= starts).any() or starts.min() < 0 or ends.max() > pixels:
        raise ValueError(f"{where}: runs must be pairs of start and length within {pixels} pixels, not {runs[:6]}")
    order = np.argsort(starts)
    borders = np.stack([starts[order], ends[order]], axis=1).ravel()
    counts = np.diff(borders, prepend=0, append=pixels)
    if (counts < 0).any():
        raise ValueError(f"{where}: runs overlap")
    return {"size": list(size), "counts": counts.tolist()}


def cvat_masks_to_coco(folder: str | Path, annotation_file: str | Path) -> Counter[str]:
    """Write CVAT's export "Segmentation mask" as a COCO annotation file; images_dir is the folder JPEGImages.

    The colors in SegmentationClass are those of labelmap.txt; each color in SegmentationObject is one object.

    Raises:
        FileNotFoundError: a file or folder of the export is missing.
        ValueError: a color that labelmap.txt does not list, or the file to write exists.
    """
    _check_new(annotation_file)
    folder = Path(folder)
    images = folder / "JPEGImages"
    if not images.is_dir():
        raise FileNotFoundError(f"no folder {images}: export from CVAT with images, or copy them there")
    colors = read_class_file(folder / "labelmap.txt")[2]
    data = MaskFolderDataset(images, folder / "SegmentationClass", colors=colors)
    files = files_by_name(folder / "SegmentationObject")
    counts: Counter[str] = Counter()
    samples = []
    for index, name in enumerate(data.filenames):
        classes = data[index][1].numpy()
        file = Path(name).with_suffix(".png").as_posix()
        path = next(iter(files.get(plain_name(file), [])), folder / "SegmentationObject" / file)
        with open_image(path) as image:
            pixels = np.array(image.convert("RGB")).astype(np.int32)
        found: list[_Object] = []
        for rle in ids_to_rles(pixels @ np.array([1 << 16, 1 << 8, 1])).values():
            label = int(np.bincount(classes[rle_to_mask(rle)], minlength=256)[:IGNORE].argmax())
            if label:
                found.append((label, _trace(rle), False))
            counts["objects without a class, left out"] += not label
        counts["objects"] += len(found)
        samples.append((name, tuple(classes.shape), found))
    counts["images"] = len(samples)
    write_coco(annotation_file, data.classes, samples)
    return counts
