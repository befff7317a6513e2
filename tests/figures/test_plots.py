from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.colors import to_hex, to_rgb, to_rgba

from mitolib import cohort, figures, patches
from mitolib.figures import style
from mitolib.metrics import Estimate


def texts(ax) -> list[str]:
    return [text.get_text() for text in ax.texts]


def test_the_confusion_matrix_shows_each_count_where_it_belongs():
    ax = figures.training.confusion([[3, 1], [0, 9]], ax=plt.subplots()[1])
    assert texts(ax) == ["3", "1", "0", "9"]
    assert (ax.get_ylabel(), ax.get_xlabel()) == ("truth", "predicted")


def test_the_curves_are_the_histories_and_the_first_stands_out():
    history = pd.DataFrame(
        {"accuracy": [0.5, 0.7], "loss": [1, 0.5], "val_accuracy": [0.4, 0.6], "val_loss": [1.1, 0.7]}, index=[1, 2]
    )
    shorter = history[:1] / 2
    axes = figures.training.curves([history, shorter], axes=plt.subplots(1, 2)[1], baseline=0.73)
    named = {line.get_label(): line for line in axes[0].lines if not line.get_label().startswith("_")}
    assert list(named["training"].get_ydata()) == [0.5, 0.7] and list(named["validation"].get_ydata()) == [0.4, 0.6]
    assert list(named["majority class"].get_ydata()) == [0.73, 0.73]
    others = [line for line in axes[0].lines if line.get_label().startswith("_")]
    assert [list(line.get_ydata()) for line in others] == [[0.25], [0.2]]
    assert all(line.get_linewidth() < named["training"].get_linewidth() for line in others)


def test_wrong_calls_are_named_wrong():
    rows = pd.DataFrame(
        {
            "subject": ["C01", "P01"],
            "label": ["control", "patient"],
            "p_patient": [0.9, 0.8],
            "predicted": ["patient", "patient"],
        }
    )
    axes = figures.training.predictions(np.zeros((2, 4, 4)), rows, axes=plt.subplots(1, 2)[1])
    assert texts(axes[0]) == ["control 0.10, patient 0.90:\nWRONG"]
    assert texts(axes[1]) == ["control 0.20, patient 0.80:\nright"]


def calls() -> pd.DataFrame:
    """Six controls, one of them missed, and four patients, all recognised."""
    labels = ["control"] * 6 + ["patient"] * 4
    return pd.DataFrame({"label": labels, "predicted": ["patient", *labels[1:]]}, index=range(20, 30))


def test_a_missed_patch_is_shown_even_if_it_is_the_only_one():
    shown = figures.training.right_and_wrong(calls(), 5, seed=1)
    assert 20 in shown.index and len(shown) == 5
    assert shown["label"].is_monotonic_increasing


def test_the_spread_is_mean_deviation_and_interval_and_one_seed_has_none():
    seeds = pd.DataFrame({"balanced_accuracy": [0.5, 0.6, 0.7], "epochs": [3.0, 5.0, 7.0]}, index=[127, 128, 129])
    shown = figures.training.spread(seeds)
    assert shown["balanced accuracy"].tolist() == ["0.50", "0.60", "0.70", "0.60", "0.10", "0.10 to 1.00"]
    assert shown["epochs"].tolist() == ["3", "5", "7", "5", "2", ""]
    alone = figures.training.spread(seeds[:1])["balanced accuracy"]
    assert alone[["standard deviation", "one further training"]].tolist() == ["one seed", "one seed"]


def test_depths_are_listed_with_their_rates():
    shared = {"confusion": [[1, 0], [0, 1]], "history": {}, "majority_baseline": 0.75, "epochs": 2, "trainable": 1234}
    models = {
        "block5_pool": {"trained": "head only", "learning_rate": 1e-3, "accuracy": 0.8, "balanced_accuracy": 0.5},
        "block4_pool-1e-05": {"trained": "block 5", "learning_rate": 1e-5, "accuracy": 0.7, "balanced_accuracy": 0.6},
    }
    html = figures.training.depths({key: entry | shared for key, entry in models.items()}).to_html()
    assert "1,234" in html and "head only" in html and "1e-05" in html and "confusion" not in html


