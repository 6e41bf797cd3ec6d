"""Write a section for each data set into data/README.md, between its marks, from the cards in seglib.

python tools/cards.py
"""

from pathlib import Path

from seglib.datasets.download.catalog import CARDS, Card, Remote
from seglib.datasets.download.fetch import format_bytes

README = Path(__file__).parents[1] / "data" / "README.md"
BEGIN = "<!-- cards: begin -->\n"
END = "<!-- cards: end -->"


def with_cards(text: str) -> str:
    """Return the text of data/README.md with the present cards between the marks."""
    before, _, rest = text.partition(BEGIN)
    _, _, after = rest.partition(END)
    sections = "\n".join(section(chosen) for chosen in CARDS.values())
    return f"{before}{BEGIN}\n{sections}\n{END}{after}"


def section(chosen: Card) -> str:
    """Return a card as a section of data/README.md."""
    download_size = format_bytes(chosen.download_size)
    disk_size = format_bytes(chosen.download_size + chosen.unpacked_size)
    facts = {
        "Task": chosen.task,
        "Images": ", ".join(f"{part} {count:,}" for part, count in chosen.counts.items()),
        "Classes": classes(chosen),
        "License": chosen.license,
        "Cite": chosen.citation,
        "Splits": chosen.splits,
        "Size": f"about {download_size} to download, {disk_size} of disk while it is unpacked",
    }
    lines = [f"## {chosen.title} (`{chosen.name}`)", "", f"<{chosen.homepage}>", ""]
    lines += [f"* **{name}:** {fact}." for name, fact in facts.items()]
    lines += ["* **Files:**", *(line for remote in chosen.files for line in file_lines(remote))]
    paths = [f"  {path}" for path in (*chosen.layout, *chosen.extras)]
    return "\n".join([*lines, "", "```", f"{chosen.folder}/", *paths, "```"]) + "\n"


def classes(chosen: Card) -> str:
    """Return the classes with their colors; of a long list, only the names."""
    if len(chosen.classes) > 25:
        return f"{len(chosen.classes) - 1}: {', '.join(chosen.classes[1:])}. Shown in the colors of the course"
    colors = ["#{:02x}{:02x}{:02x}".format(*color) for color in chosen.colors]
    return ", ".join(f"{name} `{color}`" for name, color in zip(chosen.classes, colors, strict=True))


def file_lines(remote: Remote) -> list[str]:
    """Return a file to download, as lines of a list."""
    size = f"{remote.size:,} bytes" if remote.size is not None else "exact size not published"
    checksum = f"`{remote.checksum}`" if remote.checksum else "no checksum published"
    source = f" ({remote.published})" if remote.published else ""
    addresses = [f"    <{url}>" for url in remote.urls] or ["    to be fetched with a browser, see above"]
    return [f"  * `{remote.name}`, {size}, {checksum}{source}:", *addresses]


if __name__ == "__main__":
    README.write_text(with_cards(README.read_text(encoding="utf-8")), encoding="utf-8")
