"""What channels, proteins, sections and people are called, and which spellings mean the same."""

from __future__ import annotations

import re
import unicodedata

from mitolib.settings import PROTEINS

# Spellings met in the Newcastle group's public code and tables (Warren et al. 2020), lower case, letters and digits.
ALIASES = {protein.lower(): protein for protein in PROTEINS} | {
    "tomm22": "TOM22",
    "tomm20": "TOM22",  # the pilot panel stained TOMM20; both are outer-membrane mass markers
    "ndufa13": "GRIM19",
    "vdac": "VDAC1",
    "cox44l2": "COX4",  # COX4+4L2
    "dys": "Dystrophin",
}

MASSES = {  # lowest and highest of each element met in mass cytometry: "Cd163" is a macrophage, no cadmium
    **{"ArAr": (80, 80), "Y": (89, 89), "Zr": (90, 96), "Ru": (96, 104), "Rh": (103, 103), "Pd": (102, 110)},
    **{"Ag": (107, 109), "Cd": (106, 116), "In": (113, 115), "Sn": (112, 124), "Sb": (121, 123), "Te": (120, 130)},
    **{"I": (127, 127), "Xe": (124, 136), "Cs": (133, 133), "Ba": (130, 138), "La": (138, 139), "Ce": (136, 142)},
    **{"Pr": (141, 141), "Nd": (142, 150), "Sm": (144, 154), "Eu": (151, 153), "Gd": (152, 160), "Tb": (159, 159)},
    **{"Dy": (156, 164), "Ho": (165, 165), "Er": (162, 170), "Tm": (169, 169), "Yb": (168, 176), "Lu": (175, 176)},
    **{"Os": (184, 192), "Ir": (191, 193), "Pt": (190, 198), "Au": (197, 197), "Pb": (204, 208), "Bi": (209, 209)},
}
METAL = re.compile(r"(\d{2,3})([A-Za-z]+)|([A-Za-z]+?)(\d{2,3})(?:Di)?")  # "Di": so in the header of a .txt

# Behind the name of a person or slide, what a laboratory adds for each of its regions: P01_2, P01-b, P01 (2),
# Anna_ROI_003, P01left, Leap001_s0_a3_ac. A letter may follow a digit directly (P01a); a digit may not, since P011 is
# another person than P01. More than three digits are a person's: 22-0413 and 22-0414 are two cases of one year.
_APART = r"(?:[\s_.-]+|(?<=\d))"
_REGION_WORDS = "roi|region|reg|acq|acquisition|scan|section|sec|fov|field|tile|crop"  # these alone tell
_PART_WORDS = "slide|slice|core|part|block|biopsy|rep|replicate|area|pos|position|copy"  # these behind a number
_SIDES = "left|right|top|bottom|upper|lower|links|rechts"
REGION = re.compile(
    r"(?P<slide>.*?\w)(?:"
    rf"(?P<word>{_APART}(?:(?:{_REGION_WORDS})[\s_.-]*\d+|{_SIDES}))"
    rf"|{_APART}(?:{_PART_WORDS})[\s_.-]*\d*"
    r"|_s\d+(?:_[a-z]\d+)*_a\d+(?:_ac)?"  # as imctools names slide, panorama, region and acquisition
    r"|[\s_.-]+(?:[srtv]?\d{1,3}|[a-z]|ii|iii|iv)|[\s_.-]*\(\d+\)|(?<=\d)[a-z]"
    r")(?:_\d{1,3})?",
    re.IGNORECASE,
)


def metal(text: str) -> str | None:
    """ "Gd160", "Gd160Di" or "160Gd" as "160Gd"; None for what is no isotope."""
    match = METAL.fullmatch(text.strip())
    if not match:
        return None
    mass, element = match[1] or match[4], match[2] or match[3]
    lowest, highest = MASSES.get(element, (1, 0))
    return f"{mass}{element}" if lowest <= int(mass) <= highest else None


def isotope(label: str | None) -> str | None:
    """The isotope among the words of a channel's label, as "160Gd"; None where there is none."""
    return next(filter(None, map(metal, re.findall(r"[A-Za-z0-9]+", label or ""))), None)


def protein(label: str) -> str:
    """The protein a channel's label names, in the paper's spelling where it is one of the ten.

    "153Eu_153Eu SDHA", "NDUFB8(Gd160)" and "mt-co1" are understood: isotopes, case and punctuation do not count.
    """
    without_isotopes = re.sub(r"[A-Za-z0-9]+", lambda word: "" if metal(word[0]) else word[0], label)
    name = " ".join(re.split(r"[\s_()\[\]]+", without_isotopes)).strip(" -") or label.strip()
    return ALIASES.get(plain(name), name)


def plain(text: str) -> str:
    """Letters and digits only, of any alphabet, lower case: what two spellings of one name have in common."""
    return re.sub(r"[\W_]+", "", unicodedata.normalize("NFKC", text).casefold())


def identity(text: str) -> str:
    """What two spellings of one person, section or column have in common.

    Case, Unicode form, spaces, hyphens and leading zeros do not count: "P-01", "p 1" and "P01" are one; "P1-0" and
    "P10" are two, since what stands between two numbers does count.
    """
    words = re.findall(r"\d+|[^\W\d_]+", unicodedata.normalize("NFKC", text).casefold())
    return "|".join(word.lstrip("0") or "0" if word.isdigit() else word for word in words) or text


def slide(name: str) -> str | None:
    """The person or slide of which a section seems to be a region, by its name ("P01_2" -> "P01"), or None.

    A number alone behind a word ("Patient_2") is taken for that of a person.
    """
    match = REGION.fullmatch(unicodedata.normalize("NFKC", name))
    return match["slide"] if match and (match["word"] or re.search(r"\d", match["slide"])) else None
