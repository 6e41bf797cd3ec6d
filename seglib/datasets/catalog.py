"""One card a data set: what it is, whose it is, how large, how it lies on disk, how it is split."""

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Card:
    """What there is to know about a data set before using it."""

    name: str  # the folder's name too
    title: str
    task: str
    classes: str
    licence: str
    citation: str
    homepage: str
    sources: tuple[str, ...]  # where its archives are published
    download: str  # size, as its publisher gives it
    checksums: str
    layout: tuple[str, ...]  # paths that must be there, "*" for any name
    splits: str


COCO = Card(
    name="coco",
    title="COCO 2017 instances",
    task="instance segmentation; read as semantic masks",
    classes="80 things; person is id 1, cat 17, sports ball 37, book 84",
    # https://cocodataset.org/#termsofuse
    licence="annotations CC BY 4.0; photographs under the Flickr licence given for each in the annotation file",
    citation="Lin et al., Microsoft COCO: Common Objects in Context, ECCV 2014, arXiv:1405.0312",
    homepage="https://cocodataset.org",
    # Addresses and sizes: https://cocodataset.org/#download
    sources=(
        "http://images.cocodataset.org/annotations/annotations_trainval2017.zip",
        "http://images.cocodataset.org/zips/train2017.zip",
        "http://images.cocodataset.org/zips/val2017.zip",
    ),
    download="241 MB annotations, 18 GB training and 1 GB validation photographs",
    checksums="none published",
    layout=(
        "images/train/*.jpg",
        "images/val/*.jpg",
        "annotations/instances_train.json",
        "annotations/instances_val.json",
    ),
    splits=(
        "the official validation part is our test part, for the labels of the official test part are not public; a "
        "quarter of the training part (at most 1,000 images) validates, picked by the SHA-256 of the file names"
    ),
)

CARDS = {card.name: card for card in (COCO,)}


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


def prepare(name: str) -> Path:
    """The folder of a real data set, laid out as its card says.

    Raises:
        FileNotFoundError: it is not there, or not whole; says which layout to put where.
    """
    return check_layout(name, data_home() / name)


def check_layout(name: str, folder: Path) -> Path:
    """Return `folder` if data set `name` lies there as its card says.

    Raises:
        FileNotFoundError: names what is missing and how to lay the data set out.
    """
    missing = [pattern for pattern in card(name).layout if next(folder.glob(pattern), None) is None]
    if missing:
        described = "\n".join(f"  {folder / pattern}" for pattern in card(name).layout)
        sources = "\n".join(f"  {source}" for source in card(name).sources)
        raise FileNotFoundError(
            f"{card(name).title} is not in {folder}: {', '.join(missing)} not found. Get it from\n{sources}\n"
            f"({card(name).download}) and lay it out as\n{described}\n"
            "or set SEGLIB_DATA to a folder that holds it so laid out, in a sub-folder "
            f"{name}/. To go on without it, set SEGLIB_PROFILE=tiny: the bundled sample needs no download."
        )
    return folder
