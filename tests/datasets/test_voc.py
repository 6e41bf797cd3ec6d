"""The reader of VOC's layout, VOC's bundled sample, and what is measured on both."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchmetrics import JaccardIndex
from torchvision.datasets import VOCSegmentation

from seglib.datasets import VOCSegmentationDataset, render
from seglib.datasets.download.catalog import VOC_CLASSES, check_layout
from seglib.datasets.sample.objects import Figure, Part, ellipse
from seglib.datasets.sample.scene import PERSON, make_stage, paint_stage
from seglib.datasets.sample.voc import label
from seglib.losses import CrossEntropyLoss
from seglib.masks import voc_palette
from seglib.models import UNet
from seglib.predict import save_predictions
from seglib.train import measure
from tests.conftest import REAL

DRAWN = {"car", "cat", "diningtable", "dog", "person", "pottedplant", "sofa"}


@pytest.fixture(scope="session")
def voc(tmp_path_factory):
    """The bundled sample, as the tiny profile renders it."""
    return render("voc2012", images=80, size=160, root=tmp_path_factory.mktemp("voc"))


@pytest.fixture(params=["sample", "real"])
def either(request):
    """The sample, and the real photographs where they are at hand."""
    if request.param == "sample":
        return request.getfixturevalue("voc")
    if not (REAL / "voc2012").is_dir():
        pytest.skip("needs the real photographs of ../shared/data/voc2012")
    return REAL / "voc2012"


@pytest.fixture
def devkit(tmp_path):
    """Three images of 4x6 in VOC's layout, every mask with the classes 0, 1 and 15, and a pixel of void."""
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (tmp_path / folder).mkdir(parents=True)
    for name in "abc":
        Image.fromarray(np.full((4, 6, 3), ord(name), np.uint8)).save(tmp_path / "JPEGImages" / f"{name}.jpg")
        put(tmp_path, name, [[0, 1, 15, 255, 0, 0]] * 4)
    (tmp_path / "ImageSets/Segmentation/train.txt").write_text("a\nc\n")
    (tmp_path / "ImageSets/Segmentation/val.txt").write_text("b\n")
    return tmp_path


def put(root, name, values, colours=None):
    image = Image.fromarray(np.array(values, np.uint8))
    image.putpalette((voc_palette() if colours is None else colours).tobytes())
    image.save(root / "SegmentationClass" / f"{name}.png")


# ------------------------------------------------------------------------------------------------ the reader


def test_an_image_set_is_read_and_nothing_else(devkit):
    data = VOCSegmentationDataset(devkit, "train")
    image, mask, name = data[1]
    assert (len(data), name, data.filenames) == (2, "c.jpg", ["a.jpg", "c.jpg"])
    assert image.dtype == mask.dtype == torch.uint8 and image.shape == (3, 4, 6)
    assert mask[0].tolist() == [0, 1, 15, 255, 0, 0] and data.classes == list(VOC_CLASSES)
    assert VOCSegmentationDataset(devkit, "val").filenames == ["b.jpg"]


def test_values_count_and_not_colours(devkit):
    grey = np.full((256, 3), 77, np.uint8)  # a palette in which all classes look alike
    put(devkit, "b", [[0, 1, 15, 255, 0, 20]] * 4, grey)
    assert VOCSegmentationDataset(devkit, "val")[0][1][0].tolist() == [0, 1, 15, 255, 0, 20]


def test_a_mask_of_colours_or_with_a_value_that_is_no_class_is_refused_by_name(devkit):
    put(devkit, "b", [[0, 21, 15, 255, 0, 0]] * 4)
    with pytest.raises(ValueError, match=r"b\.png: mask value 21 in 4 pixels; allowed are 0 to 20"):
        VOCSegmentationDataset(devkit, "val")[0]
    Image.fromarray(np.zeros((4, 6, 3), np.uint8)).save(devkit / "SegmentationClass" / "b.png")
    with pytest.raises(ValueError, match=r"b\.png is an image of mode RGB"):
        VOCSegmentationDataset(devkit, "val")[0]


def test_what_is_missing_is_named(devkit):
    with pytest.raises(FileNotFoundError, match="there are train, val"):
        VOCSegmentationDataset(devkit, "trainaug")
    (devkit / "SegmentationClass" / "c.png").unlink()
    with pytest.raises(ValueError, match=r"c: is listed in train\.txt but has no .*c\.png"):
        VOCSegmentationDataset(devkit, "train")
    with pytest.warns(UserWarning, match="skipped 1"):
        assert VOCSegmentationDataset(devkit, "train", on_error="skip").filenames == ["a.jpg"]
    with pytest.raises(FileNotFoundError, match="holds JPEGImages"):
        VOCSegmentationDataset(devkit / "JPEGImages")
    (devkit / "SegmentationClass").rename(devkit / "masks")
    with pytest.raises(FileNotFoundError, match="no folder .*SegmentationClass"):
        VOCSegmentationDataset(devkit)


