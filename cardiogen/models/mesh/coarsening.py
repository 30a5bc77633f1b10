"""Coarser and coarser graphs of a mesh: farthest-point clusters of its vertices.

Features of a level are ``(V, ...)``, vertices first, so that a sparse matrix acts on all hearts,
frames and channels at once.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import coo_array, csr_array
from scipy.sparse.csgraph import connected_components, dijkstra
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Level:
    """One graph, and how it hangs together with the next coarser one.

    Attributes:
        neighbors: mean over the neighbors of every vertex ``(V, V)``; rows sum to 1.
        pool: mean over the vertices of every cluster ``(V', V)``; None at the coarsest level.
        unpool: smooth interpolation between clusters ``(V, V')``; rows sum to 1.
        points: vertices, or centers of clusters, ``(V, 3)`` mm.
    """

    neighbors: csr_array
    pool: csr_array | None
    unpool: csr_array | None
    points: NDArray[np.float64]


def build_levels(
    points: NDArray[np.float64], faces: NDArray[np.int64], *, ratio: int, levels: int
) -> list[Level]:
    """Return graphs from fine to coarse.

    Args:
        points: mean mesh ``(V, 3)`` mm: distances along its edges decide who clusters with whom.
        faces: ``(F, 3)`` of any topology, one or several surfaces.
        ratio: vertices per cluster.
        levels: number of graphs, the mesh itself included.

    Raises:
        ValueError: for faces that do not index the points.
    """
    if faces.size and (faces.min() < 0 or faces.max() >= len(points)):
        raise ValueError(
            f"faces must index {len(points)} points, got {faces.min()} to {faces.max()}"
        )
    graph = _edge_graph(faces, len(points))
    found: list[Level] = []
    for number in range(levels):
        wanted = max(len(points) // ratio, 1)
        if number == levels - 1 or wanted == len(points):
            found.append(Level(_mean_of(graph), None, None, points))
            break
        cluster = _clusters(points, graph, wanted)
        members = csr_array((np.ones(len(cluster)), (cluster, np.arange(len(cluster)))))
        coarse = csr_array(members @ graph @ members.T)
        coarse.setdiag(0.0)
        coarse.eliminate_zeros()
        coarse.data[:] = 1.0
        pool = _rows_to_one(members)
        centers = pool @ points
        unpool = _interpolation(points, centers, cluster, coarse)
        found.append(Level(_mean_of(graph), pool, unpool, points))
        points, graph = centers, coarse
    return found


def sparse_tensor(matrix: csr_array) -> Tensor:
    """Return a float32 tensor in coordinate format."""
    entries = coo_array(matrix)
    indices = torch.from_numpy(np.stack([entries.row, entries.col]).astype(np.int64))
    values = torch.from_numpy(entries.data.astype(np.float32))

    return torch.sparse_coo_tensor(
        indices, values, entries.shape, check_invariants=False
    ).coalesce()


def apply_sparse(matrix: Tensor, features: Tensor) -> Tensor:
    """Return ``matrix (V', V)`` times features ``(V, ...)``."""
    # Sparse products know no half precision: they leave autocast.
    with torch.autocast(features.device.type, enabled=False):
        flat = torch.sparse.mm(matrix, features.flatten(1).float())

    return flat.unflatten(1, features.shape[1:])


def _edge_graph(faces: NDArray[np.int64], count: int) -> csr_array:
    """Adjacency of ones without loops, ``(V, V)``."""
    a = faces[:, [0, 1, 2]].ravel()
    b = faces[:, [1, 2, 0]].ravel()
    rows, columns = np.concatenate([a, b]), np.concatenate([b, a])
    graph = csr_array((np.ones(len(rows)), (rows, columns)), shape=(count, count))
    graph.sum_duplicates()
    graph.data[:] = 1.0
    return graph


def _rows_to_one(matrix: csr_array) -> csr_array:
    total = np.asarray(matrix.sum(axis=1)).ravel()
    scale = np.divide(1.0, total, out=np.zeros_like(total), where=total > 0)
    rows = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
    return csr_array((matrix.data * scale[rows], matrix.indices, matrix.indptr), matrix.shape)


def _mean_of(graph: csr_array) -> csr_array:
    """Mean over neighbors; a vertex without any is its own."""
    alone = np.diff(graph.indptr) == 0
    own = csr_array((alone.astype(float), (np.arange(len(alone)),) * 2), shape=graph.shape)
    return _rows_to_one(csr_array(graph + own))


def _clusters(points: NDArray[np.float64], graph: csr_array, count: int) -> NDArray[np.int64]:
    """Number of the cluster of every vertex: that of the nearest center along the edges."""
    parts, part = connected_components(graph, directed=False)
    # One center in every surface, however small: nothing else could reach its vertices.
    centers = [int(np.argmax(part == p)) for p in range(parts)]
    distance = np.full(len(points), np.inf)
    for center in centers:
        distance = np.minimum(distance, np.linalg.norm(points - points[center], axis=1))
    while len(centers) < count:
        centers.append(int(distance.argmax()))
        distance = np.minimum(distance, np.linalg.norm(points - points[centers[-1]], axis=1))
    lengths = csr_array(graph, copy=True)
    rows = np.repeat(np.arange(len(points)), np.diff(graph.indptr))
    lengths.data = np.linalg.norm(points[rows] - points[graph.indices], axis=1) + 1e-6
    _, _, source = dijkstra(
        lengths, directed=False, indices=np.unique(centers), min_only=True,
        return_predecessors=True,
    )  # fmt: skip
    return np.unique(source, return_inverse=True)[1].astype(np.int64)


def _interpolation(
    points: NDArray[np.float64],
    centers: NDArray[np.float64],
    cluster: NDArray[np.int64],
    coarse: csr_array,
) -> csr_array:
    """Gaussian weights of a vertex's own cluster and of the clusters next to it."""
    near = csr_array(coarse + csr_array(np.eye(len(centers))))
    reach = near[cluster].tocoo()
    squared = ((points[reach.row] - centers[reach.col]) ** 2).sum(axis=1)
    spacing = ((points - centers[cluster]) ** 2).sum(axis=1).mean()
    weight = np.exp(-squared / (2 * spacing + 1e-12)) + 1e-9
    return _rows_to_one(csr_array((weight, (reach.row, reach.col)), shape=reach.shape))
