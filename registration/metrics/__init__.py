"""How good a registration is: overlap, distances in mm, regularity, landmarks, Learn2Reg."""

from registration.metrics.dataset import L2RDataset, read_dataset, write_dataset
from registration.metrics.entries import Pair
from registration.metrics.evaluate import STRUCTURES, RegistrationMetrics, evaluate_registration
from registration.metrics.field import FieldMetrics, field_metrics
from registration.metrics.landmarks import (
    LandmarkMetrics,
    landmark_metrics,
    target_registration_errors,
)
from registration.metrics.learn2reg import (
    Aggregate,
    aggregate,
    l2r_dice,
    l2r_hd95,
    l2r_sdlogj,
    l2r_tre,
    l2r_warp_labels,
)
from registration.metrics.overlap import StructureMetrics, strict_structures, warp_label_map
from registration.metrics.ranking import (
    Measure,
    rank_methods,
    rank_scores,
    robust_subset,
    significance_points,
)
from registration.metrics.scorer import CaseScore, TaskScore, score_submission, write_scores
from registration.metrics.scoring_config import (
    EvaluationConfig,
    EvaluationMethod,
    evaluation_config,
    read_evaluation_config,
    write_evaluation_config,
)
from registration.metrics.submission import file_stems, find_submission, write_submission
from registration.metrics.surfels import robust_hausdorff, surfel_areas

__all__ = [
    "STRUCTURES",
    "Aggregate",
    "CaseScore",
    "EvaluationConfig",
    "EvaluationMethod",
    "FieldMetrics",
    "L2RDataset",
    "LandmarkMetrics",
    "Measure",
    "Pair",
    "RegistrationMetrics",
    "StructureMetrics",
    "TaskScore",
    "aggregate",
    "evaluate_registration",
    "evaluation_config",
    "field_metrics",
    "file_stems",
    "find_submission",
    "l2r_dice",
    "l2r_hd95",
    "l2r_sdlogj",
    "l2r_tre",
    "l2r_warp_labels",
    "landmark_metrics",
    "rank_methods",
    "rank_scores",
    "read_dataset",
    "read_evaluation_config",
    "robust_hausdorff",
    "robust_subset",
    "score_submission",
    "significance_points",
    "strict_structures",
    "surfel_areas",
    "target_registration_errors",
    "warp_label_map",
    "write_dataset",
    "write_evaluation_config",
    "write_scores",
    "write_submission",
]
