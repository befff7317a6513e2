"""The diagrams show the numbers they are given, and every text has a place of its own."""

from __future__ import annotations

from itertools import combinations

import diagrams
import matplotlib.pyplot as plt
import numpy as np
import pytest
import toy
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch
from matplotlib.transforms import Bbox

from mitolib import paper, settings
from mitolib.figures import whitening

EXAMPLE = toy.gradcam(input_px=64, map_px=8, rng=np.random.default_rng(0))
SPLITS = {
    "one": {
        "train": {"control": 1201, "patient": 302},
        "validation": {"control": 43, "patient": 54},
        "test": {"control": 65, "patient": 76},
    },
    "two": {
        "train": {"control": 187, "patient": 298},
        "validation": {"control": 39, "patient": 41},
        "test": {"control": 52, "patient": 63},
    },
}


def sheet(name: str):
    return plt.subplots(figsize=diagrams.SIZES[name])[1]


def study(**changed):
    given = {
        "people": {"control": paper.CONTROLS, "patient": paper.PATIENTS},
        "proteins": settings.PROTEINS,
        "patch_px": paper.PATCH_PX,
        "input_px": paper.INPUT_PX,
        "splits": paper.SPLITS,
        "picture_yx": EXAMPLE.picture_yx,
        "heat_yx": EXAMPLE.heat_yx,
    }
    return diagrams.study(ax=sheet("study"), **given | changed)


def gradcam():
    return diagrams.gradcam(EXAMPLE, ax=sheet("gradcam"))


def whitened_network(**changed):
    return diagrams.whitened_network(ax=sheet("whitened_network"), **{"input_px": paper.INPUT_PX} | changed)


def cloud():
    points, group = toy.latent_points(rng=np.random.default_rng(0))
    return points, toy.whiten(points), group


def latent():
    points, whitened, group = cloud()
    fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), layout="constrained")
    whitening.latent({"before": points, "after": whitened}, group, axes=axes)
    return whitening.groups_key(fig=fig).axes[0]


def rotation():
    _, whitened, group = cloud()
    fig, axes = plt.subplots(1, 3, figsize=(8, 3.6), layout="constrained")
    whitening.rotation(whitened, toy.rotate(whitened, group), group, axes=axes)
    return whitening.groups_key(fig=fig).axes[0]


def package():
    wings = {"images": "files and folders", "people": "people, twins, fibres", "figures": "drawings"}
    core = ("bank", "cohort", "metrics", "settings")
    arrows = {
        ("chapters", "people"),
        ("chapters", "core"),
        ("people", "images"),
        ("people", "core"),
        ("core", "images"),
    }
    return diagrams.package(ax=sheet("package"), wings=wings, core=core, readers=["cohort"], arrows=arrows)


sheets = pytest.mark.parametrize("draw", [study, gradcam, whitened_network, package], ids=lambda draw: draw.__name__)
everything = pytest.mark.parametrize(
    "draw", [study, gradcam, whitened_network, package, latent, rotation], ids=lambda draw: draw.__name__
)


def drawn_texts(figure) -> list[plt.Text]:
    """All texts of a figure that can be seen: of its axes, their titles, labels and ticks, and of its key."""
    figure.canvas.draw()
    texts = [text for key in figure.legends for text in key.get_texts()]
    for ax in figure.axes:
        texts += [*ax.texts, ax.title]
        for axis, (low, high) in ((ax.xaxis, sorted(ax.get_xlim())), (ax.yaxis, sorted(ax.get_ylim()))):
            ticks = zip(axis.get_majorticklocs(), axis.get_ticklabels(), strict=True)
            texts += [axis.label, *(label for place, label in ticks if low <= place <= high)] if ax.axison else []
    return [text for text in texts if text.get_text().strip()]


def shown(ax) -> str:
    return " | ".join(text.get_text().replace("\n", " ") for text in ax.texts)


