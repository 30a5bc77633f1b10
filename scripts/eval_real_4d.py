"""A real cine as a sequence for the models: track it, encode it, decode it again.

The human cine is tracked (registration), its label maps of all frames are encoded by the
deformation model, and the own model of the heart decodes the cycle. Prints how the volume curve of
the left ventricle agrees with the tracked labels and with the meshes that came with the cine.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from bench.tracking_cases import human_cine

from cardiogen.data.factors import Factors
from cardiogen.data.labels import Structure
from cardiogen.measure.overlap import dice
from cardiogen.measure.volumes import label_volumes, mesh_volumes
from cardiogen.models.deformation.cohort import cohort_codes
from cardiogen.models.deformation.patients import own_model
from cardiogen.models.store import load_model
from cardiogen.population.render import render_sequence
from registration.tracking import track


def main() -> None:
    """Run on the human cine."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the real data, e.g. ../shared/data")
    parser.add_argument("--model", default="deformation", help="bundle; default: the shipped one")
    options = parser.parse_args()
    case = human_cine(options.data)
    tracked = track(case.sequence, case.labels).sequence
    model = load_model(options.model).model
    began = time.perf_counter()
    heart = model.encoder.encode(tracked.with_(images=None))
    seconds = time.perf_counter() - began
    latent = model.latent(cohort_codes(model, [heart], [Factors()]).scores[0])
    own = own_model(model, latent, heart)
    vertices = heart.pose.to_world(own.decode(torch.from_numpy(latent), tracked.phases))
    topology = model.topology.mirrored() if heart.pose.mirrored else model.topology
    found = mesh_volumes(vertices, topology)[Structure.LV]
    again = render_sequence(vertices, topology, tracked.grid)
    rendered = label_volumes(again, tracked.grid)[Structure.LV]
    seen = label_volumes(tracked.labels, tracked.grid)[Structure.LV]
    print(f"encoded {len(tracked)} frames in {seconds:.0f} s")
    for name, curve, truth in (
        ("decoded labels against tracked labels", rendered, seen),
        ("decoded meshes against tracked labels", found, seen),
        ("decoded meshes against the cine's own meshes", found, case.volumes),
    ):
        error = np.sqrt(np.mean((curve - truth) ** 2))
        print(f"LV volume, {name}: r {np.corrcoef(curve, truth)[0, 1]:.4f}, RMSE {error:.1f} mL")
    for structure in (Structure.LV, Structure.MYO, Structure.RV):
        overlaps = [
            dice(a == structure, b == structure)
            for a, b in zip(again, tracked.labels, strict=True)
        ]
        print(f"Dice {structure.name}: mean {np.mean(overlaps):.3f}, worst {min(overlaps):.3f}")


if __name__ == "__main__":
    main()
