"""Draws a share of a sample's images and prints their records: what `render` starts on every core."""

import json
import sys
from pathlib import Path

from seglib.datasets.sample import WRITERS

name, folder = sys.argv[1:3]
images, size, seed, step, first = map(int, sys.argv[3:])
for index in range(first, images, step):
    print(json.dumps(WRITERS[name].write_image(Path(folder), index, images, size, seed)), flush=True)
