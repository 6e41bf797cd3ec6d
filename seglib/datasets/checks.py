"""Check a folder of images and labels: what would stop a training on it, or make its result wrong."""

import hashlib
import os
import warnings
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from seglib.datasets.layouts import Part, find_parts
from seglib.files import short_path
from seglib.masks import IGNORE
from seglib.progress import progress_bar

__all__ = ["Finding", "Report", "check"]

_SEVERITIES = {
    "error": "A training would stop or learn something wrong",
    "warning": "A training would run; look at these",
    "note": "Good to know",
}
_NEAR = 4  # of 64 bits of a perceptual hash by which images may differ and yet be near-equal
_RARE = 0.001  # of the pixels
_THIN = 0.02  # of the pixels of a class: fewer inside of it are a sign of masks that were interpolated


@dataclass(frozen=True)
class Finding:
    """Something in a data set that needs attention.

    Attributes:
        severity: "error", "warning" or "note".
        kind: what is wrong, in the same words for all files with this fault.
        where: the part and its file, relative to the folder.
        what: the details.
        remedy: what to do about it.
    """

    severity: str
    kind: str
    where: str
    what: str = ""
    remedy: str = ""


@dataclass
class Report:
    """The result of `check`. `print(report)` shows it; `ok` says whether a training would work.

    Attributes:
        folder: the folder.
        parts: its parts; `parts[0].open()` reads the first.
        calls: the call that reads each part.
        images: the number of images of each part by its name.
        balance: by the name of a part, for each class its share of the pixels and the number of images that have it.
        findings: what needs attention.
    """

    folder: Path
    parts: list[Part] = field(default_factory=list)
    calls: list[str] = field(default_factory=list)
    images: dict[str, int] = field(default_factory=dict)
    balance: dict[str, dict[str, tuple[float, int]]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether there is a layout and no error."""
        return bool(self.parts) and not any(finding.severity == "error" for finding in self.findings)

    def __str__(self) -> str:
        layout = self.parts[0].layout if self.parts else "no known layout"
        lines = [f"{short_path(self.folder)}: {layout}", *self.calls, "", *self._balance_lines()]
        for severity, title in _SEVERITIES.items():
            groups: dict[str, list[Finding]] = defaultdict(list)
            for finding in self.findings:
                if finding.severity == severity:
                    groups[f"{finding.kind}. {finding.remedy}".strip()].append(finding)
            lines += [f"{title}: {severity}s, {sum(map(len, groups.values()))}"] if groups else []
            for kind, found in groups.items():
                lines += [f"  {len(found)} x {kind}"]
                lines += ["      " + ": ".join(filter(None, (finding.where, finding.what))) for finding in found[:5]]
                lines += ["      ..."] if len(found) > 5 else []
        return "\n".join([*lines, "" if self.findings else "Nothing to mend."])

    def _balance_lines(self) -> list[str]:
        """A table of the classes: in how many images each occurs, and its share of the pixels."""
        names = list(dict.fromkeys(name for shares in self.balance.values() for name in shares))
        lines = [f"{'images and pixels with':<24}" + "".join(f"{part[:14]:>16}" for part in self.balance)]
        for name in names:
            cells = (shares.get(name, (0.0, 0)) for shares in self.balance.values())
            lines.append(f"{name[:23]:<24}" + "".join(f"{count:7}{share:9.2%}" for share, count in cells))
        return [*lines, ""] if names else []


def check(folder: str | Path, **settings: Any) -> Report:
    """Read every sample of a data set once, and report what needs attention.

    The layout is recognized: COCO, YOLO, VOC, or folders of images and masks. The readers find most faults; see
    `Finding` for the severity of each.

    Args:
        folder: the folder of the data set.
        settings: settings of its reader, such as classes=["background", "leaf"] or values=[0, 255], in place of those
            that are guessed from the files.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    reasons: list[str] = []
    report = Report(Path(folder), find_parts(folder, reasons))
    if not report.parts:
        report.findings += [Finding("error", "A file does not fit", "", reason) for reason in reasons]
        remedy = "Give a folder with COCO's JSON, data.yaml, JPEGImages/, or folders of images and masks side by side"
        report.findings.append(Finding("error", "No known layout", str(folder), "", remedy))
    seen = _Duplicates(report.findings)
    for part in report.parts:
        report.calls.append(f"  {part.name}: {part.call(**settings)}")
        _check_part(part, settings, report, seen)
    seen.compare()
    for place, finding in enumerate(report.findings):
        where, what = (text.replace(f"{report.folder}{os.sep}", "") for text in (finding.where, finding.what))
        report.findings[place] = replace(finding, where=where, what=what)
    return report


def _check_part(part: Part, settings: dict[str, Any], report: Report, seen: "_Duplicates") -> None:
    """Add what is found in a part to a report."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            data = part.open(on_error="list", **settings)
        except (OSError, ValueError, TypeError) as error:
            report.findings.append(Finding("error", "A part cannot be opened", part.name, str(error)))
            return
        report.images[part.name] = len(data)
        totals = np.zeros((2, 256), dtype=np.int64)
        images_with = np.zeros(256, dtype=np.int64)
        empty = []
        for index in progress_bar(range(len(data)), f"checking {part.name}"):
            name = data.filenames[index]
            counts = _check_sample(data, index, report.findings, seen, f"{part.name}: {name}")
            totals += counts
            images_with += counts[0] > 0
            if counts.any() and not counts[0, 1:IGNORE].any():
                empty.append(name)
    report.findings += _guesses(part, settings)
    texts = dict.fromkeys(str(each.message) for each in caught if issubclass(each.category, UserWarning))
    report.findings += [Finding("warning", "The reader warns", part.name, text) for text in texts]
    report.findings += _problems(data.problems, part.name)
    if empty:
        nothing = len(empty) == len(data)
        kind = "No image shows an object" if nothing else "Images without an object"
        remedy = "Check the values of the classes" if nothing else "Right if there is none; else a label is missing"
        what = f"{len(empty)} of {len(data)}, such as {empty[0]}"
        report.findings.append(Finding("error" if nothing else "note", kind, part.name, what, remedy))
    for k, name in enumerate(data.classes):
        if images_with[k] > 2 and totals[1, k] < _THIN * totals[0, k]:
            what = f"{name}: {totals[1, k]} of {totals[0, k]} pixels have it on all sides"
            remedy = "Were the masks resized with interpolation? Resize them by the nearest pixel"
            report.findings.append(Finding("warning", "A class only at edges", part.name, what, remedy))
    report.balance[part.name] = _balance(data.classes, totals[0], images_with)
    for name, (share, count) in report.balance[part.name].items():
        if share < _RARE and totals.any():
            kind = "A class on no image" if not count else f"A class on less than {_RARE:.1%} of the pixels"
            what = f"{name} on {count} images, {share:.3%} of the pixels"
            remedy = "It can hardly be learned: add images, merge it, or weight the loss (class_weights)"
            report.findings.append(Finding("note" if count else "warning", kind, part.name, what, remedy))


def _guesses(part: Part, settings: dict[str, Any]) -> list[Finding]:
    """Findings for what was guessed about the values of masks."""
    found = []
    if "threshold" in part.merged(settings):
        remedy = "Export them as PNG without smoothing or resizing if you can"
        found.append(Finding("warning", "Masks have soft edges, from JPEG or resizing", part.name, "", remedy))
    if part.settings and not settings.keys() & {"classes", "colors"}:
        remedy = "Look at some masks, then pass classes=, and void= for values that do not count"
        found.append(Finding("note", "Names and meaning of the mask values are guessed", part.name, "", remedy))
    return found


def _check_sample(data: Any, index: int, findings: list[Finding], seen: "_Duplicates", where: str) -> np.ndarray:
    """See `_count`: the pixels of a mask, all 0 if the sample cannot be read, which is a finding."""
    try:
        image, mask, name = data[index]
    except (OSError, ValueError, MemoryError) as error:
        remedy = 'Repair the file, or leave it out: on_error="skip"'
        findings.append(Finding("error", "A sample cannot be read", where, str(error), remedy))
        return np.zeros((2, 256), dtype=np.int64)
    seen.add(where, data.images_dir / name, image.permute(1, 2, 0).numpy())
    if hasattr(data, "annotations"):
        entry = data.images[index]
        outside = [item["id"] for item in data.annotations(index) if _reaches_outside(item, entry)]
        if outside:
            what = f"annotations {', '.join(map(str, outside[:8]))} of {entry['height']}x{entry['width']} pixels"
            remedy = "They are clipped; if there are many, the image was resized after it was annotated"
            findings.append(Finding("warning", "Polygons reach outside of the image", where, what, remedy))
    return _count(mask.numpy())


def _count(mask: np.ndarray) -> np.ndarray:
    """The number of pixels of each value, (2, 256): all, and those whose four neighbors have the same value."""
    inner = mask[1:-1, 1:-1]
    neighbors = (mask[:-2, 1:-1], mask[2:, 1:-1], mask[1:-1, :-2], mask[1:-1, 2:])
    inside = inner[np.all([neighbor == inner for neighbor in neighbors], axis=0)]
    return np.stack([np.bincount(values, minlength=256) for values in (mask.ravel(), inside)])


def _reaches_outside(annotation: dict[str, Any], entry: dict[str, Any]) -> bool:
    """Whether a polygon reaches more than a pixel beyond its image."""
    if not isinstance(annotation["segmentation"], list):
        return False
    points = np.concatenate([np.reshape(polygon, (-1, 2)) for polygon in annotation["segmentation"]]).astype(float)
    return bool((points < -1).any() or (points > (entry["width"] + 1, entry["height"] + 1)).any())


def _problems(problems: Iterable[Any], part: str) -> list[Finding]:
    """Findings for the problems that a reader lists."""
    kinds = {
        "corrected": ("warning", "Corrected when it is read", ""),
        "repaired": ("error", "A part of an object cannot be drawn", 'Repair it, or read with on_error="skip"'),
        "skipped": ("error", "An entry or a file cannot be used", 'Repair it, or read with on_error="skip"'),
    }
    found = []
    for problem in problems:
        severity, kind, remedy = kinds[problem.action]
        found.append(Finding(severity, kind, f"{part}: {problem.where}", problem.what, remedy))
    return found


def _balance(classes: list[str], pixels: np.ndarray, images_with: np.ndarray) -> dict[str, tuple[float, int]]:
    """The share of the pixels of each class, and the number of images that have it; 255 is named "do not count"."""
    total = max(int(pixels.sum()), 1)
    balance = {name: (pixels[k] / total, int(images_with[k])) for k, name in enumerate(classes)}
    return balance | ({"do not count": (pixels[IGNORE] / total, int(images_with[IGNORE]))} if pixels[IGNORE] else {})


class _Duplicates:
    """Images that are equal or nearly equal, within a part and across parts."""

    def __init__(self, findings: list[Finding]) -> None:
        self._findings = findings
        self._first: dict[bytes, str] = {}  # the image of each content
        self._names: list[str] = []
        self._hashes: list[int] = []
        self._small: list[np.ndarray] = []

    def add(self, where: str, path: Path, pixels: np.ndarray) -> None:
        """Compare an image uint8 (H, W, 3) with those before it, byte by byte, and keep what `compare` needs."""
        import imagehash  # slow to import, and only needed here

        content = hashlib.sha256(path.read_bytes()).digest()
        if content in self._first:
            self._report("Equal images", where, self._first[content])
            return
        self._first[content] = where
        picture = Image.fromarray(pixels).convert("L").resize((64, 64), Image.Resampling.BOX)
        self._names.append(where)
        self._hashes.append(int(str(imagehash.phash(picture)), 16))
        self._small.append(np.asarray(picture.resize((16, 16)), dtype=np.int16))

    def compare(self) -> None:
        """Report the images whose perceptual hashes are nearly equal and whose pixels are, too."""
        hashes = np.array(self._hashes, dtype=np.uint64)
        for index, value in enumerate(hashes):
            near = np.flatnonzero(np.bitwise_count(hashes[:index] ^ value) <= _NEAR)
            alike = [i for i in near if np.abs(self._small[i] - self._small[index]).mean() < 6]
            if alike:
                self._report("Nearly equal images", self._names[index], self._names[alike[0]])

    def _report(self, kind: str, where: str, other: str) -> None:
        across = where.split(": ")[0] != other.split(": ")[0]
        kind += " in two parts" if across else ""
        remedy = "The score on one part is too good: keep them in one part" if across else "Keep one of them"
        self._findings.append(Finding("warning" if across else "note", kind, where, f"as {other}", remedy))
