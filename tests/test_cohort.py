from __future__ import annotations

import numpy as np
import pytest
import tifffile
from PIL import Image

from mitolib import cohort
from mitolib.images import CohortError
from mitolib.settings import PROTEINS


def test_controls_come_first_and_channels_keep_the_papers_order(make_cohort):
    sections = cohort.read_cohort(make_cohort({"Patient": ["A"], "Control": ["Z"]}))
    assert [s.section for s in sections] == ["Z", "A"]
    stack_yxc = sections[0].stack_yxc()
    assert stack_yxc.shape == (600, 700, 10)
    assert all((stack_yxc[..., c] == sections[0].image_yx(p)).all() for c, p in enumerate(PROTEINS))


def test_a_tiff_wins_over_a_jpeg_and_a_jpeg_alone_is_read(make_cohort):
    root = make_cohort(proteins=("SDHA",))
    for folder in (root / "Control" / "C01", root / "Patient" / "P01"):
        Image.fromarray(np.full((600, 700), 9, np.uint8)).save(folder / "SDHA.jpg")
    (root / "Patient" / "P01" / "SDHA.tif").unlink()
    control, patient, _ = cohort.read_cohort(root, ["SDHA"])
    assert control.channels["SDHA"].path.suffix == ".tif"
    assert (patient.image_yx("SDHA") == 9).all()


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_every_common_compression_is_read_to_the_same_pixels(make_cohort, compression):
    root = make_cohort({"Control": ["C01"]}, proteins=("SDHA",))
    pixels = cohort.read_cohort(root, ["SDHA"])[0].image_yx("SDHA")
    Image.fromarray(pixels).save(root / "Control" / "C01" / "SDHA.tif", compression=compression)
    np.testing.assert_array_equal(cohort.read_cohort(root, ["SDHA"])[0].image_yx("SDHA"), pixels)


def test_the_labs_spellings_are_understood(make_cohort):
    root = make_cohort({"Control": ["C"]}, proteins=("COX4+4L2", "UqCRC2", "NDUFA13", "TOMM22"))
    wanted = ["TOM22", "GRIM19", "COX4", "UQCRC2"]
    assert list(cohort.read_cohort(root, wanted)[0].channels) == wanted


def test_a_subject_is_what_cohort_csv_declares(make_cohort):
    root = make_cohort({"Control": ["C03", "C03-2"], "Patient": ["P01"]}, proteins=("SDHA",))
    (root / "cohort.csv").write_text(
        "section,subject,label,genotype\nC03,C03,control,-\nC03-2,C03,control,-\nP01,P01,patient,MT-TG\n"
    )
    sections = cohort.read_cohort(root, ["SDHA"])
    assert [s.subject for s in sections] == ["C03", "C03", "P01"]
    assert cohort.table(sections)["genotype"].tolist() == ["-", "-", "MT-TG"]


def test_the_digest_changes_with_any_picture(make_cohort):
    root = make_cohort(proteins=("SDHA",))
    before = cohort.digest(cohort.read_cohort(root, ["SDHA"]), ["SDHA"])
    tifffile.imwrite(root / "Patient" / "P02" / "SDHA.tif", np.zeros((600, 700), np.uint8))
    assert cohort.digest(cohort.read_cohort(root, ["SDHA"]), ["SDHA"]) != before


def remove_folder(root):
    return root / "nowhere", "nowhere: no such folder"


def remove_protein(root):
    (root / "Patient" / "P02" / "COX4.tif").unlink()
    return root, r"P02: no image of COX4; found Dystrophin"


def change_shape(root):
    tifffile.imwrite(root / "Control" / "C01" / "OSCP.tif", np.zeros((600, 701), np.uint8))
    return root, r"OSCP\.tif: 600 x 701 .*SDHA\.tif .*600 x 700"


def truncate(root):
    path = root / "Control" / "C01" / "SDHA.tif"
    path.write_bytes(path.read_bytes()[:-1000])
    return root, r"SDHA.tif: cannot be read .*truncated"


def not_a_tiff(root):
    (root / "Control" / "C01" / "SDHA.tif").write_text("no picture")
    return root, r"SDHA.tif: cannot be read"


def colour(root):
    tifffile.imwrite(root / "Control" / "C01" / "SDHA.tif", np.zeros((600, 700, 3), np.uint8), photometric="rgb")
    return root, r"SDHA.tif: .*one greyscale page"


def unknown_class(root):
    (root / "Carrier").mkdir()
    return root, r"Carrier: not a class folder"


def empty(root):
    for folder in root.iterdir():
        folder.rename(root.parent / folder.name)
    return root, r"holds no section"


def same_name_twice(root):
    (root / "Control" / "C01").rename(root / "Control" / "P01")
    return root, r"section P01 is there twice"


def undeclared(root):
    (root / "cohort.csv").write_text("section,subject,label\nC01,C01,control\nP01,P01,patient\n")
    return root, r"section P02 is not in cohort.csv"


def contradicted(root):
    (root / "cohort.csv").write_text("section,subject,label\nC01,C01,patient\nP01,P01,patient\nP02,P02,patient\n")
    return root, r"C01: .*control folder.*cohort\.csv says patient"


def no_column(root):
    (root / "cohort.csv").write_text("section,label\nC01,control\n")
    return root, r"cohort.csv: no column subject"


@pytest.mark.parametrize(
    "spoil",
    [
        remove_folder,
        remove_protein,
        change_shape,
        truncate,
        not_a_tiff,
        colour,
        unknown_class,
        empty,
        same_name_twice,
        undeclared,
        contradicted,
        no_column,
    ],
)
def test_bad_input_is_refused_before_a_pixel_is_read(make_cohort, spoil):
    root, message = spoil(make_cohort())
    with pytest.raises(CohortError, match=message):
        cohort.read_cohort(root)


def test_a_picture_that_is_whole_in_its_header_but_damaged_inside_is_refused_when_read(make_cohort):
    root = make_cohort({"Control": ["C01"]})
    path = root / "Control" / "C01" / "SDHA.tif"
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2 :] = bytes(len(damaged) - len(damaged) // 2)
    path.write_bytes(damaged)
    with pytest.raises(CohortError, match=r"SDHA.tif: cannot be decoded"):
        cohort.read_cohort(root)[0].image_yx("SDHA")


def test_counts_are_kept_and_stretched_only_for_the_picture(make_cohort, rng):
    root = make_cohort({"Control": ["C01"]})
    counts = rng.gamma(1, 900, (600, 700)).astype(np.uint16)
    tifffile.imwrite(root / "Control" / "C01" / "SDHA.tif", counts)
    section = cohort.read_cohort(root)[0]
    np.testing.assert_array_equal(section.raw_yx("SDHA"), counts)
    low, high = np.percentile(counts, (5, 95))
    np.testing.assert_array_equal(
        section.image_yx("SDHA"), np.clip(np.rint((counts - low) / (high - low) * 255), 0, 255).astype(np.uint8)
    )


def test_a_folder_without_truth_has_none(make_cohort):
    assert cohort.read_truth(make_cohort(), "C01") is None
