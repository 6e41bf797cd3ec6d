"""Mask R-CNN (He et al., 2017, arXiv:1703.06870) of torchvision, whose BSD license allows any use."""

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

from seglib.files import check_choice
from seglib.instances import Instances
from seglib.models.weights import torchvision_weights

__all__ = ["MaskRCNN"]

_COCO_WEIGHTS = MaskRCNN_ResNet50_FPN_Weights.COCO_V1


class MaskRCNN(nn.Module):
    """Mask R-CNN with a feature pyramid: it proposes boxes, classifies each, and segments the object in it.

    Args:
        classes: number of classes, background included.
        weights: "imagenet" for an encoder pretrained on ImageNet; "coco" for a network pretrained on COCO, with a
            ResNet-50 and new last layers for the given classes; None: from scratch. Pretrained encoders have their
            first two stages and their batch norm frozen, as in torchvision's recipe: small batches give unreliable
            statistics.
        encoder: "resnet18", "resnet34", "resnet50", "resnet101" or "resnet152".
        image_size: the shorter side, in pixels, to which images are resized inside the model; the longer side becomes
            at most twice as long.
        most: the largest number of objects found in an image.
        proposals: number of boxes that the second stage looks at in an image, in training and in prediction; fewer are
            faster. None: torchvision's own, 512 and 1000.

    Raises:
        OSError: the weights cannot be loaded; the message says where they belong.
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
        check_choice("encoder of maskrcnn", encoder, ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152"))
        available = (None, "imagenet", "coco") if encoder == "resnet50" else (None, "imagenet")
        check_choice(f"weights of maskrcnn with {encoder}", weights, available)
        if classes < 2:
            raise ValueError(f"classes must be at least 2, background and one more, not {classes}")
        self.settings = {"name": "maskrcnn", "classes": classes, "encoder": encoder}
        self.settings |= {"image_size": image_size, "most": most, "proposals": proposals}
        limits = {"min_size": image_size, "max_size": 2 * image_size, "box_detections_per_img": most}
        if proposals is not None:
            limits |= {"rpn_post_nms_top_n_test": proposals, "box_batch_size_per_image": proposals}
        frozen = {"trainable_layers": 3, "norm_layer": FrozenBatchNorm2d}
        trained = {"trainable_layers": 5, "norm_layer": nn.BatchNorm2d}
        backbone = resnet_fpn_backbone(backbone_name=encoder, weights=None, **(frozen if weights else trained))
        outputs = len(_COCO_WEIGHTS.meta["categories"]) if weights == "coco" else classes
        self.network = TorchvisionMaskRCNN(backbone, outputs, **limits)
        if weights == "imagenet":
            published = get_model_weights(encoder)["IMAGENET1K_V1"]
            with torchvision_weights(published, f"the ImageNet weights of {encoder}") as state:
                backbone.body.load_state_dict({name: state[name] for name in backbone.body.state_dict()})
        elif weights == "coco":
            with torchvision_weights(_COCO_WEIGHTS, "the COCO weights of Mask R-CNN") as state:
                self.network.load_state_dict(state)
            heads = self.network.roi_heads
            heads.box_predictor = FastRCNNPredictor(heads.box_predictor.cls_score.in_features, classes)
            heads.mask_predictor = MaskRCNNPredictor(heads.mask_predictor.conv5_mask.in_channels, 256, classes)

    def forward(
        self, images: Tensor, targets: Sequence[Instances] | None = None, score: float = 0.0
    ) -> list[Instances] | dict[str, Tensor]:
        """Find the objects of each image or, in training mode, compute the losses.

        Args:
            images: (B, 3, H, W), uint8 or float from 0 to 255, RGB.
            targets: the objects of each image, in training mode; crowds are ignored.
            score: leave out objects whose score is lower, 0 to 1. (torchvision leaves out those below 0.05.)

        Returns:
            The objects of each image at the size of the image; in training mode the five losses by name.
        """
        scaled = [image.float() / 255 for image in images]
        if self.training:
            if targets is None:
                raise ValueError("the model needs targets in training mode; call .eval() first to find objects")
            return self.network(scaled, [_to_target(objects, images.device) for objects in targets])
        height, width = images.shape[-2:]
        return [_to_instances(detections, (height, width), score) for detections in self.network(scaled)]


def _to_target(objects: Instances, device: torch.device) -> dict[str, Tensor]:
    """Convert the objects of an image to torchvision's form, without crowds and empty masks, which have no box."""
    objects = objects.pick(~objects.crowd & (objects.areas > 0))
    return {
        "boxes": torch.as_tensor(objects.boxes, dtype=torch.float32, device=device),
        "labels": torch.as_tensor(objects.labels, dtype=torch.int64, device=device),
        "masks": torch.as_tensor(objects.masks, dtype=torch.uint8, device=device),
    }


def _to_instances(detections: dict[str, Tensor], size: tuple[int, int], score: float) -> Instances:
    """Convert torchvision's detections of an image of that size; masks are cut at 0.5, and empty ones left out."""
    masks = detections["masks"][:, 0] > 0.5
    kept = (detections["scores"] >= score) & masks.any(-1).any(-1)
    scores = detections["scores"][kept].float()  # mixed precision gives types that numpy does not have
    return Instances.of(masks[kept], detections["labels"][kept], scores, size=size)
