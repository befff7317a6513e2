"""Which chapters there are, and how their runs hang together. Read by the executor and by `workflow/Snakefile`."""

from __future__ import annotations

CHAPTERS = (  # in the order in which a book lists them
    "data_engineering",
    "exp1",
    "exp2",
    "freezing",
    "gradcam",
    "explanations",
    "concept_whitening",
    "real_concepts",
    "prototypes",
    "patient_level",
    "people",
    "look",
    "your_data",
)

# Chapter -> those that it waits for. It reads networks that they have trained, and makes anew what is missing.
NEEDS = {
    "freezing": ("exp1",),
    "gradcam": ("exp1", "exp2"),
    "explanations": ("gradcam",),
    "look": ("exp1",),
    "people": ("exp1", "exp2"),
    "real_concepts": ("concept_whitening",),
}

# Chapter -> number of jobs that share its fits on a cluster. A chapter without an entry has no units to share.
SHARES = {
    "exp1": 5,
    "exp2": 5,
    "freezing": 6,
    "gradcam": 3,
    "explanations": 8,
    "concept_whitening": 8,
    "real_concepts": 8,
    "prototypes": 8,
    "patient_level": 8,
    "people": 8,
}
