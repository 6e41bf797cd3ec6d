"""Pretrained weights: downloaded and cached by the libraries that publish them, or put into their caches by hand."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from torchvision.models import WeightsEnum

__all__ = ["explain_weight_errors", "torchvision_weights"]


@contextmanager
def torchvision_weights(entry: "WeightsEnum", title: str) -> Iterator[dict[str, Tensor]]:
    """Yield a state dict that torchvision publishes, downloaded once and checked against its checksum.

    Args:
        entry: a member of one of torchvision's enumerations of weights.
        title: what the weights are called in an error message.

    Raises:
        OSError: see `explain_weight_errors`, which also explains the errors of the block that loads the state dict.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", entry.url.rsplit("/", 1)[-1])
    with explain_weight_errors(title, {path: entry.url}):
        yield entry.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)


@contextmanager
def explain_weight_errors(title: str, files: Mapping[Path, str]) -> Iterator[None]:
    """Turn any error of a block that downloads or loads weights into one that says what to do.

    Args:
        title: what the weights are called in the message.
        files: the address of each file, by the path at which it is cached.

    Raises:
        OSError: the weights cannot be downloaded, or the cached files are damaged or belong to another model. The
            message names the files, their addresses and the remedies.
    """
    try:
        yield
    except Exception as error:  # raised by the network, the disk, zip, pickle, safetensors or load_state_dict
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        states = {path: "present" if path.exists() else "missing" for path in files}
        listed = "\n".join(f"  {path}, from {url} ({states[path]})" for path, url in files.items())
        raise OSError(
            f"cannot load {title} ({type(error).__name__}: {reason}). They are read from\n{listed}\n"
            "Download a missing file and put it there; delete a damaged one. weights=None trains from scratch and "
            "needs no files."
        ) from error
