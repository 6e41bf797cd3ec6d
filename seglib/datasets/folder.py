"""A folder of images and a folder of masks: the reader for your own data."""

import csv
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from torch import Tensor
from torch.utils.data import Dataset

from seglib.datasets.base import ON_ERROR, Problem, Transform, as_sample, plain_name, readable, report_problems
from seglib.files import check_choice, is_image_file, open_image, read_image, read_text
from seglib.instances import Instances
from seglib.masks import IGNORE, check_classes, ids_to_rles, mask_to_rle, read_mask_values

__all__ = ["Color", "MaskFolderDataset", "read_class_file"]

Color = tuple[int, int, int]  # red, green, blue
_Pair = tuple[Path, tuple[Path, ...]]  # an image and its mask, or the masks of its objects


class MaskFolderDataset(Dataset[tuple[Tensor, Tensor, str]]):
    """Images and masks with the same names, such as `a.jpg` and `a.png`, in two folders or in one.

    Names may differ in the case of letters, in the form of accents and by a suffix; sub-folders are read, too. A mask
    holds a number for each pixel: that of its class, unless one of `values`, `colors`, `threshold`, `instance_ids` and
    `object_masks` says otherwise.

    Args:
        images_dir: the folder of images.
        masks_dir: the folder of masks. With a suffix, it may be the same folder.
        classes: the class names, background first. Class i is mask value i. None: the names in `colors`; for masks of
            one class "background" and "object".
        void: mask values that mean "do not count"; with `colors`, colors or names. They become 255, which never counts.
        transform: a deterministic change of image and mask, such as `transforms.resize`.
        values: the mask value of each class: [0, 255] for black and white masks.
        colors: the color of each class by name, such as {"leaf": (0, 128, 0)}. What is not named is an error, except
            black, which is background. Classes that `classes` does not name are background. Or the path of CVAT's
            `labelmap.txt`, of a csv with columns name, r, g, b, or of Roboflow's `_classes.csv`, which lists values.
        threshold: larger values are class 1, for gray masks with soft edges and for JPEG.
        instance_ids: the masks number the objects of one class: 0 is background, any other value that is not in `void`
            is an object of class 1. 255 is an object like the others.
        object_masks: a mask file for each object of class 1, where it is not 0: `a_1.png`, `a_2.png`, or `a/1.png`.
        mask_suffix, image_suffix: what follows the common name: "_mask" if the mask of `a.jpg` is `a_mask.png`, ".png"
            if it is `a.png` in the same folder, "mask_*" if the image is `image_a.jpg` and the mask `mask_a.png`.
        bands, white: how images are read, see `files.read_image`.
        page: the page of images and masks that are stacks, from 1.
        on_error: "raise", or "skip" to leave out images without mask, masks without image and files that cannot be
            read.

    Attributes:
        classes: the class names.
        filenames: the paths of the image files, relative to `images_dir`.
        problems: what was skipped.
        has_objects: whether `instances` returns objects, as with `instance_ids` and `object_masks`.

    Raises:
        FileNotFoundError: a folder is missing.
        ValueError: an image without mask or a mask without image; no image at all; settings that contradict each other.
    """

    def __init__(
        self,
        images_dir: str | Path,
        masks_dir: str | Path,
        classes: Sequence[str] | None = None,
        void: Sequence[int | str | Color] = (),
        transform: Transform | None = None,
        *,
        values: Sequence[int] | None = None,
        colors: Mapping[str, Color] | str | Path | None = None,
        threshold: float | None = None,
        instance_ids: bool = False,
        object_masks: bool = False,
        mask_suffix: str = "",
        image_suffix: str = "",
        bands: Sequence[int] | None = None,
        white: float | None = None,
        page: int | None = None,
        on_error: str = "raise",
    ) -> None:
        check_choice("on_error", on_error, ON_ERROR)
        if isinstance(colors, str | Path):
            names, listed, colors = read_class_file(Path(colors))
            classes, values = classes or names, values or listed
        if classes is None and (instance_ids or object_masks or threshold is not None):
            classes = ["background", "object"]
        if classes is None:
            classes = _names_of_colors(colors or {}, void)
        check_classes(classes)
        kinds = {"values": values, "colors": colors, "threshold": threshold}
        kinds |= {"instance_ids": instance_ids or None, "object_masks": object_masks or None}
        given = [name for name, value in kinds.items() if value is not None]
        if len(given) > 1 or (given and given[0] not in ("values", "colors") and len(classes) != 2):
            what = f"not {' and '.join(given)} with the classes {list(classes)}"
            raise ValueError(f"pass one of {', '.join(kinds)}, of which the last three are for two classes, {what}")
        self.images_dir = Path(images_dir)
        self.masks_dir = Path(masks_dir)
        self.classes = list(classes)
        self.transform = transform
        self.problems: list[Problem] = []
        self._threshold = threshold
        self._objects = given[0] if given and given[0] in ("instance_ids", "object_masks") else None
        self.has_objects = self._objects is not None
        self._void_ids = list(void) if self._objects else []
        self._colors = None if colors is None else _color_table(colors, self.classes, void)
        self._class_of_value = _class_table(len(classes), () if self._objects or colors else void, values)
        self._page = page
        self._image_settings = {"bands": bands, "white": white, "page": page}
        self._pairs = self._find_pairs(image_suffix, mask_suffix)
        if on_error == "skip":
            self._pairs = readable(self._pairs, self._read, self.problems, lambda pair: str(pair[0]))
        report_problems(self.problems, on_error, str(self.images_dir))
        if not self._pairs:
            raise ValueError(f"no image with a mask in {self.images_dir} and {self.masks_dir}")
        self.filenames = [image_path.relative_to(self.images_dir).as_posix() for image_path, _ in self._pairs]
        self._warn_of_doubtful_values(may_be_objects=not given and IGNORE not in void)

    def __len__(self) -> int:
        return len(self._pairs)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, str]:
        """Image uint8 (3, H, W), mask uint8 (H, W), file name."""
        pixels, labels = self._read(self._pairs[index])
        image, mask = as_sample(pixels, labels, len(self.classes), self._pairs[index][1][0], self.transform)
        return image, mask, self.filenames[index]

    def instances(self, index: int) -> Instances:
        """The objects of an image at its own size, by ascending id or file name; TypeError if masks hold classes."""
        if self._objects is None:
            raise TypeError(f"the masks of {self.masks_dir} are read as classes; pass instance_ids=True for objects")
        masks = self._pairs[index][1]
        values = self._values(masks[0])
        if self._objects == "object_masks":
            rles = [mask_to_rle(self._values(path) > 0) for path in masks]
        else:
            rles = [rle for number, rle in ids_to_rles(values).items() if number not in self._void_ids]
        return Instances(values.shape, rles, np.ones(len(rles)))

    def _read(self, pair: _Pair) -> tuple[np.ndarray, np.ndarray]:
        """The pixels of an image and the classes of its mask."""
        image_path, masks = pair
        mask = self._classes_of(self._values(masks[0]), masks[0])
        for path in masks[1:]:
            mask = np.maximum(mask, self._classes_of(self._values(path), path))
        return read_image(image_path, mask.shape, **self._image_settings), mask  # type: ignore[arg-type]

    def _values(self, path: Path) -> np.ndarray:
        """The values of a mask: (H, W) or, of a color mask that is read by `colors`, (H, W, 3)."""
        if self._colors is not None:
            with open_image(path, self._page) as image:
                is_jpeg = image.format in ("JPEG", "MPO")
                pixels = np.array(image.convert("RGB"))
            if is_jpeg:
                raise ValueError(f"{path} is a JPEG, which changes the colors at every edge: save masks as PNG")
            return pixels
        values = read_mask_values(path, self._page, exact=self._threshold is None)
        if values.ndim == 3 and self._threshold is None:
            color = values.reshape(-1, 3)[np.argmax(np.ptp(values, axis=2))].tolist()
            raise ValueError(f'{path} holds colors, such as {color}: pass colors={{"name": (red, green, blue), ...}}')
        return values

    def _classes_of(self, values: np.ndarray, path: Path) -> np.ndarray:
        """The class of each pixel of a mask: uint8 (H, W)."""
        if self._threshold is not None:
            gray = values.mean(axis=2) if values.ndim == 3 else values
            return (gray > self._threshold).astype(np.uint8)
        if self._colors is not None:
            return _look_up_colors(values, self._colors, path)
        if self._objects:
            return np.where(np.isin(values, self._void_ids), IGNORE, values > 0).astype(np.uint8)
        if values.dtype == bool and self._class_of_value[1] < 0:  # values=[0, 255] of a mask with one bit a pixel
            values = values * np.uint8(IGNORE)
        index = values
        if values.dtype != np.uint8:
            last = len(self._class_of_value) - 1
            index = np.where((values >= 0) & (values < last), values.astype(np.int64), last)
        mask = self._class_of_value[index]
        unknown = values[mask < 0]
        if unknown.size:
            hint = " If edges are soft, pass threshold=127." if np.unique(values).size > 8 else ""
            raise ValueError(
                f"{path}: mask value {np.unique(unknown)[:8].tolist()} in {unknown.size} pixels; allowed are "
                f"{np.flatnonzero(self._class_of_value >= 0).tolist()}. The classes are {self.classes}; list values "
                f"that do not count in void=. If the values number the objects, pass instance_ids=True.{hint}"
            )
        return mask.astype(np.uint8)

    def _warn_of_doubtful_values(self, may_be_objects: bool) -> None:
        """Warn if none of the white of the first masks would count, or if a table changes how their values look."""
        seen = set()
        for path in [path for _, masks in self._pairs[:20] for path in masks[:1]]:
            try:
                if self._colors is None and (what := _inverting_table(path, self._page)):
                    warnings.warn(f"{path} {what}. (Said once.)", stacklevel=3)
                    return
                seen |= set(np.unique(self._values(path)).tolist()) if may_be_objects else set()
            except (OSError, ValueError):  # raised when the sample is read
                return
        if seen == {0, IGNORE}:
            warnings.warn(
                f"the first masks of {self.masks_dir} hold only 0 and 255, and 255 does not count. Pass "
                "values=[0, 255] if white is the object, void=(255,) if it is not.",
                stacklevel=3,
            )

    def _find_pairs(self, image_suffix: str, mask_suffix: str) -> list[_Pair]:
        """The images with their masks; those without become problems."""
        images = _find_files(self.images_dir, image_suffix)
        masks = _find_files(self.masks_dir, mask_suffix)
        if self.images_dir.resolve() == self.masks_dir.resolve():
            if images and not image_suffix + mask_suffix:
                images, masks = _split_by_folder(images)
            if images and not masks:
                raise ValueError(
                    f"images and masks are both in {self.images_dir}: pass mask_suffix='_mask', for example"
                )
            images = {path: name for path, name in images.items() if path not in masks or image_suffix}
        elif self.masks_dir.resolve().is_relative_to(self.images_dir.resolve()):
            images = {path: name for path, name in images.items() if self.masks_dir not in path.parents}
        pairs = _pair_objects(images, masks) if self._objects == "object_masks" else _pair(images, masks)
        paired = {path for found in pairs.values() for path in found}
        names = {images[path] for path in pairs}
        alone = [path for path in images if path not in pairs]
        for path in alone:
            twin = f"is a second image with the name {path.stem}" if images[path] in names else ""
            hint = _suffix_hint(path, masks, mask_suffix) if path == alone[0] else ""
            self.problems.append(Problem(str(path), twin or f"has no mask of the same name{hint}"))
        self.problems += [Problem(str(path), "has no image of the same name") for path in masks if path not in paired]
        return [(path, pairs[path]) for path in images if path in pairs]


