"""The data sets from the command line: `python -m seglib.datasets --help`."""

import argparse
import contextlib
import sys
from pathlib import Path

from seglib.datasets.download import data_home, find, prepare
from seglib.datasets.download.catalog import CARDS, Card, Remote, card
from seglib.datasets.download.fetch import format_bytes

__all__ = ["main", "write_readme"]

_README = Path(__file__).parents[2] / "data" / "README.md"
_BEGIN = "<!-- cards: begin -->\n"
_END = "<!-- cards: end -->"


def write_readme(path: Path = _README) -> None:
    """Write a section for each card between the marks of data/README.md."""
    before, _, rest = path.read_text(encoding="utf-8").partition(_BEGIN)
    _, _, after = rest.partition(_END)
    sections = "\n".join(_section(chosen) for chosen in CARDS.values())
    path.write_text(f"{before}{_BEGIN}\n{sections}\n{_END}{after}", encoding="utf-8")


def _section(chosen: Card) -> str:
    """A card as a section of data/README.md."""
    download_size = format_bytes(chosen.download_size)
    facts = {
        "Task": chosen.task,
        "Images": ", ".join(f"{part} {count:,}" for part, count in chosen.counts.items()),
        "Classes": _classes(chosen),
        "License": chosen.license,
        "Cite": chosen.citation,
        "Splits": chosen.splits,
        "Size": f"about {download_size} to download, {format_bytes(chosen.disk_size)} of disk while it is unpacked",
    }
    lines = [f"## {chosen.title} (`{chosen.name}`)", "", f"<{chosen.homepage}>", ""]
    lines += [f"* **{name}:** {fact}." for name, fact in facts.items()]
    lines += ["* **Files:**", *(line for remote in chosen.files for line in _file_lines(remote))]
    paths = [f"  {path}" for path in (*chosen.layout, *chosen.extras)]
    return "\n".join([*lines, "", "```", f"{chosen.folder}/", *paths, "```"]) + "\n"


def _classes(chosen: Card) -> str:
    """The classes with their colors; of a long list, only the names."""
    if len(chosen.classes) > 25:
        return f"{len(chosen.classes) - 1}: {', '.join(chosen.classes[1:])}. Shown in the colors of the course"
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in chosen.colors]
    return ", ".join(f"{name} `{color}`" for name, color in zip(chosen.classes, colors, strict=True))


def _file_lines(remote: Remote) -> list[str]:
    """A file to download, as lines of a list."""
    size = f"{remote.size:,} bytes" if remote.size is not None else "exact size not published"
    checksum = f"`{remote.checksum}`" if remote.checksum else "no checksum published"
    source = f" ({remote.published})" if remote.published else ""
    return [f"  * `{remote.name}`, {size}, {checksum}{source}:", *(f"    <{url}>" for url in remote.urls)]


def _print_list() -> None:
    """Print a line for each data set."""
    print(f"{'name':<16}{'download':>10}{'disk':>10}  {'ready':<5} what")
    for chosen in CARDS.values():
        sizes = f"{format_bytes(chosen.download_size):>10}{format_bytes(chosen.disk_size):>10}"
        print(f"{chosen.name:<16}{sizes}  {'yes' if find(chosen.name) else 'no':<5} {chosen.title}: {chosen.task}")
    print(f"\nThe data sets are stored in {data_home()}. Classes, licenses and splits: data/README.md")


def _photo_count(text: str) -> int | str:
    """A number of photographs on the command line, which may be "all"."""
    try:
        return text if text == "all" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f'{text!r} is neither a number nor "all"') from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m seglib.datasets", description="The data sets of the course.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", help="print the data sets, their sizes and whether they are ready")
    get = commands.add_parser("get", help="download a data set, check it, lay it out and print its folder")
    where = commands.add_parser("where", help="print the folder of a data set")
    commands.add_parser("readme", help="write the cards into data/README.md (for maintainers)")
    for command in (get, where):
        command.add_argument("name", choices=CARDS, metavar="NAME", help=", ".join(CARDS))
    get.add_argument("--categories", nargs="+", help="coco only: category names; default: all 80")
    for option, text in (
        ("--photos", 'of each category, or "all"; default: 100, for coco_four 1000'),
        ("--test-photos", "of each category, to test with; default: a quarter of --photos"),
    ):
        get.add_argument(option, type=_photo_count, metavar="N", help=f"coco and coco_four: photographs {text}")
    get.add_argument("--seed", type=int, default=0, help="coco and coco_four: selects other photographs")
    return parser


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return the exit status."""
    options = vars(_parser().parse_args(arguments))
    command = options.pop("command")
    try:
        if command == "list":
            _print_list()
        elif command == "readme":
            write_readme()
        elif command == "get":
            with contextlib.redirect_stdout(sys.stderr):  # so that $(...) catches the folder alone
                folder = prepare(**options)
            print(folder)
        else:
            name = options["name"]
            folders = find(name)
            if not folders:
                raise FileNotFoundError(
                    f"{card(name).title} is not in {data_home()}: python -m seglib.datasets get {name}"
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
