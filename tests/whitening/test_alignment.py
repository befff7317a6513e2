from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from mitolib.whitening import alignment, surgery
from mitolib.whitening import rotation as turning
from mitolib.whitening.layer import ConceptWhitening

pytestmark = pytest.mark.usefixtures("one_torch_thread")
over_rotations = pytest.mark.parametrize("kind", tuple(turning.ROTATIONS))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random_rotation(d: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]


def three_groups(shares: tuple[float, ...], n: int = 8) -> tuple[Tensor, Tensor]:
    """1 x 1 maps (2000, n, 1, 1) and their group: two with a direction each, at cosine 0.6, and a rest; then mixed."""
    groups = torch.repeat_interleave(torch.arange(len(shares)), (2000 * torch.tensor(shares)).round().long())
    directions = torch.zeros(3, n)
    directions[0, 0], directions[1, 0], directions[1, 1] = 1, 0.6, 0.8
    x = torch.randn(2000, n) + 4 * directions[groups]
    return (x @ torch.randn(n, n))[..., None, None], groups


def aligned(shares: tuple[float, ...], n: int, kind: str, rounds: int = 10) -> Tensor:
    """Cosine between each axis and the whitened mean of its own group."""
    x, groups = three_groups(shares, n)
    model = nn.Sequential(ConceptWhitening(n, 2, rotation=kind))
    surgery.calibrate(model, [x])
    for _ in range(rounds):
        alignment.align(model, [x[groups == j] for j in range(2)])
    means = torch.stack([model[0].whiten(x[groups == j]).mean((0, 2, 3)) for j in range(2)])
    return (functional.normalize(means, dim=1) * model[0].rotation[:2]).sum(1)


@over_rotations
@pytest.mark.parametrize("n", [8, 2])
def test_axes_follow_two_concepts_among_wider_data(kind, n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert aligned((0.2, 0.2, 0.6), n, kind).min() > 0.95


@over_rotations
def test_two_concepts_that_are_all_the_data_cannot_both_have_an_axis(kind):
    with pytest.warns(RuntimeWarning, match=r"concepts 0 and 1 .*cosine -1\.00.*signed axis"):
        cosines = aligned((0.5, 0.5), 8, kind)
    assert cosines.tolist() == pytest.approx([math.sqrt(0.5)] * 2, abs=0.02)


def test_one_signed_axis_follows_where_two_could_not():
    x, groups = three_groups((0.5, 0.5))
    model = nn.Sequential(ConceptWhitening(8, 1))
    surgery.calibrate(model, [x])
    for _ in range(5):
        report = alignment.align(model, [x[groups == 1]])
    assert report.alignment > 0.999 and report.gram.tolist() == [[pytest.approx(1)]]
    means = [float(alignment.concept_scores(model, [x[groups == j]]).mean()) for j in range(2)]
    # The class means are 4 |u0 - u1| = 3.58 apart in units of the spread within a class.
    assert means[1] == pytest.approx(-means[0], rel=1e-3)
    assert means[1] == pytest.approx(1.79 / math.hypot(1, 1.79), abs=0.02)


def test_the_class_difference_gives_both_axes_directions_of_one_length():
    x, groups = three_groups((0.75, 0.25))
    model = nn.Sequential(ConceptWhitening(8, 2))
    surgery.calibrate(model, [x])
    control, patient = x[groups == 0], x[groups == 1]
    with pytest.warns(RuntimeWarning, match="opposite"):
        alignment.align(model, [control, patient], against=[patient, control])
        lengths = model[0].gradient.norm(dim=1)
        assert lengths[0] == pytest.approx(float(lengths[1]))
        model[0].gradient.zero_()
        alignment.align(model, [control, patient])
    lengths = model[0].gradient.norm(dim=1)
    assert lengths[1] == pytest.approx(3 * float(lengths[0]), rel=1e-3), "else the rarer class pulls harder"


def localised(n: int = 300) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (n, 64, 7, 7), their group, and the directions (2, 64) that groups 0 and 1 add in a patch of 3 x 3."""
    groups = torch.repeat_interleave(torch.arange(3), torch.tensor([n // 5, n // 5, n - 2 * (n // 5)]))
    directions = random_rotation(64)[:2].float()
    x = torch.randn(n, 64, 7, 7)
    for i in range(2 * (n // 5)):
        row, column = torch.randint(0, 5, (2,)).tolist()
        x[i, :, row : row + 3, column : column + 3] += 2 * directions[groups[i], :, None, None]
    return x, groups, directions


def cosine_with_localised_concepts(seed: int, mode: str, *, official_mask: bool = False, rounds: int = 120) -> float:
    """Mean cosine between the axes and the whitened directions, after rounds with batches of 32."""
    torch.manual_seed(seed)
    x, groups, directions = localised(600)
    model = nn.Sequential(ConceptWhitening(64, 2, activation=mode, official_mask=official_mask))
    surgery.calibrate(model, [x])
    for _ in range(rounds):
        alignment.align(model, [x[groups == j][torch.randperm(120)[:32]] for j in range(2)])
    whitened = model[0].whiten(directions[..., None, None]) - model[0].whiten(torch.zeros(2, 64, 1, 1))
    truth = functional.normalize(whitened[..., 0, 0], dim=1)
    return float((truth * model[0].rotation[:2]).sum(1).mean())


def test_the_exact_derivative_finds_localised_concepts_and_the_official_mask_does_not():
    assert np.mean([cosine_with_localised_concepts(seed, "pool_max") for seed in range(3)]) > 0.75
    assert cosine_with_localised_concepts(0, "mean", rounds=20) > 0.9
    assert cosine_with_localised_concepts(0, "pool_max", official_mask=True) < 0.6


def test_concept_batches_are_distinct_rows_of_their_concept_and_differ_from_round_to_round(rng):
    concepts = {"deficient": range(10), "large": range(20, 40)}
    rounds = [alignment.draw(concepts, 8, rng=rng) for _ in range(5)]
    for batch in rounds:
        assert list(batch) == ["deficient", "large"]
        assert all(len(set(batch[name]) & set(rows)) == 8 for name, rows in concepts.items())
    assert len({tuple(batch["large"]) for batch in rounds}) > 1
    again = alignment.draw(concepts, 8, rng=np.random.default_rng(0))
    assert all((again[name] == rounds[0][name]).all() for name in concepts)


def test_concepts_without_pictures_with_too_few_or_with_a_shared_one_are_refused(rng):
    for rows in ([], [1, 2]):
        with pytest.raises(ValueError, match=f"'large' has {len(rows)} pictures, .*takes 3"):
            alignment.draw({"deficient": [4, 5, 6], "large": rows}, 3, rng=rng)
    with pytest.raises(ValueError, match=r"1 pictures .*picture 6 .*'deficient' and 'large'"):
        alignment.draw({"deficient": [4, 5, 6], "large": [6, 7, 8]}, 3, rng=rng)