# --------------------------------------------------------------------------------------------------- names


def _find_files(folder: Path, pattern: str) -> dict[Path, str]:
    """The image files below a folder that fit a pattern, and what is left of their names, sub-folders included.

    The pattern is what a name ends in, with or without ".png"; what it begins with stands before a star.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"No such file or directory: {folder}")
    start, _, end = pattern.rpartition("*")
    files = {}
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        name = path.name if "." in end else path.stem
        if (
            is_image_file(path)
            and name.startswith(start)
            and name.endswith(end)
            and "/." not in f"/{relative.as_posix()}"
        ):
            files[path] = (relative.parent / name.removeprefix(start).removesuffix(end)).as_posix()
    return files


def _split_by_folder(files: Mapping[Path, str]) -> tuple[dict[Path, str], dict[Path, str]]:
    """Images and masks by the name of one of their folders: a/images/a.png and a/masks/1.png, for example."""
    kinds: tuple[dict[Path, str], dict[Path, str]] = ({}, {})
    for path, name in files.items():
        parts = name.split("/")
        kept = [part for part in parts if part.lower().rstrip("s") not in ("image", "mask", "label")]
        is_mask = any(part.lower().rstrip("s") in ("mask", "label") for part in parts[:-1])
        kinds[is_mask][path] = "/".join(kept)
    return kinds


def _pair(images: Mapping[Path, str], masks: Mapping[Path, str]) -> dict[Path, tuple[Path, ...]]:
    """The mask of each image: of the same name, else of nearly the same name, else of the same name without folders."""
    forms: tuple[Callable[[str], str], ...] = (str, plain_name, lambda name: plain_name(name.rpartition("/")[2]))
    pairs: dict[Path, tuple[Path, ...]] = {}
    for form in forms:
        used = {path for found in pairs.values() for path in found}
        groups: dict[str, tuple[list[Path], list[Path]]] = defaultdict(lambda: ([], []))
        for path in images.keys() - pairs.keys():
            groups[form(images[path])][0].append(path)
        for path in masks.keys() - used:
            groups[form(masks[path])][1].append(path)
        for named_images, named_masks in groups.values():
            if len(named_masks) == 1 and named_images and (form is str or len(named_images) == 1):
                pairs[min(named_images)] = (named_masks[0],)
    return pairs


def _pair_objects(images: Mapping[Path, str], masks: Mapping[Path, str]) -> dict[Path, tuple[Path, ...]]:
    """The masks of the objects of each image: in a folder of its name, or with names that begin with its name."""
    by_name = {plain_name(name): path for path, name in images.items()}
    by_name = {name.rpartition("/")[2]: path for name, path in by_name.items()} | by_name
    pairs: dict[Path, list[Path]] = defaultdict(list)
    for path, name in masks.items():
        parts = plain_name(name).split("/")
        stem = parts[-1]
        starts = [stem[:end] for end in range(len(stem), 0, -1) if end == len(stem) or not stem[end].isalnum()]
        names = ["/".join([*parts[:-1], start]) for start in starts]
        names += ["/".join(parts[:end]) for end in range(len(parts) - 1, 0, -1)]
        found = next((by_name[each] for each in [*starts, *parts[:-1], *names] if each in by_name), None)
        if found is not None:
            pairs[found].append(path)
    return {path: tuple(found) for path, found in pairs.items()}


def _suffix_hint(image: Path, masks: Mapping[Path, str], given: str) -> str:
    """The setting that would find masks for an image, if their names begin with its name."""
    within = sum(image.stem in Path(name).parts[:-1] for name in masks.values())
    names = [Path(name).name for name in masks.values()]
    rests = [name.removeprefix(image.stem) for name in names if name.startswith(image.stem) and name != image.stem]
    if given or not (within or rests):
        return ""
    if within or len(rests) > 1:
        return f"; {within or len(rests)} masks have it in theirs: pass object_masks=True if each holds one object"
    return f"; one ends in {rests[0]!r}: pass mask_suffix={rests[0]!r}"


# --------------------------------------------------------------------------------------------------- values and colors


def _class_table(classes: int, void: Sequence[int | str | Color], values: Sequence[int] | None) -> np.ndarray:
    """int (65537,): the class of each mask value; 255 if it does not count, -1 if it is not allowed, as is the last."""
    values = range(classes) if values is None else values
    numbers = [value for value in (*values, *void) if isinstance(value, int | np.integer)]
    is_one_for_each = len(values) == classes and len(set(numbers)) == classes + len(set(void)) <= len(numbers)
    if not is_one_for_each or not all(0 <= value < 1 << 16 for value in numbers):
        raise ValueError(
            f"values must hold one value from 0 to 65535 for each of {classes} classes, without repetition and none "
            f"of void {list(void)}, not {list(values)}"
        )
    table = np.full((1 << 16) + 1, -1, dtype=np.int16)
    table[IGNORE] = IGNORE
    table[list(values)] = range(classes)
    table[numbers[len(values) :]] = IGNORE
    return table


def read_class_file(path: Path) -> tuple[list[str], list[int] | None, dict[str, Color] | None]:
    """Class names, background first, with their mask values or colors, from `labelmap.txt` or `_classes.csv`.

    Raises:
        ValueError: a line is not "name:red,green,blue:..." (CVAT), "value, name" (Roboflow), or "name,r,g,b" in a csv
            with such a head.
    """
    lines = [line for line in read_text(path).splitlines() if line.strip() and line[0] != "#"]
    try:
        if path.suffix.lower() == ".csv" and lines[0].lower().replace(" ", "").endswith("r,g,b"):
            rows_of_colors = [[field.strip() for field in row] for row in list(csv.reader(lines))[1:]]
            listed = {name: (int(red), int(green), int(blue)) for name, red, green, blue in rows_of_colors}
            return _names_of_colors(listed, ()), None, listed
        if path.suffix.lower() == ".csv":
            rows = {int(value): name.strip() for value, name, *_ in list(csv.reader(lines))[1:]}
            return [rows[value] for value in sorted(rows)], sorted(rows), None
        colors: dict[str, Color] = {}
        for line in lines:
            name, color, *_ = line.split(":")
            red, green, blue = (int(value) for value in color.split(","))
            colors[name.strip()] = (red, green, blue)
    except (ValueError, IndexError):
        example = "name:red,green,blue::, as in CVAT's labelmap.txt, or value,name, as in Roboflow's _classes.csv"
        raise ValueError(f"{path}: a line is not of the form {example}") from None
    return _names_of_colors(colors, ()), None, colors


def _names_of_colors(colors: Mapping[str, Color], void: Sequence[int | str | Color]) -> list[str]:
    """The class names, background first: it is the class of that name, else the black one, else one that is added."""
    if not colors:
        raise ValueError('classes are needed, such as classes=["background", "leaf"]')
    names = [name for name, color in colors.items() if name not in void and tuple(color) not in void]
    is_background = [name.strip("_").casefold() == "background" for name in names]
    is_black = [tuple(colors[name]) == (0, 0, 0) for name in names]
    first = next((i for table in (is_background, is_black) for i, value in enumerate(table) if value), None)
    return ["background", *names] if first is None else [names[first], *names[:first], *names[first + 1 :]]


def _color_table(
    colors: Mapping[str, Color], classes: Sequence[str], void: Sequence[int | str | Color]
) -> dict[int, int]:
    """The class of each color, which is written as one number; colors of classes that are not wanted are background."""
    missing = [name for name in classes[1:] if name not in colors]
    if missing:
        raise ValueError(f"colors name no {missing}; they name {list(colors)}")
    if len({tuple(color) for color in colors.values()}) < len(colors):
        raise ValueError(f"two classes have one color: {dict(colors)}")
    table = {0: 0}
    for name, color in colors.items():
        is_void = name in void or tuple(color) in void
        table[_code(color)] = IGNORE if is_void else classes.index(name) if name in classes else 0
    return table | {_code(color): IGNORE for color in void if isinstance(color, tuple | list)}


def _code(color: Sequence[int]) -> int:
    red, green, blue = (int(value) for value in color)
    if not 0 <= min(red, green, blue) <= max(red, green, blue) <= 255:
        raise ValueError(f"a color is red, green and blue from 0 to 255, not {tuple(color)}")
    return red << 16 | green << 8 | blue


def _look_up_colors(pixels: np.ndarray, table: Mapping[int, int], path: Path) -> np.ndarray:
    """The class of each pixel of a color mask: uint8 (H, W)."""
    codes = pixels.astype(np.int32) @ np.array([1 << 16, 1 << 8, 1], dtype=np.int32)
    found, inverse = np.unique(codes, return_inverse=True)
    unknown = [code for code in found.tolist() if code not in table]
    if unknown:
        counts = Counter({code: int((codes == code).sum()) for code in unknown[:100]})
        colors = ", ".join(f"{(c >> 16, c >> 8 & 255, c & 255)} in {n} pixels" for c, n in counts.most_common(3))
        known = [(code >> 16, code >> 8 & 255, code & 255) for code in table]
        raise ValueError(
            f"{path} has {len(unknown)} unknown colors: {colors}; known are {known[:30]}. Add them to colors=, or to "
            "void= if they do not count"
            + (". Many look like soft edges: export without them" if len(unknown) > 20 else "")
        )
    return np.array([table[code] for code in found.tolist()], dtype=np.uint8)[inverse].reshape(codes.shape)


def _inverting_table(path: Path, page: int | None) -> str:
    """What a table in the file changes between the values of a gray mask and what a viewer shows; "" if nothing."""
    with open_image(path, page) as image:
        if image.format == "TIFF" and image.tag_v2.get(262) == 0:  # type: ignore[attr-defined]  # WhiteIsZero
            return "is stored inverted (TIFF's WhiteIsZero): its values are read as a viewer shows them"
        if image.mode != "P" or image.format == "GIF":
            return ""
        values = np.unique(np.array(image))
        table = np.reshape((image.getpalette("RGB") or [])[: 3 * 256], (-1, 3))
    shown = table[values[values < len(table)]]
    if (shown == shown[:, :1]).all() and (shown[:, 0] != values[: len(shown)]).any():
        pairs = ", ".join(f"{value} as gray {gray}" for value, gray in zip(values, shown[:, 0], strict=False))
        return f"has a palette of grays that shows the value {pairs}: the values are read, not the grays"
    return ""
