"""The one progress bar of the library."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from typing import TypeVar

from tqdm import tqdm

__all__ = ["progress_bar"]

Item = TypeVar("Item")


def progress_bar(
    items: Iterable[Item] | None,
    title: str,
    *,
    total: int | None = None,
    done: int = 0,
    unit: str = "it",
    quiet: bool = False,
) -> tqdm[Item]:
    """Wrap `items` in a progress bar that disappears when they are done. It is text: widgets break notebooks on GitHub.

    The first of several processes shows it, in a terminal or in a notebook, but not in a log file.

    Args:
        items: what to iterate over; None: call `update` on the bar instead.
        title: text before the bar.
        total: number of items, where `items` has no length.
        done: number of items that were done before these.
        unit: name of an item; "B" stands for bytes, shown as kB, MB, ...
        quiet: show nothing.
    """
    in_notebook = type(sys.stdout).__module__.startswith("ipykernel")
    visible = (sys.stdout.isatty() or in_notebook) and os.environ.get("RANK", "0") == "0"
    return tqdm(  # type: ignore[return-value]  # the stubs know items or None, not either
        items,
        desc=title,
        total=total,
        initial=done,
        unit=unit,
        unit_scale=unit == "B",
        disable=quiet or not visible,
        leave=False,
        file=sys.stdout,
        ncols=80,
        mininterval=0.5,
    )
