"""What a trained arm is like: its units, its layer, its axes, and what two concepts do to each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
import torch
from numpy.random import Generator
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional

from mitolib.whitening import alignment, surgery
from mitolib.whitening.fitting import BATCH, Inputs, batches
from mitolib.whitening.layer import ConceptWhitening, samples_of
from mitolib.whitening.passes import caught_in, evaluation
from mitolib.whitening.training import Trained, norm_of

REPORTED = ("gram_cosine", "orthogonality_error", "line_search_failures", "mean_abs_correlation")


def units(trained: Trained, inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    """(len(rows), C): the mean over the map of each unit that the arm's norm layer puts out."""
    return _maps(norm_of(trained.model), trained.model, inputs, rows).mean((2, 3)).numpy()


def report(trained: Trained, inputs: Inputs, labels: np.ndarray, rows: np.ndarray) -> dict[str, float | int | None]:
    """What an arm's layer is like, at the end and in its rounds; None where it has no axes or never turned them.

    auc: of the score on the last axis, for the last class, over `rows`. mean_abs_correlation: over pairs of channels,
    positions pooled. gram_cosine: the least between two concepts' means in the last round. orthogonality_error and
    line_search_failures: the greatest, and the sum, of all rounds. amplification: of rounding errors in the public
    code's recursion, see `inverse_root.amplification`.
    """
    samples = samples_of(_maps(norm_of(trained.model), trained.model, inputs, rows)).numpy()
    correlations = np.abs(np.corrcoef(samples[samples.std(axis=1) > 0]))
    measured = dict.fromkeys(REPORTED) | {
        "mean_abs_correlation": float(correlations[~np.eye(len(correlations), dtype=bool)].mean()),
        "seconds": trained.seconds,
        "auc": None,
        "amplification": None,
    }
    if isinstance(layer := norm_of(trained.model), ConceptWhitening):
        measured["amplification"] = layer.largest_amplification or None
        axes = alignment.concept_scores(trained.model, batches(inputs, rows))
        measured["auc"] = float(roc_auc_score(labels[rows] == labels.max(), axes[:, -1]))
    if trained.rounds:
        if len(gram := trained.rounds[-1].gram) > 1:
            measured["gram_cosine"] = float(gram.min())
        measured["orthogonality_error"] = max(turn.orthogonality_error for turn in trained.rounds)
        measured["line_search_failures"] = sum(turn.line_search_failures for turn in trained.rounds)
    return measured


def answers_permuted(
    trained: Trained, inputs: Inputs, rows: np.ndarray, permuted: Sequence[tuple[Sequence[int], np.ndarray]]
) -> np.ndarray:
    """(len(permuted), len(rows)) float32: log-odds of the last of two classes, each time with other axes permuted.

    permuted: axes, and the order (len(rows),) in which the patches give them: patch i is read with the whole maps of
    these axes of patch order[i], and with its own of all others. Nothing of an axis is lost but whose it is.
    """
    model, layer = trained.model, norm_of(trained.model)
    maps = _maps(layer, model, inputs, rows)
    log_odds = np.empty((len(permuted), len(rows)), np.float32)
    for start, batch in zip(range(0, len(rows), BATCH), batches(inputs, rows), strict=True):
        own = slice(start, start + len(batch))
        for i, (axes, order) in enumerate(permuted):
            changed = maps[own].clone()
            changed[:, axes] = maps[order[own]][:, axes]
            logits = _with_output(model, layer, batch, changed)
            log_odds[i, own] = (logits[:, 1] - logits[:, 0]).numpy()
    return log_odds


def _with_output(model: nn.Module, layer: nn.Module, batch: Tensor, output: Tensor) -> Tensor:
    """What the model gives in evaluation if a layer puts out this. The layer itself is spared its work."""
    layer.forward = lambda _: output
    try:
        with evaluation(model):
            return model(batch)
    finally:
        del layer.forward


def importance(
    trained: Trained, inputs: Inputs, labels: np.ndarray, rows: np.ndarray, axis: int, *, repeats: int, rng: Generator
) -> dict[str, float]:
    """{"value", "sd"}: loss with one axis dealt out anew among all rows, over the loss as it is; 1 for an unused axis.

    The whole map of the axis goes from one patch to another, `repeats` times (Chen et al. permute within a batch).
    """
    model, layer = trained.model, norm_of(trained.model)
    truth = torch.from_numpy(labels[rows])
    maps = _maps(layer, model, inputs, rows)
    axis_nyx = maps[:, axis].clone()

    def loss(order: np.ndarray) -> float:
        maps[:, axis] = axis_nyx[order]
        parts = zip(batches(inputs, rows), maps.split(BATCH), strict=True)
        logits = torch.cat([_with_output(model, layer, batch, part) for batch, part in parts])
        return float(functional.cross_entropy(logits, truth))

    plain = loss(np.arange(len(rows)))
    ratios = [loss(rng.permutation(len(rows))) / plain for _ in range(repeats)]
    return {"value": float(np.mean(ratios)), "sd": float(np.std(ratios))}


