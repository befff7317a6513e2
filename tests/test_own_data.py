"""A new user's evening: sections of a laboratory go through every chapter, and each page says what it leaves out."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import execute
import nbformat
import numpy as np
import papermill
import pytest
import tifffile
from nbclient import NotebookClient

from mitolib import own_data, records
from mitolib.images import CohortError

PROTEINS = ("COX4", "VDAC1", "NDUFB8")  # of another panel than the paper's: no SDHA, no dystrophin
ISOTOPES = ("168Er", "166Er", "160Gd")
HEIGHT, WIDTH = 96, 160  # with patches of 96 px every 64 px: two patches a section
CHAPTERS = [chapter for chapter in execute.CHAPTERS if chapter in own_data.CHAPTERS]


def acquisition(number: int, image_cyx: np.ndarray, start: int) -> tuple[bytes, str]:
    """Bytes of one acquisition of an .mcd, and what its tables say of it."""
    n_channels, height_px, width_px = image_cyx.shape
    y, x = (places.ravel() for places in np.mgrid[:height_px, :width_px])
    table = np.column_stack([x, y, np.zeros(x.size), image_cyx.reshape(n_channels, -1).T])
    data = table.astype("<f4").tobytes()

    def element(name: str, **children: object) -> str:
        return f"<{name}>" + "".join(f"<{key}>{value}</{key}>" for key, value in children.items()) + f"</{name}>"

    names = [("X", "X"), ("Y", "Y"), ("Z", "Z")]
    names += [(f"{i[3:]}({i[:3]})", f"{i}_{p}") for i, p in zip(ISOTOPES, PROTEINS, strict=True)]
    sizes = {"MaxX": width_px, "MaxY": height_px, "ValueBytes": 4}
    offsets = {"DataStartOffset": start, "DataEndOffset": start + len(data)}
    text = element("AcquisitionROI", ID=number, PanoramaID=1)
    text += element("Acquisition", ID=number, AcquisitionROIID=number, **sizes, **offsets)
    text += "".join(
        element("AcquisitionChannel", AcquisitionID=number, OrderNumber=order, ChannelName=name, ChannelLabel=label)
        for order, (name, label) in enumerate(names)
    )
    return data, text


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Two people of each class: files of the instrument, stacks, single pictures, and what lies about beside them."""
    root, rng = tmp_path_factory.mktemp("freezer") / "from the freezer", np.random.default_rng(0)

    def counts(shape: tuple[int, int] = (HEIGHT, WIDTH)) -> np.ndarray:
        return rng.poisson(30, (len(PROTEINS), *shape)).astype(np.float32)

    for name in ("Control/Anna", "Patient/Dora"):
        (root / name).mkdir(parents=True)
        for isotope, protein, image_yx in zip(ISOTOPES, PROTEINS, counts(), strict=True):
            tifffile.imwrite(root / name / f"{isotope}_{isotope} {protein}.tiff", image_yx)
    labels = [f"{isotope}_{protein}" for isotope, protein in zip(ISOTOPES, PROTEINS, strict=True)]
    tifffile.imwrite(root / "Control/Bo.ome.tiff", counts(), metadata={"axes": "CYX", "Channel": {"Name": labels}})
    whole, told = acquisition(1, counts(), 64)
    trial, of_trial = acquisition(2, counts((20, 30)), 64 + len(whole))
    tables = "<MCDSchema><Slide><ID>0</ID></Slide><Panorama><ID>1</ID><SlideID>0</SlideID><Type>Default</Type>"
    tables += f"</Panorama>{told}{of_trial}</MCDSchema>"
    (root / "Patient/Carl.mcd").write_bytes(bytes(64) + whole + trial + tables.encode("utf-16-le"))
    (root / "Patient/Thumbs.db").write_bytes(b"\0")
    (root / "Patient/Dora/Results.txt").write_text(" \tArea\tMean\n1\t210\t13.5\n")
    return root


