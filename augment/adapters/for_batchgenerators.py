"""Random chains as a transform of batchgeneratorsv2, and so of nnU-Net's loaders.

Axes are those of nnU-Net, slices first ``(C, D, H, W)``. Its workers seed torch, so that is where
seeds of draws come from. Keypoints are voxels ``(N, d)`` in the order of the image's axes, the
first voxel's center 0. Boxes are refused where geometry is drawn: the library fixes no convention
for them, and the corners of a box do not bound what a deformation makes of its content.

Example::

    from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
    transform = ComposeTransforms([ChainTransform(classic_chain(), spacing=(8.0, 1.4, 1.4))])
    image, labels = torch.rand(1, 9, 32, 40), torch.zeros(1, 9, 32, 40, dtype=torch.int16)
    moved = transform(image=image, segmentation=labels)
    image, labels = moved["image"], moved["segmentation"]
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.pseudo2d import Convert2DTo3DTransform
from torch import Tensor

from augment.adapters.codes import apply_draw, draw_for, image_of, move_codes, move_points
from augment.chain import Applied, Chain
from augment.transforms.base import Geometric


class ChainTransform(BasicTransform):
    """Draw a chain for every sample; image, segmentation, regression target and keypoints move.

    Args:
        chain: what to draw from.
        spacing: mm per axis of the patches.
        probability: of a sample to be changed.
    """

    def __init__(
        self, chain: Chain, *, spacing: Sequence[float], probability: float = 1.0
    ) -> None:
        super().__init__()
        if not 0 <= probability <= 1:
            raise ValueError(f"probability must lie in [0, 1], got {probability}")
        self.chain, self.spacing, self.probability = chain, tuple(spacing), probability

    def get_parameters(self, **data_dict: Tensor) -> dict[str, Applied | None]:
        """Draw a chain, once for everything in the sample."""
        image = data_dict["image"]
        # Of torch's global generator, as all transforms of this library.
        chance, seed = float(torch.rand(1)), int(torch.randint(2**62, (1,)))
        if chance >= self.probability:
            return {"applied": None}
        draw = draw_for(self.chain, image.shape, self.spacing, seed=seed)
        return {"applied": apply_draw(draw, self.chain, image)}

    def _apply_to_image(self, img: Tensor, *, applied: Applied | None) -> Tensor:
        return img if applied is None else image_of(applied, img)

    def _apply_to_segmentation(self, segmentation: Tensor, *, applied: Applied | None) -> Tensor:
        return segmentation if applied is None else move_codes(applied, segmentation)

    def _apply_to_regr_target(
        self, regression_target: Tensor, *, applied: Applied | None
    ) -> Tensor:
        if applied is None:
            return regression_target
        with torch.no_grad():
            moved = applied.geometry.image(regression_target[None].float())[0]
        return moved.to(regression_target.dtype)

    def _apply_to_keypoints(self, keypoints: Tensor, *, applied: Applied | None) -> Tensor:
        return keypoints if applied is None else move_points(applied, keypoints)

    def _apply_to_bbox(self, bbox: Tensor, *, applied: Applied | None) -> Tensor:
        # By what could be drawn, not by what was: no error that comes and goes with the seed.
        moving = [t.name for t in self.chain.transforms if isinstance(t, Geometric)]
        if moving:
            raise ValueError(
                f"bbox cannot move with a chain, got one beside the geometry of {moving}; give "
                "them as another channel of segmentation, and make boxes of what comes out"
            )
        return bbox


def add_to_pipeline(pipeline: ComposeTransforms, transform: BasicTransform) -> ComposeTransforms:
    """Return a training pipeline of nnU-Net with a transform after its spatial one.

    Before it, patches are larger than they will be; after the others, labels are regions or lists
    of several sizes. Where nnU-Net turns thick slices one by one (``do_dummy_2d_data_aug``), their
    axis is among the channels until ``Convert2DTo3DTransform``, and the place is after that.

    Raises:
        ValueError: if the pipeline has no SpatialTransform.
    """
    steps = list(pipeline.transforms)
    places = [n for n, step in enumerate(steps) if isinstance(step, SpatialTransform)]
    if not places:
        found = [type(step).__name__ for step in steps]
        raise ValueError(
            f"pipeline must have a SpatialTransform, got {found}; put the chain in by hand, where "
            "patches have their final size and labels are still codes"
        )
    unfolds = (n for n, step in enumerate(steps) if isinstance(step, Convert2DTo3DTransform))
    place = next((n for n in unfolds if n > places[-1]), places[-1]) + 1
    return ComposeTransforms([*steps[:place], transform, *steps[place:]])