def test_frozen_layers_are_drawn_by_stage_and_trained_ones_singly():
    summary = pd.DataFrame(
        {
            "layer": ["block1_conv1", "block1_conv2", "dense_8", "dense_4"],
            "output": ["4 x 4", "2 x 2", "8", "4"],
            "parameters": [10, 20, 30, 40],
            "trained": [False, False, True, True],
        }
    )
    ax = figures.training.layers(summary, ax=plt.subplots()[1])
    assert [label.get_text() for label in ax.get_yticklabels()] == ["block1", "dense_8", "dense_4"]
    assert [bar.get_width() for bar in ax.patches[:3]] == [30, 30, 40]
    assert ax.get_title(loc="left") == "70 of 100 parameters are trained"


def test_fibres_take_the_colour_of_their_class_and_data_without_truth_say_so():
    labels_yx = np.array([[0, 1], [2, 2]], np.uint16)
    ax = figures.cohort.deficiency((labels_yx, pd.Series(["none", "CI"], index=[1, 2])), ax=plt.subplots()[1])
    assert ax.images[0].get_array().tolist() == [[0, 1], [2, 2]]
    assert texts(ax) == ["CI 50%"], "the share of fibres, not of pixels"
    assert texts(figures.cohort.deficiency(None, ax=plt.subplots()[1])) == ["these data come without ground truth"]


def test_axes_left_over_in_a_gallery_are_blank():
    axes = figures.cohort.gallery({"one": np.zeros((2, 2))}, axes=plt.subplots(1, 2)[1])
    assert axes[0].get_title() == "one" and not axes[1].axison


def test_a_contact_sheet_has_rows_of_so_many_pictures_or_a_sentence():
    pictures = {str(i): np.zeros((2, 2)) for i in range(7)}
    assert figures.cohort.contact_sheet(pictures, columns=5) == ""
    assert [ax.get_title() for ax in plt.gcf().axes] == [*pictures, "", "", ""]
    plt.close()
    assert figures.cohort.contact_sheet({}, absent="none here") == "none here" and not plt.get_fignums()


def test_a_table_is_shown_or_a_sentence():
    rows = pd.DataFrame({"share": [0.5, np.nan]})
    styled = figures.cohort.table(rows, formats="{:.0%}", absent="none here")
    assert "50%" in (page := styled.to_html()) and "not measured" in page
    assert figures.cohort.table(rows, absent="none here") is rows
    assert figures.cohort.table(rows[:0], absent="none here").data == "none here"


def test_windows_of_a_section_are_of_the_same_place_in_each_protein(make_cohort):
    section = cohort.read_cohort(make_cohort({"Control": ["C01"], "Patient": ["P01"]}, ("SDHA", "COX4")), None)[0]
    windows = figures.cohort.windows(section, ("SDHA", "COX4"), size_px=100)
    for protein, window_yx in windows.items():
        np.testing.assert_array_equal(window_yx, section.image_yx(protein)[250:350, 87:187])


def test_deficient_fibres_of_data_without_truth_are_left_out_with_a_sentence(make_cohort):
    root = make_cohort(proteins=("SDHA",))
    assert "Left out" in figures.cohort.deficiency_maps(root, cohort.read_cohort(root, ["SDHA"]))
    assert not plt.get_fignums()


def test_augmented_examples_are_training_patches_of_both_ends_of_the_cohort(make_cohort, rng):
    root = make_cohort({"Control": ["C01", "C02"], "Patient": ["P01"]}, ("SDHA",))
    sections = cohort.read_cohort(root, ["SDHA"])
    rows = patches.grid(sections, size_px=256, stride_px=256)
    rows["tissue"], rows["split"] = 1.0, "train"
    rows.loc[rows["section"] == "C01", "split"] = "test"
    pictures = figures.cohort.augmented(rows, sections, "SDHA", stride_px=256, zoom=(0.8, 1.2), rng=rng, n_copies=1)
    assert list(pictures) == ["control, patch", "control, copy 1", "patient, patch", "patient, copy 1"]
    first = rows[rows["section"] == "C02"].iloc[[0]]
    np.testing.assert_array_equal(
        pictures["control, patch"], patches.load(first, sections, ["SDHA"], stride_px=256)[0, ..., 0]
    )


