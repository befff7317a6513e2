"""The table of what a GPU makes of the experiments: what was measured, or that nothing was."""

from __future__ import annotations

import json

PAGE = "```{gpu-table}\n:name: tab-gpu\n```"
MEASURED = {
    "device": "Model X",
    "backend": "torch 2",
    "precision": "bfloat16",
    "commit": "abc",
    "pass_ms": {"float32": 2.0, "TF32": 1.0},
    "minutes": {"exp1": {"naive": 600.0, "bank": 0.5, "heads": 11.5}},
    "times": {"exp1": 50.0},
    "heads_at_once": 3.5,
    "measured_minutes": {},
}


def test_without_a_measurement_the_page_says_so(render):
    text, warnings = render(PAGE)
    assert "Not measured yet." in text and not warnings


def test_a_measurement_is_shown_with_what_was_not_run(render, tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps(MEASURED))
    text, warnings = render(PAGE)
    assert "exp1 600 min 0.5 min 11.5 min 50 not run" in text and not warnings
    assert "Model X" in text and "2.00 ms in float32, 1.00 ms in TF32" in text and "3.5 times less" in text


def test_the_minutes_of_a_run_stand_beside_what_was_extrapolated(render, tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps(MEASURED | {"measured_minutes": {"exp1": 7.25}}))
    assert "50 7.2 min" in render(PAGE)[0]


def test_a_measurement_that_lacks_an_entry_is_a_warning(render, tmp_path):
    (tmp_path / "gpu.json").write_text(json.dumps({"minutes": {}}))
    assert "pass_ms" in render(PAGE)[1]
