"""Old drawings."""

from seglib.datasets.sample.old_objects.outlines import pick

__all__ = ["pick"]
