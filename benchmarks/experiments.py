"""Experiments 1 and 2 without their pages: VGG16 trained and tested as the chapters do it, as units, and the minutes.

    python benchmarks/experiments.py exp2 exp1 [--profile paper] [--minutes book/gpu.json]

The units are those that the chapters ask for: a chapter that finds them computes nothing. Pictures are drawn where they
are not; MITOLIB_UNITS says where units are kept. Minutes count from the pictures to the scores, bank included, and are
written beside what `bench_gpu.py` measured, if every training was computed by this call.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

from mitolib import files, own_data, phantom, transfer
from mitolib.progress import say
from mitolib.settings import PROFILES, Profile


def run(name: str, profile: Profile) -> tuple[transfer.TrainedNetwork, float, bool]:
    """VGG16 of an experiment on the phantom, the minutes that it took, and whether all of it was computed now."""
    root = phantom.make_phantom(profile.phantom, scale=profile.scale)
    start, begun = time.monotonic(), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    used = own_data.read(name, root, own=False)
    task = transfer.Task.of(used, used.one if name == "exp1" else used.several)
    trained = transfer.train("VGG16", task, profile=profile)
    minutes = (time.monotonic() - start) / 60
    return trained, minutes, all(unit["made"]["created"] >= begun for unit in trained.units)


def main() -> None:
    """Run those named, one after the other, and write down each as soon as it is done."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="+", choices=["exp1", "exp2"])
    parser.add_argument("--profile", default="paper", choices=list(PROFILES))
    parser.add_argument("--minutes", type=Path, metavar="FILE", help="of bench_gpu.py, to be completed")
    options = parser.parse_args()
    for name in options.names:
        trained, minutes, is_new = run(name, PROFILES[options.profile])
        device = trained.units[0]["made"]["device"]
        print(trained.seeds.to_string())
        print(f"{name}: {minutes:.1f} min on {device}{'' if is_new else ', some of it kept from before'}", flush=True)
        if options.minutes and is_new:
            found = json.loads(options.minutes.read_text(encoding="utf-8"))
            if found["device"] != device:
                say(f"{options.minutes} is of {found['device']}: the minutes of {device} are not written there")
                continue
            found["measured_minutes"][name] = minutes
            with files.whole(options.minutes) as aside:
                aside.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
