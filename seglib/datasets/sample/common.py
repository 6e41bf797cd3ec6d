"""Constants that the writers of all sample data sets share."""

__all__ = [
    "LICENSES",
    "PERIOD",
    "VERSION",
]

VERSION = 2  # part of the folder's name; increase it whenever the pictures change, so that old folders are not reused
PERIOD = 80  # the special pictures repeat after this many pictures; a multiple of 5, so that splits repeat as well
LICENSES = [  # COCO's field of that name
    {"id": 1, "name": "CC0 1.0", "url": "https://creativecommons.org/publicdomain/zero/1.0/"},
]
