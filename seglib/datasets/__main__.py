"""The data sets from the command line.

python -m seglib.datasets list         what there is, how large it is, whether it is there
python -m seglib.datasets get NAME     download it, check it and lay it out
python -m seglib.datasets where NAME   the folder it lies in
python -m seglib.datasets readme       data/README.md, written from the cards
"""

import argparse
import contextlib
import sys

from seglib.datasets.download import find, prepare
from seglib.datasets.download.catalog import CARDS, Card, card, data_home
from seglib.datasets.download.fetch import Remote, in_bytes

README = """\
# The data sets

Everything else in this folder is ignored by git: rendered samples and downloads land here, unless the environment
variable `SEGLIB_HOME` names another folder. This file is written from the cards in `seglib/datasets/catalog.py`
(`make data/README.md`).

```bash
python -m seglib.datasets list           # what there is, how large it is, whether it is there
python -m seglib.datasets get camvid     # download it, check it and lay it out
python -m seglib.datasets where camvid   # the folder it lies in
```

In Python, `seglib.datasets.prepare("camvid")` does the same and returns the folder. (From a checkout of the course,
`python` is `.venv/bin/python`.) A download that was interrupted goes on where it stopped. What cannot be downloaded, by
you or by us, you may put into `downloads/` by hand: the error says which file, from where, and under which name.
`downloads/` may be deleted at any time, and a data set by deleting its folder.

From a name to a training run:

```python
from seglib.datasets import COCOSegmentationDataset, hold_out, prepare
from seglib.losses import CEDiceLoss
from seglib.models import build_model
from seglib.train import TrainConfig, fit
from seglib.transforms import resize

animals = ["cat", "dog"]
root = prepare("coco", categories=animals, photos=300)
parts = [
    COCOSegmentationDataset(
        root / "images" / part,
        root / "annotations" / f"instances_{part}.json",
        categories=animals,
        transform=resize(256, 256),
    )
    for part in ("train", "val")
]
train_data, val_data = hold_out(parts[0])
test_data = parts[1]
config = TrainConfig(epochs=30, batch_size=8, lr=1e-3)
run = fit(build_model("unet", classes=3), train_data, val_data, CEDiceLoss(), config, "runs/animals")
```

VOC's image sets are read by name, `VOCSegmentationDataset(prepare("voc2012"), "train")`. Masks beside images are read
by `MaskFolderDataset`: it reads a folder whole. `YOLOSegmentationDataset(prepare("buildings_yolo"), "train")` reads
YOLO's labels, as masks and as objects. Readers for CamVid and for 16-bit nuclei come with the lessons that use them.

**Data that you have already.** The lessons use it in place of the sample and of a download if the environment variable
`SEGLIB_DATA` names a folder that holds it, in sub-folders called and laid out as below. Nothing is ever written there.
(`prepare` and the commands above look into this folder alone.)

## The bundled sample

Nothing to download: `seglib.datasets.render` draws scenes of people, cats, dogs, balls, books and plants, and writes
them as JPEG and JSON exactly as COCO does, with every special case that COCO has: crowds, objects in several parts,
holes, ids with gaps, grey photographs, EXIF rotation, images with nothing on them. For VOC it draws streets and living
rooms as well, and writes palette masks with VOC's 21 classes and colours and the border of 255 around each object;
seven of the classes are drawn (car, cat, dining table, dog, person, potted plant, sofa). For the buildings it draws
land as seen from straight above: roofs of many plans and turns with their shadows, streets, trees, cars, gardens and
fields; courtyards, a hall under a bridge, dense terraces and tiny sheds, and places without a building. It is ours and
free to use.
"""