def test_skipping_leaves_out_what_does_not_open_or_fit(devkit):
    put(devkit, "a", [[0, 99, 15, 255, 0, 0]] * 4)
    (devkit / "JPEGImages" / "c.jpg").write_bytes(b"no picture")
    (devkit / "ImageSets/Segmentation/train.txt").write_text("a\nb\nc\n")
    with pytest.warns(UserWarning, match="skipped 2"):
        data = VOCSegmentationDataset(devkit, on_error="skip")
    assert data.filenames == ["b.jpg"] and [problem.where for problem in data.problems] == ["a", "c"]
    (devkit / "ImageSets/Segmentation/train.txt").write_text("a\nc\n")
    with pytest.warns(UserWarning, match="skipped 2"), pytest.raises(ValueError, match="no image is left of 2"):
        VOCSegmentationDataset(devkit, on_error="skip")


def test_a_photograph_that_its_file_turns_is_read_as_its_mask_lies(devkit):
    stored = np.zeros((4, 6, 3), np.uint8)
    stored[:, :3] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # a viewer turns it, to 6x4; the mask is 4x6
    Image.fromarray(stored).save(devkit / "JPEGImages" / "b.jpg", exif=exif, quality=100)
    image, mask, _ = VOCSegmentationDataset(devkit, "val")[0]
    assert image.shape[1:] == mask.shape == (4, 6) and image[0, :, 0].min() > 200 and image[0, :, 5].max() < 50


def test_a_list_may_be_written_by_hand(devkit):
    path = devkit / "ImageSets/Segmentation/train.txt"
    path.write_bytes(b"\xef\xbb\xbfc\r\n\r\na\r\nc\r\n")
    assert VOCSegmentationDataset(devkit).filenames == ["c.jpg", "a.jpg"]
    path.write_text("a -1\nb 1\n")  # as the lists of ImageSets/Main have them
    with pytest.raises(ValueError, match="'a -1' is no name of an image"):
        VOCSegmentationDataset(devkit)
    path.write_text("a\n", encoding="utf-16")
    with pytest.raises(ValueError, match=r"train\.txt is no text in UTF-8"):
        VOCSegmentationDataset(devkit)
    path.write_text("a.jpg\n")
    with pytest.raises(ValueError, match="without folder or ending"):
        VOCSegmentationDataset(devkit)


def test_the_folder_above_is_answered_with_the_one_to_give(devkit):
    inside = devkit / "download/VOCdevkit/VOC2012"
    inside.parent.mkdir(parents=True)
    inside.symlink_to(devkit)
    with pytest.raises(FileNotFoundError, match=r"give .*VOCdevkit.VOC2012"):
        VOCSegmentationDataset(devkit / "download")


def test_data_of_ones_own_in_this_layout_has_classes_of_its_own(devkit):
    for name in "abc":
        put(devkit, name, [[0, 1, 2, 255, 0, 0]] * 4)
    data = VOCSegmentationDataset(devkit, classes=["background", "leaf", "stem"])
    assert data.classes == ["background", "leaf", "stem"] and data[0][1].unique().tolist() == [0, 1, 2, 255]


@pytest.mark.parametrize("part", ["train", "val"])
def test_every_pixel_is_what_torchvision_reads(either, part, tmp_path):
    (tmp_path / "VOCdevkit").mkdir()
    (tmp_path / "VOCdevkit/VOC2012").symlink_to(either)
    theirs, ours = VOCSegmentation(tmp_path, image_set=part), VOCSegmentationDataset(either, part)
    assert len(theirs) == len(ours) >= 16
    for index, (image, mask) in enumerate(theirs):
        assert (ours[index][0].permute(1, 2, 0).numpy() == np.asarray(image)).all()
        assert (ours[index][1].numpy() == np.asarray(mask)).all()


# ------------------------------------------------------------------------------------------------ the sample


def test_the_sample_has_vocs_layout_palette_and_classes(voc):
    check_layout("voc2012", voc)
    seen = set()
    for part in ("train", "val"):
        data = VOCSegmentationDataset(voc, part)
        for name in data.filenames:
            with Image.open(voc / "SegmentationClass" / name.replace(".jpg", ".png")) as mask:
                assert mask.mode == "P" and mask.getpalette() == voc_palette().ravel().tolist()
        seen |= {value for i in range(len(data)) for value in data[i][1].unique().tolist()}
    assert {VOC_CLASSES[value] for value in seen - {0, 255}} == DRAWN
    both = (voc / "ImageSets/Segmentation/trainval.txt").read_text().split()
    parts = [(voc / f"ImageSets/Segmentation/{part}.txt").read_text().split() for part in ("train", "val")]
    assert sorted(parts[0] + parts[1]) == both and [len(part) for part in parts] == [64, 16]


