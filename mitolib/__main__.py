"""The command line for data of your own and of others: see `mitolib.intake` and `mitolib.registry`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mitolib import intake, registry
from mitolib.intensity import INTENSITIES, STRETCHED
from mitolib.progress import say
from mitolib.settings import PROFILES, PROTEINS


def main(arguments: Sequence[str] | None = None) -> None:
    """Exits with 1 and a message where there is something to mend."""
    parser = argparse.ArgumentParser(prog="python -m mitolib", description="Data of your own and of others.")
    commands = parser.add_subparsers(dest="command", required=True)
    check = commands.add_parser("check", help="read all that a run would read; list every problem and what a run costs")
    convert = commands.add_parser("convert", help="write 8-bit TIFFs in the paper's layout, without other metadata")
    for command in (check, convert):
        command.add_argument("folder", type=Path, metavar="FOLDER")
        command.add_argument("--proteins", default=",".join(PROTEINS), help="a comma between them; default: all ten")
    check.add_argument("--profile", default="paper", choices=list(PROFILES))
    convert.add_argument("new", type=Path, metavar="NEW_FOLDER")
    convert.add_argument("--intensity", choices=list(INTENSITIES), help="how counts become 8 bits")
    convert.add_argument("--hot-pixels", type=float, metavar="COUNTS", help="may exceed all neighbours by, e.g. 50")
    convert.add_argument(
        "--pseudonymise", type=Path, metavar="KEY.csv", help="rename to C01, P01, ...; the key goes here"
    )
    fetch = commands.add_parser("fetch", help="bring a public file here; without a name, list them")
    fetch.add_argument("name", nargs="?", metavar="NAME")
    options = parser.parse_args(arguments)
    if options.command == "fetch":
        _fetch(options.name)
        return
    proteins = [name.strip() for name in options.proteins.split(",")]
    if options.command == "check":
        text, whole = intake.check(options.folder, PROFILES[options.profile], proteins)
        print(text)
        sys.exit(0 if whole else 1)
    try:
        intake.convert(
            options.folder,
            options.new,
            proteins=proteins,
            intensity=options.intensity,
            hot_pixels=options.hot_pixels,
            key=options.pseudonymise,
        )
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    if options.intensity in (None, *STRETCHED):
        say("Each picture with counts was stretched on its own: brightness cannot be compared between sections.")
    print(f"{options.new}: written")


def _fetch(name: str | None) -> None:
    try:
        if name:
            print(registry.fetch(name))
            return
        for known, file in registry.FILES.items():
            where = registry.local(known) or f"not here; {file.address}"
            print(f"{known}: {file.citation}; {file.licence}\n    {where}")
    except registry.RegistryError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
