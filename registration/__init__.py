"""registration: motion tracking in cine MR and general image registration.

    register(fixed, moving, grid, *, preset="fast", config=None, fixed_labels=None,
             moving_labels=None, mask=None, initial=None, device=None) -> RegistrationResult

finds ``fixed_to_moving`` for a batch of pairs: ``fixed`` and ``moving`` are ``(B, C, D, H, W)`` on
one ``cardiogen.data.Grid``, labels ``(B, 1, D, H, W)`` whole numbers (fitted only if the config
has label terms; metrics use them in any case), ``mask`` ``(B or 1, 1, D, H, W)``, ``initial`` any
``cardiogen.transforms.Transform``. ``register_pairs`` takes lists of pairs on grids of their own.

The result has ``.transform`` (batch of B), ``.displacement`` ``(B, 3, D, H, W)`` voxels,
``.moved(image)``, ``.moved_labels(labels)``, ``.metrics``, ``.energies``, ``.folds``,
``.timings``, ``.provenance`` and ``.save(folder)``. Configs are ``RegistrationConfig`` (stages of
a transform, a solver and energy terms), TOML files, or the names in ``PRESETS``.
"""

from registration.config import (
    PRESETS,
    PrepareConfig,
    RegistrationConfig,
    StageConfig,
    TermConfig,
    load_preset,
)
from registration.register import register, register_pairs
from registration.result import RegistrationResult

__all__ = [
    "PRESETS",
    "PrepareConfig",
    "RegistrationConfig",
    "RegistrationResult",
    "StageConfig",
    "TermConfig",
    "load_preset",
    "register",
    "register_pairs",
]