def test_between_two_labels_there_is_a_border_that_does_not_count(voc):
    data = VOCSegmentationDataset(voc)
    for index in range(len(data)):
        mask = data[index][1].numpy()
        with Image.open(voc / "SegmentationObject" / data.filenames[index].replace(".jpg", ".png")) as file:
            objects = np.asarray(file)
        for labels in (mask, objects):
            assert set(np.unique(labels)) - {255} != {0}, data.filenames[index]  # somebody is on every picture
            for one, other in ((labels[1:], labels[:-1]), (labels[:, 1:], labels[:, :-1])):
                assert not ((one != other) & (one != 255) & (other != 255)).any(), data.filenames[index]
        assert ((mask == 255) == (objects == 255)).all() and ((mask == 0) == (objects == 0)).all()


def test_a_crowd_does_not_count():
    figure = Figure([Part(ellipse((0, 0.5), 0.3, 0.5), (255, 0, 0), flat=True)], height=1.0)
    for crowd, value in ((True, 255), (False, 15)):
        stage = make_stage(np.random.default_rng(0), 160, indoor=True, camera=1.0, aspect=0.75)
        stage.put(figure, 80, 60, PERSON, crowd=crowd)
        paint_stage(stage)
        classes, _ = label(stage)
        assert (classes == value).sum() > 1000 and (classes == 15).any() != crowd


def test_the_border_is_as_wide_for_the_picture_as_vocs(tmp_path):
    folder = render("voc2012", images=10, size=480, root=tmp_path)
    widths = []
    for path in (folder / "SegmentationClass").iterdir():
        with Image.open(path) as file:
            mask = np.asarray(file)
        for row in mask[:: mask.shape[0] // 20]:  # runs of 255 between background and an object
            changes = np.flatnonzero(np.diff(row)) + 1
            for begin, end in zip(changes, changes[1:], strict=False):
                if row[begin] == 255 and (row[begin - 1] == 0) != (row[end] == 0):
                    widths.append(end - begin)
    assert 4 <= np.median(widths) <= 7  # of about five in VOC, whose photographs are 500 pixels long


# ------------------------------------------------------------------------------------------------ measured on it


class ByColour(torch.nn.Module):
    """A model that says many of the 21 classes, each for some colours."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Conv2d(3, 21, 1)

    def forward(self, images):
        return self.head(images.float() / 64 - 2)


def test_what_is_measured_equals_what_others_compute_from_the_saved_predictions(either, tmp_path):
    """Photographs of many sizes -> predictions saved as PNG -> IoU by numpy alone, and by torchmetrics."""
    data = VOCSegmentationDataset(either, "val")
    model = ByColour()
    model.class_names, model.image_size = data.classes, None
    matrix = measure(model, data, CrossEntropyLoss(), batch_size=4).matrix
    save_predictions(model, [either / "JPEGImages" / name for name in data.filenames], tmp_path)

    truth, said = [], []
    for name in data.filenames:
        for folder, pixels in ((either / "SegmentationClass", truth), (tmp_path / "masks", said)):
            with Image.open(folder / name.replace(".jpg", ".png")) as file:
                pixels.append(np.asarray(file).ravel())
    truth, said = np.concatenate(truth), np.concatenate(said)
    counts = truth != 255
    union = [((truth == k) | (said == k))[counts].sum() for k in range(21)]
    hits = [((truth == k) & (said == k))[counts].sum() for k in range(21)]
    iou = np.array([hit / total if total else np.nan for hit, total in zip(hits, union, strict=True)])
    assert (said[counts] != truth[counts]).any() and len(np.unique(said)) > 8

    np.testing.assert_allclose(matrix.iou().numpy(), iou, rtol=1e-12)
    assert matrix.miou() == pytest.approx(np.nanmean(iou)) and matrix.miou(False) == pytest.approx(np.nanmean(iou[1:]))
    theirs = JaccardIndex(task="multiclass", num_classes=21, ignore_index=255, average="none")
    theirs = theirs(torch.from_numpy(said.copy()).long(), torch.from_numpy(truth.copy()).long()).numpy()
    np.testing.assert_allclose(np.nan_to_num(iou), np.nan_to_num(theirs), atol=1e-6)


def test_classes_that_the_sample_lacks_are_no_number(voc):
    data = VOCSegmentationDataset(voc, "val")
    model = UNet(classes=21, base_channels=4, depth=1)
    torch.nn.init.zeros_(model.head.weight)
    model.head.bias.data = torch.eye(21)[0]  # it says background everywhere
    iou = measure(model, data, batch_size=4).matrix.iou()
    absent = torch.tensor([name not in DRAWN | {"background"} for name in data.classes])
    assert iou.isnan().tolist() == absent.tolist()
    assert iou[~absent][1:].tolist() == [0.0] * len(DRAWN)
