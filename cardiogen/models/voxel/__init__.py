"""What models of label maps share: lattice, slots, examples, latents, losses."""

from cardiogen.models.voxel.base import base_height_mm, lifted, mean_base_mm
from cardiogen.models.voxel.coded import CodedModel, read_tensors
from cardiogen.models.voxel.config import VoxelConfig, from_plain, to_plain
from cardiogen.models.voxel.examples import (
    LabelExample,
    LabelExamples,
    pack,
    sequence_example,
    sequence_examples,
)
from cardiogen.models.voxel.latents import (
    CodedLatents,
    LatentPrior,
    describe_factors,
    encoded,
    fit_prior,
    standard_prior,
)
from cardiogen.models.voxel.lattice import (
    CLASSES,
    find_pose,
    heart_grid,
    most_probable,
    posed_grid,
    require_inside,
    to_heart,
)
from cardiogen.models.voxel.losses import (
    channels,
    hard_labels,
    label_losses,
    mean_dice,
    probabilities,
    validation_means,
)
from cardiogen.models.voxel.population import (
    population_example,
    population_examples,
    shown_pose,
    training_heart,
)
from cardiogen.models.voxel.sequences import (
    beats,
    no_meshes,
)
from cardiogen.models.voxel.slots import Slots
from cardiogen.models.voxel.train import (
    check_examples,
    drawn_latents,
    fit_labels,
    require_validation,
    trained_prior,
)

__all__ = [
    "CLASSES",
    "CodedLatents",
    "CodedModel",
    "LabelExample",
    "LabelExamples",
    "LatentPrior",
    "Slots",
    "VoxelConfig",
    "base_height_mm",
    "beats",
    "channels",
    "check_examples",
    "describe_factors",
    "drawn_latents",
    "encoded",
    "find_pose",
    "fit_labels",
    "fit_prior",
    "from_plain",
    "hard_labels",
    "heart_grid",
    "label_losses",
    "lifted",
    "mean_base_mm",
    "mean_dice",
    "most_probable",
    "no_meshes",
    "pack",
    "population_example",
    "population_examples",
    "posed_grid",
    "probabilities",
    "read_tensors",
    "require_inside",
    "require_validation",
    "sequence_example",
    "sequence_examples",
    "shown_pose",
    "standard_prior",
    "to_heart",
    "to_plain",
    "trained_prior",
    "training_heart",
    "validation_means",
]
