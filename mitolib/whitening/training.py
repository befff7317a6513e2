"""ResNet-18 with and without concept whitening, trained alike: the arms of a comparison.

Each arm treats the first norm layer of the last block in one way and is the same in everything else. The arms form a
ladder from what the public code of Chen, Bei and Rudin 2020 computes to what its formulas say and beyond. An arm is a
tail (`resnet.divide`), trained on maps computed once; the whole network below it is trained by the same `fit`.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cache, partial

import numpy as np
import pandas as pd
import torch
from numpy.random import Generator
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional
from torch.optim.swa_utils import update_bn

from mitolib import splits
from mitolib.progress import track
from mitolib.settings import processor_has_bfloat16
from mitolib.whitening import alignment, passes, resnet, surgery
from mitolib.whitening.layer import REFERENCE as PUBLIC_CODE
from mitolib.whitening.layer import ConceptWhitening

PLACE, BEFORE_HEAD = "last.1.bn1", "before the head"  # in a tail; the first is layer4.1.bn1 of the whole network
BATCH = 64  # in evaluation
OPTIMIZERS = {
    "SGD": partial(torch.optim.SGD, momentum=0.9, weight_decay=1e-4),  # of the article
    "AdamW": torch.optim.AdamW,  # learns sooner from random weights
}

REPORTED = ("gram_cosine", "orthogonality_error", "line_search_failures", "mean_abs_correlation")

Inputs = Callable[[np.ndarray], Tensor]  # row numbers -> a batch for the model


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to treat the norm layer, and to turn its axes."""

    what: str  # in a word, for a table
    place: str | None = PLACE  # None: batch norm stays
    settings: Mapping[str, object] = field(default_factory=dict)  # of whitening.ConceptWhitening
    calibrated: bool = True  # starts, and ends, with the mean and covariance of all training maps
    turned: bool = True
    against: bool = False  # each axis also away from patches without its concept
    signed: bool = False  # one axis, for the last concept; the first lies at its other end


EXACT = PUBLIC_CODE | {"official_mask": False}
POOLED = {"activation": "pool_max"}
ARMS = {
    "BatchNorm": Arm(what="batch norm", place=None),
    "ZCA": Arm(what="whitened, not turned", settings=POOLED, turned=False),
    "A": Arm(what="the public code", settings=PUBLIC_CODE, calibrated=False),
    "B": Arm(what="A, exact gradient", settings=EXACT, calibrated=False),
    "C": Arm(what="B, stable numerics", settings=POOLED),
    "D": Arm(what="C, against the others", settings=POOLED, against=True),
    "E": Arm(what="C, one signed axis", settings=POOLED, signed=True),
    "E2": Arm(what="C, mean of the map", settings={"activation": "mean"}),
    "D2": Arm(what="E2, against the others", settings={"activation": "mean"}, against=True),
    "F": Arm(what="E2, before the head", place=BEFORE_HEAD, settings={"activation": "mean"}),
}


@dataclass(frozen=True, kw_only=True)
class Budget:
    """How a network is trained, for how long, and how often its axes are turned meanwhile."""

    steps: int
    batch_size: int
    learning_rate: float
    optimizer: str = "SGD"  # or another of OPTIMIZERS
    equal_parts: bool = False  # batches with as many of each class, where there are many more of one
    half_size: int = 0  # steps at the beginning that see pictures of half the side, at a quarter of the cost
    precision: str = "float32"  # or "bfloat16"
    every: int = 5  # steps between two rounds; the article turns every 20, of many more steps
    concept_batch: int = 32  # pictures of a concept in a round, fewer where a concept has fewer


@cache
def precision() -> str:
    """ "bfloat16" where this processor trains a convolution at least 1.3 times as fast in it, else "float32".

    Measured once per process, in a fraction of a second, as in `features.precision`, and as there not where the
    processor lists no instructions for it.
    """
    if not processor_has_bfloat16():
        return "float32"
    maps_nchw = torch.rand(8, 128, 28, 28).to(memory_format=torch.channels_last)
    layer = nn.Conv2d(128, 128, 3, padding=1).to(memory_format=torch.channels_last)
    fastest = {False: math.inf, True: math.inf}
    for low in [*fastest] * 5:  # in turns: a machine busy with other work slows both
        start = time.perf_counter()
        with torch.autocast("cpu", torch.bfloat16, enabled=low):
            maps = layer(maps_nchw)
        maps.float().mean().backward()
        fastest[low] = min(fastest[low], time.perf_counter() - start)
    return "bfloat16" if fastest[False] > 1.3 * fastest[True] else "float32"


