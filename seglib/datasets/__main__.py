"""The data sets from the command line: `python -m seglib.datasets --help`."""

import argparse
import contextlib
import sys

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
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        if command == "list":
            _print_list()
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
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. The downloaded files are kept: run the command again to continue.", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