PARAMETERS = {"profile": "smoke", "protein": "COX4", "proteins": ",".join(PROTEINS)}
PARAMETERS |= {"methods": "saliency", "trunk_steps": 3, "tail_steps": 3}
GRIDS = {chapter: {"patch_px": HEIGHT, "stride_px": 64} for chapter in CHAPTERS}
for chapter in ("concept_whitening", "real_concepts"):  # a covariance of 512 channels takes more patches
    GRIDS[chapter] = {"patch_px": 48, "stride_px": 32}


@pytest.fixture(scope="module")
def pages(folder, tmp_path_factory) -> dict[str, list[nbformat.NotebookNode]]:
    """Chapter -> its cells, executed on the folder. One kernel runs all: most of a chapter's time are its imports."""
    out, cells, chapter_of = tmp_path_factory.mktemp("pages"), [], []
    for chapter in CHAPTERS:
        path = execute.NOTEBOOKS / f"{chapter}.ipynb"
        taken = papermill.inspect_notebook(str(path))
        values = {name: value for name, value in (PARAMETERS | GRIDS[chapter]).items() if name in taken}
        values |= {"data": str(folder), "results": str(out / "results")}
        notebook = papermill.parameterize.parameterize_notebook(papermill.iorw.load_notebook_node(str(path)), values)
        of_chapter = [cell for cell in notebook.cells if cell.cell_type == "code"]
        of_chapter.append(nbformat.v4.new_code_cell("%reset -f"))
        cells += of_chapter
        chapter_of += [chapter] * len(of_chapter)
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    book = nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    NotebookClient(book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(out)}}).execute()
    pages = {chapter: [] for chapter in CHAPTERS}
    for chapter, cell in zip(chapter_of, book.cells, strict=True):
        pages[chapter].append(cell)
    pages["results"] = out / "results"
    return pages


def shown(cells: list[nbformat.NotebookNode]) -> str:
    """All text that the cells of a chapter show."""
    texts = []
    for output in (output for cell in cells for output in cell.outputs):
        data = output.get("data", {})
        texts += [data.get("text/markdown", "") or data.get("text/plain", ""), output.get("text", "")]
    return "\n".join(texts)


@pytest.mark.parametrize("chapter", CHAPTERS)
def test_a_chapter_runs_on_data_of_ones_own_and_says_what_it_leaves_out(chapter, pages, folder):
    page, record = shown(pages[chapter]), records.read(pages["results"], chapter)
    assert f"your own, from the folder {folder.name}" in page and "Data of your own" in page
    assert record["provenance"]["data"]["name"] == folder.name and record["provenance"]["data"]["sections"] == 4
    needs = own_data.CHAPTERS[chapter]
    assert all(f"- {part}" in page for part in needs.own)
    for part, proteins in needs.parts.items():
        assert (f"- {part}: no image of" in page) == (not set(proteins) <= set(PROTEINS))
    for part in needs.parts_by_people:
        assert f"- {part}: 2 people in the smaller class" in page
    assert "Carl_002: 20 x 30 px, smaller than a patch" in page
    assert not re.search(r"\bnan\b", page), "an empty score is left out, not shown"


@pytest.mark.parametrize("chapter", [chapter for chapter in CHAPTERS if chapter != "data_engineering"])
def test_nobody_who_is_tested_was_trained_on(chapter, pages):
    page = shown(pages[chapter])
    assert "Nobody who is tested was trained on" in page or chapter == "patient_level"  # which compares the splits
    for score in ("0.95", "0.87", "0.67"):  # of the paper
        assert not re.search(rf"paper.*{re.escape(score)}", page)


