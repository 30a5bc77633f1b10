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


def train_network(
    settings: MeshTraining | VolumeTraining | SequenceTraining, run: NetworkRun, *, jobs: int
) -> StoredModel:
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
    examples = population_meshes(settings.n, settings.seed, frames=settings.frames)
    return train_mesh(examples, settings.network, **vars(run))


def _label_maps(
    settings: VolumeTraining | SequenceTraining, run: NetworkRun, jobs: int
) -> StoredModel:
    from cardiogen.models.sequence import train_sequence
    from cardiogen.models.volume import train_volume
    from cardiogen.models.voxel import Slots, heart_grid, population_examples

    config = settings.network
    lattice = heart_grid(config.shape, config.spacing_mm)
    examples = population_examples(
        settings.n, settings.seed, lattice, Slots(config.frames), jobs=jobs
    )
    train = train_volume if isinstance(settings, VolumeTraining) else train_sequence
    return train(examples, config, **vars(run))
