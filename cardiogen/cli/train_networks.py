"""The networks of ``cardiogen train``: hearts of the population, and a run that can be resumed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from cardiogen.engine.fit.folder import check_fresh
from cardiogen.engine.fit.processes import Device, check_devices, this_rank
from cardiogen.models.mesh.config import MeshTraining
from cardiogen.models.sequence.config import SequenceTraining
from cardiogen.models.store import StoredModel
from cardiogen.models.volume.config import VolumeTraining

NetworkTraining = MeshTraining | VolumeTraining | SequenceTraining
# Validation takes time at every turn, and errs by a tenth of the spread with so many.
_MOST_HELD_OUT = 100


@dataclass(frozen=True, kw_only=True)
class NetworkRun:
    """Where and on what a network is trained; see ``engine.fit.fit``."""

    folder: Path
    resume: bool = False
    device: Device = "auto"
    devices: int = 1
    num_nodes: int = 1

    def check(self) -> None:
        """Refuse what ``fit`` would refuse, before hearts are made, which may take hours."""
        check_devices(self.device, devices=self.devices, num_nodes=self.num_nodes)
        if not self.resume:
            check_fresh(self.folder)


def run_folder(out: Path) -> Path:
    """Return where a training keeps checkpoints and logs: beside its bundle, ``OUT.run``."""
    place = out.absolute()
    return place.with_name(f"{place.name}.run")


def held_out(settings: NetworkTraining) -> int:
    """Return how many hearts are made beyond the ``n`` of the training, to validate on.

    They follow those of the training, which are the same with and without a validation.
    """
    if not settings.network.fit.validate_every:
        return 0
    return min(_MOST_HELD_OUT, max(1, settings.n // 10))


def train_network(settings: NetworkTraining, run: NetworkRun, *, jobs: int) -> StoredModel:
    """Train the network of settings; what was found on the way is told as notes.

    Args:
        settings: of the model.
        run: where and on what.
        jobs: processes that make training data.

    Raises:
        CardiogenError: as ``NetworkRun.check`` and ``engine.fit.fit``.
    """
    run.check()
    make = _mesh if isinstance(settings, MeshTraining) else _label_maps
    trained = make(settings, run, jobs)
    for note in trained.notes if this_rank() == 0 else ():
        typer.echo(f"cardiogen: note {note}", err=True)
    return trained


def _mesh(settings: MeshTraining, run: NetworkRun, jobs: int) -> StoredModel:
    from cardiogen.models.mesh import population_meshes, train_mesh

    del jobs
    n = settings.n
    made = population_meshes(n + held_out(settings), settings.seed, frames=settings.frames)
    rest = made.take(range(n, len(made))) if len(made) > n else None
    return train_mesh(made.take(range(n)), settings.network, held_out=rest, **vars(run))


def _label_maps(
    settings: VolumeTraining | SequenceTraining, run: NetworkRun, jobs: int
) -> StoredModel:
    from cardiogen.models.sequence import train_sequence
    from cardiogen.models.volume import train_volume
    from cardiogen.models.voxel import Slots, heart_grid, population_examples

    config, n = settings.network, settings.n
    lattice = heart_grid(config.shape, config.spacing_mm)
    made = population_examples(
        n + held_out(settings), settings.seed, lattice, Slots(config.frames), jobs=jobs
    )
    rest = made.subset(range(n, len(made))) if len(made) > n else None
    train = train_volume if isinstance(settings, VolumeTraining) else train_sequence
    return train(made.subset(range(n)), config, validation=rest, **vars(run))
