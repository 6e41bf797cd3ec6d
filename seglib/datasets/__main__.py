"""The data sets from the command line: `python -m seglib.datasets --help`.

`list`, `get` and `where` are about the data sets of the course, `check` and `convert` about your own.
"""

import argparse
import contextlib
import sys
from pathlib import Path
from typing import Any

from seglib.datasets.checks import check
from seglib.datasets.converters import (
    FORMATS,
    convert,
    cvat_masks_to_coco,
    is_labelme,
    kaggle_rle_to_coco,
    labelme_to_coco,
)
from seglib.datasets.download import data_home, find, prepare
from seglib.datasets.download.catalog import CARDS
from seglib.datasets.download.fetch import format_bytes

__all__ = ["main"]


def _print_list() -> None:
    """Print a line for each data set."""
    print(f"{'name':<16}{'download':>10}{'disk':>10}  {'ready':<5} what")
    for chosen in CARDS.values():
        disk_size = format_bytes(chosen.download_size + chosen.unpacked_size)
        sizes = f"{format_bytes(chosen.download_size):>10}{disk_size:>10}"
        print(f"{chosen.name:<16}{sizes}  {'yes' if find(chosen.name) else 'no':<5} {chosen.title}: {chosen.task}")
    print(f"\nThe data sets are stored in {data_home()}. Classes, licenses and splits: data/README.md")


def number_or_all(text: str) -> int | str:
    """A number of photographs on the command line; argparse shows the name of this function in its error."""
    return text if text == "all" else int(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m seglib.datasets", description="The data sets of the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the data sets, their sizes and whether they are ready")
    get = commands.add_parser("get", help="download a data set, check it, lay it out and print its folder")
    where = commands.add_parser("where", help="print the folder of a data set")
    for command in (get, where):
        command.add_argument("name", choices=CARDS, metavar="NAME", help=", ".join(CARDS))
    get.add_argument("--categories", nargs="+", help="coco only: category names; default: all 80")
    photos = 'coco and coco_four: photographs of each category, or "all"; default: 100, for coco_four 1000'
    get.add_argument("--photos", type=number_or_all, metavar="N", help=photos)
    get.add_argument("--test-photos", type=number_or_all, metavar="N", help="to test with; default: a quarter of N")
    get.add_argument("--seed", type=int, default=0, help="coco and coco_four: selects other photographs")
    for name, text in (("check", "report what is wrong with a data set of yours"), ("convert", "convert its labels")):
        command = commands.add_parser(name, help=text)
        command.add_argument(
            "folder", help="of COCO, YOLO, VOC or mask files" + "; labelme; a csv" * (name == "convert")
        )
        if name == "convert":
            command.add_argument("out", help="a new folder; for labelme and csv the JSON file to write")
            command.add_argument("--to", choices=FORMATS, default="coco")
            command.add_argument("--images", help="the folder of images that belongs to a csv")
        _add_reader_options(command)
    return parser


def _add_reader_options(command: argparse.ArgumentParser) -> None:
    """Settings of the readers, by default those that are guessed from the files."""
    options = command.add_argument_group("how the files are read; what is left out is guessed")
    options.add_argument("--classes", nargs="+", help="the class names of masks, background first")
    options.add_argument("--categories", nargs="+", help="COCO: the names to read")
    options.add_argument("--values", nargs="+", type=int, help="the mask value of each class")
    options.add_argument("--void", nargs="+", type=int, help="mask values that do not count")
    options.add_argument("--threshold", type=float, help="larger mask values are the object")
    options.add_argument("--colors", help="labelmap.txt or _classes.csv")
    for flag in ("--instance-ids", "--object-masks"):
        options.add_argument(flag, action="store_true", default=None)
    for option in ("--mask-suffix", "--image-suffix"):
        options.add_argument(option)
    options.add_argument("--bands", nargs="+", type=int, help="of the images, for red, green and blue; the first is 1")
    options.add_argument("--white", type=float, help="the value of the images that becomes 255")
    options.add_argument("--page", type=int, help="of stacks, from 1")


def _check(folder: str, **settings: Any) -> int:
    """Print the report on a folder: 0 if a training would work, 1 if not, 2 if no layout is known."""
    report = check(folder, **settings)
    print(report)
    return 2 if not report.parts else int(not report.ok)


def _convert(folder: str, out: str, to: str, images: str | None = None, **settings: Any) -> None:
    """Convert a folder or a file, and print what was written and what could not be kept."""
    source = Path(folder)
    if source.suffix.lower() == ".csv":
        counts = kaggle_rle_to_coco(source, images or source.parent, out)
    elif (source / "SegmentationObject").is_dir() and (source / "labelmap.txt").is_file() and to == "coco":
        counts = cvat_masks_to_coco(source, out)
    elif to == "coco" and is_labelme(source):
        counts = labelme_to_coco(source, out)
    else:
        counts = convert(source, to, out, **settings)
    print(*(f"{name}: {count}" for name, count in counts.items() if count), sep="\n")


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = {key: value for key, value in vars(_parser().parse_args(arguments)).items() if value is not None}
    command = options.pop("command")
    try:
        if command == "list":
            _print_list()
        elif command == "check":
            return _check(**options)
        elif command == "convert":
            _convert(**options)
        elif command == "get":
            with contextlib.redirect_stdout(sys.stderr):  # so that $(...) catches the folder alone
                folder = prepare(**options)
            print(folder)
        else:
            folders = find(options["name"])
            if not folders:
                raise FileNotFoundError(
                    f"{options['name']} is not in {data_home()}: python -m seglib.datasets get {options['name']}"
                )
            print(*folders, sep="\n")
    except (OSError, ValueError, TypeError) as error:
        print(error, file=sys.stderr)
        return 2 if command == "check" else 1
    except KeyboardInterrupt:
        print("\nInterrupted. The downloaded files are kept: run the command again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
