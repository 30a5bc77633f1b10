"""Motion tracking of cines: ED to every frame, labels and meshes carried along, strain.

    track(sequence_or_images, ed_labels, *, grid=None, preset=None, ...) -> TrackingResult

See ``track`` for the strategies, ``TrackingResult`` for what comes back.
"""

from registration.tracking.config import (
    PRESETS,
    STRATEGIES,
    GroupwiseConfig,
    Strategy,
    TrackingConfig,
    load_tracking_preset,
)
from registration.tracking.result import TrackingResult
from registration.tracking.track import track
from registration.tracking.views import ViewReport

__all__ = [
    "PRESETS",
    "STRATEGIES",
    "GroupwiseConfig",
    "Strategy",
    "TrackingConfig",
    "TrackingResult",
    "ViewReport",
    "load_tracking_preset",
    "track",
]
