"""Mask R-CNN (He et al., 2017) as torchvision has it, under its BSD licence: instances without AGPL."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.models import get_model_weights
from torchvision.models.detection import MaskRCNN as TorchvisionMaskRCNN
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNPredictor
from torchvision.ops import FrozenBatchNorm2d

from seglib.instances import Instances
from seglib.models.weights import of_torchvision

ENCODERS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")
COCO = MaskRCNN_ResNet50_FPN_Weights.COCO_V1


class MaskRCNN(nn.Module):
    """Mask R-CNN with a feature pyramid: boxes are proposed first, then classified, then each gets its mask.

    Args:
        classes: background included.
        weights: "imagenet" for an encoder with experience, "coco" for a whole network with one (a ResNet-50; its last
            layers begin anew, as the classes are others), fetched once; None: from random numbers.
        encoder: one of `ENCODERS`.
        image_size: the shorter side that images are brought to inside; its double bounds the longer one.
        most: objects in an image.
        proposals: boxes that its second stage looks at in an image, and learns from; fewer are faster. None: 1000
            and 512.

    Attributes:
        settings: name and arguments, enough to build it again. class_names, image_size: what training knew.
    """

    def __init__(
        self,
        classes: int,
        weights: str | None = None,
        encoder: str = "resnet50",
        image_size: int = 800,
        most: int = 100,
        proposals: int | None = None,
    ) -> None:
        super().__init__()
        if encoder not in ENCODERS:
            raise ValueError(f"no encoder {encoder!r} for maskrcnn; there are {', '.join(ENCODERS)}")
        if weights not in (None, "imagenet", "coco") or (weights == "coco" and encoder != "resnet50"):
            raise ValueError(
                f"no weights {weights!r} for maskrcnn with {encoder}: 'imagenet', 'coco' (resnet50), or None"
            )
        if classes < 2:
            raise ValueError(f"{classes} classes: background is one of them, so that there are two or more")
        self.settings = {"name": "maskrcnn", "classes": classes, "encoder": encoder}
        self.settings |= {"image_size": image_size, "most": most, "proposals": proposals}
        self.class_names, self.image_size = None, None
        outputs = len(COCO.meta["categories"]) if weights == "coco" else classes
        sides = {"min_size": image_size, "max_size": 2 * image_size, "box_detections_per_img": most}
        if proposals is not None:
            sides |= {"rpn_post_nms_top_n_test": proposals, "box_batch_size_per_image": proposals}
        backbone = make_backbone(encoder, weights)
        self.network = TorchvisionMaskRCNN(backbone, outputs, **sides)
        if weights == "coco":
            with of_torchvision(COCO, "the COCO weights of Mask R-CNN") as state:
                self.network.load_state_dict(state)
            replace_heads(self.network, classes)

    def forward(
        self, images: Tensor, targets: Sequence[Instances] | None = None
    ) -> list[Instances] | dict[str, Tensor]:
        """Find objects or, in training mode, tell the losses to add up.

        Args:
            images: (B, 3, H, W), uint8 or float 0-255, RGB.
            targets: the objects of each image, when training; crowds are left out.

        Returns:
            The objects of each image at its own size; in training mode the five losses by name.
        """
        pictures = [image.float() / 255 for image in images]
        if self.training:
            if targets is None:
                raise ValueError("in training mode the model needs targets; to find objects, call .eval() first")
            return self.network(pictures, [as_target(one, images.device) for one in targets])
        size = tuple(images.shape[-2:])
        return [as_instances(found, size) for found in self.network(pictures)]


def as_target(objects: Instances, device: torch.device) -> dict[str, Tensor]:
    """Objects as torchvision wants them."""
    objects = objects.pick(~objects.crowd & (objects.areas > 0))  # an outline too thin for a pixel has no box
    return {
        "boxes": torch.as_tensor(objects.boxes, dtype=torch.float32, device=device),
        "labels": torch.as_tensor(objects.labels, dtype=torch.int64, device=device),
        "masks": torch.as_tensor(objects.masks, dtype=torch.uint8, device=device),
    }


def as_instances(found: dict[str, Tensor], size: tuple[int, int]) -> Instances:
    """What torchvision has found, its masks cut at a probability of one half; empty ones are left out."""
    masks = found["masks"][:, 0] > 0.5
    kept = masks.any(-1).any(-1)
    return Instances.of(masks[kept], found["labels"][kept], found["scores"][kept], size=size)


def make_backbone(encoder: str, weights: str | None) -> nn.Module:
    """A ResNet with a feature pyramid; one that has weights keeps its first two stages and all batch norm as they are
    (two images a batch would give batch norm no statistics to trust), as in torchvision's own recipe."""
    frozen = {"trainable_layers": 3, "norm_layer": FrozenBatchNorm2d}
    fresh = {"trainable_layers": 5, "norm_layer": nn.BatchNorm2d}
    backbone = resnet_fpn_backbone(backbone_name=encoder, weights=None, **(frozen if weights else fresh))
    if weights == "imagenet":
        published = get_model_weights(encoder)["IMAGENET1K_V1"]
        with of_torchvision(published, f"the ImageNet weights of {encoder}") as state:
            backbone.body.load_state_dict({key: value for key, value in state.items() if not key.startswith("fc.")})
    return backbone


def replace_heads(network: TorchvisionMaskRCNN, classes: int) -> None:
    """Give a network for COCO's classes new last layers."""
    heads = network.roi_heads
    heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, classes)
    heads.mask_predictor = MaskRCNNPredictor(heads.mask_predictor.conv5_mask.in_channels, 256, classes)
