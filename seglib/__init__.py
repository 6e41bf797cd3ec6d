"""seglib: data sets, models, losses, metrics and a training loop for image segmentation.

Importing it is cheap: torch and its like are imported by the modules that need them.
"""

__version__ = "0.1.0"
