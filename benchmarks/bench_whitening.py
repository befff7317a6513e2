"""What does concept whitening cost in a training step, and a rotation round beside it?

    python benchmarks/bench_whitening.py

On a GPU where there is one, else on the processor.

Claim 1. A training step of ResNet-18 at batch 64, 224 px, with a `zca` layer in the published place takes at most 1.1
times as long as with batch normalisation, on a processor; on a GPU, where everything else of a step is faster, the
eigenvectors of `zca` weigh more, and `newton` is shown beside it. The models take their steps in turns, so that a busy
machine slows all alike; the ratio is the median over pairs of neighbouring steps.

Claim 2. A rotation round, which is a forward pass per concept and the turn itself, in units of a training step.

Claim 3. The turn by the low-rank search at d = 512 and two concepts is at least 20 times as fast as the dense search
along the same curve with the same rule for a step, which solves d x d systems at every try.
"""

from __future__ import annotations

import math
from statistics import median

import torch
from timing import Step, in_turns, load_average, ratio
from torch import Tensor, nn

from mitolib import whitening
from mitolib.whitening import resnet
from mitolib.whitening import rotation as turning

BATCH, PX, PLACE = 64, 224, "layer4.1.bn1"
ROUNDS, TURNS = 5, 10  # in turns, and calls in a round of what takes milliseconds
D, CONCEPTS = 512, 2


def training_step(model: nn.Module, x: Tensor, y: Tensor) -> Step:
    """Forward, backward and update with SGD as in the article; the loss is read, so that a GPU's step is over."""
    optimizer = torch.optim.SGD(model.train().parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> float:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    return step


def dense_turn(rotation: Tensor, gradient: Tensor) -> Tensor:
    """`turning.cayley` as Wen and Yin write it, with matrices of size d."""
    wide, identity = torch.zeros_like(rotation), torch.eye(len(rotation), dtype=rotation.dtype, device=rotation.device)
    wide[: len(gradient)] = gradient
    for _ in range(2):
        skew = wide @ rotation.T - rotation @ wide.T
        start, slope = float((wide * rotation).sum()), -0.5 * float(skew.norm()) ** 2
        if -slope <= 0.5e-12 * float(wide.norm()) ** 2:
            break
        step, low, high = 2 / float(skew.norm()), 0.0, math.inf
        for _ in range(50):
            inverse = torch.linalg.inv(identity + step / 2 * skew)
            turned = inverse @ (rotation - step / 2 * skew @ rotation)
            if float((wide * turned).sum()) > start + 1e-4 * step * slope:
                high = step
            elif -float((wide * (inverse @ skew @ (rotation + turned))).sum()) / 2 < 0.9 * slope:
                low = step
            else:
                break
            step = 2 * step if high == math.inf else (low + high) / 2
        rotation = turned
    return rotation


def main() -> None:
    """Time in turns and print the ratios."""
    torch.manual_seed(0)
    torch.set_default_device("cuda" if torch.cuda.is_available() else "cpu")
    x, y = torch.randn(BATCH, 3, PX, PX), torch.randint(0, 2, (BATCH,))
    plain, whitened, by_newton = (resnet.ResNet18(n_classes=2) for _ in range(3))
    layer = whitening.replace_norm(whitened, PLACE, CONCEPTS, [x])
    whitening.replace_norm(by_newton, PLACE, CONCEPTS, [x], whitening="newton")
    concepts = [x, x.flip(0)]
    rotation = torch.linalg.qr(torch.randn(D, D, dtype=torch.float64))[0]
    gradient = torch.randn(CONCEPTS, D, dtype=torch.float64)
    found, wanted = turning.cayley(rotation, gradient)[0], dense_turn(rotation, gradient)
    print(f"the two searches differ by {float((found - wanted).abs().max()):.0e} at most")

    print(f"on {x.device}, {load_average()}")
    steps = {
        "step, batch normalisation": (training_step(plain, x, y), 1),
        "step, concept whitening": (training_step(whitened, x, y), 1),
        "step, with newton": (training_step(by_newton, x, y), 1),
        "rotation round": (lambda: whitening.align(whitened, concepts), 1),
    }
    turns = {
        "turn, low rank": (lambda: turning.cayley(rotation, gradient), TURNS),
        "turn, procrustes": (lambda: turning.procrustes(rotation, gradient), TURNS),
        "turn, dense float64": (lambda: dense_turn(rotation, gradient), TURNS),
        "turn, dense float32": (lambda: dense_turn(rotation.float(), gradient.float()), TURNS),
    }
    timed = in_turns(turns, ROUNDS) | in_turns(steps, ROUNDS)
    for name, values in timed.items():
        print(f"{name:26s} {1e3 * median(values):9.1f} ms")

    step_ratio = ratio(timed, "step, concept whitening", "step, batch normalisation")
    round_ratio = ratio(timed, "rotation round", "step, batch normalisation")
    print(f"claim 1: a step with whitening takes {step_ratio:.2f} times as long (wanted on a processor: at most 1.1)")
    print(f"         with newton {ratio(timed, 'step, with newton', 'step, batch normalisation'):.2f} times")
    print(f"claim 2: a rotation round takes {round_ratio:.2f} plain steps; one in 20 steps adds {round_ratio / 20:.1%}")
    for kind in ("float64", "float32"):
        times = ratio(timed, f"turn, dense {kind}", "turn, low rank")
        print(f"claim 3: the low-rank turn is {times:.0f} times as fast as the dense one in {kind} (wanted: 20)")
    print(f"line searches that failed: {int(layer.line_search_failures)}")


if __name__ == "__main__":
    main()
