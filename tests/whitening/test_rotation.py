from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from mitolib.whitening import rotation as turning
from mitolib.whitening.layer import ConceptWhitening

pytestmark = pytest.mark.usefixtures("one_torch_thread")
over_rotations = pytest.mark.parametrize("kind", tuple(turning.ROTATIONS))


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def random_rotation(d: int) -> Tensor:
    return torch.linalg.qr(torch.randn(d, d, dtype=torch.float64))[0]


def objective(rotation: Tensor, gradient: Tensor) -> float:
    return float((rotation[: len(gradient)] * gradient).sum())


def antiparallel(d: int) -> Tensor:
    direction = torch.randn(1, d, dtype=torch.float64)
    return torch.cat([direction, -direction])


def generic(d: int) -> Tensor:
    return torch.randn(2, d, dtype=torch.float64)


@over_rotations
@pytest.mark.parametrize("make", [generic, antiparallel])
def test_updates_stay_orthogonal_never_ascend_and_reach_the_optimum(kind, make):
    gradient, rotation = make(64), random_rotation(64)
    best = float(torch.linalg.svdvals(gradient).sum())
    values, failures = [objective(rotation, gradient)], 0
    for _ in range(300):
        rotation, failed = turning.ROTATIONS[kind](rotation, gradient)
        values.append(objective(rotation, gradient))
        failures += failed
    assert (np.diff(values) <= 1e-12).all()
    assert 0.999 * best <= -values[-1] <= best + 1e-9
    assert turning.orthogonality_error(rotation) < 1e-12
    assert turning.orthogonality_error(rotation.float()) < 1e-6
    assert failures == 0


@pytest.mark.parametrize("d", [64, 512])
def test_300_updates_with_changing_directions_stay_orthogonal(d):
    rotation = torch.eye(d, dtype=torch.float64)
    for i in range(300):
        rotation, _ = turning.ROTATIONS["procrustes" if i % 2 else "cayley"](rotation, generic(d))
    assert turning.orthogonality_error(rotation) < 1e-12


@pytest.mark.parametrize("d", [6, 64])
@pytest.mark.parametrize("k", [2, 6])
def test_the_low_rank_search_is_the_dense_one(d, k):
    rotation, gradient = random_rotation(d), torch.randn(k, d, dtype=torch.float64)
    wide = torch.cat([gradient, torch.zeros(d - k, d, dtype=torch.float64)])
    skew, identity = wide @ rotation.T - rotation @ wide.T, torch.eye(d, dtype=torch.float64)

    def dense(t: float) -> Tensor:
        return torch.linalg.solve(identity + t / 2 * skew, (identity - t / 2 * skew) @ rotation)

    def slope(t: float) -> float:
        middle = torch.linalg.solve(identity + t / 2 * skew, skew @ (rotation + dense(t)) / 2)
        return -float((wide * middle).sum())

    start = objective(rotation, gradient)
    t, low, high = 2 / float(skew.norm()), 0.0, math.inf
    for _ in range(50):
        if objective(dense(t), gradient) > start + 1e-4 * t * slope(0.0):
            high = t
        elif slope(t) < 0.9 * slope(0.0):
            low = t
        else:
            break
        t = 2 * t if high == math.inf else (low + high) / 2
    step, failed = turning._cayley_step(rotation, gradient)
    torch.testing.assert_close(step, dense(t), rtol=0, atol=1e-12)
    assert not failed and slope(0.0) == pytest.approx(-0.5 * float(skew.norm()) ** 2)


@over_rotations
def test_the_length_of_the_directions_does_not_matter(kind):
    rotation, gradient = random_rotation(16), generic(16)
    turn = turning.ROTATIONS[kind]
    for factor in (1e-6, 1e6):
        torch.testing.assert_close(turn(rotation, factor * gradient)[0], turn(rotation, gradient)[0], rtol=0, atol=1e-9)
    assert torch.equal(turn(rotation, 0 * gradient)[0], rotation)


def test_procrustes_turns_the_other_rows_onto_the_nearest_orthogonal_ones():
    rotation, gradient = random_rotation(16), generic(16)
    new, _ = turning.procrustes(rotation, gradient)
    rest = rotation[2:] @ (torch.eye(16, dtype=torch.float64) - new[:2].T @ new[:2])
    left, _, right = torch.linalg.svd(rest, full_matrices=False)
    torch.testing.assert_close(new[2:], left @ right, rtol=0, atol=1e-9)
    # An axis at a right angle to its old place, where the projection above is singular.
    eye = torch.eye(4, dtype=torch.float64)
    swapped, _ = turning.procrustes(eye, -eye[3:])
    assert turning.orthogonality_error(swapped) < 1e-12 and swapped[0, 3] == pytest.approx(1)


def test_a_line_search_that_fails_is_counted_and_never_ascends():
    # Not a slope of this family: it stays as steep as at 0 however far one goes, so that no step is ever accepted.
    step, failed = turning._line_search(torch.zeros(2, 2), torch.eye(2), 1.0)
    assert failed and step > 1
    step, failed = turning._line_search(torch.eye(2), -torch.eye(2), 1.0)
    assert failed and step == 0
    layer = ConceptWhitening(4, 1)
    layer.collect(0, torch.tensor([0.0, 1, 0, 0]).double())
    monkey = pytest.MonkeyPatch()
    with monkey.context() as patch:
        patch.setattr(turning, "_line_search", lambda *_: (0.0, True))
        assert layer.update_rotation() == 2
    assert layer.line_search_failures == 2 and layer.update_rotation() == 0
    assert "line_search_failures" in layer.state_dict()
