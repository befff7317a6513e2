"""Arithmetic that does not depend on the processor, and a phantom that does not."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.core._multiarray_umath import __cpu_dispatch__, __cpu_features__
from scipy import ndimage as ndi
from scipy import special, stats

from mitolib import cohort, settings
from mitolib.phantom import exact, pixels
from mitolib.phantom.draw import make_phantom
from mitolib.phantom.geometry import smooth_noise

DRAW = "import sys; from mitolib.phantom.draw import make_phantom; make_phantom(sys.argv[1], scale=0.1, workers=1)"


def of_another_processor() -> dict[str, str]:
    """Environment in which numpy, glibc, OpenBLAS and libjpeg-turbo compute as on a processor of 2008.

    A name that glibc does not know it ignores; one that numpy does not find here it refuses.
    """
    present = [name for name in __cpu_dispatch__ if __cpu_features__[name]]
    return {
        "NPY_DISABLE_CPU_FEATURES": " ".join(present),
        "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA,-AVX2_Usable,-FMA_Usable,-AVX512F,-AVX512VL",
        "OPENBLAS_CORETYPE": "Nehalem",
        "JSIMD_FORCENONE": "1",
    }


def published_digests() -> dict[float, str]:
    """Scale -> digest of the pictures, as the page on running the book states it."""
    text = (settings.ROOT / "book" / "running.md").read_text(encoding="utf-8")
    return {float(scale): digest for scale, digest in re.findall(r"\| `\w+` \| ([\d.]+) \| `(\w{64})` \|", text)}


def files(root: Path, below: str) -> dict[str, str]:
    found = sorted(path for path in (root / below).rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in found}


def test_the_digests_on_the_page_are_of_profiles():
    text = (settings.ROOT / "book" / "running.md").read_text(encoding="utf-8")
    named = re.findall(r"\| `(\w+)` \| ([\d.]+) \| `\w{64}` \|", text)
    assert "smoke" in dict(named)
    assert all(settings.PROFILES[name].scale == float(scale) for name, scale in named)


def test_another_processor_draws_the_published_pictures_and_the_same_files(tmp_path):
    other = tmp_path / "other"
    subprocess.run(
        [sys.executable, "-c", DRAW, str(other)],
        cwd=settings.ROOT,
        env=os.environ | of_another_processor(),
        check=True,
        capture_output=True,
    )
    assert cohort.digest(cohort.read_cohort(other)) == published_digests()[0.1]

    calibration = json.loads(settings.CALIBRATION.read_text())
    calibration["subjects"] = [s for s in calibration["subjects"] if s["subject"] in ("C03", "P05")]
    few = tmp_path / "cohort.json"
    few.write_text(json.dumps(calibration))
    here = make_phantom(tmp_path / "here", scale=0.1, calibration=few)
    own = {name: digest for name, digest in files(here, "").items() if re.search(r"C03|P05", name)}
    assert len(own) == 2 * 21 and own.items() <= files(other, "").items()
    rows = (here / "truth" / "fibres.csv").read_text().splitlines()
    assert set(rows) <= set((other / "truth" / "fibres.csv").read_text().splitlines())


@pytest.mark.parametrize("error", [-1, 1])
@pytest.mark.parametrize(
    ("module", "function", "table", "relative"),
    [
        (np, "exp", exact.exp_table, 1e-14),
        (np, "log1p", exact.softplus_table, 1e-11),
        (np, "sin", exact.sine_table, 1e-11),
        (special, "ndtri", exact.normal_table, 1e-11),
        (stats.nbinom, "cdf", pixels.quantiles, 1e-11),
    ],
    ids=["exp", "softplus", "sine", "normal", "counts"],
)
def test_no_error_of_a_library_moves_an_entry_of_a_table(monkeypatch, module, function, table, relative, error):
    """C libraries err by some 1e-16 of a value, scipy by some 1e-14: far less than what is tried here."""
    wanted, true = table(), getattr(module, function)
    monkeypatch.setattr(module, function, lambda *values: true(*values) * (1 + error * relative))
    np.testing.assert_array_equal(table.__wrapped__(), wanted)


@pytest.mark.parametrize("error", [-1e-13, 1e-13])
def test_no_error_of_a_library_moves_a_weight(monkeypatch, error):
    """The widths that the phantom uses; that of `smooth_noise` is 2 but for its own last bit."""
    widths = (0.6, 0.8, 1.2, 1.5, 2.0, np.nextafter(2.0, 3), np.nextafter(2.0, 1), 7.0)
    wanted, true = [exact._weights(width) for width in widths], math.exp
    monkeypatch.setattr(math, "exp", lambda x: true(x) * (1 + error * (x < 0)))
    for width, weights in zip(widths, wanted, strict=True):
        np.testing.assert_array_equal(exact._weights(width), weights)
    np.testing.assert_array_equal(wanted[4], wanted[5])
    np.testing.assert_array_equal(wanted[4], wanted[6])


def test_exp_and_log_are_right_to_a_step_and_inverse_to_each_other():
    x = np.linspace(-19, 15, 20_001)
    np.testing.assert_allclose(exact.exp(x), np.exp(x), rtol=0.6 / exact.STEPS)
    np.testing.assert_allclose(exact.log(np.exp(x)), x, atol=1.1 / exact.STEPS)
    steps = np.arange(-1000, 1000) / exact.STEPS
    np.testing.assert_array_equal(exact.log(exact.exp(steps)), steps)
    assert exact.exp(np.array([-400.0, 66.0])).tolist() == exact.exp(np.array([-20.0, 16.0])).tolist()


def test_softplus_sine_and_cosine_are_right_to_a_step():
    x = np.linspace(0, 20, 5001).reshape(-1, 3)
    np.testing.assert_allclose(exact.softplus(x), np.log1p(np.exp(-x)), atol=6e-4)
    angle = np.linspace(-6, 6, 5001)
    np.testing.assert_allclose(exact.sine(angle), np.sin(angle), atol=6e-4)
    np.testing.assert_allclose(exact.cosine(angle), np.cos(angle), atol=6e-4)


def test_a_long_field_is_looked_up_like_its_parts():
    x = np.linspace(-3, 3, 3 * exact.BLOCK + 5, dtype=np.float32)
    np.testing.assert_array_equal(exact.exp(x)[-10:], exact.exp(x[-10:]))


def test_normal_numbers_are_normal():
    drawn = exact.normal(np.random.default_rng(1), (1000, 200))
    assert drawn.dtype == np.float32 and stats.kstest(drawn.ravel(), "norm").pvalue > 0.01
    assert drawn.mean() == pytest.approx(0, abs=0.01) and drawn.std() == pytest.approx(1, abs=0.01)


def test_smoothing_is_a_gaussian_filter_whose_sums_are_exact():
    noise = exact.normal(np.random.default_rng(2), (60, 70))
    smooth = exact.smooth(noise, (0.8, 7), "reflect")
    np.testing.assert_allclose(smooth, ndi.gaussian_filter(noise.astype(float), (0.8, 7), mode="reflect"), atol=1e-3)
    np.testing.assert_array_equal(smooth * 2.0**48, np.rint(smooth * 2.0**48))  # no bit was rounded off
    backwards = exact.smooth(noise[::-1, ::-1], (0.8, 7), "reflect")[::-1, ::-1]
    np.testing.assert_array_equal(smooth, backwards)
    assert exact.deviation_after((1.5, 7.0)) == pytest.approx(1 / math.sqrt(4 * math.pi * 1.5 * 7), rel=0.02)


def test_standardised_numbers_have_mean_0_and_deviation_1():
    values = np.random.default_rng(3).normal(1, 2, 5000).clip(-7, 7)
    np.testing.assert_allclose(exact.standardised(values), (values - values.mean()) / values.std(), atol=1e-4)
    assert exact.standardised(np.array([])).size == 0 and not exact.standardised(np.full(9, 3.25)).any()


def test_a_smooth_field_is_standardised_however_small_the_section():
    for shape, length_px in (((300, 300), 600), ((900, 700), 60), ((400, 2000), 12)):
        field = smooth_noise(shape, length_px, np.random.default_rng(5))
        assert field.shape == shape and abs(field.mean()) < 1 and 0.4 < field.std() < 1.3 and np.abs(field).max() < 6


def test_correlated_numbers_have_the_covariance_asked_for():
    subject = json.loads(settings.CALIBRATION.read_text())["subjects"][4]
    covariance = np.array(subject["log_cov"])
    lower = exact.root(covariance)
    assert not np.triu(lower, 1).any()
    np.testing.assert_allclose(lower @ lower.T, covariance, atol=2e-4)  # a table of four digits is nearly one
    deviate = exact.normal(np.random.default_rng(4), (50_000, 8)).astype(float)
    np.testing.assert_allclose(np.cov(exact.correlated(deviate, covariance).T), covariance, atol=0.01)


def test_a_variance_that_rounding_made_negative_counts_as_none():
    np.testing.assert_array_equal(exact.root([[1, 1], [1, 0.9999]]), [[1, 0], [1, 0]])
