"""Prototypes of a teacher's features: the frozen axes along which semantic distributions are compared."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from endolux.errors import ModelError, UsageError
from endolux.losses.canonical import precise

TEMPERATURE = 0.1
DIMENSIONS = 64
PROTOTYPES = 64
_TINY = 1e-6


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Prototypes:
    """The frozen side: whitening of one teacher's features, and prototypes among the whitened ones.

    Attributes:
        teacher: identity of the teacher and layer they were fitted on (a digest or a name).
        mean: C.
        whitening: D x C.
        centres: K x D, of length 1.
    """

    teacher: str
    mean: Tensor
    whitening: Tensor
    centres: Tensor

    def require(self, teacher: str) -> None:
        """Refuse features of another teacher.

        Raises:
            ModelError: ``loss.prototypes``.
        """
        if teacher != self.teacher:
            raise ModelError(
                f"Prototypes of teacher '{self.teacher}' for features of teacher '{teacher}'",
                why="Their axes mean nothing in another network's features.",
                fix="Fit prototypes on this teacher (fit_prototypes), or use the teacher they belong to.",
                error_id="loss.prototypes",
            )


def fit_prototypes(
    tokens: Tensor,
    teacher: str,
    *,
    dimensions: int = DIMENSIONS,
    count: int = PROTOTYPES,
    rounds: int = 25,
    seed: int = 0,
) -> Prototypes:
    """PCA whitening and spherical k-means of a teacher's tokens on training frames.

    Args:
        tokens: M x C.
        teacher: identity of the teacher and layer.
        dimensions: D kept, at most the rank of the tokens.
        count: K prototypes.
        rounds: of k-means; it ends early where assignments no longer change.
        seed: of the first prototypes.

    Raises:
        UsageError: ``loss.shape`` for tokens that are too few or not finite; ``loss.setting`` for too many dimensions.

    Example:
        >>> fitted = fit_prototypes(torch.randn(500, 12), "tiny-block9", dimensions=8, count=16)
        >>> fitted.whitening.shape, fitted.centres.shape
        (torch.Size([8, 12]), torch.Size([16, 8]))
    """
    if tokens.ndim != 2 or len(tokens) < max(count, 2) or not bool(torch.isfinite(tokens).all()):
        raise UsageError(
            f"Tokens of shape {tuple(tokens.shape)} for {count} prototypes",
            why="They must be M x C, finite, and at least as many as prototypes.",
            fix="Collect tokens of more frames.",
            error_id="loss.shape",
        )
    with torch.no_grad(), torch.autocast(tokens.device.type, enabled=False):
        exact = tokens.detach().double()
        mean = exact.mean(dim=0)
        centred = exact - mean
        values, vectors = torch.linalg.eigh(centred.T @ centred / len(exact))
        rank = int((values > values[-1] * 1e-10).sum()) if float(values[-1]) > 0.0 else 0
        if not 1 <= dimensions <= rank or count < 1:
            raise UsageError(
                f"{dimensions} dimensions and {count} prototypes of tokens of rank {rank}",
                why="Whitening divides by the spread along every dimension that is kept.",
                fix="Keep fewer dimensions, or collect more varied tokens.",
                error_id="loss.setting",
            )
        kept, axes = values[-dimensions:].flip(0), vectors[:, -dimensions:].flip(1)
        whitening = (axes / kept.sqrt()).T
        centres = _spherical_means(unit(centred @ whitening.T, dim=1), count, rounds, seed)
        precision = torch.float64 if tokens.dtype == torch.float64 else torch.float32
        return Prototypes(
            teacher=teacher, mean=mean.to(precision), whitening=whitening.to(precision), centres=centres.to(precision)
        )


def whiten(features: Tensor, prototypes: Prototypes, size: tuple[int, int], *, teacher: str) -> Tensor:
    """A teacher's features on the student's grid, centred and whitened; detached.

    Args:
        features: N x C x h' x w'.
        prototypes: of this teacher.
        size: h x w of the student's bottleneck.
        teacher: identity of the teacher that gave the features.

    Returns:
        N x D x h x w.

    Raises:
        ModelError: ``loss.prototypes`` for prototypes of another teacher.
        UsageError: ``loss.shape``.

    Example:
        >>> fitted = fit_prototypes(torch.randn(500, 12), "tiny", dimensions=8, count=16)
        >>> whiten(torch.randn(2, 12, 9, 9), fitted, (4, 5), teacher="tiny").shape
        torch.Size([2, 8, 4, 5])
    """
    prototypes.require(teacher)
    if features.ndim != 4 or features.shape[1] != len(prototypes.mean) or 0 in features.shape:
        raise shape_error(features, (len(features), len(prototypes.mean), *size))
    with torch.no_grad(), torch.autocast(features.device.type, enabled=False):
        values = precise(features)
        if values.shape[2:] != size:
            values = F.interpolate(values, size, mode="bilinear", align_corners=False)
        values = values - prototypes.mean.to(values)[:, None, None]
        return torch.einsum("dc,nchw->ndhw", prototypes.whitening.to(values), values)


def assign(features: Tensor, prototypes: Prototypes, *, temperature: float = TEMPERATURE) -> Tensor:
    """Distribution over prototypes of every cell: softmax of cosines / temperature; blind to the features' length.

    Args:
        features: projected or whitened, N x D x h x w.
        prototypes: K of them.
        temperature: the same for student and teacher, or equality would not be the minimum.

    Returns:
        N x K x h x w, of sum 1. A teacher's may be cached, in half precision too.

    Raises:
        UsageError: ``loss.shape``, ``loss.setting``.

    Example:
        >>> fitted = fit_prototypes(torch.randn(500, 12), "tiny", dimensions=8, count=16)
        >>> float(assign(torch.randn(2, 8, 4, 5), fitted).sum(dim=1).mean().round(decimals=4))
        1.0
    """
    return log_assign(features, prototypes, temperature).exp()


def log_assign(features: Tensor, prototypes: Prototypes, temperature: float) -> Tensor:
    """Logarithm of :func:`assign`, which a divergence needs."""
    if not 0.0 < temperature < float("inf"):
        raise setting_error(f"A temperature of {temperature}", "Cosines are divided by it.", f"Use {TEMPERATURE}.")
    if features.ndim != 4 or features.shape[1] != prototypes.centres.shape[1]:
        raise shape_error(features, (len(features), prototypes.centres.shape[1], "h", "w"))
    with torch.autocast(features.device.type, enabled=False):
        values = unit(precise(features), dim=1)
        cosines = torch.einsum("kd,ndhw->nkhw", prototypes.centres.to(values), values)
        return F.log_softmax(cosines / temperature, dim=1)


def unit(vectors: Tensor, dim: int) -> Tensor:
    """Vectors of length 1; the zero vector stays."""
    return F.normalize(vectors, dim=dim, eps=_TINY)


def shape_error(tensor: Tensor, expected: tuple[object, ...]) -> UsageError:
    """``loss.shape`` for features or masks of an alignment."""
    return UsageError(
        f"Semantic alignment got shape {tuple(tensor.shape)}",
        why=f"Here it must be ({', '.join(map(str, expected))}); masks are bool.",
        fix="Project the student (SemanticProjector) and whiten the teacher (whiten) to one grid first.",
        error_id="loss.shape",
    )


def setting_error(what: str, why: str, fix: str) -> UsageError:
    """``loss.setting`` of an alignment."""
    return UsageError(what, why=why, fix=fix, error_id="loss.setting")


def _spherical_means(tokens: Tensor, count: int, rounds: int, seed: int) -> Tensor:
    order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed))[:count]
    centres = tokens[order.to(tokens.device)].clone()
    before: Tensor | None = None
    for _ in range(rounds):
        nearest = (tokens @ centres.T).argmax(dim=1)
        if before is not None and torch.equal(nearest, before):
            break
        before = nearest
        sums = torch.zeros_like(centres).index_add_(0, nearest, tokens)
        lengths = sums.norm(dim=1, keepdim=True)
        # A prototype that nothing chose stays where it is.
        centres = torch.where(lengths > _TINY, sums / lengths.clamp(min=_TINY), centres)
    return centres
