"""Interests of MISSRec: clusters of the image and text vectors of all items, and a history's set of them.

Letters: T vectors, C clusters, D width, B histories, L length, M modalities, Q interests of a history.
"""

import torch
from torch import Tensor

BLOCK = 2**22
"""Distances held at one time."""


def density_peaks(x: Tensor, clusters: int, neighbors: int) -> tuple[Tensor, Tensor]:
    """Cluster by DPC-KNN (Du, Ding, Jia 2016; Eq. of rho and delta in Zeng et al., CVPR 2022).

    With d_ij the distance over sqrt(D): rho_i = exp(-mean of d_ij^2 over the k nearest, itself included),
    delta_i is the distance to the nearest denser vector (the largest of all where there is none), and the
    centers are the `clusters` largest rho delta. Equal vectors count once: they have no denser one among
    them and would take all centers. Time grows with T^2, memory with T.

    Args:
        x: (T, D).
        clusters: C, fewer where there are fewer distinct vectors.
        neighbors: k.

    Returns:
        (C, D) the means of the members, over count + 1e-4, and (T,) the cluster of each vector.
    """
    distinct, inverse = torch.unique(x, dim=0, return_inverse=True)
    count, scale = len(distinct), x.shape[1] ** 0.5
    rows = max(BLOCK // count, 1)
    density, farthest = x.new_empty(count), x.new_zeros(())
    for start in range(0, count, rows):
        part = torch.cdist(distinct[start : start + rows], distinct) / scale
        near = part.topk(min(neighbors, count), 1, largest=False).values
        density[start : start + rows] = (-near.square().mean(1)).exp()
        farthest = torch.maximum(farthest, part.max())
    gap = x.new_empty(count)
    for start in range(0, count, rows):
        part = torch.cdist(distinct[start : start + rows], distinct) / scale
        denser = density > density[start : start + rows, None]
        nearest = part.masked_fill_(~denser, torch.inf).amin(1)
        gap[start : start + rows] = torch.where(nearest.isinf(), farthest, nearest)
    centers = (density * gap).topk(min(clusters, count)).indices
    member = nearest_row(distinct, distinct[centers])
    member[centers] = torch.arange(len(centers), device=x.device)
    member = member[inverse]
    return means(x, member, len(centers)), member


def nearest_row(x: Tensor, centers: Tensor) -> Tensor:
    """Return (T,) the row of centers (C, D) nearest to each of x (T, D)."""
    rows = max(BLOCK // len(centers), 1)
    return torch.cat([torch.cdist(part, centers).argmin(1) for part in x.split(rows)])


def means(x: Tensor, member: Tensor, clusters: int) -> Tensor:
    """Return (C, D) the sum of the members of each cluster over their number + 1e-4."""
    total = x.new_zeros(clusters, x.shape[1]).index_add_(0, member, x)
    return total / (torch.bincount(member, minlength=clusters)[:, None] + 1e-4)


def k_means(x: Tensor, clusters: int) -> tuple[Tensor, Tensor]:
    """Return centers (C, D) and the cluster of each vector (T,), by five passes of mini-batch k-means."""
    from sklearn.cluster import MiniBatchKMeans  # takes a second: not needed by the other way

    seed = int(torch.randint(2**31 - 1, ()))
    size = max(2048, round(1.1 * clusters))
    found = MiniBatchKMeans(
        min(clusters, len(x)), batch_size=size, max_iter=5, n_init=1, tol=1e-5, random_state=seed
    ).fit(x.cpu().numpy())
    centers = torch.from_numpy(found.cluster_centers_).to(x)
    return centers, nearest_row(x, centers)


def find_interests(x: Tensor, clusters: int, way: str, neighbors: int, most: int) -> tuple[Tensor, Tensor]:
    """Return centers (at most C, D) and the cluster of each vector (T,) of x (T, D); density peaks are looked
    for in a random part of more than `most` vectors, and the others join the nearest center.
    """
    if way == "kmeans":
        return k_means(x, clusters)
    if len(x) <= most:
        return density_peaks(x, clusters, neighbors)
    part = x[torch.randperm(len(x), device=x.device)[:most]]
    centers, _ = density_peaks(part, clusters, neighbors)
    return centers, nearest_row(x, centers)


def distinct_interests(codes: Tensor) -> tuple[Tensor, Tensor]:
    """Return the distinct interests of histories, in the order in which they come up.

    Args:
        codes: (B, L, M) int64 interests of each event's modalities, 0 where there is none.

    Returns:
        (B, Q) int64 interests, 0 behind the last, and (B, Q) the position in 0..L-1 of the event that brings
        each, L where there is none. Q is 0 where nobody has one.
    """
    length, streams = codes.shape[1:]
    flat = codes.flatten(1)  # (B, L M) in time order
    order = torch.argsort(flat, dim=1, stable=True)
    ordered = flat.gather(1, order)
    first = torch.ones_like(ordered, dtype=torch.bool)
    first[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    new = torch.zeros_like(first).scatter_(1, order, first) & (flat > 0)
    count = int(new.sum(1).max()) if len(codes) else 0
    place = torch.argsort((~new).to(torch.int8), dim=1, stable=True)[:, :count]  # new ones left, in order
    real = new.gather(1, place)
    return flat.gather(1, place) * real, torch.where(real, place // streams, length)
