"""Hearts with given phenotypes: the prior of a model, conditioned on what its hearts measure.

With a prior ``z = m + F u``, u standard normal, and g(z) the (log) phenotypes measured on the
decoded heart, a draw u0 is moved by the smallest step that reaches the targets t,

    u = argmin |u - u0|^2  subject to  g(m + F u) = t,

which is the smallest step of z in the metric of the prior. Gauss-Newton solves it,

    u <- u0 + A^T (A A^T)^-1 (t - g + A (u - u0)),    A = dg/dz F,

with A from finite differences at the most probable such heart and kept right by Broyden's updates.
Where g is linear this is exact conditioning (Matheron's rule): whatever the targets say nothing of
keeps the spread of the prior. Components of a mixture are weighed anew by how well each explains
the targets.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cardiogen.base import CardiogenError, Exit
from cardiogen.models.distributions import GaussianMixture
from cardiogen.models.flow import FlowPrior
from cardiogen.models.protocol import AnatomyModel, LatentDistribution, frame_phases
from cardiogen.models.target_solver import (
    Component,
    Solver,
    measure_latent,
    phenotype_slopes,
    shortest_step,
)
from cardiogen.models.target_values import Targets

Array = NDArray[np.float64]

# 99.99 % quantiles of chi-squared with 1 to 7 degrees of freedom: as for factors, a combination is
# refused that fewer than one in 10,000 would exceed.
LIMITS = (15.1367, 18.4207, 21.1075, 23.5127, 25.7448, 27.8563, 29.8775)
_TRIES = 20
_FRAMES = 25  # a cycle of fewer than 16 frames may miss the end of systole
_FEWEST_FRAMES = 16


def guided_prior(model: AnatomyModel, condition: Tensor, strength: float) -> LatentDistribution:
    """Return the prior given factors, with what factors do to its mean times ``strength``.

    ``mean = mean0 + strength (mean given factors - mean0)``, mean0 that of unknown factors; the
    spread stays. Strength 1 is the prior itself, 0 its spread around the mean of all hearts.
    The same is done to the speed of a flow, if the prior has one: see ``models.flow.prior``.

    Args:
        model: any model.
        condition: ``(C,)``, NaN where unknown.
        strength: at least 0.

    Raises:
        CardiogenError: U44 for a model whose prior is no mixture of Gaussians, flowing or not.
    """
    prior = model.prior(condition)
    if strength == 1.0:
        return prior
    everyone = model.prior(torch.full_like(condition, float("nan")))
    flows = isinstance(prior, FlowPrior)
    base = prior.gaussian if flows else _gaussian(prior, "--guidance")
    moved = replace(base, means=base.means + (strength - 1.0) * (base.mean - everyone.mean))

    return prior.guided(moved, strength) if flows else moved


def check_guidance(
    prior: LatentDistribution, model: AnatomyModel, condition: Tensor, strength: float
) -> None:
    """Refuse (D09, exit 5) guidance whose mean heart lies where hardly any subject does.

    Squared Mahalanobis distance of the mean from the hearts of unknown factors, against the
    quantile of chi-squared for as many numbers as there are factors. Beyond it draws begin to
    cross themselves and to eject more than they hold.

    Args:
        prior: what :func:`guided_prior` makes of the rest.
        model, condition, strength: see there.
    """
    if strength == 1.0:
        return
    found, everyone = (
        getattr(each, "gaussian", each)
        for each in (prior, model.prior(torch.full_like(condition, float("nan"))))
    )
    distances = []
    for mean, root in zip(everyone.means, everyone.factors, strict=True):
        offset = found.mean - mean
        distances.append(float(offset @ torch.linalg.solve(root @ root.mT, offset)))
    limit = LIMITS[len(condition) - 1]
    if min(distances) > limit:
        raise CardiogenError(
            "D09", "--guidance",
            found=f"{strength:g}, whose mean heart is at a squared distance of "
            f"{min(distances):.0f} from hearts",
            expected=f"at most {limit:.0f}, as nearly all subjects of the training data",
            remedy="a strength nearer to 1, or --allow-extrapolation (outputs are marked)",
        )  # fmt: skip


def _gaussian(prior: object, flag: str) -> GaussianMixture:
    if isinstance(prior, GaussianMixture):
        return prior
    raise CardiogenError(
        "U44", flag, found=f"a model with a prior of kind {type(prior).__name__}",
        expected="a mixture of Gaussians", remedy="the default model, or no such option",
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class TargetedPrior:
    """``LatentDistribution`` of the hearts of a model that hit targets.

    Attributes:
        model: whose hearts they are; None on the way between processes.
        prior: what they would be without targets.
        targets: what all of them measure, within ``TOLERANCE``.
        phases: where the cycle is measured.
        components: one for every component of ``prior`` that reaches the targets.
    """

    model: AnatomyModel | None
    prior: GaussianMixture
    targets: Targets
    phases: Array
    components: tuple[Component, ...]

    @property
    def squared_distance(self) -> float:
        """Squared Mahalanobis distance of the targets from the prior of hearts."""
        return min(float((c.best**2).sum()) for c in self.components)

    @property
    def weights(self) -> Array:
        """Probability of every component given the targets."""
        logs = np.array([c.log_weight for c in self.components])
        shares = np.exp(logs - logs.max())
        return shares / shares.sum()

    @property
    def mean(self) -> Tensor:
        """The most probable latent ``(Z,)`` of the likeliest component; it hits the targets."""
        likeliest = self.components[int(np.argmax(self.weights))]
        return likeliest.latent(likeliest.best)

    def check_domain(self) -> None:
        """Refuse targets that hardly any heart of the model shows (D07, exit 5)."""
        limit = LIMITS[len(self.targets.wanted) - 1]
        if self.squared_distance > limit:
            raise CardiogenError(
                "D07", "--target",
                found=f"{', '.join(self.targets.asked)}: what hardly any heart of the model shows",
                expected=f"a squared distance to the model's hearts of at most {limit:.0f}, "
                f"not {self.squared_distance:.0f}",
                remedy="other targets, or --allow-extrapolation (outputs are marked)",
            )  # fmt: skip

    def sample(self, generator: torch.Generator) -> Tensor:
        """Draw one latent ``(Z,)`` whose heart hits the targets.

        Raises:
            CardiogenError: D08 after 20 draws in a row from which no heart was found that does.
        """
        shares = torch.from_numpy(self.weights)
        for _ in range(_TRIES):
            uniform = torch.rand((), generator=generator, dtype=torch.float64)
            chosen = self.components[int((uniform >= shares.cumsum(0)[:-1]).sum())]
            size = chosen.root.shape[1]
            start = torch.randn(size, generator=generator, dtype=torch.float64).numpy()
            found = self._moved(chosen, start)
            if found is not None:
                return found
        raise _unreachable(self.targets)

    def log_prob(self, latent: Tensor) -> Tensor:
        """Return the prior's log density of latents ``(..., Z)``: among those that hit, in ratio
        the same."""
        return self.prior.log_prob(latent)

    def _moved(self, component: Component, start: Array) -> Tensor | None:
        """Return the heart nearest to a draw that hits the targets, None where none is found."""
        aim = shortest_step(
            component.slopes, np.einsum("pr,r->p", component.slopes, component.best - start)
        )
        solver = Solver(self.model, self.targets, self.phases, component)
        found = solver.solve(start, start + aim, component.slopes, component.es)
        return None if found is None else component.latent(found.u)


def condition_on_targets(
    model: AnatomyModel, prior: object, targets: Targets, *, frames: int = _FRAMES
) -> TargetedPrior:
    """Return the hearts of a prior that hit targets.

    Args:
        model: a model of meshes.
        prior: of its latents given factors, a ``GaussianMixture``.
        targets: what to hit.
        frames: of the cycle that measures are taken from; fewer than 16 are taken as 25.

    Raises:
        CardiogenError: U44 for models without meshes or of another prior, D08 for targets that no
            heart near the prior hits.
    """
    mixture = _gaussian(prior, "--target")
    if getattr(model, "topology", None) is None:
        raise CardiogenError(
            "U44", "--target", found="a model of label maps", expected="a model of meshes",
            remedy="the default model, or no targets",
        )  # fmt: skip
    phases = np.array(frame_phases(frames if frames >= _FEWEST_FRAMES else _FRAMES))
    _, es = measure_latent(model, mixture.mean, phases)
    slopes = phenotype_slopes(model, mixture.mean, mixture.covariance, targets, phases, es)
    draft = _reaching(model, mixture, targets, phases, slopes, es)
    # Once more with slopes at the heart itself: the step to it is long, draws from it are not.
    es = draft.components[int(np.argmax(draft.weights))].es
    slopes = phenotype_slopes(model, draft.mean, mixture.covariance, targets, phases, es)

    return _reaching(model, mixture, targets, phases, slopes, es)


def _reaching(
    model: AnatomyModel, prior: GaussianMixture, targets: Targets, phases: Array, slopes: Array,
    es: int,
) -> TargetedPrior:  # fmt: skip
    """Return the prior's components that reach the targets, given dg/dz ``(P, Z)`` near there."""
    found = []
    for weight, mean, root in zip(prior.weights, prior.means, prior.factors, strict=True):
        gaussian = mean.numpy(), root.numpy()
        part = _most_probable(model, targets, phases, gaussian, slopes, es)
        if part is not None:
            shift = part.log_weight + float(torch.log(weight))
            found.append(replace(part, log_weight=shift))
    if not found:
        raise _unreachable(targets)

    return TargetedPrior(model, prior, targets, phases, tuple(found))