def common_area(a: Bbox, b: Bbox) -> float:
    both = Bbox.intersection(a, b)
    return both.width * both.height if both else 0.0


@everything
def test_no_two_texts_overlap_and_all_lie_on_the_page(draw):
    figure = draw().figure
    texts = drawn_texts(figure)
    places = [text.get_window_extent() for text in texts]
    assert len(texts) > 8 and min(text.get_fontsize() for text in texts) >= 8
    for text, place in zip(texts, places, strict=True):
        assert common_area(place, figure.bbox) == pytest.approx(place.width * place.height), text.get_text()
    for (first, a), (second, b) in combinations(zip(texts, places, strict=True), 2):
        assert common_area(a, b) < 1, f"{first.get_text()!r} overlaps {second.get_text()!r}"


@sheets
def test_text_stays_inside_its_box_and_off_the_pictures(draw):
    ax = draw()
    renderer = ax.figure.canvas.get_renderer()
    ax.figure.canvas.draw()
    boxes = [patch for patch in ax.patches if isinstance(patch, FancyBboxPatch)]
    inside = [text for text in ax.texts if text.get_gid()]
    assert len(boxes) == len(inside) > 0
    for box, text in zip(boxes, inside, strict=True):  # drawn in pairs
        assert box.get_gid() == text.get_gid()
        room, place = box.get_window_extent(renderer), text.get_window_extent(renderer)
        assert room.x0 < place.x0 and place.x1 < room.x1, text.get_text()
        assert room.y0 < place.y0 and place.y1 < room.y1, text.get_text()
    free = [text for text in ax.texts if not text.get_gid()]
    obstacles = [box.get_window_extent(renderer) for box in boxes]
    obstacles += [Bbox.from_extents(*picture.get_window_extent(renderer).extents) for picture in ax.images]
    for text in free:
        for obstacle in obstacles:
            assert common_area(text.get_window_extent(renderer), obstacle) < 1, text.get_text()


def test_the_study_shows_the_numbers_it_is_given():
    text = shown(study(people={"control": 3, "patient": 8}, proteins=("A", "B", "C"), patch_px=300, splits=SPLITS))
    for number in ("3 controls", "8 patients", "each in 3 proteins, 33 pictures", "300 x 300", "224 x 224"):
        assert number in text
    assert "1,741 patches" in text and "680 patches" in text, "sums of the two splits"
    for part in (part for split in SPLITS.values() for part in split.values()):
        assert all(str(count) in text.split(" | ") for count in part.values())
    assert "Experiment 1: A alone" in text and "all 3 proteins" in text and "VGG16, 3 ch." in text


def test_bars_of_the_study_are_as_long_as_the_counts():
    ax = study(splits=SPLITS)
    blue = [p for p in ax.patches if p.get_facecolor() == plt.matplotlib.colors.to_rgba("#0072B2")]
    counts = [part["control"] for split in SPLITS.values() for part in split.values()]
    widths = [patch.get_width() for patch in blue]
    np.testing.assert_allclose(np.array(widths) / widths[0], np.array(counts) / counts[0])


def test_the_published_counts_are_on_the_study():
    text = shown(study())
    for experiment, counts in paper.SPLITS.items():
        assert f"{paper.PRINTED_TOTALS[experiment]['total']:,} patches" in text
        assert str(counts["train"]["control"]) in text


def test_gradcam_shows_the_weights_of_the_example():
    text = shown(gradcam())
    for k, weight in enumerate(EXAMPLE.weights, 1):
        assert f"weight {k}: {weight:+.2f}".replace("-", "−") in text
    assert "64 x 64 px" in text and "from 8 x 8 to 64 x 64" in text


def test_gradcam_pictures_are_those_of_the_example():
    pictures = [image.get_array() for image in gradcam().images]
    for array_yx in (EXAMPLE.sum_yx, EXAMPLE.positive_yx, *EXAMPLE.maps_kyx, *EXAMPLE.gradients_kyx):
        assert any(picture.shape == array_yx.shape and np.array_equal(picture, array_yx) for picture in pictures)
    assert sum(np.array_equal(picture, EXAMPLE.heat_yx) for picture in pictures) == 2, "alone, and on the picture"


