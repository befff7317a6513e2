"""The command line: data of your own (`mitolib.intake`), of others (`downloads`), trainings kept (`units`), device."""

from __future__ import annotations

import argparse
import ast
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mitolib import intake
from mitolib.images import INTENSITIES, STRETCHED, CohortError
from mitolib.progress import say
from mitolib.settings import PROFILES, ROOT


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 1 and a message where there is something to mend."""
    parser = argparse.ArgumentParser(prog="python -m mitolib", description="Data, and trainings that are kept.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read all that a run would read; list every problem and what a run costs")
    convert = commands.add_parser("convert", help="write 8-bit TIFFs in the paper's layout, without other metadata")
    for command in (check, convert):
        command.add_argument("folder", type=_path, metavar="FOLDER")
        command.add_argument("--proteins", help="names with a comma between them; default: all that there are")
    check.add_argument("--protein", help="the one of experiment 1; default: SDHA")
    check.add_argument("--patch-px", type=int, metavar="PX", help="size of a patch; default: 512")
    check.add_argument("--stride-px", type=int, metavar="PX", help="between neighbouring patches")
    check.add_argument("--profile", default="paper", choices=list(PROFILES))
    convert.add_argument("new", type=_path, metavar="NEW_FOLDER")
    convert.add_argument("--intensity", choices=list(INTENSITIES), help="how counts become 8 bits")
    convert.add_argument("--hot-pixels", type=float, metavar="COUNTS", help="may exceed all neighbours by, e.g. 50")
    convert.add_argument(
        "--pseudonymise", type=_path, metavar="KEY.csv", help="rename to C01, P01, ...; the key goes here"
    )
    fetch = commands.add_parser("fetch", help="bring a public file here; without a name, list them")
    fetch.add_argument("name", nargs="?", metavar="NAME")
    kept = commands.add_parser("units", help="list the trainings that are kept, with the book and in the cache")
    kept.add_argument("--prune", action="store_true", help="remove those of an old protocol, and files of none")
    commands.add_parser("device", help="what computes here, in which precision, and how long a pass and a step take")
    options = parser.parse_args(arguments)
    if options.command == "units":
        _units(removes_old=options.prune)
        return
    if options.command == "device":
        _device()
        return
    if options.command == "fetch":
        _fetch(options.name)
        return
    try:
        if options.command == "check":
            _check(options)
            return
        intake.convert(
            options.folder,
            options.new,
            proteins=options.proteins,
            intensity=options.intensity,
            hot_pixels=options.hot_pixels,
            key=options.pseudonymise,
        )
    except (ValueError, OSError) as error:
        sys.exit("\n".join([str(error), *getattr(error, "__notes__", [])]))
    if options.intensity in (None, *STRETCHED):
        say("Each picture with counts was stretched on its own: brightness cannot be compared between sections.")
    print(f"{options.new}: written")


def _path(text: str) -> Path:
    """A path as an argument. An empty one is refused: pathlib takes it for the folder one is in, and it is what a
    shell makes of a variable that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("it is empty; wanted a path. A shell variable that is not set is empty")
    return Path(text)


