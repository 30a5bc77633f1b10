"""The card of a trained model: what it was learned from, what it gives, and what it is not."""

from __future__ import annotations

from cardiogen.engine.config import Training
from cardiogen.models.store import StoredModel

_CARD = """# Model card: {name}

| | |
| --- | --- |
| kind | {kind} |
| trained on | {n} hearts of cardiogen's reference population, seed {seed}; no patient data{but} |
| conditions | age {age} years, sex F or M, height {height} cm, weight {weight} kg, \
systolic pressure {sbp} mmHg; any may be missing |
| gives | left and right ventricle over the cardiac cycle: {gives} |
| size | {size} |
| licence | {licence} |

The reference population is a statistical model of healthy adults written from published figures:
means and spreads from the Healthy Hearts Consortium (2024, White, smooth contours), slopes on body
mass index and pressure from UK Biobank (Petersen 2017). These sources cannot all be met exactly:
the marginals of the consortium come first, the slopes second, the published variance explained
third. Shapes, motion and their variation beyond those figures are plausible, not measured.

Not for diagnosis. Differences between ages are cross-sectional: they compare different people and
do not say how one heart ages; for the left ventricular mass of men even the sign differs from
longitudinal studies (MESA, Eng 2016: +8.0 g per decade). The model knows healthy hearts only.
"""

_KINDS = {
    "linear": "linear: PCA of end-diastolic shape and Fourier motion, conditional Gaussian on "
    "factors",
    "pca": "pca: PCA of end-diastolic vertices and their Fourier motion, conditional Gaussian on "
    "factors",
    "deformation": "deformation: a template moved by exponentials of smooth velocities, shape and "
    "Fourier motion; conditional Gaussian on factors",
    "mesh": "mesh: variational autoencoder of vertices, graph network over space and transformer "
    "over time; conditional prior on factors",
    "volume": "volume: convolutional variational autoencoder of label maps at single frames; "
    "conditional prior on factors",
    "sequence": "sequence: convolutional variational autoencoder of label maps with a temporal "
    "module; conditional prior on factors",
}
_FLOW = "; draws moved by a flow in {steps} steps"
_GIVES = {
    "volume": "label maps at {frames}, no meshes",
    "sequence": "label maps at any phase, learned from {frames} frames; no meshes",
}
_VOXEL_SIZE = "{latent} latents; {shape} voxels of {spacing_mm} mm"
_SIZES = {
    "linear": "{ed_modes} end-diastolic and {motion_modes} motion scores",
    "pca": "{ed_modes} end-diastolic and {motion_modes} motion scores",
    "deformation": "{ed_modes} end-diastolic and {motion_modes} motion scores",
    "mesh": "{latents} latents and {noise_modes} modes of a smooth residual",
    "volume": _VOXEL_SIZE,
    "sequence": _VOXEL_SIZE,
}


def training_card(
    model: StoredModel, name: str, settings: Training, *, licence: str, but: str
) -> str:
    """Return the text of a model's card.

    Args:
        model: what was trained.
        name: of its bundle.
        settings: of its training.
        licence: of its weights.
        but: what of a patient is in it beside no data, if anything.
    """
    spans = {n: f"{low:.0f}-{high:.0f}" for n, (low, high) in model.condition_ranges().items()}
    facts = model.architecture()
    gives = _GIVES.get(model.kind, "meshes and label maps at any phase")
    flow = getattr(model, "flow", None)
    kind = _KINDS[model.kind] + ("" if flow is None else _FLOW.format(steps=int(flow.steps)))

    return _CARD.format(
        name=name, kind=kind, n=settings.n, seed=settings.seed, licence=licence, but=but,
        size=_SIZES[model.kind].format(**facts), gives=gives.format(**facts), **spans,
    )  # fmt: skip
