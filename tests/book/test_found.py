"""The picture on the first page: the numbers of the result files, in both shapes and in words."""

from __future__ import annotations

import base64
import json

import drawings
import found

from mitolib import paper

VGG16 = {"accuracy": 0.875, "balanced_accuracy": 0.85, "majority_baseline": 0.75}
BRIEF = {"patch_accuracy": 0.9, "balanced_accuracy": 0.8, "ci": {"balanced_accuracy": [0.7, 0.9]}}
UNSEEN = {"patch_accuracy": 0.7, "balanced_accuracy": 0.6, "ci": {"balanced_accuracy": None}}
RECORDS = {name: {"models": {"VGG16": VGG16}} for name in ("exp1", "exp2")} | {
    "patient_level": {
        "by_model": {head: {"published": BRIEF, found.UNSEEN: UNSEEN} for _, head in found.PANELS.values()},
    }
}


def test_the_first_picture_holds_the_numbers_of_the_result_files(tmp_path):
    panels = found.compared(RECORDS, vars(paper))
    one = panels["one protein"]
    assert [row["value"] for row in one] == [paper.SCORES["exp1"]["VGG16"]["accuracy"], 0.85, 0.8, 0.6]
    assert [row["interval"] for row in one] == [None, None, [0.7, 0.9], None]
    assert [row["baseline"] for row in one] == [paper.MAJORITY_BASELINE["exp1"], 0.5, 0.5, 0.5]
    words = found.in_words(panels)
    assert words.count("0.80 (0.70 to 0.90) beside 0.50") == 2 and words.count("0.60 beside 0.50") == 2
    for stacked in (True, False):
        files = []
        for _ in range(2):
            drawings.save(found.draw(panels, stacked=stacked), tmp_path / "found.svg")
            files.append((tmp_path / "found.svg").read_bytes())
        assert files[0] == files[1], "the same numbers give the same file"


def page(*alts: str) -> dict:
    """An executed chapter with a picture for each text; the picture holds its text."""
    images = [f'<img src="data:image/webp;base64,{base64.b64encode(a.encode()).decode()}" alt="{a}">' for a in alts]
    return {"cells": [{"source": ""}, *({"outputs": [{"data": {"text/html": [image]}}, {}]} for image in images)]}


def layers(who: str, called: str = "patient") -> list[str]:
    return [f"patch; {who}", f"map for {called}; {who}", f"deficient fibres; {who}"]


MIXED = "NDUFB8 red, VDAC1 green, Dystrophin blue, in section P05"
SURE, UNSURE = "P01, a patient: p(patient) 0.98, right", "P02, a patient: p(patient) 0.61, right"
CONTROL = "C01, a control: p(patient) 0.02, right"


def test_the_strip_shows_the_patch_of_a_patient_of_which_the_network_is_surest():
    missed = layers("P03, a patient: p(patient) 0.20, wrong", "control")
    strip = list(found.tissue(page(*layers(CONTROL, "control"), *layers(UNSURE), *missed, MIXED, *layers(SURE))))
    assert [picture.decode() for _, _, picture in strip] == [MIXED, *layers(SURE)]
    assert all("P01, called a patient with p = 0.98" in alt for _, alt, _ in strip[1:])


def test_a_patch_without_a_map_or_without_truth_is_not_shown():
    empty = [f"patch; {SURE}", f"map for patient (empty); {SURE}", f"deficient fibres; {SURE}"]
    assert [picture.decode() for _, _, picture in found.tissue(page(*empty, *layers(UNSURE)))] == layers(UNSURE)
    without_truth = layers(SURE)[:2]
    assert [alt for _, alt, _ in found.tissue(page(MIXED, *without_truth))] == [
        "Muscle fibres of section P05: NDUFB8 red, VDAC1 green, Dystrophin blue"
    ]
    assert list(found.tissue(page())) == []


def test_the_strip_is_in_the_site_and_without_its_chapter_there_is_none(render, tmp_path):
    _, warnings = render("# Title\n\n```{tissue-strip}\n```")
    assert not warnings and "mito-strip" not in (tmp_path / "out/index.html").read_text()
    (tmp_path / "chapters").mkdir()
    (tmp_path / found.LOOK).write_text(json.dumps(page(MIXED, *layers(SURE))))
    render("# Title\n\n```{tissue-strip}\n```")
    html = (tmp_path / "out/index.html").read_text()
    assert html.count("mito-strip") == 1 and html.count("called a patient with p = 0.98") == 3
    assert len(list((tmp_path / "out/_images").iterdir())) == 4


def test_several_trainings_are_shown_by_their_mean_and_where_one_more_would_lie():
    further = {"balanced_accuracy": {"value": 0.7, "ci": [0.4, 1.0], "n": 5, "left_out": None}}
    records = RECORDS | {"exp1": {"models": {"VGG16": VGG16 | {"further_training": further}}}}
    long = found.compared(records, vars(paper))["one protein"][1]
    assert (long["value"], long["interval"]) == (0.7, [0.4, 1.0])


def test_the_first_picture_is_in_the_site_in_both_shapes_with_its_words(render, tmp_path):
    page = "```{found-figure}\n:name: fig-found\n\nA caption.\n```"
    _, warnings = render(page, **RECORDS)
    out = tmp_path / "out"
    html = (out / "index.html").read_text()
    assert not warnings and html.count('alt="Dots with intervals') == 2
    assert {path.name for path in (out / "_images").iterdir()} == {"found-wide.svg", "found-narrow.svg"}


def test_without_a_result_file_the_page_says_so_and_shows_no_picture(render):
    text, warnings = render("```{found-figure}\nCaption.\n```", exp1=RECORDS["exp1"])
    assert warnings.count("WARNING") == 1 and "results/exp2.json" in warnings and "[not available:" in text
