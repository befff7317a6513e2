from __future__ import annotations

import numpy as np
import pytest
import tifffile

from mitolib import cohort
from mitolib.images import Channel, CohortError, names
from mitolib.images.panel import Panel
from mitolib.settings import PROTEINS

PROTEIN = {  # what a channel is called, and what is meant
    **{protein: protein for protein in PROTEINS},
    **{"160Gd_NDUFB8": "NDUFB8", "153Eu_153Eu SDHA": "SDHA", "NDUFB8(Gd160)": "NDUFB8", "NDUFB8(Gd160Di)": "NDUFB8"},
    **{"Gd160-NDUFB8": "NDUFB8", "NDUFB8 [160Gd]": "NDUFB8", "168Er_Cox4": "COX4", "COX4+4L2": "COX4"},
    **{"mt-co1": "MTCO1", "172Yb_MT-CO1": "MTCO1", "UqCRC2": "UQCRC2", "174Yb_UqCRC2": "UQCRC2", "  sdha ": "SDHA"},
    **{
        "TOMM20": "TOM22",
        "Tom22": "TOM22",
        "NDUFA13": "GRIM19",
        "GRIM-19": "GRIM19",
        "VDAC": "VDAC1",
        "DYS": "Dystrophin",
    },
    # Proteins that are none of the ten stay themselves; what looks like an isotope and is none is a protein too.
    **{"Laminin": "Laminin", "149Sm_HLA-DR": "HLA-DR", "Cd163": "Cd163", "Cd31(Eu151)": "Cd31", "γH2AX": "γH2AX"},
    **{"SDHA2": "SDHA2", "SDHA_mask": "SDHA mask", "160Gd": "160Gd", "Ir191": "Ir191", "80ArAr": "80ArAr"},
}


@pytest.mark.parametrize("label", PROTEIN)
def test_the_fields_spellings_are_understood(label):
    assert names.protein(label) == PROTEIN[label]


@pytest.mark.parametrize(("one", "other"), [("α-SMA", "SMA"), ("β", "γ"), ("SDHA", "SDHB"), ("IL-1", "IL-11")])
def test_two_proteins_are_not_taken_for_one(one, other):
    assert names.plain(one) != names.plain(other)


@pytest.mark.parametrize(
    ("one", "other"), [("MT-CO1", "mtco1"), ("γH2AX", "ΓH2AX"), ("Größe", "GRO\u0308SSE"), ("µ", "μ")]
)
def test_two_spellings_are_taken_for_one(one, other):
    assert names.plain(one) == names.plain(other)


def channel(tmp_path, label, metal=None, index=0):
    return Channel(tmp_path / "a.tif", label, metal, 1, 1, index)


STEINBOCK = "channel,name,keep,ilastik,deepcell,cellpose\nEu153,SDHA,1,1,,\nGd160,NDUFB8,0,,,\nYb176,Dystrophin,1,,,\n"
PIPELINE = "Tube Number,Metal Tag,Target,ilastik,full\n1,Eu153,SDHA,0,1\n2,Gd160,NDUFB8,1,0\n,Yb176,Dystrophin,1,1\n"
PANELS = {
    "steinbock": STEINBOCK,
    "ImcSegmentationPipeline": PIPELINE,
    "with a byte order mark": "\ufeff" + STEINBOCK,
    "with Windows line ends": STEINBOCK.replace("\n", "\r\n"),
    "isotopes as MCD Viewer has them": STEINBOCK.replace("Eu153", "153Eu").replace("Gd160", "160Gd"),
    "with semicolons": STEINBOCK.replace(",", ";"),
    "with tabs": STEINBOCK.replace(",", "\t"),
    "with a line that names the separator": "sep=;\n" + STEINBOCK.replace(",", ";"),
    "with spaces and capitals": STEINBOCK.replace(",", " , ").replace("channel", "Channel"),
    "keep as software with gaps writes it": STEINBOCK.replace("SDHA,1", "SDHA,1.0").replace("NDUFB8,0", "NDUFB8,0.0"),
    "keep as words": STEINBOCK.replace("SDHA,1", "SDHA,TRUE").replace("NDUFB8,0", "NDUFB8,FALSE"),
    "rows that end early": STEINBOCK.replace(",,,\n", "\n"),
}


