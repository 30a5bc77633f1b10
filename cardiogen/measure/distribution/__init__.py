"""Statistics that judge generative models, from arrays alone: they know nothing of models.

Inputs are tables of phenotypes ``(N, P)`` in native units, shapes ``(N, V, 3)`` in mm or any
matrix of distances, and conditions ``(N, C)``. Values that are not finite are refused and never
imputed: ``complete_rows`` takes failed subjects out and counts them.
"""

from cardiogen.measure.distribution.calibration import (
    LEVELS,
    Coverage,
    Uniformity,
    coverage_by_group,
    interval_coverage,
    pit_uniformity,
    pit_values,
    quantile_groups,
)
from cardiogen.measure.distribution.conditioning import (
    Regression,
    compare_r2,
    compare_slopes,
    regress,
)
from cardiogen.measure.distribution.estimate import Complete, Draws, Estimate, complete_rows
from cardiogen.measure.distribution.memorization import (
    Memorization,
    expected_nearest,
    memorization,
)
from cardiogen.measure.distribution.normative import (
    auroc,
    conformal_p_values,
    false_positive_rate,
    share_interval,
)
from cardiogen.measure.distribution.phenotypes import (
    CorrelationError,
    Frechet,
    compare_phenotypes,
    correlation_error,
    energy_distance,
    frechet_distance,
    ks_distance,
    ledoit_wolf,
    mean_shift,
    sd_ratio,
    wasserstein,
)
from cardiogen.measure.distribution.shape_distances import nearest_shapes, vertex_distances
from cardiogen.measure.distribution.shape_model import (
    compactness,
    generalization,
    mode_variances,
    specificity,
)
from cardiogen.measure.distribution.shape_sets import (
    SetDistances,
    diversity_ratio,
    matching_distance,
    one_nna,
    repeat_draws,
    set_coverage,
    set_distances,
)
from cardiogen.measure.distribution.transfer import Transfer, transfer_scores
from cardiogen.measure.distribution.uncertainty import (
    bootstrap,
    compare_methods,
    holm,
    paired_difference,
    paired_wilcoxon,
)

__all__ = [
    "LEVELS",
    "Complete",
    "CorrelationError",
    "Coverage",
    "Draws",
    "Estimate",
    "Frechet",
    "Memorization",
    "Regression",
    "SetDistances",
    "Transfer",
    "Uniformity",
    "auroc",
    "bootstrap",
    "compactness",
    "compare_methods",
    "compare_phenotypes",
    "compare_r2",
    "compare_slopes",
    "complete_rows",
    "conformal_p_values",
    "correlation_error",
    "coverage_by_group",
    "diversity_ratio",
    "energy_distance",
    "expected_nearest",
    "false_positive_rate",
    "frechet_distance",
    "generalization",
    "holm",
    "interval_coverage",
    "ks_distance",
    "ledoit_wolf",
    "matching_distance",
    "mean_shift",
    "memorization",
    "mode_variances",
    "nearest_shapes",
    "one_nna",
    "paired_difference",
    "paired_wilcoxon",
    "pit_uniformity",
    "pit_values",
    "quantile_groups",
    "regress",
    "repeat_draws",
    "sd_ratio",
    "set_coverage",
    "set_distances",
    "share_interval",
    "specificity",
    "transfer_scores",
    "vertex_distances",
    "wasserstein",
]
