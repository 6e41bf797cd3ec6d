"""The one progress bar of the library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import Any, TypeVar

from tqdm import tqdm

__all__ = ["progress_bar"]

Item = TypeVar("Item")


def progress_bar(
    items: Iterable[Item] | None, title: str, done: int = 0, quiet: bool = False, **options: Any
) -> tqdm[Item]:
    """Wrap `items` in a progress bar that disappears when they are done. It is text: widgets break notebooks on GitHub.

    The first of several processes shows it, in a terminal or in a notebook, but not in a log file.

    Args:
        items: what to iterate over; None: call `update` on the bar instead.
        title: text before the bar.
        done: number of items that were done before these.
        quiet: show nothing.
        options: arguments of tqdm, such as `total` and `unit`; "B" stands for bytes, shown as kB, MB, ...
    """
    in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
    hidden = quiet or not (sys.stdout.isatty() or in_notebook) or os.environ.get("RANK", "0") != "0"
    options |= {"initial": done, "unit_scale": options.get("unit") == "B", "disable": hidden}
    return tqdm(items, title, leave=False, file=sys.stdout, ncols=80, mininterval=0.5, **options)  # type: ignore[return-value]
