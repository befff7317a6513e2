"""Turning the axes of a model onto concepts, and reading them: batches are drawn, the axes follow, pictures score.

Whatever ends one of these functions early, an interrupt too, leaves the model as it was.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from mitolib.whitening.layer import ConceptWhitening
from mitolib.whitening.passes import first_of, pictures_of, undone_if_it_fails
from mitolib.whitening.rotation import orthogonality_error
from mitolib.whitening.surgery import is_plain_linear, layer_input, layer_of

OPPOSITE = -0.9  # cosine of two concept means below which orthogonal axes cannot serve both


@dataclass(frozen=True)
class Round:
    """What one call of `align` found and did."""

    alignment: float  # of the axes with the directions collected so far; 1 is the best an orthogonal set can do
    gram: np.ndarray  # (k, k) cosines between the concepts' whitened means
    line_search_failures: int
    orthogonality_error: float  # largest entry of R R^T - I, in absolute value


def align(
    model: nn.Module,
    concept_batches: Sequence[Tensor],
    against: Sequence[Tensor] | None = None,
    *,
    head: nn.Linear | None = None,
) -> Round:
    """One round: turn the axes towards one batch of pictures (N, 3, H, W) per concept.

    The model is in evaluation meanwhile, so no running statistic sees a concept picture. against: for each concept a
    batch on which its axis should score low (the other class, or pictures of everything); without it, the article's
    objective. head: the linear layer of `insert_before_head`, turned along so that the logits stay.
    Warns where two concepts' means are nearly opposite: of orthogonal axes at most one can follow (for two classes that
    are all the data, p0 m0 + p1 m1 = 0). Then align one signed axis, or whiten with wider data.
    Raises ValueError for another number of batches than concepts or an empty one, FloatingPointError for NaN in one;
    and what `layer_input` raises.
    """
    layer = layer_of(model)
    if head is not None and not is_plain_linear(head):
        raise ValueError(
            f"head is {type(head).__name__}, maybe with weight_norm; wanted a plain Linear layer. Pass that of "
            "insert_before_head, or none: the layers behind the axes then learn to follow."
        )
    with undone_if_it_fails(model, *([] if head is None else [head.weight])):
        shown = [pictures_of(batch) for batch in concept_batches]
        others = None if against is None else [pictures_of(batch) for batch in against]
        for batches in (shown, others):
            if batches is not None and [len(batch) > 0 for batch in batches] != [True] * layer.n_concepts:
                raise ValueError(
                    f"batches of {', '.join(str(len(batch)) for batch in batches) or 'no'} pictures for "
                    f"{layer.n_concepts} concepts; wanted one batch for each concept, with a picture at least. "
                    "Give each concept pictures, in the order of the axes."
                )
        means, ascents = [], []
        for concept, batch in enumerate(shown):
            maps = layer_input(model, batch)
            means.append(layer.whiten(maps).mean((0, 2, 3)))
            ascents.append(layer.derivative(maps, concept))
            if others is not None:
                ascents[-1] -= layer.derivative(layer_input(model, others[concept]), concept)
            if not ascents[-1].isfinite().all():
                raise FloatingPointError(
                    f"NaN or infinity in the batch of concept {concept} after step {int(layer.num_batches_tracked)}; "
                    "no axis was turned. Look at its pictures, and at the loss; a smaller learning rate may help."
                )
        for concept, ascent in enumerate(ascents):
            layer.collect(concept, ascent)
        gram = _cosines(torch.stack(means))
        _warn_of_opposites(gram)
        before = layer.rotation.clone()
        failures = layer.update_rotation()
        if head is not None:
            with torch.no_grad():
                head.weight.copy_(head.weight.double() @ before @ layer.rotation.T)
    return Round(_alignment(layer), gram, failures, orthogonality_error(layer.rotation))


def concept_scores(model: nn.Module, batches: Iterable[Tensor]) -> np.ndarray:
    """(N, k) float32: the score of every picture on every concept's axis; nothing is changed.

    Raises ValueError for no batch; and what `layer_input` raises.
    """
    layer = layer_of(model)
    with undone_if_it_fails(model):
        scores = [layer.scores(layer_input(model, batch)).float() for batch in first_of(batches)[1]]
    return torch.cat(scores).cpu().numpy()


def draw(concepts: Mapping[str, Sequence[int]], n: int, *, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """For one round, n distinct rows of each concept's pictures, in the order of the concepts.

    concepts: name -> row numbers of its pictures. Raises ValueError for a concept with fewer than n pictures, or
    none, and for a picture in two concepts: it would pull two orthogonal axes towards itself.
    """
    owner: dict[int, str] = {}
    for name, rows in concepts.items():
        if len(rows) < n or n < 1:
            raise ValueError(
                f"concept {name!r} has {len(rows)} pictures, a batch takes {n}; wanted that many at least, and one. "
                "Give it more pictures, take smaller batches, or leave it out."
            )
        if twice := [row for row in rows if owner.setdefault(row, name) != name]:
            raise ValueError(
                f"{len(twice)} pictures are in two concepts, picture {twice[0]} in {owner[twice[0]]!r} and {name!r}. "
                "Keep each in one of them, or leave it out."
            )
    return {name: rng.choice(np.asarray(rows), n, replace=False) for name, rows in concepts.items()}


def _alignment(layer: ConceptWhitening) -> float:
    best = float(torch.linalg.svdvals(layer.gradient).sum())
    return -float((layer.gradient * layer.rotation[: layer.n_concepts]).sum()) / best if best else 0.0


def _cosines(rows: Tensor) -> np.ndarray:
    unit = functional.normalize(rows.double(), dim=1)
    return (unit @ unit.T).cpu().numpy()


def _warn_of_opposites(gram: np.ndarray) -> None:
    first, second = np.unravel_index(gram.argmin(), gram.shape)
    if gram[first, second] < OPPOSITE:
        warnings.warn(
            f"the whitened means of concepts {first} and {second} have cosine {gram[first, second]:.2f}: nearly "
            "opposite, so no two orthogonal axes follow both. Align one signed axis, or whiten with wider data.",
            RuntimeWarning,
            stacklevel=3,
        )
