"""Pretrained weights: downloaded and cached by the libraries that publish them, or put into their caches by hand."""

from collections.abc import Iterator
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
    """Yield a state dict of torchvision, downloaded once and checked against its checksum. `title` names it in errors.

    Raises:
        OSError: see `explain_weight_errors`, which also explains the errors of the block that loads the state dict.
    """
    path = Path(torch.hub.get_dir(), "checkpoints", entry.url.rsplit("/", 1)[-1])
    with explain_weight_errors(title, entry.url, path):
        yield entry.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)


@contextmanager
def explain_weight_errors(title: str, url: str, path: Path) -> Iterator[None]:
    """Turn any error of a block that downloads or loads weights into one that says what to do.

    Args:
        title: what the weights are called in the message.
        url: where they are published.
        path: the file or folder in which they are cached.

    Raises:
        OSError: the weights cannot be downloaded, or the cached ones are damaged or belong to another model.
    """
    try:
        yield
    except Exception as error:  # raised by the network, the disk, zip, pickle, safetensors or load_state_dict
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise OSError(
            f"cannot load {title} ({type(error).__name__}: {reason}). They are downloaded once from {url} and kept in "
            f"{path}. Without a network, copy them there from another machine; delete them there if they are damaged. "
            "weights=None trains from scratch and needs no files."
        ) from error
