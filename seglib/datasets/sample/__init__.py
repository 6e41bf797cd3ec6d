"""The bundled sample: scenes drawn by code, in the layouts of the real data sets."""

from seglib.datasets.sample.coco import render

__all__ = ["render"]
