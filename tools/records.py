"""The records in assets/results/, and what README.md shows of them: two tables and pictures."""

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from seglib.files import write_json

ROOT = Path(__file__).parents[1]
PROFILES = ("tiny", "demo", "full")
COLUMNS = ("lesson", "measured", "value", "baseline", "spread", "profile", "data", "machine", "minutes")
REAL_COLUMNS = (
    "record",
    "experiment",
    "measured",
    "value",
    "published",
    "what differs",
    "images",
    "machine",
    "minutes",
)
DASH = "–"  # in the table: there is no such number

Record = dict[str, Any]  # what lesson.record wrote; see its docstring


def read_records(root: Path = ROOT) -> dict[str, Record]:
    """Return the record of each lesson that has one, by the lesson's name, appendices last."""
    records = {}
    for pattern in ("[0-9][0-9]_*.json", "a[0-9]_*.json"):
        for file in sorted((root / "assets" / "results").glob(pattern)):
            record = json.loads(file.read_text(encoding="utf-8"))
            records[file.stem.removesuffix(f"_{record['profile']}")] = record
    return records


def keep_record(lesson: str, record: Record, root: Path = ROOT) -> None:
    """Write the record of a lesson to assets/results/, in place of its record of any profile."""
    folder = root / "assets" / "results"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{lesson}_{record['profile']}.json"
    write_json(file, record)
    for profile in set(PROFILES) - {record["profile"]}:
        (folder / f"{lesson}_{profile}.json").unlink(missing_ok=True)


def keep_picture(lesson: str, notebook: nbformat.NotebookNode, root: Path = ROOT) -> None:
    """Write the first picture of the cell with the tag `readme`, if there is one, to assets/ as a JPEG."""
    outputs = [o for cell in notebook.cells if "readme" in cell.metadata.get("tags", ()) for o in cell.outputs]
    for output in outputs:
        for kind in ("image/png", "image/jpeg"):
            if kind in output.get("data", {}):
                write_jpeg(base64.b64decode(output.data[kind]), root / "assets" / f"{lesson}.jpg")
                return


def write_jpeg(content: bytes, path: Path) -> None:
    """Write an image file of any kind as a JPEG, on white where it is transparent."""
    image = Image.open(io.BytesIO(content)).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.alpha_composite(white, image).convert("RGB").save(path, quality=65, optimize=True)


def write_tables(root: Path = ROOT) -> None:
    """Write the tables of results into README.md, between their marks."""
    readme = root / "README.md"
    text = readme.read_text(encoding="utf-8")
    for name, table in (("measured", results_table(root)), ("real", real_table(root))):
        before, rest = text.split(f"<!-- {name}: begin -->")
        after = rest.split(f"<!-- {name}: end -->")[1]
        text = before + between_marks(name, table) + after
    readme.write_text(text, encoding="utf-8")


def between_marks(name: str, table: str) -> str:
    """Return a table with the marks that show where it stands in README.md."""
    return f"<!-- {name}: begin -->\n{table}<!-- {name}: end -->"


def results_table(root: Path = ROOT) -> str:
    """Return the Markdown table of the records of all lessons."""
    return markdown([COLUMNS, *(row(lesson, record) for lesson, record in read_records(root).items())])


def real_table(root: Path = ROOT) -> str:
    """Return the Markdown table of the records of all experiments on real images."""
    paths = sorted((root / "assets" / "results" / "real").glob("*.json"))
    return markdown(
        [REAL_COLUMNS, *(real_row(path.stem, json.loads(path.read_text(encoding="utf-8"))) for path in paths)]
    )


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table; the first row is its head."""
    rows = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in rows)


def real_row(name: str, record: Record) -> list[str]:
    """Return the cells of an experiment on real images in the table."""
    published = record["published"] or {"value": DASH, "source": "none found", "differs": DASH}
    value = number(record["value"]) + (f" (spread {number(record['spread'])})" if "spread" in record else "")
    return [
        f"[{name}](assets/results/real/{name}.json)",
        record["description"].rstrip("."),
        record["metric"],
        value,
        f"{published['value']}: {published['source']}",
        published["differs"],
        data(record),
        record["machine"],
        f"{record['minutes']:.0f}",
    ]


def row(lesson: str, record: Record) -> list[str]:
    """Return the cells of a lesson in the table. A lesson without a network shows the value of its first comparison."""
    value = record["value"]
    comparisons = list((record.get("comparisons") or {}).values())
    if value is None and comparisons:
        value = comparisons[0]["value"]
    machine = record.get("machine") or record.get("device") or DASH
    minutes = f"{record['seconds'] / 60:.1f}"
    numbers = [number(value), number(record.get("baseline")), number(record.get("spread"))]
    return [lesson, record["metric"], *numbers, record["profile"], data(record), machine, minutes]


def number(value: float | None) -> str:
    """Return a metric as the table shows it."""
    return DASH if value is None else f"{value:.3f}"


def data(record: Record) -> str:
    """Return the data of a record in words, for example "drawn scenes: 300 train, 100 test"."""
    found = record.get("data") or {}
    name = found.get("name") if record["profile"] == "full" else "drawn scenes"
    images = ", ".join(f"{count:,} {part}" for part, count in (found.get("images") or {}).items())
    return f"{name or DASH}: {images}" if images else name or DASH
