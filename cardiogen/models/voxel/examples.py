"""Training examples of label models: label maps in the heart frame, packed, with factors."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Sequence as Listing
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, progress
from cardiogen.data.factors import Factors
from cardiogen.data.grid import Grid
from cardiogen.data.sequence import Sequence
from cardiogen.models.protocol import encode_condition
from cardiogen.models.voxel.lattice import find_pose, to_heart
from cardiogen.models.voxel.slots import Slots
from cardiogen.population.pose import Pose

_MIN_SUBJECTS = 5


@dataclass(frozen=True, eq=False)
class LabelExample:
    """One heart.

    Attributes:
        frames: deflated label map of every slot, None where it was not observed. A map of a
            million voxels takes some 10 kB.
        factors: clinical factors.
        es_phase: phase of end systole; None if unknown.
        pose: from the heart frame to the world of its source; None where it has none.
        subject_id: name.
    """

    frames: tuple[bytes | None, ...]
    factors: Factors
    es_phase: float | None = None
    pose: Pose | None = None
    subject_id: str = "heart"

    @property
    def present(self) -> NDArray[np.bool_]:
        """Which slots were observed, ``(T,)``."""
        return np.array([frame is not None for frame in self.frames])


@dataclass(frozen=True, eq=False)
class LabelExamples:
    """A cohort of hearts on one heart-frame lattice.

    Attributes:
        lattice: of all label maps.
        slots: what frames there are.
        examples: the hearts.
    """

    lattice: Grid
    slots: Slots
    examples: tuple[LabelExample, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def labels(self, index: int, slots: Listing[int] | None = None) -> NDArray[np.uint8]:
        """Return structures ``(T, D, H, W)`` of some slots, all if not given; 0 where missing."""
        frames = self.examples[index].frames
        chosen = range(len(frames)) if slots is None else slots
        found = np.zeros((len(chosen), *self.lattice.shape), np.uint8)
        for row, slot in zip(found, chosen, strict=True):
            if frames[slot] is not None:
                row[:] = np.frombuffer(zlib.decompress(frames[slot]), np.uint8).reshape(row.shape)
        return found

    def conditions(self, indices: Listing[int] | None = None) -> Tensor:
        """Return the conditions ``(N, 5)`` float64, NaN where a factor is missing."""
        chosen = range(len(self)) if indices is None else indices
        return torch.stack([encode_condition(self.examples[i].factors) for i in chosen])

    @property
    def es_phase(self) -> float:
        """Mean phase of end systole; NaN if none is known."""
        known = [e.es_phase for e in self.examples if e.es_phase is not None]
        return float(np.mean(known)) if known else float("nan")

    def subset(self, indices: Listing[int]) -> Self:
        """Return some of the hearts."""
        return replace(self, examples=tuple(self.examples[i] for i in indices))

    def fingerprint(self) -> str:
        """Return a hash of all labels and factors, by which a resumed training knows them."""
        digest = hashlib.sha256(f"{self.lattice.shape}{self.slots.frames}".encode())
        digest.update(self.lattice.affine.tobytes())
        for example in self.examples:
            digest.update(encode_condition(example.factors).numpy().tobytes())
            for frame in example.frames:
                digest.update(b"-" if frame is None else hashlib.sha256(frame).digest())
        return digest.hexdigest()

    def require_enough(self) -> None:
        """Refuse (C28) a cohort of fewer than five hearts."""
        if len(self) < _MIN_SUBJECTS:
            raise CardiogenError(
                "C28", "cohort", found=f"{len(self)} hearts",
                expected=f"at least {_MIN_SUBJECTS}", remedy="a larger cohort",
            )  # fmt: skip


def pack(labels: NDArray[np.uint8]) -> bytes:
    """Deflate the label map ``(D, H, W)`` of one frame."""
    return zlib.compress(np.ascontiguousarray(labels).tobytes(), 1)


def sequence_example(sequence: Sequence, lattice: Grid, slots: Slots) -> LabelExample | None:
    """Return the example of a patient; None if none of its frames fills a slot.

    Args:
        sequence: label maps in the patient's world.
        lattice: of the result, heart frame.
        slots: frames wanted.

    Raises:
        CardiogenError: see ``find_pose`` and ``to_heart``.
    """
    filled = slots.place(sequence)
    chosen = [frame for frame in filled if frame is not None]
    if not chosen:
        return None
    pose, _ = find_pose(sequence)
    # The pose is that of the ED frame, all frames share it: motion stays in the labels.
    labels = to_heart(
        sequence.labels[chosen], sequence.grid, pose, lattice, where=sequence.subject_id
    )
    packed = iter(pack(frame) for frame in labels)
    return LabelExample(
        frames=tuple(None if frame is None else next(packed) for frame in filled),
        factors=sequence.factors or Factors(),
        es_phase=None if sequence.es is None else float(sequence.phases[sequence.es]),
        pose=pose,
        subject_id=sequence.subject_id,
    )


def sequence_examples(sequences: Listing[Sequence], lattice: Grid, slots: Slots) -> LabelExamples:
    """Return the examples of a cohort; sequences without a wanted frame are left out.

    Raises:
        CardiogenError: C28 if fewer than five have one; else see ``sequence_example``.
    """
    found = [sequence_example(s, lattice, slots) for s in progress(sequences, "posing label maps")]
    examples = LabelExamples(lattice, slots, tuple(e for e in found if e is not None))
    examples.require_enough()
    return examples
