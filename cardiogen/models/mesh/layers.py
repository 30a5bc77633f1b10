"""Graph convolutions and attention: the blocks of the mesh network."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from cardiogen.models.mesh.coarsening import Level, apply_sparse, sparse_tensor


class GraphBlock(nn.Module):
    """``y = skip(x) + silu(x A + mean_neighbors(x) B + c)`` of features ``(V, N, C)``."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.own = nn.Linear(before, after)
        self.around = nn.Linear(before, after, bias=False)
        self.skip = nn.Identity() if before == after else nn.Linear(before, after, bias=False)

    def forward(self, features: Tensor, neighbors: Tensor) -> Tensor:
        """Return features ``(V, N, C')``; ``neighbors`` is the sparse mean ``(V, V)``."""
        # The mean is linear: it is taken on whichever side has fewer channels.
        if self.around.in_features <= self.around.out_features:
            around = self.around(apply_sparse(neighbors, features))
        else:
            around = apply_sparse(neighbors, self.around(features))
        return self.skip(features) + functional.silu(self.own(features) + around)


class Attention(nn.Module):
    """Pre-norm attention of queries to keys, then a two-layer network, both with skips."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_query, self.norm_key = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key_value = nn.Linear(width, width), nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)
        self.after = nn.Sequential(
            nn.LayerNorm(width),
            nn.Linear(width, 2 * width),
            nn.GELU(),
            nn.Linear(2 * width, width),
        )

    def forward(self, queries: Tensor, keys: Tensor, visible: Tensor | None = None) -> Tensor:
        """Return ``(B, Q, W)`` of queries ``(B, Q, W)``, keys ``(B, K, W)``, mask ``(B, K)``."""
        query = self._split(self.query(self.norm_query(queries)))
        key, value = self.key_value(self.norm_key(keys)).chunk(2, dim=-1)
        mask = None if visible is None else visible[:, None, None, :]
        mixed = functional.scaled_dot_product_attention(
            query, self._split(key), self._split(value), attn_mask=mask
        )
        queries = queries + self.out(mixed.transpose(1, 2).flatten(2))
        return queries + self.after(queries)

    def _split(self, tokens: Tensor) -> Tensor:
        return tokens.unflatten(-1, (self.heads, -1)).transpose(1, 2)  # (B, heads, N, W / heads)


class Graphs(nn.Module):
    """The sparse matrices of all levels, as buffers that no bundle stores."""

    def __init__(self, levels: list[Level]) -> None:
        super().__init__()
        self.sizes = [len(level.points) for level in levels]
        for number, level in enumerate(levels):
            for name in ("neighbors", "pool", "unpool"):
                matrix = getattr(level, name)
                if matrix is not None:
                    self.register_buffer(
                        f"{name}{number}", sparse_tensor(matrix), persistent=False
                    )

    def matrix(self, name: str, level: int) -> Tensor:
        """Return ``neighbors``, ``pool`` or ``unpool`` of a level."""
        return getattr(self, f"{name}{level}")


class GraphEncoder(nn.Module):
    """Vertex fields ``(V, N, 3)`` to tokens ``(N, W)`` by convolution and pooling."""

    def __init__(self, graphs: Graphs, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        before = (3, *channels[:-1])
        self.blocks = nn.ModuleList(
            GraphBlock(a, b) for a, b in zip(before, channels, strict=True)
        )
        self.token = nn.Linear(graphs.sizes[-1] * channels[-1], width)

    def forward(self, field: Tensor, graphs: Graphs) -> Tensor:
        """Return the tokens of standardized fields."""
        for level, block in enumerate(self.blocks):
            field = block(field, graphs.matrix("neighbors", level))
            if level + 1 < len(graphs.sizes):
                field = apply_sparse(graphs.matrix("pool", level), field)
        return self.token(field.transpose(0, 1).flatten(1))


class GraphDecoder(nn.Module):
    """Tokens ``(N, W)`` to vertex fields ``(V, N, 3)`` by interpolation and convolution."""

    def __init__(self, graphs: Graphs, channels: tuple[int, ...], width: int) -> None:
        super().__init__()
        before = (*channels[1:], channels[-1])
        self.blocks = nn.ModuleList(
            GraphBlock(b, a) for a, b in zip(channels, before, strict=True)
        )
        self.start = nn.Linear(width, graphs.sizes[-1] * channels[-1])
        self.end = nn.Linear(channels[0], 3)
        # Small, not zero: the model starts next to its linear part, and every weight learns.
        with torch.no_grad():
            self.end.weight.mul_(0.05)
            self.end.bias.zero_()

    def forward(self, tokens: Tensor, graphs: Graphs) -> Tensor:
        """Return standardized fields."""
        field = self.start(tokens).unflatten(1, (graphs.sizes[-1], -1)).transpose(0, 1)
        for level in reversed(range(len(self.blocks))):
            if level + 1 < len(graphs.sizes):
                field = apply_sparse(graphs.matrix("unpool", level), field)
            field = self.blocks[level](field, graphs.matrix("neighbors", level))
        return self.end(field)