@pytest.mark.parametrize("form", PANELS)
def test_every_form_of_panel_names_keeps_and_drops_the_same_channels(tmp_path, form):
    (tmp_path / "panel.csv").write_bytes(PANELS[form].encode())
    found = Panel.read(tmp_path / "panel.csv")
    assert found.protein(channel(tmp_path, "anything", "153Eu"), 3) == "SDHA"
    assert found.protein(channel(tmp_path, "anything", "160Gd"), 3) is None
    assert found.protein(channel(tmp_path, "no isotope"), 3) == "no isotope"
    # In a stack without names the kept rows count, in their order.
    nameless = [found.protein(channel(tmp_path, None, index=index), 2) for index in (0, 1)]
    assert nameless == ["SDHA", "Dystrophin"]
    with pytest.raises(CohortError, match=r"a\.tif: 3 channels .*panel\.csv keeps 2\b"):
        found.protein(channel(tmp_path, None), 3)


def test_a_panel_names_channels_by_their_names_too(tmp_path):
    (tmp_path / "panel.csv").write_text("channel,name\nstain A,SDHA\n,NDUFB8\nDNA1,\n")
    found = Panel.read(tmp_path / "panel.csv")
    labels = ["Stain_A", "NDUFB8", "dna-1", "???"]
    assert [found.protein(channel(tmp_path, label), 4) for label in labels] == ["SDHA", "NDUFB8", "dna-1", "???"]


BAD_PANELS = {
    "no name": ("channel,keep\nEu153,1\n", "columns channel, keep; .*channel .* name .*Rename"),
    "an isotope twice": ("channel,name\nEu153,SDHA\n153Eu,COX4\n", "channel 153Eu stands twice"),
    "a name twice": ("channel,name\nMT-CO1,SDHA\nmtco1,COX4\n", "channel mtco1 stands twice"),
    "keep is a word": ("channel,name,keep\nEu153,SDHA,maybe\n", "keep is maybe .*Write 1"),
    "a cell too many": (
        "channel,name\nEu153,SDHA,1\nGd160,NDUFB8,1\n",
        "cannot be read .*row 2 has 3.*Remove",
    ),
    "a ragged row": ("channel,name\nEu153,SDHA\nGd160,NDUFB8,1,1\n", "cannot be read .*row 3 has 4.*Remove"),
    "empty": ("", "cannot be read as a table.*Save it"),
}


@pytest.mark.parametrize("panel_csv", BAD_PANELS)
def test_a_bad_panel_is_one_clear_error(tmp_path, panel_csv):
    text, message = BAD_PANELS[panel_csv]
    (tmp_path / "panel.csv").write_text(text)
    with pytest.raises(CohortError, match=rf"(?s)panel\.csv: {message}"):
        Panel.read(tmp_path / "panel.csv")


@pytest.mark.parametrize("labels", [["160Gd_SDHA", "161Dy_SDHA"], ["SDHA(Gd160)", "SDHA(Dy161)"]])
def test_one_marker_on_two_isotopes_is_an_error_that_names_both(tmp_path, labels):
    (tmp_path / "Control").mkdir()
    image_cyx = np.zeros((2, 4, 5), np.uint8)
    tifffile.imwrite(tmp_path / "Control" / "a.tif", image_cyx, imagej=True, metadata={"axes": "CYX", "Labels": labels})
    with pytest.raises(CohortError) as caught:
        cohort.read_cohort(tmp_path, ["SDHA"])
    assert all(label in str(caught.value) for label in labels) and "set keep to 0" in str(caught.value)
    kept, dropped = (names.metal(label.replace("SDHA", "").strip("_()")) for label in labels)
    (tmp_path / "panel.csv").write_text(f"channel,name,keep\n{kept},SDHA,1\n{dropped},SDHA,0\n")
    assert cohort.read_cohort(tmp_path, ["SDHA"])[0].channels["SDHA"].metal == kept


def test_an_isotope_that_stands_beside_the_label_is_named_too(tmp_path):
    (tmp_path / "Control").mkdir()
    header = "Start_push\tEnd_push\tPushes_duration\tX\tY\tZ\tSDHA(Gd160Di)\tSDHA(Dy161Di)"
    (tmp_path / "Control" / "a.txt").write_text(f"{header}\n0\t1\t1\t0\t0\t0\t5\t6\n")
    with pytest.raises(CohortError, match=r"a\.txt \(SDHA, 160Gd\) .*a\.txt \(SDHA, 161Dy\) .*both"):
        cohort.read_cohort(tmp_path, ["SDHA"])