def test_every_patch_of_the_grid_is_outlined():
    rows = pd.DataFrame({"x": [0, 1, 2], "y": [0, 0, 0], "size": [2, 2, 2]})
    ax = figures.cohort.patch_grid(np.zeros((2, 4)), rows, ax=plt.subplots()[1])
    assert [(p.get_x(), p.get_width()) for p in ax.patches] == [(0, 2), (1, 2), (2, 2)]


def test_patches_are_moved_apart_and_show_twice_what_they_share():
    rows = pd.DataFrame({"x": [0, 12, 0, 12], "y": [0, 0, 12, 12], "size": 24})
    image_yx = np.arange(36 * 36).reshape(36, 36)
    sheet_yx = figures.cohort.patch_tiles(image_yx, rows, ax=plt.subplots()[1]).images[0].get_array()
    assert sheet_yx.shape == (52, 52) and (sheet_yx[24:26] == 255).all()
    np.testing.assert_array_equal(sheet_yx[:24, 26:50], image_yx[:24, 12:36])
    np.testing.assert_array_equal(sheet_yx[:24, 12:24], sheet_yx[:24, 26:38])


CALLS = pd.DataFrame(
    {"subject": ["C01", "P01"], "label": ["control", "patient"], "p_patient": [0.9, 0.8], "predicted": ["patient"] * 2}
)


def test_maps_of_both_classes_share_a_scale_and_the_overlay_is_of_the_class_predicted():
    maps = {"control": np.ones((2, 4, 4)), "patient": np.full((2, 4, 4), 3.0)}
    maps["control"][0] = 0
    masks = np.zeros((2, 4, 4), bool)
    masks[1, :2] = True
    axes = figures.saliency.explained(np.zeros((2, 4, 4)), maps, masks, CALLS, axes=plt.subplots(2, 4)[1])
    assert texts(axes[0, 0]) == ["p(patient) 0.90: WRONG"] and texts(axes[1, 0]) == ["p(patient) 0.80: right"]
    assert axes[0, 1].images[1].get_array().max() == 3 and axes[0, 1].images[1].get_cmap().name == "jet"
    assert all(ax.images[0].get_clim() == (0, 3) for ax in axes[:, 2:].flat)
    assert axes[0, 2].get_title() == "map for control: empty" and axes[1, 2].get_title() == "map for control"
    assert [len(ax.collections) for ax in axes[:, 0]] == [0, 1], "an outline where there is something to outline"


def test_the_map_gallery_has_a_row_for_each_method():
    maps = {"Grad-CAM": np.zeros((2, 4, 4)), "Sobel": np.ones((2, 4, 4))}
    fig = plt.figure(layout="constrained")
    (axes,) = figures.saliency.map_gallery(np.zeros((2, 4, 4)), maps, np.zeros((2, 4, 4), bool), fig=fig)
    assert [ax.get_ylabel() for ax in axes[:, 0]] == ["patch", "Grad-CAM", "Sobel"]
    assert axes[2, 1].images[0].get_array().min() == 1
    assert [texts(ax) for ax in axes[1:, 0]] == [["empty"], []], "a map without any value is no picture"


def test_a_gallery_of_few_patches_and_many_methods_has_two_blocks():
    maps = {f"method {i}": np.ones((3, 4, 4)) for i in range(5)}
    fig = plt.figure(layout="constrained")
    blocks = figures.saliency.map_gallery(np.zeros((3, 4, 4)), maps, np.zeros((3, 4, 4), bool), fig=fig)
    names = [[ax.get_ylabel() for ax in axes[:, 0]] for axes in blocks]
    assert names == [["patch", "method\n0", "method\n1", "method\n2"], ["patch", "method\n3", "method\n4", ""]]
    assert not blocks[1][3, 0].axison and fig.get_size_inches()[0] == figures.cohort.WIDTH_IN