@dataclass(frozen=True)
class Trained:
    """A trained arm: the model in evaluation, what each round found, and seconds of training."""

    model: nn.Module
    rounds: tuple[alignment.Round, ...]
    seconds: float


def pictures(patches_nhwc: np.ndarray, augment: Callable[[np.ndarray], np.ndarray] | None = None) -> Inputs:
    """Batches of pictures, augmented anew at each call if asked for. patches_nhwc: uint8, 1 or 3 channels."""

    def inputs(rows: np.ndarray) -> Tensor:
        few_nhwc = np.asarray(patches_nhwc[rows])
        return resnet.as_input(augment(few_nhwc) if augment else few_nhwc)

    return inputs


@dataclass(frozen=True)
class Network:
    """A ResNet-18 trained on pictures, cut below its last block, with the maps of all patches at the cut."""

    whole: resnet.ResNet18
    maps_nchw: Tensor
    loss: pd.Series  # by step

    @property
    def tail(self) -> nn.Sequential:
        """The last block and the classifier."""
        return resnet.divide(self.whole)[1]

    def maps(self, rows: np.ndarray) -> Tensor:
        """What the tail reads of these patches."""
        return self.maps_nchw[rows]


def network(
    patches_nhwc: np.ndarray,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    arrays: tuple[np.ndarray, ...] | None,
    augment: Callable[..., np.ndarray],
    budget: Budget,
    seed: int,
    label: str,
) -> Network:
    """Train all layers on the patches `rows`, then compute the output of `layer4.0` for every patch, not augmented.

    In between the batch norms take their statistics from training patches as they are, which augmented ones differ
    from. arrays: `weights.resolve("ResNet18").arrays`. augment: (patches, rng=) -> patches.
    """
    torch.manual_seed(seed)
    order, turns = np.random.default_rng(seed).spawn(2)
    whole = resnet.build(int(labels.max()) + 1, arrays=arrays)
    seen = pictures(patches_nhwc, lambda few: augment(few, rng=turns))
    loss = fit(whole, seen, labels, rows, budget=budget, rng=order, label=f"{label}, training")
    update_bn(batches(pictures(patches_nhwc), order.permutation(rows)[: 4 * BATCH]), whole)
    return Network(whole, _maps(whole, patches_nhwc, f"{label}, maps"), loss)


def _maps(whole: resnet.ResNet18, patches_nhwc: np.ndarray, label: str) -> Tensor:
    return outputs(resnet.divide(whole)[0], pictures(patches_nhwc), np.arange(len(patches_nhwc)), label)


def extend(known: Network, more: Mapping[str, np.ndarray]) -> tuple[Network, dict[str, np.ndarray]]:
    """The network with the maps of further pictures behind those it has, and their rows. more: name -> (N, H, W, 1)."""
    maps, rows, end = [known.maps_nchw], {}, len(known.maps_nchw)
    for name, patches_nhwc in more.items():
        maps.append(_maps(known.whole, patches_nhwc, name))
        rows[name] = np.arange(end, end := end + len(patches_nhwc))
    return replace(known, maps_nchw=torch.cat(maps)), rows


def batches(inputs: Inputs, rows: np.ndarray, size: int = BATCH) -> Iterator[Tensor]:
    """The rows in order, `size` at a time."""
    return (inputs(rows[i : i + size]) for i in range(0, len(rows), size))


