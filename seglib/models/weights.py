"""ImageNet weights: fetched by the libraries that publish them, and found where somebody put them by hand."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

IMAGENET_MEAN = (0.485, 0.456, 0.406)  # of red, green and blue over ImageNet's training images, on the scale 0-1:
IMAGENET_STD = (0.229, 0.224, 0.225)  # what torchvision's weights and nearly all others were trained with


@contextmanager
def explained(model: str, files: dict[Path, str]) -> Iterator[None]:
    """Turn whatever goes wrong with weights into an error that says which file, from where, and what to do.

    Args:
        files: the address of each file by the place where it belongs.

    Raises:
        OSError: the weights could not be had, or those that are there are not the right ones.
    """
    try:
        yield
    except Exception as error:  # of the network, of the disk, of zip, pickle and safetensors, of the wrong names inside
        listed = "\n".join(f"  {place}, from {address}" for place, address in files.items())
        reason = " ".join(str(error).split())
        raise OSError(
            f"the ImageNet weights of {model} cannot be had ({type(error).__name__}: {reason[:300]}). They belong in\n"
            f"{listed}\n"
            "Put there by hand, they are found; delete what is there if it was cut short. weights=None trains from "
            "scratch and needs none."
        ) from error