def test_maps_of_several_methods_fall_each_to_its_own_mark():
    stages = ["trained", "head", "block1"]
    index = pd.MultiIndex.from_product([["guided", "LRP"], stages], names=["method", "stage"])
    likeness = pd.Series([1, 0.9, 0.4, 1, 0.1, 0.0], index)
    ax = figures.saliency.falls(likeness, {"guided": 0.2, "LRP": -0.1}, ax=plt.subplots()[1])
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines if not line.get_label().startswith("_")}
    assert lines == {"guided": [1, 0.9, 0.4], "LRP": [1, 0.1, 0.0]}
    marks = [list(line.get_ydata()) for line in ax.lines if len(line.get_xdata()) == 2]
    assert [0.2, 0.2] in marks and [-0.1, -0.1] in marks
    assert [label.get_text() for label in ax.get_xticklabels()] == [*stages, "another\npatch"]


def test_what_is_left_of_a_score_is_drawn_down_to_the_pixels():
    index = pd.MultiIndex.from_product([["LRP"], ["logits", "block1_conv1"]], names=["method", "layer"])
    ax = figures.saliency.handed_down(pd.Series([1.0, 0.3], index), ax=plt.subplots()[1])
    assert list(ax.lines[0].get_ydata()) == [1.0, 0.3]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["logits", "block1_conv1"]


def test_the_cascade_is_drawn_from_the_top_down_with_the_level_of_different_patches():
    index = pd.MultiIndex.from_product([[1, 2], ["trained", "dense"]], names=["seed", "stage"])
    falling = pd.DataFrame({"ssim": [1.0, 0.1, 1.0, 0.3], "spearman": [1.0, 0.3, 1.0, 0.3]}, index=index)
    ax = figures.saliency.cascade(falling, others={"ssim": 0.4, "spearman": 0.5}, ax=plt.subplots()[1])
    lines = {line.get_label(): list(line.get_ydata()) for line in ax.lines}
    assert [1, 0.1] in [list(line.get_ydata()) for line in ax.lines], "each seed has a line of its own"
    assert lines["SSIM"] == [1, 0.2] and lines["rank correlation, different patches"] == [0.5, 0.5]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["trained", "dense"]


def test_intervals_leave_out_what_has_no_value_and_draw_no_interval_that_is_none():
    scores = {
        "VGG16": {"Sobel": Estimate(2.0, (1.0, 3.0)), "marker": Estimate(None)},
        "ResNet50": {"Sobel": Estimate(1.5)},
    }
    ax = figures.estimates.intervals(scores, level=1, ax=plt.subplots()[1])
    shown = {line.get_label(): list(line.get_xdata()) for line in ax.lines}
    assert shown["VGG16"] == [2.0] and shown["ResNet50"] == [1.5]
    assert [label.get_text() for label in ax.get_yticklabels()] == ["Sobel", "marker"]
    ends = [segment[:, 0].tolist() for lines in ax.collections for segment in lines.get_segments()]
    assert ends == [[1, 3], [1.5, 1.5]]


def test_strata_have_a_dot_for_each_patch_and_a_bar_at_the_mean():
    scores = pd.DataFrame({"stratum": ["few", "few", "many"], "score": [1.0, 2, 3], "model": "VGG16"})
    ax = figures.saliency.strata(scores, ax=plt.subplots()[1])
    assert list(ax.lines[0].get_ydata()) == [1, 2, 3] and ax.lines[0].get_xdata().tolist() == [0, 0, 1]
    assert sorted(lines.get_segments()[0][0][1] for lines in ax.collections) == [1.5, 3]
    assert texts(figures.saliency.strata(scores[:0], ax=plt.subplots()[1])) == ["no patch with a deficient fibre"]


def test_strata_have_a_panel_for_the_share_and_one_for_the_size():
    scores = pd.DataFrame({"by share": ["under 15 %"], "by size": ["larger half"], "score": [2.0], "model": "VGG16"})
    axes = figures.saliency.strata_panels(scores, axes=plt.subplots(1, 2)[1])
    assert [ax.get_xticklabels()[0].get_text() for ax in axes] == ["under 15 %", "larger half"]
    assert all(ax.get_title() and list(ax.lines[0].get_ydata()) == [2] for ax in axes)


