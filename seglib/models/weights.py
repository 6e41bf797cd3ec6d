"""ImageNet weights: fetched by the libraries that publish them, and found where somebody put them by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue over ImageNet's training images, on the scale 0-1:
IMAGENET_STD = (0.229, 0.224, 0.225)  # what torchvision's weights and nearly all others were trained with


@contextmanager
def of_torchvision(published: Any, what: str) -> Iterator[dict]:
    """Weights that torchvision publishes, fetched once, the checksum compared; for the block that loads them.

    Args:
        published: a member of one of torchvision's enumerations of weights. what: the weights by name.
    """
    place = Path(torch.hub.get_dir(), "checkpoints", published.url.rsplit("/", 1)[-1])
    with explained(what, {place: published.url}):
        yield published.get_state_dict(check_hash=True, map_location="cpu", weights_only=True)


@contextmanager
def explained(what: str, files: dict[Path, str]) -> Iterator[None]:
    """Turn whatever goes wrong with weights into an error that says which file, from where, and what to do.

    Args:
        what: the weights by name. files: the address of each file by the place where it belongs.

    Raises:
        OSError: the weights could not be had, or those that are there are not the right ones.
    """
    try:
        yield
    except Exception as error:  # of the network, of the disk, of zip, pickle and safetensors, of the wrong names inside
        listed = "\n".join(
            f"  {place}, from {address} ({'is there' if place.exists() else 'missing'})"
            for place, address in files.items()
        )
        reason = " ".join(str(error).split()).split(". ")[0][:200]
        raise OSError(
            f"{what} cannot be had ({type(error).__name__}: {reason}). They belong in\n{listed}\n"
            "Put there by hand, they are found; what is there and was cut short is to be deleted. weights=None trains "
            "from scratch and needs none."
        ) from error
