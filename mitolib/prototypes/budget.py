"""How long prototype networks are trained, and on how many folds and seeds, in each profile."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Budget:
    """Of all trainings of the chapter. Every network of a profile is trained alike."""

    depth: int  # channels of the latent map
    tree_depth: int  # the same of the tree
    per_child: int  # prototypes of a class; the tree has one less
    cycles: int  # of epochs, push, and solution of the last layer
    epochs: int  # in each
    folds: int | None  # of a control and a patient not seen, at most; None takes every pair
    side: int  # places along a side of the map, for the networks whose pictures are shown
    seeds: int  # of the network whose pictures are shown
    annotated: tuple[float, ...]  # shares of the training people whose masks are used
    top_k: int  # places of IAIA-BL, at maps of `side`
    fine_folds: int
    turned: int | None  # training patches with a turned view, in the arm that has such; None takes all
    tree_folds: int | None
    novel_genotypes: int  # left out in turn, at most
    novel_known: int  # people of a known genotype left out beside each novel one
    head_steps: int  # of the paper's head on the same maps
    explained: int | None  # held-out patches whose maps are tested; None takes all
    altered: int  # of these, that are shown altered; 0 for none
    restored: int  # of these, in which single fibres are cured
    fibres: int  # cured in each of those, at most
    redraws: int  # of the weights, each with a seed of its own
    shares: tuple[float, ...]  # of a patch, removed
    qualities: tuple[int, ...]  # of JPEG copies beside those that the data bring

    def in_words(self) -> dict[str, dict[str, object]]:
        """What is trained, and then asked -> its settings by the names that the page shows."""
        cycles = {"cycles of training, push and solution": self.cycles, "epochs in each": self.epochs}
        return {
            "ProtoPNet, top-k and quota": {
                "prototypes of a class": self.per_child,
                "latent channels": self.depth,
                **cycles,
                "pairs of a control and a patient left out": self.folds or "all",
                "seeds of the network shown": self.seeds,
            },
            "fine annotation": {
                **cycles,
                "pairs left out": self.fine_folds,
                "shares of people with masks": [f"{share:.0%}" for share in self.annotated],
            },
            "tree": {
                "prototypes of a child": self.per_child - 1,
                "latent channels": self.tree_depth,
                **cycles,
                "pairs left out": self.tree_folds or "all",
                "genotypes left out, at most": self.novel_genotypes,
            },
            "paper's head": {"steps": self.head_steps},
            "maps": {
                "patches": self.explained or "all",
                "of these with parts removed": self.altered,
                "with single fibres cured": self.restored,
                "redraws of the weights": self.redraws,
            },
        }


SHORT = {
    "seeds": 2,
    "annotated": (0.0, 1.0),
    "fine_folds": 1,
    "turned": 4,
    "novel_genotypes": 1,
    "novel_known": 1,
    "shares": (0.1,),
    "restored": 1,
    "redraws": 1,
}
BUDGETS = {  # by profile; smoke and quick read the maps of 7 x 7 places that another chapter keeps
    "smoke": Budget(
        depth=8,
        tree_depth=8,
        per_child=2,
        cycles=1,
        epochs=2,
        folds=2,
        side=7,
        top_k=2,
        tree_folds=1,
        head_steps=1,
        explained=1,
        altered=0,
        fibres=4,
        qualities=(),
        **SHORT,
    ),
    "quick": Budget(
        depth=16,
        tree_depth=16,
        per_child=3,
        cycles=1,
        epochs=3,
        folds=2,
        side=7,
        top_k=2,
        tree_folds=1,
        head_steps=5,
        explained=2,
        altered=1,
        fibres=7,
        qualities=(50,),
        **SHORT,
    ),
    "paper": Budget(
        depth=128,
        tree_depth=64,
        per_child=5,
        cycles=3,
        epochs=10,
        folds=None,
        side=14,
        seeds=5,
        annotated=(0.0, 0.2, 1.0),
        top_k=9,
        fine_folds=10,
        turned=None,
        tree_folds=None,
        novel_genotypes=5,
        novel_known=3,
        head_steps=3000,
        explained=None,
        altered=40,
        restored=100,
        fibres=20,
        redraws=5,
        shares=(0.1, 0.3),
        qualities=(75, 50),
    ),
}