def test_the_check_says_of_each_chapter_what_the_chapter_then_does(folder, pages):
    for patch_px, stride_px in {tuple(grid.values()) for grid in GRIDS.values()}:
        words = ["--protein", "COX4", "--proteins", ",".join(PROTEINS)]
        words += ["--patch-px", str(patch_px), "--stride-px", str(stride_px)]
        command = [sys.executable, "-m", "mitolib", "check", str(folder), *words]
        report = subprocess.run(command, capture_output=True, text=True)
        assert report.returncode == 0, report.stdout + report.stderr
        assert "Nothing to mend: 2 controls and 2 patients" in report.stdout
        for chapter in (chapter for chapter in CHAPTERS if GRIDS[chapter]["patch_px"] == patch_px):
            line = re.search(rf"^  {chapter}: runs( without .*)?$", report.stdout, re.M)
            assert line, report.stdout
            left_out = [
                part for part in re.findall(r"^- (.*)$", shown(pages[chapter]), re.M) if part in (line[1] or "")
            ]
            assert bool(left_out) == bool(line[1])


def test_the_check_refuses_what_a_chapter_has_too_few_patches_for(folder):
    words = ["--protein", "COX4", "--patch-px", str(HEIGHT), "--stride-px", "64"]
    command = [sys.executable, "-m", "mitolib", "check", str(folder), *words]
    report = subprocess.run(command, capture_output=True, text=True)
    assert re.search(r"concept_whitening: refuses, .*2 patches .*wanted 11", report.stdout)


def test_a_page_of_ones_own_can_be_rendered_and_names_no_folder_of_the_machine(pages, folder, tmp_path):
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = nbformat.v4.new_notebook(cells=pages["exp1"], metadata={"kernelspec": kernel})
    nbformat.write(notebook, tmp_path / "out.ipynb")
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "--no-input", "out.ipynb"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    page = (tmp_path / "out.html").read_text()
    assert "balanced accuracy" in page and "<img" in page and str(folder.parent) not in page


@pytest.mark.parametrize("chapter", CHAPTERS)
@pytest.mark.parametrize(
    ("data", "finding"), [("''", "data is empty"), ("2024", "data is 2024, a number"), ("'nowhere'", "no such folder")]
)
def test_every_chapter_refuses_what_is_no_folder_before_anything_is_drawn(chapter, data, finding, tmp_path):
    """The cell that reads the parameters, and no other, in a process that has loaded nothing else."""
    notebook = nbformat.read(execute.NOTEBOOKS / f"{chapter}.ipynb", 4)
    (cell,) = (cell for cell in notebook.cells if "settings.read_parameters(" in cell.source)
    (parameters,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    assert "own_data.folder(data)" in cell.source
    namespace: dict[str, object] = {}
    exec(parameters.source + f"\ndata = {data}\nresults = {json.dumps(str(tmp_path))}", namespace)
    from mitolib import settings

    own = {"settings": settings, "own_data": own_data, "display": print, "Markdown": str}
    own |= {"records": records, "files": records}
    with pytest.raises(ValueError, match=re.escape(finding)):
        exec(cell.source, namespace | own)
    assert list(tmp_path.iterdir()) == []


def test_a_page_warns_of_what_tells_the_classes_apart_beside_the_disease(tmp_path):
    rng = np.random.default_rng(0)
    for name, dtype in {"Control/A": "f4", "Control/B": "f4", "Patient/C": "u1", "Patient/D": "u1"}.items():
        (tmp_path / name).mkdir(parents=True)
        tifffile.imwrite(tmp_path / name / "SDHA.tif", rng.poisson(20, (HEIGHT, WIDTH)).astype(dtype))
    read = {"own": True, "patch_px": HEIGHT, "stride_px": 64}
    used = own_data.read("exp1", tmp_path, **read)
    assert "of different kinds in the two classes" in used.note
    (tmp_path / "Control/B/SDHA.tif").write_bytes((tmp_path / "Control/A/SDHA.tif").read_bytes())
    with pytest.raises(CohortError, match=r"hold the same pixels"):
        own_data.read("exp1", tmp_path, **read)