def describe(chosen: Card) -> str:
    """A card as a section of data/README.md."""
    counts = ", ".join(f"{part} {count:,}" for part, count in chosen.counts.items())
    sizes = f"about {in_bytes(chosen.download)} to download, {in_bytes(chosen.disk)} of disk while it is unpacked"
    facts = {
        "Task": chosen.task,
        "Images": counts,
        "Classes": _classes(chosen),
        "Licence": chosen.licence,
        "Cite": chosen.citation,
        "Splits": chosen.splits,
        "Size": sizes,
    }
    lines = [f"## {chosen.title} (`{chosen.name}`)", "", f"<{chosen.homepage}>", ""]
    lines += [f"* **{name}:** {fact}." for name, fact in facts.items()]
    lines += ["* **Files:**", *(line for remote in chosen.files for line in _file(remote))]
    lines += [f"* {note}" for note in chosen.notes]
    paths = (f"  {path}" for path in (*chosen.layout, *chosen.also))
    return "\n".join([*lines, "", "```", f"{chosen.folder}/", *paths, "```"]) + "\n"


def _classes(chosen: Card) -> str:
    """The classes with their colours; of a long list, only the names."""
    if len(chosen.classes) > 25:
        return f"{len(chosen.classes) - 1}: {', '.join(chosen.classes[1:])}. In the course's colours"
    colours = ("#{:02x}{:02x}{:02x}".format(*colour) for colour in chosen.colours)
    return ", ".join(f"{name} `{colour}`" for name, colour in zip(chosen.classes, colours, strict=True))


def _file(remote: Remote) -> list[str]:
    """A file to download, as lines of a list."""
    size = f"{remote.size:,} bytes" if remote.size is not None else "exact size not published"
    checksum = f"`{remote.checksum}`" if remote.checksum else "no checksum published"
    source = f" ({remote.published})" if remote.published else ""
    return [f"  * `{remote.name}`, {size}, {checksum}{source}:", *(f"    <{url}>" for url in remote.urls)]


def readme() -> str:
    """The text of data/README.md."""
    return "\n".join([README, *(describe(chosen) for chosen in CARDS.values())])


def show_list() -> None:
    """Print a line a data set."""
    print(f"{'name':<16}{'download':>10}{'disk':>10}  {'here':<5} what")
    for chosen in CARDS.values():
        here = "yes" if find(chosen.name) else "no"
        sizes = f"{in_bytes(chosen.download):>10}{in_bytes(chosen.disk):>10}"
        print(f"{chosen.name:<16}{sizes}  {here:<5} {chosen.title}: {chosen.task}")
    print(f"\nThey go to {data_home()}. Classes, licences, splits: python -m seglib.datasets readme")


def show_where(name: str) -> int:
    """Print the folders of a data set, one a line."""
    folders = find(name)
    for folder in folders:
        print(folder)
    if not folders:
        print(f"{card(name).title} is not in {data_home()}: python -m seglib.datasets get {name}", file=sys.stderr)
    return int(not folders)


def number_or_all(text: str) -> int | str:
    """What --photos takes."""
    if text != "all" and not text.isdecimal():
        raise argparse.ArgumentTypeError(f'a whole number or "all", not {text!r}')
    return text if text == "all" else int(text)


def main(arguments: list[str] | None = None) -> int:
    """Do what the command line says; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m seglib.datasets", description="The course's data sets.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="what there is, how large it is, whether it is there")
    get = commands.add_parser("get", help="download a data set, check it and lay it out")
    where = commands.add_parser("where", help="the folder it lies in")
    commands.add_parser("readme", help="print data/README.md, written from the cards")
    for command in (get, where):
        command.add_argument("name", choices=CARDS, metavar="NAME", help=", ".join(CARDS))
    number = {"type": number_or_all, "metavar": "N"}
    get.add_argument("--categories", nargs="+", help="of coco: these only, by name; without: all 80")
    get.add_argument("--photos", **number, help='of coco, of each category, or "all"; without: 100, of coco_four 1000')
    get.add_argument("--test-photos", **number, help="to test with; without: a quarter of --photos")
    get.add_argument("--seed", type=int, default=0, help="of coco: another one chooses other photographs")
    chosen = vars(parser.parse_args(arguments))
    command, name = chosen.pop("command"), chosen.pop("name", None)
    try:
        if command == "get":
            with contextlib.redirect_stdout(sys.stderr):  # what is said on the way; the folder alone goes to stdout
                folder = prepare(name, **chosen)
            print(folder)
        elif command == "where":
            return show_where(name)
        elif command == "list":
            show_list()
        else:
            print(readme(), end="")
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. What has come is kept: the same command goes on from there.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