def positions(
    trained: Trained, inputs: Inputs, concepts: Mapping[str, np.ndarray], rows: np.ndarray, *, n: int, rng: Generator
) -> dict[str, np.ndarray]:
    """Single positions of maps at the layer, on its two most correlated channels: raw, standardised, whitened, (N, 2).

    rotated: the same positions on the first two axes. group: (N,) "concept 1", "concept 2" or "other pictures", n of
    each; concepts: the first two are taken.
    """
    layer = surgery.layer_of(trained.model)
    shown = np.concatenate(list(concepts.values()))
    groups = dict(zip(("concept 1", "concept 2"), concepts.values(), strict=False))
    groups["other pictures"] = np.setdiff1d(rows, shown)
    raw, whitened, group = [], [], []
    for name, group_rows in groups.items():
        maps = surgery.layer_input(trained.model, inputs(rng.permutation(group_rows)[:BATCH]))
        chosen = rng.permutation(len(maps) * maps.shape[2] * maps.shape[3])[:n]
        raw.append(samples_of(maps)[:, chosen].T.double())
        whitened.append(samples_of(layer.whiten(maps))[:, chosen].T.double())
        group += [name] * len(chosen)
    raw, whitened = torch.cat(raw).numpy(), torch.cat(whitened)
    rotated = (whitened @ layer.rotation[:2].T).numpy()
    covariance = layer.running_covariance.double().numpy()
    spread = np.sqrt(np.diag(covariance))
    lengths = np.outer(spread, spread)
    correlation = np.triu(np.abs(covariance / np.where(lengths > 0, lengths, np.inf)), k=1)  # a dead channel has none
    pair = list(np.unravel_index(correlation.argmax(), correlation.shape))
    standardised = (raw[:, pair] - layer.running_mean.numpy()[pair]) / spread[pair]
    return {
        "raw": raw[:, pair],
        "standardised": standardised,
        "whitened": whitened.numpy()[:, pair],
        "rotated": rotated,
        "group": np.array(group),
    }


def axis_aucs(
    trained: Trained, inputs: Inputs, concepts: Mapping[str, np.ndarray], others: np.ndarray
) -> dict[str, float]:
    """concept -> AUC of its axis for its pictures against the rows `others`. concepts: in the order of the axes."""
    against = alignment.concept_scores(trained.model, batches(inputs, others))
    aucs = {}
    for axis, (name, rows) in enumerate(concepts.items()):
        scores = alignment.concept_scores(trained.model, batches(inputs, rows))
        shows_it = np.repeat([1, 0], [len(scores), len(against)])
        aucs[name] = float(roc_auc_score(shows_it, np.concatenate([scores, against])[:, axis]))
    return aucs


def geometry(
    trained: Trained, inputs: Inputs, concepts: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, float]:
    """What two concepts that share all the rows do to each other once whitened. Cosines and lengths of mean vectors.

    cosine: between the two concepts' means m. balance: `|p0 m0 + p1 m1|` over the mean length of the two, 0 in theory,
    p being the shares of the rows. reachable: the best cosine that each of two orthogonal axes can have with its own
    mean, cos((phi - 90) / 2) for means at the angle phi. reached: the least cosine of an axis with its own mean.
    """
    layer = surgery.layer_of(trained.model)

    def mean(concept_rows: np.ndarray) -> Tensor:
        maps = [layer.whiten(surgery.layer_input(trained.model, batch)) for batch in batches(inputs, concept_rows)]
        return torch.cat(maps).mean((0, 2, 3)).double()

    shown = [np.intersect1d(concept_rows, rows) for concept_rows in concepts.values()]
    means = torch.stack([mean(concept_rows) for concept_rows in shown])
    lengths = means.norm(dim=1)
    cosine = float(means[0] @ means[1] / lengths.prod())
    shares = torch.tensor([len(concept_rows) / len(rows) for concept_rows in shown]).double()
    directions = means[-layer.n_concepts :] / lengths[-layer.n_concepts :, None]
    return {
        "cosine": cosine,
        "balance": float((shares @ means).norm() / lengths.mean()),
        "reachable": math.cos((math.acos(max(-1.0, min(1.0, cosine))) - math.pi / 2) / 2),
        "reached": float((layer.rotation[: layer.n_concepts] * directions).sum(1).min()),
    }


def _maps(layer: nn.Module, model: nn.Module, inputs: Inputs, rows: np.ndarray) -> Tensor:
    """(len(rows), C, H, W): what a layer of the model puts out, the model in evaluation. The passes end there."""
    return torch.cat([caught_in(model, layer, batch) for batch in batches(inputs, rows)])
