"""What pictures hold: what `convert` writes is looked at, and nothing but the tissue tells the classes apart.

What a message advises is done, and the folder is clean then.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from sections import FOUR, SHAPE, check, cohort, counts, greys, pages, text_export, write

from mitolib import intake
from mitolib.cohort import survey
from mitolib.images import INTENSITIES, CohortError, quality, to_8_bit


def fill(root: Path, make: Callable[[int], np.ndarray], names: tuple[str, ...] = FOUR) -> Path:
    for seed, name in enumerate(names):
        write(root / name / "SDHA.tif", make(seed))
    return root


def convert(root: Path, name: str = "new", **options: object) -> Path:
    new = root.parent / f"{root.name}-{name}"
    intake.convert(root, new, **options)
    return new


def refusal(root: Path, **options: object) -> str:
    """Why a folder is not converted; nothing is written then."""
    with pytest.raises(CohortError) as caught:
        convert(root, "refused", **options)
    assert [path.name for path in root.parent.iterdir()] == [root.name]
    return str(caught.value)


# What convert writes


def share(values: np.ndarray) -> np.ndarray:
    return (values / values.max()).astype("f4")


def with_hot(values: np.ndarray, value: float) -> np.ndarray:
    values = values.astype("f4")
    values[5, 7] = value
    return values


rng = np.random.default_rng


def spots(seed: int, share_of_pixels: float) -> np.ndarray:
    return np.where(rng(seed).random(SHAPE) < share_of_pixels, 9, 0).astype("f4")


WORTHLESS: dict[str, tuple[Callable[[int], np.ndarray], dict[str, object], str]] = {
    "0 to 1, as they are": (lambda s: share(counts(s)), {"intensity": "none"}, "values end at 1: they are no counts"),
    "0 to 1, arcsinh": (lambda s: share(counts(s)), {"intensity": "arcsinh"}, "values end at 1: they are no counts"),
    "0 to 0.2": (lambda s: share(counts(s)) / 5, {"intensity": "none"}, "values end at 0.2"),
    "counts without a level": (lambda s: counts(s, 0.4), {"intensity": "none"}, "greys from 0 to [123] of 255"),
    "a sparse channel": (
        lambda s: np.where(rng(s).random(SHAPE) < 0.03, 9, 0).astype("f4"),
        {},
        "is 0 or 255 at 100.0%",
    ),
    "a very sparse channel": (
        lambda s: np.where(rng(s).random(SHAPE) < 0.004, 9, 0).astype("f4"),
        {},
        "0 or 255 at 100",
    ),
    "sparse shares": (lambda s: share(spots(s, 0.04) * counts(s, 400)), {}, "is 0 or 255 at|is 0 or 2[0-9]{2} at"),
    "a mask of 8 bits": (lambda s: (greys(s) > 99).astype("u1") * 255, {}, "is 0 or 255 at 100.0%"),
    "a mask of 0 and 1": (
        lambda s: (greys(s) > 99).astype("u2"),
        {"intensity": "percentiles"},
        "is 0 or 255 at 100.0%",
    ),
    "all saturated": (lambda s: np.where(greys(s) < 6, greys(s), 255).astype("u1"), {}, "255 at 9[0-9].[0-9]% of its"),
    "mostly saturated": (lambda s: np.where(greys(s) < 99, greys(s), 255).astype("u1"), {}, "is 255 at 6[0-9].[0-9]%"),
    "counts above the scale": (lambda s: counts(s, 900), {"intensity": "none"}, "is 255 at 100.0%"),
    "constant": (lambda s: np.full(SHAPE, 7, "f4"), {}, "is 0 at 100.0%"),
    "black": (lambda s: np.zeros(SHAPE, "u1"), {}, "is 0 at 100.0%"),
    "greys that a hot pixel pressed together": (
        lambda s: to_8_bit(share(with_hot(counts(s), 3000)) * 255, "none"),
        {},
        "greys from 1 to 3 of 255|is 1 or 2 at",
    ),
}


@pytest.mark.parametrize("case", WORTHLESS)
def test_a_picture_that_would_show_nothing_is_not_written(tmp_path, case):
    make, options, finding = WORTHLESS[case]
    root = fill(tmp_path / "data", make)
    said = refusal(root, **options)
    lines = said.splitlines()
    assert lines[-1].endswith("nothing was written.") and len(lines) == 1 + len(FOUR), said  # each is told
    assert all(re.search(finding, line) and "SDHA.tif: SDHA, as it would be written" in line for line in lines[:-1]), (
        said
    )
    # What it advises, is done.
    if advised := re.search(r"Convert it with --intensity ([a-z -]+),", lines[0]):
        for intensity in advised[1].split(" or "):
            assert check(convert(root, intensity, intensity=intensity)).is_clean
    else:
        assert "Export the picture again" in lines[0]
        for seed, name in enumerate(FOUR):
            write(root / name / "COX4.tif", counts(90 + seed))
        assert check(convert(root, proteins=["COX4"])).is_clean


OFFSETS = {
    "signed 16 bit of ImageJ": ((counts(1) + 32768).astype(">u2"), "ImageJ=1.54f\nc0=-32768.0\nc1=1.0\n"),
    "a line of ImageJ": ((counts(1) + 100).astype("u1"), "ImageJ=1.54f\ncf=0\nc0=-100.0\nc1=1.0\n"),
}


@pytest.mark.parametrize("intensity", INTENSITIES)
@pytest.mark.parametrize("case", OFFSETS)
def test_what_is_written_are_the_values_and_not_what_was_stored(tmp_path, case, intensity):
    stored, description = OFFSETS[case]
    root = fill(tmp_path / "data", counts)
    write(root / "Patient/P01/SDHA.tif", stored, description=description)
    if stored.dtype == np.uint8:
        fill(root, lambda seed: counts(seed + 40))
        write(root / "Patient/P01/SDHA.tif", stored, description=description)
    new = convert(root, intensity=intensity)
    np.testing.assert_array_equal(tifffile.imread(new / "Patient/P01/SDHA.tif"), to_8_bit(counts(1), intensity))


@pytest.mark.parametrize("intensity", INTENSITIES)
def test_pictures_with_an_offset_of_which_nothing_is_said_are_not_written(tmp_path, intensity):
    root = fill(tmp_path / "data", lambda seed: (counts(seed) + 32768).astype("u2"))
    assert "32768 was added" in refusal(root, intensity=intensity)


@pytest.mark.parametrize("intensity", [None, *INTENSITIES])
def test_hot_pixels_and_a_bright_cluster_harm_no_conversion(tmp_path, intensity):
    def make(seed: int) -> np.ndarray:
        image_yx = with_hot(counts(seed, 60), 60_000)
        image_yx[20, 20:24] = 9_000
        return image_yx

    root = fill(tmp_path / "data", make)
    new = convert(root, intensity=intensity, hot_pixels=50)
    assert check(new).is_clean
    assert tifffile.imread(new / "Control/C01/SDHA.tif").std() > 5


GOOD = {
    "dark counts": lambda s: counts(s, 4),
    "a tenth of the pixels": lambda s: np.where(rng(s).random(SHAPE) < 0.1, counts(s, 30), 0).astype("f4"),
    "bytes of a dark picture": lambda s: counts(s, 9).astype("u1"),
    "a bright picture": lambda s: np.clip(counts(s, 230), 0, 255).astype("u1"),
    "16 bits": lambda s: (counts(s) * 900).astype("u2"),
    "0 to 1": lambda s: share(counts(s)),
}


@pytest.mark.parametrize("case", GOOD)
def test_a_picture_that_shows_something_is_no_problem(tmp_path, case):
    root = fill(tmp_path / "data", GOOD[case])
    assert check(root).is_clean
    assert check(convert(root)).is_clean


def test_a_remedy_is_one_that_helps():
    """Each --intensity that a message names makes another picture of it; and none is named where none does."""
    for seed in range(5):
        for rate in (0.001, 0.01, 0.03, 0.1, 0.6, 3):
            raw_yx = counts(seed, rate)
            for now in INTENSITIES:
                said = quality.shows_nothing(to_8_bit(raw_yx, now), raw_yx, now)
                for other in re.findall(r"--intensity (.*?),", said):
                    for name in other.split(" or "):
                        assert not quality.shows_nothing(to_8_bit(raw_yx, name), raw_yx, name)


# Kinds of file that tell the class


def as_jpeg(root: Path, *names: str, suffix: str = "jpg") -> None:
    for name in names:
        grey = to_8_bit(tifffile.imread(root / name / "SDHA.tif"))
        (root / name / "SDHA.tif").unlink()
        Image.fromarray(grey).save(root / name / f"SDHA.{suffix}", format="JPEG")


def change(how: Callable[[np.ndarray], np.ndarray], *names: str) -> Callable[[Path], None]:
    def spoil(root: Path) -> None:
        for name in names:
            write(root / name / "SDHA.tif", how(tifffile.imread(root / name / "SDHA.tif")))

    return spoil


def eight_bits(values: np.ndarray) -> np.ndarray:
    return np.clip(values, 0, 255).astype("u1")


def all_bytes(root: Path) -> None:
    change(eight_bits, *FOUR)(root)


CONTROLS, PATIENTS = FOUR[:2], FOUR[2:]
KINDS: dict[str, tuple[Callable[[Path], object], tuple[str, ...]]] = {
    "bytes and counts": (change(eight_bits, *PATIENTS), ("8 bit: P01, P02", "whole counts: C01, C02")),
    "counts and bytes": (change(eight_bits, *CONTROLS), ("8 bit: C01, C02", "whole counts: P01, P02")),
    "JPEG and TIFF": (lambda r: all_bytes(r) or as_jpeg(r, *CONTROLS), ("8 bit, JPEG: C01, C02", "8 bit: P01, P02")),
    "JPEG and TIFF, by another suffix": (
        lambda r: all_bytes(r) or as_jpeg(r, *CONTROLS, suffix="png"),
        ("8 bit, JPEG: C01, C02",),
    ),
    "fractions and whole counts": (change(lambda v: v * 0.9, *PATIENTS), ("counts with fractions: P01, P02",)),
    "0 to 1 and counts": (change(share, *CONTROLS), ("0 to 1: C01, C02", "whole counts: P01, P02")),
    "all but one": (
        lambda r: write(r / "Patient/P03/SDHA.tif", counts(9)) or change(eight_bits, *PATIENTS)(r),
        ("8 bit: P01, P02", "whole counts: C01, C02, P03"),
    ),
    "a hundredfold": (change(lambda v: v * 100, *PATIENTS), ("every picture of a patient reaches", "same scale")),
    "a hundredfold, with hot pixels elsewhere": (
        lambda r: change(lambda v: v * 100, *PATIENTS)(r) or change(lambda v: with_hot(v, 9e4), *CONTROLS)(r),
        ("every picture of a patient reaches",),
    ),
    "16 bits of the whole range": (change(lambda v: (v * 1400).astype("u2"), *CONTROLS), ("of a control reaches",)),
    "clipped bytes": (
        lambda r: all_bytes(r) or change(lambda v: np.clip(v * 10.0, 0, 255).astype("u1"), *PATIENTS)(r),
        ("in every picture of a patient", "are saturated"),
    ),
    "clipped 16 bits": (
        lambda r: (
            change(lambda v: np.clip(v * 3000, 0, 65535).astype("u2"), *FOUR)(r)
            or change(lambda v: np.where(v > 30_000, v, v / 2).astype("u2"), *CONTROLS)(r)
            or change(lambda v: np.clip(v, 0, 50_000), *CONTROLS)(r)
        ),
        ("in every picture of a patient", "are saturated"),
    ),
}


@pytest.mark.parametrize("case", KINDS)
def test_kinds_that_tell_the_class_are_a_problem_until_all_are_alike(tmp_path, case):
    spoil, words = KINDS[case]
    root = fill(tmp_path / "data", counts)
    spoil(root)
    answer = check(root)
    assert answer.has("SDHA", *words), answer.problems
    for path in root.glob("*/*/SDHA.[jp]*"):
        path.unlink()
    fill(root, lambda seed: counts(seed + 70))  # exported again, all alike
    assert check(root).is_clean


SOURCES = ["bytes and counts", "counts and bytes", "JPEG and TIFF", "fractions and whole counts", "0 to 1 and counts"]


@pytest.mark.parametrize("intensity", [None, "percentiles", "none"])
@pytest.mark.parametrize("case", SOURCES)
def test_kinds_that_tell_the_class_are_not_converted_into_one_that_hides_it(tmp_path, case, intensity):
    root = fill(tmp_path / "data", counts)
    KINDS[case][0](root)
    assert "tell the class by the kind of file" in refusal(root, intensity=intensity)


def test_another_range_is_mended_by_a_stretch_and_by_no_fixed_scale(tmp_path):
    root = fill(tmp_path / "data", counts)
    KINDS["a hundredfold"][0](root)
    assert "reaches" in refusal(root, intensity="arcsinh") or "255 at" in refusal(root, intensity="arcsinh")
    assert check(convert(root)).is_clean


WAYS = [
    *(("percentiles", "arcsinh"), ("percentiles", "none"), ("percentiles", "top-percentile"), ("arcsinh", "none")),
    *(("top-percentile", "arcsinh"), ("top-percentile", "none"), ("none", "percentiles"), ("arcsinh", "percentiles")),
]


@pytest.mark.parametrize("level", [3, 20])
@pytest.mark.parametrize(("of_controls", "of_patients"), WAYS)
def test_classes_that_were_converted_otherwise_are_told_until_all_are_converted_alike(
    tmp_path, of_controls, of_patients, level
):
    root = fill(tmp_path / "data", lambda seed: counts(seed, level))
    for names, intensity in ((CONTROLS, of_controls), (PATIENTS, of_patients)):
        for name in names:
            pixels_yx = tifffile.imread(root / name / "SDHA.tif")
            write(tmp_path / "mixed" / name / "SDHA.tif", to_8_bit(pixels_yx, intensity))
    answer = check(tmp_path / "mixed")
    assert answer.has("SDHA", "picture of a"), answer.problems
    for intensity in {of_controls, of_patients}:
        assert check(convert(root, intensity, intensity=intensity)).is_clean


MIXED: dict[str, Callable[[Path], object]] = {  # kinds that say nothing of the class
    "bytes and counts in both": change(eight_bits, "Control/C01", "Patient/P01"),
    "JPEG and TIFF in both": lambda r: all_bytes(r) or as_jpeg(r, "Control/C01", "Patient/P01"),
    "fractions and whole counts in both": change(lambda v: v * 0.9, "Control/C02", "Patient/P01"),
    "one of four in bytes": change(eight_bits, "Patient/P01"),
    "one text export with fractions": lambda r: text_export(r / "Patient/P03.txt", gamma(7)[None]),
    "TIFF and PNG": lambda r: (
        all_bytes(r)
        or [Image.fromarray(tifffile.imread(r / name / "SDHA.tif")).save(r / name / "SDHA.png") for name in PATIENTS]
    ),
    "16 and 32 bits of whole counts": change(lambda v: v.astype("u2"), *PATIENTS),
    "files and a stack": lambda r: [
        (pages(r / f"{name}.ome.tif", [tifffile.imread(r / name / "SDHA.tif")], None, ["SDHA"]), _remove(r / name))
        for name in PATIENTS
    ],
    "a factor of three": change(lambda v: v * 3, *PATIENTS),
    "one picture with a hot pixel": change(lambda v: with_hot(v, 9e4), "Patient/P01"),
    "a hot pixel in each of one class": change(lambda v: with_hot(v, 9e4), *PATIENTS),
    "a little more white": lambda r: (
        all_bytes(r) or change(lambda v: np.where(v > np.percentile(v, 96), 255, v).astype("u1"), *PATIENTS)(r)
    ),
    "a channel that is sparse in one class": change(lambda v: np.where(rng(3).random(v.shape) < 0.02, v, 0), *CONTROLS),
}


def gamma(seed: int) -> np.ndarray:
    return rng(seed).gamma(2, 10, SHAPE).astype("f4")


def _remove(folder: Path) -> None:
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


@pytest.mark.parametrize("case", MIXED)
def test_kinds_that_do_not_tell_the_class_are_not_refused(tmp_path, case):
    root = fill(tmp_path / "data", counts)
    MIXED[case](root)
    answer = check(root)
    assert answer.is_clean, answer.problems
    if case == "a channel that is sparse in one class":  # which its stretch makes black and white: said, not refused
        assert any("as the networks would see it" in note for note in answer.notes)


def test_kinds_that_tell_a_little_are_a_note(tmp_path):
    names = tuple(f"{folder}{i}" for folder in ("Control/C", "Patient/P") for i in range(1, 7))
    root = fill(tmp_path / "data", counts, names)
    change(eight_bits, "Control/C1")(root)
    answer = check(root)
    assert answer.is_clean and any("different kinds (8 bit: C1; whole counts: C2" in note for note in answer.notes)
    change(eight_bits, *names[1:5], "Patient/P6")(root)  # five of six, and one of six: not always, but nearly
    assert check(root).has("different kinds in the two classes")


def test_a_reason_of_many_proteins_is_told_once(tmp_path):
    root = cohort(tmp_path / "data", proteins=("SDHA", "COX4", "VDAC1"))
    for path in root.glob("Patient/*/*.tif"):
        write(path, eight_bits(tifffile.imread(path)))
    answer = check(root)
    assert len(answer.problems) == 1 and answer.has("COX4, SDHA, VDAC1: pictures are of different kinds")


def test_what_is_shown_of_a_picture_is_what_it_holds(tmp_path):
    root = fill(tmp_path / "data", counts)
    write(root / "Patient/P01/SDHA.tif", np.where(greys(1) < 64, 255, greys(2) // 2).astype("u1"))
    found = survey(root, ["SDHA"])
    problems: list[CohortError] = []
    table = quality.as_table(quality.read(found.sections, problems, [])).set_index("section")
    wanted = tifffile.imread(root / "Patient/P01/SDHA.tif")
    assert not problems
    assert table.loc["P01", ["kind", "lowest", "highest", "saturated"]].tolist() == [
        *("8 bit", wanted.min(), 255, (wanted == 255).mean())
    ]
    assert table.loc["C01", ["kind", "saturated"]].tolist() == ["whole counts", 0]