def outputs(model: nn.Module, inputs: Inputs, rows: np.ndarray, label: str = "") -> Tensor:
    """What the model, in evaluation, makes of each row, concatenated."""
    model.eval()
    with torch.no_grad():
        return torch.cat([model(batch) for batch in track(batches(inputs, rows), label, -(-len(rows) // BATCH))])


def p_patient(model: nn.Module, inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    """(len(rows),) probability of the last class."""
    return outputs(model, inputs, rows).softmax(1)[:, -1].numpy()


def shuffled(rows: np.ndarray, size: int, steps: int, *, rng: Generator) -> Iterator[np.ndarray]:
    """`steps` batches of `size` rows, no row twice before all have been dealt out; a short last batch is left out.

    Fewer rows than `size` make one batch.
    """
    size = min(size, len(rows))
    per_epoch = len(rows) // size
    for step in range(steps):
        if step % per_epoch == 0:
            order = rng.permutation(rows)
        yield order[step % per_epoch * size :][:size]


def fit(
    model: nn.Module,
    inputs: Inputs,
    labels: np.ndarray,
    rows: np.ndarray,
    *,
    budget: Budget,
    rng: Generator,
    label: str,
    turn: Callable[[], None] | None = None,
) -> pd.Series:
    """Train in place and return the loss of every step, from 1: cross-entropy, one-cycle rate.

    labels: (N,) class indices, of which `rows` are used. turn: called after every `budget.every` steps but not in the
    last tenth, so that the network settles behind the last turn.
    """
    truth = torch.from_numpy(labels)
    optimizer = OPTIMIZERS[budget.optimizer](model.parameters(), lr=budget.learning_rate)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, budget.learning_rate, total_steps=budget.steps, cycle_momentum=False
    )
    losses = []
    if budget.equal_parts:
        drawn = splits.equal_parts(labels, rows, budget.batch_size, budget.steps, rng=rng)
    else:
        drawn = shuffled(rows, budget.batch_size, budget.steps, rng=rng)
    for step, few in enumerate(track(drawn, label, budget.steps), start=1):
        model.train()
        optimizer.zero_grad()
        batch = inputs(few)
        if step <= budget.half_size:
            batch = functional.avg_pool2d(batch, 2)
        with torch.autocast("cpu", torch.bfloat16, enabled=budget.precision == "bfloat16"):
            logits = model(batch)
        loss = functional.cross_entropy(logits.float(), truth[few])
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(loss.detach()))
        if turn and step % budget.every == 0 and step <= 0.9 * budget.steps:
            turn()
    model.eval()
    return pd.Series(losses, index=range(1, len(losses) + 1), name="loss")


def train(
    arm: Arm,
    tail: nn.Module,
    inputs: Inputs,
    labels: np.ndarray,
    rows: np.ndarray,
    concepts: Mapping[str, np.ndarray],
    *,
    without: Mapping[str, np.ndarray] | None = None,
    budget: Budget,
    rng: Generator,
    label: str,
) -> Trained:
    """Train a copy of `tail` as one arm. concepts: name -> row numbers of the patches that show it.

    without: name -> rows of patches that do not, for an arm that turns its axes against them; left out, the other
    concepts' patches. The axes are in the order of the concepts; a signed arm has one, for the last.
    """
    start = time.monotonic()
    model = copy.deepcopy(tail)
    names = list(concepts)[-1:] if arm.signed else list(concepts)
    if without is None:
        without = {name: np.concatenate([concepts[c] for c in concepts if c != name] or [rows]) for name in names}
    if arm.place is not None:
        given = dict(arm.settings) | {"n_concepts": len(names)}
        calibration = batches(inputs, rows) if arm.calibrated else None
        if arm.place == BEFORE_HEAD:
            surgery.insert_before_head(model, batches=calibration, stage="last", **given)
        else:
            surgery.replace_norm(model, arm.place, batches=calibration, **given)
    size = min([budget.concept_batch, *(len(concepts[name]) for name in names)]) or 1  # `draw` names an empty concept
    opposed = min([size, *(len(without[name]) for name in names)])
    rounds = []

    def turn() -> None:
        if arm.calibrated:  # the running statistics lag behind training, and the axes are turned by them
            few = rng.permutation(rows)[: 4 * BATCH]
            surgery.calibrate(model, batches(inputs, few))
        shown = alignment.draw({name: concepts[name] for name in names}, size, rng=rng)
        against = [inputs(rng.choice(without[name], opposed, replace=False)) for name in names] if arm.against else None
        head = model.fc if arm.place == BEFORE_HEAD else None
        rounds.append(alignment.align(model, [inputs(few) for few in shown.values()], against, head=head))

    turning = turn if arm.place is not None and arm.turned else None
    fit(model, inputs, labels, rows, budget=budget, rng=rng, label=label, turn=turning)
    if arm.place is not None and arm.calibrated:
        surgery.calibrate(model, batches(inputs, rows))
    return Trained(model.eval(), tuple(rounds), time.monotonic() - start)


def units(trained: Trained, inputs: Inputs, rows: np.ndarray) -> np.ndarray:
    """(len(rows), C): the mean over the map of each unit that the arm's norm layer puts out."""
    return _caught(_norm(trained.model), trained.model, inputs, rows).mean((2, 3)).numpy()


def report(trained: Trained, inputs: Inputs, labels: np.ndarray, rows: np.ndarray) -> dict[str, float | int | None]:
    """What an arm's layer is like, at the end and in its rounds; None where it has no axes or never turned them.

    auc: of the score on the last axis, for the last class, over `rows`. mean_abs_correlation: over pairs of channels,
    positions pooled. gram_cosine: the least between two concepts' means in the last round. orthogonality_error and
    line_search_failures: the greatest, and the sum, of all rounds. amplification: of rounding errors in the public
    code's recursion, see `layer.amplification`.
    """
    samples = _caught(_norm(trained.model), trained.model, inputs, rows).transpose(0, 1).flatten(1).numpy()
    correlations = np.abs(np.corrcoef(samples[samples.std(axis=1) > 0]))
    found = dict.fromkeys(REPORTED) | {
        "mean_abs_correlation": float(correlations[~np.eye(len(correlations), dtype=bool)].mean()),
        "seconds": trained.seconds,
        "auc": None,
        "amplification": None,
    }
    if isinstance(layer := _norm(trained.model), ConceptWhitening):
        found["amplification"] = layer.largest_amplification or None
        axes = alignment.concept_scores(trained.model, batches(inputs, rows))
        found["auc"] = float(roc_auc_score(labels[rows] == labels.max(), axes[:, -1]))
    if trained.rounds:
        if len(gram := trained.rounds[-1].gram) > 1:
            found["gram_cosine"] = float(gram.min())
        found["orthogonality_error"] = max(one.orthogonality_error for one in trained.rounds)
        found["line_search_failures"] = sum(one.line_search_failures for one in trained.rounds)
    return found


@torch.no_grad()
def importance(
    trained: Trained, inputs: Inputs, labels: np.ndarray, rows: np.ndarray, axis: int, *, repeats: int, rng: Generator
) -> dict[str, float]:
    """{"value", "sd"}: loss with one axis dealt out anew among all rows, over the loss as it is; 1 for an unused axis.

    The whole map of the axis goes from one patch to another, `repeats` times (Chen et al. permute within a batch). Of a
    layer at `PLACE`: the convolution behind it is linear, so only what this channel adds to it is computed anew.
    """
    model = trained.model
    block, behind = model.last[0], nn.Sequential(*model.last[1:], *list(model)[1:])
    if _norm(model) is not block.bn1:
        raise ValueError(f"The axes stand behind {PLACE}, where importance is not defined; wanted an arm placed there.")
    truth = torch.from_numpy(labels[rows])
    shortcut_nchw, sums_nchw = inputs(rows), _caught(block.conv2, model, inputs, rows)
    axis_nchw = functional.relu(_caught(block.bn1, model, inputs, rows)[:, [axis]])
    weight = block.conv2.weight[:, [axis]]

    def loss(order: np.ndarray) -> float:
        logits = []
        for i in range(0, len(rows), BATCH):
            few = slice(i, i + BATCH)
            change = functional.conv2d(axis_nchw[order[few]] - axis_nchw[few], weight, padding=block.conv2.padding)
            logits.append(behind(functional.relu(block.bn2(sums_nchw[few] + change) + shortcut_nchw[few])))
        return float(functional.cross_entropy(torch.cat(logits), truth))

    plain = loss(np.arange(len(rows)))
    ratios = [loss(rng.permutation(len(rows))) / plain for _ in range(repeats)]
    return {"value": float(np.mean(ratios)), "sd": float(np.std(ratios))}


def placed(
    whole: nn.Module,
    place: str,
    inputs: Inputs,
    rows: np.ndarray,
    concepts: Mapping[str, np.ndarray],
    *,
    budget: Budget,
    n_rounds: int,
    rng: Generator,
) -> nn.Module:
    """A copy of a trained network with a layer at `place`, calibrated and turned on the patches `rows`, not trained."""
    model = copy.deepcopy(whole)
    few = rng.permutation(rows)[: 2 * BATCH]
    surgery.replace_norm(model, place, len(concepts), batches(inputs, few))
    size = min([budget.concept_batch, *(len(own) for own in concepts.values())]) or 1  # `draw` names an empty concept
    for _ in range(n_rounds):
        drawn = alignment.draw(concepts, size, rng=rng)
        alignment.align(model, [inputs(own) for own in drawn.values()])
    return model.eval()


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
    for name, own in groups.items():
        maps = surgery.layer_input(trained.model, inputs(rng.permutation(own)[:BATCH]))
        chosen = rng.permutation(len(maps) * maps.shape[2] * maps.shape[3])[:n]
        for kept, stack in ((raw, maps), (whitened, layer.whiten(maps))):
            kept.append(stack.transpose(0, 1).flatten(1)[:, chosen].T.double())
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


def own_aucs(
    trained: Trained, inputs: Inputs, concepts: Mapping[str, np.ndarray], others: np.ndarray
) -> dict[str, float]:
    """concept -> AUC of its axis for its pictures against the rows `others`. concepts: in the order of the axes."""
    against = alignment.concept_scores(trained.model, batches(inputs, others))
    found = {}
    for j, (name, rows) in enumerate(concepts.items()):
        own = alignment.concept_scores(trained.model, batches(inputs, rows))
        is_own = np.repeat([1, 0], [len(own), len(against)])
        found[name] = float(roc_auc_score(is_own, np.concatenate([own, against])[:, j]))
    return found


def geometry(
    trained: Trained, inputs: Inputs, concepts: Mapping[str, np.ndarray], rows: np.ndarray
) -> dict[str, float]:
    """What two concepts that share all the rows do to each other once whitened. Cosines and lengths of mean vectors.

    cosine: between the two concepts' means m. balance: `|p0 m0 + p1 m1|` over the mean length of the two, 0 in theory,
    p being the shares of the rows. reachable: the best cosine that each of two orthogonal axes can have with its own
    mean, cos((phi - 90) / 2) for means at the angle phi. reached: the least cosine of an axis with its own mean.
    """
    layer = surgery.layer_of(trained.model)

    def mean(few: np.ndarray) -> Tensor:
        maps = [layer.whiten(surgery.layer_input(trained.model, batch)) for batch in batches(inputs, few)]
        return torch.cat(maps).mean((0, 2, 3)).double()

    means = torch.stack([mean(np.intersect1d(few, rows)) for few in concepts.values()])
    lengths = means.norm(dim=1)
    cosine = float(means[0] @ means[1] / lengths.prod())
    shares = torch.tensor([len(np.intersect1d(few, rows)) / len(rows) for few in concepts.values()]).double()
    own = means[-layer.n_concepts :] / lengths[-layer.n_concepts :, None]
    return {
        "cosine": cosine,
        "balance": float((shares @ means).norm() / lengths.mean()),
        "reachable": math.cos((math.acos(max(-1.0, min(1.0, cosine))) - math.pi / 2) / 2),
        "reached": float((layer.rotation[: layer.n_concepts] * own).sum(1).min()),
    }


def _norm(model: nn.Module) -> nn.Module:
    """The layer that the arms differ in."""
    layers = [module for module in model.modules() if isinstance(module, ConceptWhitening)]
    return layers[0] if layers else model.get_submodule(PLACE)


def _caught(layer: nn.Module, model: nn.Module, inputs: Inputs, rows: np.ndarray) -> Tensor:
    """(len(rows), C, H, W): what a layer of the model puts out, the model in evaluation. The passes end there."""
    maps: list[Tensor] = []

    def catch(_: nn.Module, __: tuple[Tensor], output: Tensor) -> None:
        maps.append(output)
        raise passes.Reached

    hook = layer.register_forward_hook(catch)
    model.eval()
    try:
        with torch.no_grad():
            for batch in batches(inputs, rows):
                with suppress(passes.Reached):
                    model(batch)
    finally:
        hook.remove()
    return torch.cat(maps)