def _unreachable(targets: Targets) -> CardiogenError:
    return CardiogenError(
        "D08", "--target", found=f"{', '.join(targets.asked)}: no heart of the model has them",
        expected="phenotypes that a heart of the model can have", remedy="other targets",
        exit_code=Exit.DOMAIN,
    )  # fmt: skip


def _most_probable(
    model: AnatomyModel,
    targets: Targets,
    phases: Array,
    gaussian: tuple[Array, Array],
    slopes: Array,
    es: int,
) -> Component | None:
    """Return the most probable heart of one Gaussian that hits the targets; None without one.

    By Laplace, the density of the targets is that of the heart over the volume that A spans:
    ``-|u|^2 / 2 - ln det(A A^T) / 2``.
    """
    mean, root = gaussian
    start = np.zeros(root.shape[1])
    along = np.einsum("pz,zr->pr", slopes, root)
    part = Component(mean, root, start, along, es, 0.0)
    found = Solver(model, targets, phases, part).solve(start, start, along, es)
    if found is None:
        return None
    _, log_det = np.linalg.slogdet(np.einsum("pr,qr->pq", found.slopes, found.slopes))
    log_weight = -0.5 * float((found.u**2).sum()) - 0.5 * float(log_det)

    return Component(mean, root, found.u, found.slopes, found.es, log_weight)
