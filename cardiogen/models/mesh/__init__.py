"""The mesh VAE: vertices of one topology over the cycle, given conditions.

Graph convolutions on the edges of the mesh, a transformer over the observed frames, a periodic
time code, a conditional prior of full covariance, and a smooth residual that is sampled too.
"""

from cardiogen.models.mesh.conditions import ConditionTable, describe_conditions
from cardiogen.models.mesh.config import MeshConfig
from cardiogen.models.mesh.examples import (
    MeshExamples,
    cohort_meshes,
    population_mesh,
    population_meshes,
    stage_examples,
)
from cardiogen.models.mesh.model import MeshModel, mesh_from_tensors
from cardiogen.models.mesh.network import MeshNetwork
from cardiogen.models.mesh.noise import SmoothNoise
from cardiogen.models.mesh.start import start_network
from cardiogen.models.mesh.task import MeshTask
from cardiogen.models.mesh.train import train_mesh
from cardiogen.population.pose import rigid_pose

__all__ = [
    "ConditionTable",
    "MeshConfig",
    "MeshExamples",
    "MeshModel",
    "MeshNetwork",
    "MeshTask",
    "SmoothNoise",
    "cohort_meshes",
    "describe_conditions",
    "mesh_from_tensors",
    "population_mesh",
    "population_meshes",
    "rigid_pose",
    "stage_examples",
    "start_network",
    "train_mesh",
]
