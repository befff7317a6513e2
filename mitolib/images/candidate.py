"""What may become a section, and which of its channels is which protein."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from mitolib.images import names
from mitolib.images.channel import Channel, CohortError
from mitolib.images.formats import SUFFIXES, stem
from mitolib.images.panel import Panel
from mitolib.settings import PROTEINS


@dataclass(frozen=True)
class Candidate:
    """What may become a section: its files are opened, its channels not yet named."""

    path: Path  # the folder, or the file with all channels
    name: str
    label: str | None  # by its class folder
    channels: tuple[Channel, ...]
    of_slide: str | None = None  # whose region it is, where the file holds several
    unread: Mapping[Path, CohortError] = field(default_factory=dict)  # files of its folder
    others: tuple[Path, ...] = ()  # files of its folder that are no pictures, and may be anything


class Naming:
    """Channels -> proteins: by panel.csv, else by what the files call them."""

    def __init__(self, panel: Panel | None) -> None:
        self.panel = panel

    def taken_for(self, channel: Channel, candidate: Candidate) -> str | None:
        """A channel's protein; None if panel.csv drops it. CohortError where nothing names it."""
        n_channels = sum(other.path == channel.path for other in candidate.channels)
        if self.panel is not None:
            return self.panel.protein(channel, n_channels)
        if channel.label is None:
            raise CohortError(
                f"{channel.path}: {n_channels} channels without names. Add a panel.csv to the data folder, one row for "
                "each channel in the order of the file, or move the file away."
            )
        return names.protein(channel.label)

    def labels(self, candidate: Candidate) -> list[str]:
        """Proteins of a candidate, in the order of its channels, each once."""
        labels: dict[str, None] = {}
        for channel in candidate.channels:
            with suppress(CohortError):
                labels |= dict.fromkeys(filter(None, (self.taken_for(channel, candidate),)))
        return list(labels)

    def of_any(self, candidates: Sequence[Candidate]) -> tuple[str, ...]:
        """Of the paper's ten, those that any section has; else what all sections have."""
        there = {label for candidate in candidates for label in self.labels(candidate)}
        return tuple(protein for protein in PROTEINS if protein in there) or self.of_all(candidates)

    def of_all(self, candidates: Sequence[Candidate]) -> tuple[str, ...]:
        """What all sections have that have any."""
        there = [labels for candidate in candidates if (labels := self.labels(candidate))]
        return tuple(name for name in (there[0] if there else ()) if all(name in labels for labels in there))

    def has_all(self, candidate: Candidate, proteins: Sequence[str]) -> bool:
        there = {names.plain(label) for label in self.labels(candidate)}
        return {names.plain(protein) for protein in proteins} <= there

    def has_none(self, candidate: Candidate, proteins: Sequence[str]) -> bool:
        there = {names.plain(label) for label in self.labels(candidate)}
        return not {names.plain(protein) for protein in proteins} & there

    def by_protein(
        self, candidate: Candidate, proteins: Sequence[str]
    ) -> tuple[dict[str, Channel], CohortError | None]:
        """Protein -> channel, of those asked for, and why other channels have no name.

        Of copies in two formats the one that SUFFIXES names first is taken. CohortError for two channels of one
        protein, and for a file that calls its channel otherwise than it is called itself.
        """
        wanted = {names.plain(protein): protein for protein in proteins}
        chosen: dict[str, Channel] = {}
        unnamed = None
        for channel in sorted(candidate.channels, key=lambda c: SUFFIXES.index(c.path.suffix.lower())):
            try:
                taken_for = self.taken_for(channel, candidate)
            except CohortError as problem:
                unnamed = unnamed or problem
                continue
            if taken_for is None or (key := names.plain(taken_for)) not in wanted:
                continue
            self._compare_with_inside(channel, taken_for, proteins)
            other = chosen.setdefault(wanted[key], channel)
            if other is not channel and _kind(other) == _kind(channel):
                raise CohortError(
                    f"{candidate.path}: {_place(other)} and {_place(channel)} are both taken for {wanted[key]}. Remove "
                    "one, or set keep to 0 in its row of panel.csv."
                )
        return {protein: chosen[protein] for protein in proteins if protein in chosen}, unnamed

    def _compare_with_inside(self, channel: Channel, taken_for: str, proteins: Sequence[str]) -> None:
        """CohortError where a file is named for one protein or isotope and calls itself another."""
        if channel.described is None or self.panel is not None:
            return
        known = {names.plain(protein) for protein in (*proteins, *PROTEINS)}
        inside = names.plain(names.protein(channel.described))
        isotopes = {channel.metal, names.isotope(channel.described)} - {None}
        if (inside in known and inside != names.plain(taken_for)) or len(isotopes) > 1:
            raise CohortError(
                f"{channel.path}: is named {channel.label}, and its own description says {channel.described}. Rename "
                "the file, or export it again; panel.csv settles which is right."
            )


def _kind(channel: Channel) -> str:
    """.tif and .tiff are one kind: a copy in the other is no second choice."""
    return channel.path.suffix.lower().replace("tiff", "tif").replace("jpeg", "jpg")


def _place(channel: Channel) -> str:
    label = channel.label if channel.label != stem(channel.path) else None
    metal = channel.metal if channel.metal != names.metal(label or "") else None
    inside = ", ".join(filter(None, (label, metal)))
    return f"{channel.path.name} ({inside})" if inside else channel.path.name