def test_restored_fibres_take_the_colour_of_their_effect_and_others_none():
    labels_yx = np.array([[0, 1], [2, 3]], np.uint16)
    fibres = pd.DataFrame({"fibre": [1, 2], "effect": [0.5, -2.0], "relevance": [0.1, 0.2]})
    axes = figures.saliency.restored(np.zeros((2, 2)), labels_yx, fibres, axes=plt.subplots(1, 3)[1], name="Grad-CAM")
    shown = axes[1].images[0]
    assert shown.get_clim() == (-2, 2)
    assert shown.get_array().filled(np.nan).tolist()[0][1] == 0.5 and shown.get_array().mask.tolist()[1] == [
        False,
        True,
    ]
    assert list(axes[2].lines[0].get_ydata()) == [0.5, -2]


def test_thumbnails_are_framed_in_the_colour_of_their_class_under_their_subject():
    rows = pd.DataFrame({"subject": ["P01", "C01"], "label": ["patient", "control"]})
    fig = figures.whitening.contact_sheet(np.stack([np.zeros((4, 4)), np.full((4, 4), 9)]), rows, fig=plt.figure())
    axes = fig.axes
    frames = [{spine.get_edgecolor() for spine in ax.spines.values()} for ax in axes[:2]]
    assert frames == [{to_rgba(style.LABEL_COLOURS[label])} for label in ("patient", "control")]
    assert [ax.get_title() for ax in axes] == ["P01", "C01", *[""] * (figures.whitening.PER_ROW - 2)]
    assert axes[1].images[0].get_array().max() == 9 and axes[1].images[0].get_clim() == (0, 255)
    assert not axes[2].axison and not axes[2].images, "left over"


def test_cosines_are_shown_as_numbers_on_a_scale_from_opposite_to_same():
    matrix = pd.DataFrame([[1.0, -0.5], [-0.5, 1.0]], index=["one", "two"], columns=["one", "two"])
    given = plt.subplots()[1]
    ax = figures.whitening.cosines(matrix, ax=given, title="arm A")
    assert ax is given and texts(ax) == ["1.00", "-0.50", "-0.50", "1.00"] and ax.get_title() == "arm A"
    assert ax.collections[0].get_clim() == (-1, 1)
    assert [label.get_text() for label in ax.get_xticklabels()] == ["one", "two"]


def dots(ax) -> list[tuple[float, float, str]]:
    """x, y and colour of every dot."""
    found = []
    for collection in ax.collections:
        colours = collection.get_facecolors()
        for i, (x, y) in enumerate(collection.get_offsets()):
            found.append((float(x), float(y), to_hex(colours[i % len(colours)]).upper()))
    return found


def test_paths_go_through_the_layers_in_order_in_the_panel_of_their_class():
    ways = {("patient", "a"): [(10, 20), (30, 50), (5, 95)], ("patient", "b"): [(0, 1), (2, 3), (4, 5)]}
    ways[("control", "a")] = [(60, 40), (70, 30), (90, 2)]
    table = pd.DataFrame(
        [
            (label, sample, layer, *point)
            for (label, sample), way in ways.items()
            for layer, point in zip(("early", "middle", "late"), way, strict=True)
        ],
        columns=["label", "sample", "layer", "control", "patient"],
    )
    given = plt.subplots(1, 2)[1]
    axes = figures.whitening.trajectories(table, axes=given)
    assert axes is given and [ax.get_title() for ax in axes] == ["patches of patients", "patches of controls"]
    shown = [[line.get_xydata().tolist() for line in ax.lines if line.get_marker() == "o"] for ax in axes]
    for lines, keys in zip(shown, ([("patient", "a"), ("patient", "b")], [("control", "a")]), strict=True):
        paths = [[list(point) for point in ways[key]] for key in keys]
        assert lines[::2] == paths and lines[1::2] == [path[:1] for path in paths], "and an open circle at the start"
    (arrow,) = axes[1].texts
    assert arrow.xy == ways["control", "a"][-1] and arrow.xyann == ways["control", "a"][-2]
    colours = [line.get_color() for line in axes[0].lines if line.get_marker() == "o"]
    assert len(set(colours[::2])) == 2 and colours[::2] == colours[1::2]
    assert axes[0].get_xlabel() == "rank on the axis of control, %"
    assert axes[1].get_ylabel() == "rank on the axis of patient, %"


