"""The trained mesh VAE behind ``models.protocol.AnatomyModel``.

A latent is ``(z, e)``: z of the network and e of the smooth residual, so that every draw from a
prior or posterior is a draw from the whole predictive, and its decoding a pure function. Hearts
are decoded one at a time. Torch's matrix products may give other bits on other numbers of threads.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, Note
from cardiogen.data.labels import Structure
from cardiogen.data.mesh import Topology
from cardiogen.data.sequence import Sequence
from cardiogen.engine.fit_template import fit_frames
from cardiogen.measure.volumes import end_of_ejection, mesh_volumes
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.mesh.coarsening import Level, build_levels
from cardiogen.models.mesh.conditions import ConditionTable
from cardiogen.models.mesh.config import MeshConfig
from cardiogen.models.mesh.network import MeshNetwork
from cardiogen.models.mesh.noise import SmoothNoise
from cardiogen.models.mesh.time import time_code
from cardiogen.models.protocol import Posterior
from cardiogen.population.pose import Pose, rigid_pose

Array = NDArray[np.float64]

_DENSE = np.arange(100) / 100.0
# Units hold commas: "0 = F, 1 = M".
_SEPARATOR = " | "


class MeshModel:
    """Trained network, smooth residual and conditions.

    Args:
        network: on the CPU; put into evaluation mode.
        noise: its smooth residual.
        table: of the conditions.
        faces: of the mesh ``(F, 3)``.
        topology: named closed surfaces; a model of bare arrays has none.
        staged: whether phases only label stages (ED, ES).
        notes: findings of the training.
        history: rows of the training log.
    """

    kind = "mesh"

    def __init__(
        self,
        network: MeshNetwork,
        noise: SmoothNoise,
        table: ConditionTable,
        faces: NDArray[np.int64],
        *,
        topology: Topology | None = None,
        staged: bool = False,
        notes: tuple[Note, ...] = (),
        history: tuple[dict[str, float], ...] = (),
    ) -> None:
        self.network = network.eval().requires_grad_(False)
        self.noise, self.table, self.faces = noise, table, faces
        self.topology, self.staged = topology, staged
        self.notes, self.history = notes, history

    @property
    def latent_size(self) -> int:
        """Number of latents, those of the residual included."""
        return self.network.config.latents + self.noise.size

    @property
    def stages(self) -> Array:
        """Phases that stand for the stages of a staged model."""
        return np.arange(int(self.network.frames)) / int(self.network.frames)

    def check_condition(self, condition: Tensor) -> None:
        """Refuse a value outside its training range (D01) or an unseen combination (D02)."""
        self.table.check(condition.numpy())

    def prior(self, condition: Tensor) -> GaussianMixture:
        """Return the latents given a condition ``(C,)``, any entries of which may be NaN."""
        with torch.no_grad():
            found = self.network.prior(condition[None].double())
        size = self.noise.size
        return _joined(found.mean[0], found.tril[0], np.zeros(size), np.eye(size))

    def posterior(
        self, observed: Sequence, condition: Tensor, *, healthy: bool = False
    ) -> Posterior:
        """Return the latents given meshes or label maps of any frames and a condition.

        Label maps are first described by the population's template, frame by frame. The prior is
        that of the training cohort whether or not ``healthy``: nothing is widened by disease.

        Raises:
            CardiogenError: S85 for meshes of another topology, L37, L60 or L61 for labels that
                are no heart.
        """
        del healthy
        vertices = observed.vertices
        if vertices is None:
            vertices, pose, margin = self._from_labels(observed)
        else:
            if vertices.shape[1] != len(self.network.scale):
                raise CardiogenError(
                    "S85", observed.subject_id, found=f"{vertices.shape[1]} vertices",
                    expected=f"{len(self.network.scale)}, as the model has",
                    remedy="meshes of the model's template",
                )  # fmt: skip
            mirrored = observed.orientation == "mirrored"
            pose, margin = self._pose_of(vertices, observed.phases, mirrored), None
        latents = self.posterior_of(pose.to_heart(vertices), observed.phases, condition)
        return Posterior(latents, pose, margin)

    def posterior_of(
        self, vertices: NDArray, phases: ArrayLike, condition: Tensor
    ) -> GaussianMixture:
        """Return the latents given meshes ``(T, V, 3)`` in the model's frame of reference."""
        seen = torch.ones(1, len(vertices), dtype=torch.bool)
        when = torch.as_tensor(np.asarray(phases, np.float64))[None]
        points = torch.as_tensor(np.asarray(vertices, np.float32))[None]
        with torch.no_grad():
            scores, tokens = self.network.look(points, when.float())
            found = self.network.posterior(
                scores, tokens, when.float(), seen, condition[None].double()
            )
            told = self.network.decode(found.mean, when.float())
            precision = (
                float(self.network.frame_precision(seen))
                * (float(self.network.noise) / max(self.noise.rest_mm, 0.05)) ** 2
            )
        code = time_code(when[0], self.network.config.harmonics).numpy()
        mean, covariance = self.noise.given((points - told)[0].double().numpy(), code, precision)
        return _joined(found.mean[0], found.tril[0], mean, np.linalg.cholesky(covariance))

    def decode(self, latent: Tensor, phases: ArrayLike) -> Array:
        """Return meshes ``(T, V, 3)`` in mm of a latent at any phases.

        Raises:
            ValueError: for phases between the stages of a staged model.
        """
        when = np.asarray(phases, np.float64)
        if self.staged and not np.isin(when, self.stages).all():
            raise ValueError(f"phases must be stages {self.stages.tolist()}, got {when.tolist()}")
        return self._decode(latent[None], when)[0].astype(np.float64)

    def decode_many(
        self, latents: Tensor, phases: ArrayLike, *, size: int = 64
    ) -> NDArray[np.float32]:
        """Return meshes ``(N, T, V, 3)`` mm of latents ``(N, Z)``, some at once: for cohorts.

        Torch rounds products of other sizes in another way: the last bits are not those of
        :meth:`decode`.

        Args:
            latents: of :meth:`prior` or :meth:`posterior`.
            phases: one set for all.
            size: meshes (hearts times frames) decoded at once.
        """
        when = np.asarray(phases, np.float64)
        step = max(1, size // max(1, len(when)))
        parts = [self._decode(part, when) for part in latents.split(step)]
        return np.concatenate(parts)

    def _decode(self, latents: Tensor, when: Array) -> NDArray[np.float32]:
        split, harmonics = self.network.config.latents, self.network.config.harmonics
        # In float64: the code of phase 1 must be that of phase 0.
        phase = torch.from_numpy(np.mod(when, 1.0))
        with torch.no_grad():
            told = self.network.decode(
                latents[:, :split].float(), phase.float().expand(len(latents), -1)
            ).numpy()
        return told + self.noise.field(
            latents[:, split:].numpy(), time_code(phase, harmonics).numpy()
        )

    def is_possible(self, latent: Tensor) -> bool:
        """Whether all chambers and the wall have a volume at ED and ES."""
        vertices = self.decode(latent, [0.0, self.end_systole(latent)])
        if self.topology is None:
            return bool(np.isfinite(vertices).all())
        volumes = mesh_volumes(vertices, self.topology)
        return all(bool((volume > 0).all()) for volume in volumes.values())

    def end_systole(self, latent: Tensor) -> float:
        """Return the phase at which ejection ends: all but 0.5 % of the stroke is out.

        A staged model, or one without named surfaces, says its stage in the middle (or the last).
        """
        if self.staged or self.topology is None:
            return float(self.stages[len(self.stages) // 2]) if self.staged else 0.5
        volume = mesh_volumes(self.decode(latent, _DENSE), self.topology)[Structure.LV]
        return float(_DENSE[end_of_ejection(volume, full_ml=volume[0])])

    def condition_ranges(self) -> dict[str, list[float]]:
        """Return the least and largest value seen of every continuous factor."""
        spans = zip(self.table.names, self.table.low, self.table.high, strict=True)

        return {name: [float(low), float(high)] for name, low, high in spans if name != "sex"}

    def tensors(self) -> dict[str, NDArray[np.float32]]:
        """Return everything that is learned, float32."""
        found = {f"network.{n}": t.numpy() for n, t in self.network.state_dict().items()}
        for part, names in _PARTS.items():
            found |= {f"{part}.{n}": getattr(getattr(self, part), n) for n in names}
        found["faces"] = self.faces
        return {name: np.asarray(a, np.float32) for name, a in found.items()}

    def architecture(self) -> dict[str, int | float | str]:
        """Return what :func:`mesh_from_tensors` needs beside the tensors."""
        config = self.network.config.model_dump(exclude={"fit"})
        config["channels"] = ",".join(str(c) for c in config["channels"])
        return config | {
            "condition_names": _SEPARATOR.join(self.table.names),
            "condition_units": _SEPARATOR.join(self.table.units),
            "staged": int(self.staged),
            "rest_mm": self.noise.rest_mm,
        }

    def _pose_of(self, vertices: Array, phases: ArrayLike, mirrored: bool) -> Pose:
        """Pose that brings the mean mesh nearest to the frame next to ED."""
        when = np.asarray(phases, np.float64)
        first = int(np.argmin(np.minimum(when % 1, 1 - when % 1)))
        code = time_code(torch.from_numpy(when[first : first + 1]), self.network.config.harmonics)
        mean = (code @ self.network.mean.double()).numpy().reshape(-1, 3)
        return rigid_pose(mean, vertices[first], mirrored=mirrored)

    def _from_labels(self, observed: Sequence) -> tuple[Array, Pose, float | None]:
        """Meshes ``(T, V, 3)`` in the world of label maps, their pose and chirality margin."""
        vertices, fits = fit_frames(observed)
        nearest = fits[observed.ed]
        pose = self._pose_of(vertices, observed.phases, nearest.pose.mirrored)
        return vertices, pose, nearest.margin


_PARTS = {
    "noise": ("mean", "modes", "loadings"),
    "table": ("mean", "sd", "low", "high", "correlation"),
}


def mesh_levels(
    mean: NDArray[np.float32], faces: NDArray[np.int64], config: MeshConfig
) -> list[Level]:
    """Return the graphs of a model, from the coefficients of its mean mesh as they are stored."""
    code = time_code(torch.zeros(1, dtype=torch.float64), config.harmonics).numpy()
    points = (code @ mean.astype(np.float64)).reshape(-1, 3)
    return build_levels(points, faces, ratio=config.coarsening, levels=len(config.channels) + 1)


def mesh_from_tensors(
    tensors: dict[str, NDArray[np.float32]],
    architecture: dict[str, int | float | str],
    *,
    topology: Topology | None = None,
) -> MeshModel:
    """Return the model of :meth:`MeshModel.tensors` and :meth:`MeshModel.architecture`.

    Raises:
        CardiogenError: M04 for tensors that are missing, unknown or of the wrong shape.
    """
    given = dict(architecture)
    told = {n: given.pop(n) for n in ("condition_names", "condition_units", "staged", "rest_mm")}
    given["channels"] = tuple(int(c) for c in str(given["channels"]).split(","))
    config = MeshConfig.model_validate(given)
    try:
        parts = {
            part: {n: tensors[f"{part}.{n}"] for n in names} for part, names in _PARTS.items()
        }
        faces = tensors["faces"].astype(np.int64)
        network = MeshNetwork(
            config, mesh_levels(tensors["network.mean"], faces, config),
            condition_mean=parts["table"]["mean"], condition_sd=parts["table"]["sd"],
            shape_modes=len(tensors["network.modes"]),
        )  # fmt: skip
        weights = {
            n.removeprefix("network."): torch.from_numpy(np.array(a))
            for n, a in tensors.items() if n.startswith("network.")
        }  # fmt: skip
        network.load_state_dict(weights)
    except (KeyError, RuntimeError, ValueError, IndexError) as error:
        raise CardiogenError(
            "M04", "mesh model", found=f"tensors that do not fit ({error})"[:500],
            expected="those of a mesh model", remedy="the bundle as it was published",
        ) from error  # fmt: skip
    table = ConditionTable(
        tuple(str(told["condition_names"]).split(_SEPARATOR)),
        tuple(str(told["condition_units"]).split(_SEPARATOR)),
        **{n: a.astype(np.float64) for n, a in parts["table"].items()},
    )
    noise = SmoothNoise(**parts["noise"], rest_mm=float(told["rest_mm"]))
    return MeshModel(network, noise, table, faces, topology=topology, staged=bool(told["staged"]))


def _joined(mean: Tensor, tril: Tensor, noise_mean: Array, noise_tril: Array) -> GaussianMixture:
    """Independent latents of network and residual as one Gaussian, float64."""
    size, rest = len(mean), len(noise_mean)
    factor = torch.zeros(size + rest, size + rest, dtype=torch.float64)
    factor[:size, :size] = tril.double()
    factor[size:, size:] = torch.from_numpy(np.ascontiguousarray(noise_tril))
    joined = torch.cat([mean.double(), torch.from_numpy(noise_mean)])
    return GaussianMixture(torch.ones(1, dtype=torch.float64), joined[None], factor[None])