def test_the_network_ends_in_the_map_that_the_paper_gives():
    text = shown(whitened_network())
    assert "7 x 7, 512 maps map 1: “control” map 2: “patient”" in text, "section 3.5 of the paper"
    smaller = shown(whitened_network(input_px=128, concepts=("dark", "pale", "torn")))
    assert "4 x 4, 512 maps map 1: “dark” map 2: “pale” map 3: “torn”" in smaller


def test_only_the_last_of_the_eight_blocks_is_whitened():
    ax = whitened_network()
    boxes = [patch for patch in ax.patches if patch.get_gid() == "box block"]
    purple = plt.matplotlib.colors.to_rgba(diagrams.WHITENING)
    assert [patch.get_facecolor() == purple for patch in boxes] == [False] * 7 + [True]
    assert boxes[-1].get_x() == max(box.get_x() for box in boxes)


def test_the_package_has_a_box_for_each_module_and_an_arrow_for_each_call():
    ax = package()
    text = shown(ax)
    assert all(
        name in text for name in ("images", "people, twins,", "figures", "bank", "cohort", "metrics", "settings")
    )
    assert sum(isinstance(patch, FancyArrowPatch) for patch in ax.patches) == 5
    blue = plt.matplotlib.colors.to_rgba(diagrams.READER)
    readers = [patch.get_gid() for patch in ax.patches if patch.get_gid() and patch.get_facecolor() == blue]
    assert len(readers) == 2 and "images" in readers[0] and readers[1] == "box cohort"


def test_a_cloud_is_drawn_with_its_groups_its_spread_and_its_angle():
    points, whitened, group = cloud()
    axes = whitening.latent({"before": points, "after": whitened}, group, axes=plt.subplots(1, 2)[1])
    assert [ax.get_title() for ax in axes] == ["before", "after"]
    for ax, stage in zip(axes, (points, whitened), strict=True):
        clouds = [line.get_xydata() for line in ax.lines[:3]]
        for name, drawn in zip(reversed(whitening.GROUP_STYLES), clouds, strict=True):
            np.testing.assert_array_equal(drawn, stage[group == name])
        assert f"angle of the concepts {whitening.angle(stage, group):.0f}°" in ax.texts[0].get_text()
    circle = axes[1].patches[0]
    assert circle.width == pytest.approx(4) and circle.height == pytest.approx(4), "two standard deviations of one"
    assert "correlation +0.00" in axes[1].texts[0].get_text()


def test_an_ellipse_leans_as_its_points_do():
    x = np.random.default_rng(0).normal(size=200)
    points = np.stack([x, x + np.random.default_rng(1).normal(size=200) * 0.05], axis=1)
    group = np.array([*toy.CONCEPTS] * 100)
    (ax,) = whitening.latent({"slope": points}, group, axes=[plt.subplots()[1]])
    assert ax.patches[0].angle % 180 == pytest.approx(45, abs=2) and ax.patches[0].width > 10 * ax.patches[0].height


def test_boxes_of_the_rotation_are_the_values_on_the_first_axis():
    _, whitened, group = cloud()
    rotated = toy.rotate(whitened, group)
    axes = whitening.rotation(whitened, rotated, group, axes=plt.subplots(1, 3)[1])
    medians = sorted(
        (-line.get_ydata().mean(), line.get_xdata()[0])
        for line in axes[2].lines
        if line.get_color() == "black"
        and line.get_xdata()[0] == line.get_xdata()[1]
        and abs(np.diff(line.get_ydata())[0]) > 0.6
    )
    wanted = [np.median(points[group == name, 0]) for points in (whitened, rotated) for name in whitening.GROUP_STYLES]
    np.testing.assert_allclose([value for _, value in medians], wanted)
