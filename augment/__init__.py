"""augment: adversarial photometric-geometric chains for segmentation training.

    adversary = Adversary(chain=classic_chain(), generator=torch.Generator().manual_seed(0))
    for image, labels in batches:
        optimizer.zero_grad()
        output = network(image)
        supervised(output, labels).backward()
        result = adversary.consistency_loss(
            network, image, spacing=(1.4, 1.4), reference=output.detach()
        )
        (weight * result.loss).backward()
        optimizer.step()

Two backward passes, or one of the sum: the gradients are the same, but two hold one graph at a
time and take a tenth less time on a CPU. ``Chain.augment`` is plain random augmentation,
``Adversary.examples`` makes hard examples to train on. What is drawn is a ``Draw``, which can be
applied again; what is applied has the image, one ``Geometry`` for labels, points and predictions,
and masks of what is in view.
"""

from augment.adversary import Adversary, Result
from augment.ascent import Ascent
from augment.chain import Applied, Chain, Draw, placed
from augment.consistency import Consistency
from augment.diagnostics import Diagnostics
from augment.geometry import Geometry
from augment.guards import CollapseMonitor, EmaReference, Ramp
from augment.lattice import Lattice
from augment.outputs import (
    DeepSupervision,
    Head,
    MultiHead,
    OutputAdapter,
    label_heads,
    sigmoid_output,
    softmax_output,
)
from augment.presets import classic_chain, full_chain
from augment.preview import preview_rows, write_preview_grid
from augment.search import Found, Network, Objective, Pass, Statistics
from augment.shape_space import ShapeModes, ShapeSpace, voxel_to_heart
from augment.terms import KL, Contour
from augment.transforms import (
    Affine,
    BiasField,
    Blur,
    Contrast,
    Flip,
    Gamma,
    GaussianNoise,
    Geometric,
    Gibbs,
    KSpaceMotion,
    LowResolution,
    Morph,
    Params,
    Photometric,
    RandomConvolution,
    RicianNoise,
    SliceCut,
    SliceShift,
    SliceThickness,
    Transform,
)

__all__ = [
    "KL",
    "Adversary",
    "Affine",
    "Applied",
    "Ascent",
    "BiasField",
    "Blur",
    "Chain",
    "CollapseMonitor",
    "Consistency",
    "Contour",
    "Contrast",
    "DeepSupervision",
    "Diagnostics",
    "Draw",
    "EmaReference",
    "Flip",
    "Found",
    "Gamma",
    "GaussianNoise",
    "Geometric",
    "Geometry",
    "Gibbs",
    "Head",
    "KSpaceMotion",
    "Lattice",
    "LowResolution",
    "Morph",
    "MultiHead",
    "Network",
    "Objective",
    "OutputAdapter",
    "Params",
    "Pass",
    "Photometric",
    "Ramp",
    "RandomConvolution",
    "Result",
    "RicianNoise",
    "ShapeModes",
    "ShapeSpace",
    "SliceCut",
    "SliceShift",
    "SliceThickness",
    "Statistics",
    "Transform",
    "classic_chain",
    "full_chain",
    "label_heads",
    "placed",
    "preview_rows",
    "sigmoid_output",
    "softmax_output",
    "voxel_to_heart",
    "write_preview_grid",
]
