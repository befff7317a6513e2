"""What a page shows in the place of something that its data do not allow."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LeftOut:
    """A sentence that says why."""

    reason: str  # goes on after "Left out:"

    def __str__(self) -> str:
        return f"Left out: {self.reason}"

    def _repr_markdown_(self) -> str:
        return str(self)


def too_few_people(people: int) -> LeftOut:
    """people: in the smaller class."""
    return LeftOut(f"the smaller class has {people} people, wanted three.")


def numbered(sentences: list[str]) -> str:
    """Markdown of a numbered list."""
    return "\n".join(f"{i}. {sentence}" for i, sentence in enumerate(sentences, start=1))