def _check(options: argparse.Namespace) -> None:
    """Prints each part of the report when it is known. A reader who has seen enough (`| head`) ends it quietly."""
    problems: list[CohortError] = []
    parts = intake.report(
        options.folder,
        PROFILES[options.profile],
        problems,
        options.proteins,
        protein=options.protein,
        patch_px=options.patch_px,
        stride_px=options.stride_px,
    )
    try:
        for number, part in enumerate(parts):
            print(("\n" if number else "") + part, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it at its end
        sys.exit(1)
    sys.exit(bool(problems))


def _device() -> None:
    """Prints what `records` would write down, and what was measured just now."""
    from mitolib import backend, bank, records  # some seconds, which the other commands need not wait for

    made = records.machine()
    print(f"backend    {backend.NAME} ({backend.VERSION}), Keras {made['packages']['keras']}")
    print(f"device     {made['device']}{'' if backend.gpu() else ': no GPU is used'}")
    if (free := backend.free_bytes()) is not None:
        print(f"memory     {free / 2**30:.1f} GiB of the GPU are free")
    print(f"precision  {bank.precision()} in frozen layers, float32 in heads; TF32 is off")
    for what, seconds in _measured().items():
        print(f"{1e3 * seconds:8.1f} ms  {what}")


def _measured() -> dict[str, float]:
    """Seconds of a frozen pass and of a step of the paper's head, random weights; the first of each is left out."""
    import keras
    import numpy as np

    from mitolib import backend, bank, heads, networks

    keras.utils.set_random_seed(0)
    backbone, head = networks.divide(networks.build("VGG16", arrays=None))
    forward = bank.compiled(backbone)
    size = bank.at_once() if backend.gpu() else 4  # a processor needs a while for more
    pixels_nhwc = np.ones((size, networks.INPUT_PX, networks.INPUT_PX, 3), np.float32)
    ends = []
    for _ in range(3):
        map_nhwc = forward(pixels_nhwc)[:1]
        ends.append(time.perf_counter())
    features_nhwc, classes = np.repeat(map_nhwc, 64, axis=0), np.arange(64) % 2
    starts: dict[int, float] = {}  # of epochs

    def source(epoch: int, rows: np.ndarray) -> np.ndarray:
        starts.setdefault(epoch, time.perf_counter())
        return features_nhwc[rows]

    budget = replace(PROFILES["paper"], epochs=3, batch_size=2)
    unseen = features_nhwc[:2], classes[:2]
    heads.fit(head, source, classes, *unseen, profile=budget, rng=np.random.default_rng(0), label="step")
    return {
        f"for each picture in the frozen layers of VGG16, {size} at a time": (ends[-1] - ends[0]) / (2 * size),
        "for a training step of the paper's head, batch 2": (starts[2] - starts[1]) / 32,
    }


def _fetch(name: str | None) -> None:
    from mitolib import downloads  # a moment, which the other commands need not wait for

    try:
        if name:
            print(downloads.fetch(name).path)
            return
        for known, file in downloads.FILES.items():
            where = downloads.local(known) or f"not here; {file.address}"
            print(f"{known}: {file.citation}; {file.licence}\n    {where}")
    except downloads.DownloadError as error:
        sys.exit(str(error))


def _units(*, removes_old: bool) -> None:
    from mitolib import units  # a moment, which the other commands need not wait for

    try:
        if removes_old:
            removed = prune()
            print("\n".join([*(f"removed {path}" for path in removed), f"{len(removed)} files removed"]))
            return
        rows = [_row(path, content) for path, content in every()]
    except (units.UnitError, OSError) as error:
        sys.exit(str(error))
    header = ("chapter", "unit", "made", "minutes", "device", "commit", "protocol", "kept")
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    for row in [header, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if not rows:
        print("None is kept: run a chapter.")


def every() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Each unit of the book and of the cache: its JSON file and what stands in it, without the arrays."""
    from mitolib import units  # a moment, which the other commands need not wait for

    for folder in (units.PUBLISHED, units.cache()):
        for path in sorted(folder.glob("*/*.json")):
            yield path, units.load(path)


def is_current(content: Mapping[str, Any]) -> bool:
    """Whether the module of a unit still declares the protocol that the unit was made by."""
    module, number = content["protocol"]
    source = ROOT.joinpath(*module.split(".")).with_suffix(".py")
    if not source.exists():
        return False
    # Read, not imported: a list of units need not wait for TensorFlow.
    tree = ast.parse(source.read_text(encoding="utf-8"))
    assigned = [node for node in tree.body if isinstance(node, ast.Assign)]
    declared = [node.value for node in assigned if ast.unparse(node.targets[0]) == "PROTOCOL"]
    return [ast.literal_eval(value) for value in declared] == [number]


def prune() -> list[Path]:
    """Remove each unit of an old protocol, and arrays and weights that belong to none; return what was removed."""
    from mitolib import units

    removed = [path for path, content in every() if not is_current(content)]
    for path in removed:
        path.unlink()
    kept = list(every())
    stems = {(content["chapter"], path.stem) for path, content in kept}  # weights lie in the cache, their unit may not
    arrays = {path.with_name(content["arrays"]) for path, content in kept if content["arrays"]}
    for path in [path for folder in (units.PUBLISHED, units.cache()) for path in sorted(folder.glob("*/*.npz"))]:
        of_unit = (path.parent.name, path.name.removesuffix(f".{units.WEIGHTS}.npz"))
        if path not in arrays and of_unit not in stems:
            path.unlink()
            removed.append(path)
    return removed


def _row(path: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    made = content["made"]
    module, number = content["protocol"]
    return (
        content["chapter"],
        path.stem,
        made["created"],
        f"{made['seconds'] / 60:.1f}",
        f"{made['device']}, {made['cores']} cores",
        made["commit"] or "outside git",
        f"{module} {number}{'' if is_current(content) else ', old'}",
        "in the book" if path.is_relative_to(ROOT / "book") else "in the cache",
    )


if __name__ == "__main__":
    main()