def test_each_kind_of_picture_has_a_panel_with_the_detectors_of_every_concept():
    found = {name: Estimate(0.1 * i, (0.0, 0.2 * i)) for i, name in enumerate(figures.whitening.DETECTORS, start=1)}
    by_concept = {"large fibres": found, "genotype": found}
    aucs = {"SDHA": by_concept, "composite": by_concept}
    panels = figures.whitening.detectors(aucs, fig=plt.figure()).axes
    assert [ax.get_xlabel().split(", ")[1] for ax in panels] == ["SDHA", "composite"]
    assert [label.get_text() for label in panels[0].get_yticklabels()] == ["large fibres", "genotype"]
    legend = [text.get_text() for text in panels[0].get_legend().get_texts()]
    assert legend == list(figures.whitening.DETECTORS)


def test_a_covered_section_is_coloured_by_what_lies_under_it():
    covered = np.array([[0, 1], [2, 3]], np.uint8)
    ax = figures.people.covered(np.zeros((120, 130), np.uint8), covered, 50, ax=plt.figure().subplots(), title="P01")
    overlay = ax.images[1]
    colours = overlay.cmap(overlay.norm(np.array(overlay.get_array())))
    for (y, x), name in {(0, 1): "training patches", (1, 0): "test patches", (1, 1): "both"}.items():
        np.testing.assert_allclose(colours[y, x, :3], to_rgb(style.COVERED[name]), atol=0.01)
    assert colours[0, 0, 3] == 0, "what no patch covers stays as it is"
    assert list(overlay.get_extent()) == [0, 100, 100, 0] and ax.get_xlim() == (0, 130) and ax.get_ylim() == (120, 0)
    fig = figures.people.covered_key(fig=ax.figure)
    assert [text.get_text() for text in fig.legends[0].get_texts()] == list(style.COVERED)


def test_shared_pixels_are_counted_as_shares_of_the_test_patches():
    ax = figures.people.shared(
        {"one": pd.Series([0.99, 0.98, 0.5, 0.0]), "two": pd.Series([1.0])}, ax=plt.figure().subplots()
    )
    bars = [(round(bar.get_x(), 2), bar.get_height()) for bar in ax.patches if bar.get_height() > 0]
    assert sorted(bars) == [(0.0, 0.25), (0.5, 0.25), (0.95, 0.5), (0.95, 1.0)]


def test_a_subject_and_its_twin_are_joined_in_the_colour_of_its_class():
    effects = pd.DataFrame({"label": ["control", "patient"], "before": [0.1, 0.9], "after": [0.7, 0.2]})
    ax = figures.people.twins(effects, ax=plt.figure().subplots(), title="VGG16")
    drawn = {line.get_color(): list(line.get_ydata()) for line in ax.lines if line.get_marker() == "o"}
    assert drawn == {style.LABEL_COLOURS["control"]: [0.1, 0.7], style.LABEL_COLOURS["patient"]: [0.9, 0.2]}


def test_precision_has_a_band_for_each_share():
    table = pd.DataFrame({"share": [0.9, 0.9, 1, 1], "n": [10, 100, 10, 100], "low": [0.5, 0.8, 0.7, 0.9], "high": 1.0})
    ax = figures.people.precision_by_size(table, ax=plt.figure().subplots())
    assert [text.get_text() for text in ax.get_legend().get_texts()] == ["90% right", "100% right"]
    assert [list(line.get_ydata()) for line in ax.lines] == [[0.5, 0.8], [0.7, 0.9]]
    assert [label.get_text() for label in ax.get_xticklabels()] == ["10", "20", "50", "100"]
