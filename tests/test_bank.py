from __future__ import annotations

import subprocess
import sys
import textwrap
import threading
import time

import keras
import numpy as np
import pytest

from mitolib import bank, settings
from mitolib.bank import Bank, BankError


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(bank, "FOLDER", tmp_path / "features")
    monkeypatch.setattr(bank, "CHUNK", 16)
    return tmp_path / "features"


def halve(factor: float = 0.5) -> keras.Model:
    """Scales its input, so that a feature tells which picture it came from."""
    x = keras.Input((4, 4, 1))
    return keras.Model(
        x, keras.layers.DepthwiseConv2D(1, use_bias=False, depthwise_initializer=keras.initializers.Constant(factor))(x)
    )


@pytest.fixture
def numbered() -> np.ndarray:
    """(40, 4, 4, 1) uint8: picture i is full of i."""
    return np.repeat(np.arange(40, dtype=np.uint8), 16).reshape(40, 4, 4, 1)


def as_float(patches_nhwc: np.ndarray) -> np.ndarray:
    return patches_nhwc.astype(np.float32)


def brighten(patches_nhwc: np.ndarray, *, rng: np.random.Generator) -> np.ndarray:
    return patches_nhwc + rng.integers(1, 50, (len(patches_nhwc), 1, 1, 1), dtype=np.uint8)


def test_features_keep_the_order_of_the_patches_across_chunks(numbered):
    stored = Bank(halve(), numbered, prepare=as_float, label="test")
    np.testing.assert_array_equal(stored.all()[:, 0, 0, 0], np.arange(40) / 2)
    np.testing.assert_array_equal(stored.read(np.array([39, 0, 17]))[:, 0, 0, 0], [19.5, 0, 8.5])
    assert stored.all().dtype == np.float16


def test_each_epoch_reads_the_next_view_and_begins_again(numbered):
    source = bank.source(
        halve(), numbered, augment=brighten, prepare=as_float, views=3, seed=1, rows=np.arange(40), label="test"
    )
    rows = np.arange(40)
    epochs = [source(epoch, rows) for epoch in range(4)]
    assert (epochs[0] == epochs[3]).all()
    assert (epochs[0] != epochs[1]).any() and (epochs[1] != epochs[2]).any()


def test_without_views_every_call_augments_anew_and_nothing_is_kept(numbered, folder):
    source = bank.source(
        halve(), numbered, rows=np.arange(40), augment=brighten, prepare=as_float, views=0, seed=1, label="test"
    )
    rows = np.arange(40)
    assert (source(0, rows) != source(0, rows)).any()
    assert not folder.exists()


def test_a_second_bank_of_the_same_inputs_computes_nothing(numbered, monkeypatch):
    first = Bank(halve(), numbered, prepare=as_float, label="test").all()
    monkeypatch.setattr(bank, "compiled", lambda backbone: pytest.fail("computed again"))
    np.testing.assert_array_equal(Bank(halve(), numbered, prepare=as_float, label="test").all(), first)


@pytest.mark.parametrize("changed", ["pixels", "weights", "seed", "augmentation", "preparation"])
def test_a_changed_input_never_meets_an_old_feature(numbered, changed):
    other_pixels = numbered.copy()
    other_pixels[39, 3, 3] += 1

    def other(patches_nhwc, *, rng):
        return patches_nhwc + rng.integers(1, 60, (len(patches_nhwc), 1, 1, 1), dtype=np.uint8)

    inputs = {"backbone": halve(), "patches_nhwc": numbered, "augment": brighten, "seed": 1, "prepare": as_float}
    changes = {
        "pixels": {"patches_nhwc": other_pixels},
        "weights": {"backbone": halve(0.25)},
        "seed": {"seed": 2},
        "augmentation": {"augment": other},
        "preparation": {"prepare": lambda patches_nhwc: as_float(patches_nhwc) / 255},
    }
    banks = [Bank(**kwargs, label="test") for kwargs in (inputs, inputs | changes[changed])]
    assert banks[0].folder != banks[1].folder


def test_a_killed_run_resumes_where_it_was_and_ends_with_the_same_features(numbered, folder):
    script = textwrap.dedent(
        f"""
        import os, signal, sys
        sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
        from pathlib import Path
        import numpy as np
        import test_bank as t
        from mitolib import bank, settings
        bank.FOLDER, bank.CHUNK = Path({str(folder)!r}), 16
        write, written = bank.Bank._write, []
        def die_at_the_second(self, *args):
            if written:
                os.kill(os.getpid(), signal.SIGKILL)
            written.append(write(self, *args))
        bank.Bank._write = die_at_the_second
        pictures = np.repeat(np.arange(40, dtype=np.uint8), 16).reshape(40, 4, 4, 1)
        bank.Bank(t.halve(), pictures, augment=t.brighten, seed=3, prepare=t.as_float, label="test")
        """
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True).returncode == -9
    (left,) = folder.rglob("*.npy")
    before = left.stat().st_mtime_ns
    resumed = Bank(halve(), numbered, augment=brighten, seed=3, prepare=as_float, label="test")
    assert left.parent == resumed.folder and left.stat().st_mtime_ns == before, "the whole chunk was kept"
    bank.FOLDER = folder.parent / "unbroken"
    unbroken = Bank(halve(), numbered, augment=brighten, seed=3, prepare=as_float, label="test")
    np.testing.assert_array_equal(resumed.all(), unbroken.all())


def test_two_runs_at_once_agree(numbered):
    banks: list[np.ndarray] = []

    def build() -> None:
        banks.append(Bank(halve(), numbered, prepare=as_float, label="test").all())

    threads = [threading.Thread(target=build) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    np.testing.assert_array_equal(*banks)
    np.testing.assert_array_equal(banks[0][:, 0, 0, 0], np.arange(40) / 2)


def test_a_disk_that_is_too_small_is_an_error_before_anything_is_computed(numbered, monkeypatch, folder):
    monkeypatch.setattr(bank.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 10}))
    with pytest.raises(BankError, match=r"needs 0\.00 GB, 0\.00 GB .*make clean-cache"):
        Bank(halve(), numbered, prepare=as_float, label="test")
    assert not list(folder.rglob("*.npy"))


def test_a_disk_that_fills_up_leaves_no_half_chunk(numbered, monkeypatch, folder):
    def full(path, array):
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(bank.np, "save", full)
    with pytest.raises(BankError, match=r"\.npy: .*\(No space left on device\)"):
        Bank(halve(), numbered, prepare=as_float, label="test")
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_features_that_do_not_fit_are_an_error(numbered):
    with np.errstate(over="ignore"), pytest.raises(FloatingPointError, match="test: features beyond"):
        Bank(halve(1e6), numbered, prepare=as_float, label="test")


def test_bfloat16_features_are_those_of_float32_within_a_hundredth(rng, monkeypatch):
    backbone = keras.applications.VGG16(include_top=False, weights=None)
    x = rng.random((2, 224, 224, 3), np.float32)
    found = {}
    for dtype in ("bfloat16", "float32"):
        monkeypatch.setattr(bank, "precision", lambda dtype=dtype: dtype)
        found[dtype] = bank.compiled(backbone)(x)
        assert found[dtype].dtype == np.float32
    difference = np.abs(found["bfloat16"] - found["float32"]).mean()
    assert 0 < difference < 0.01 * np.abs(found["float32"]).mean()


def test_a_processor_without_the_instructions_is_not_measured(monkeypatch, tmp_path):
    from mitolib.whitening import fitting

    (tmp_path / "cpuinfo").write_text("flags\t\t: sse2 avx2 fma\n")
    monkeypatch.setattr(settings, "CPUINFO", tmp_path / "cpuinfo")
    monkeypatch.setattr(bank.backend, "gpu", lambda: None)
    monkeypatch.setattr(time, "perf_counter", lambda: pytest.fail("the clock decides"))
    assert [module.precision.__wrapped__() for module in (bank, fitting)] == ["float32", "float32"]
    (tmp_path / "cpuinfo").write_text("flags\t\t: avx512_bf16\n")
    assert settings.processor_has_bfloat16()


def test_the_precision_is_one_of_two_and_stays(monkeypatch):
    assert bank.precision() in {"bfloat16", "float32"}
    monkeypatch.setattr(bank.backend, "compiled", lambda *given: pytest.fail("measured again"))
    bank.precision()


def test_only_the_rows_asked_for_are_banked_in_their_order(numbered):
    rows = np.array([30, 2, 11])
    stored = Bank(halve(), numbered, rows=rows, prepare=as_float, label="test")
    np.testing.assert_array_equal(stored.all()[:, 0, 0, 0], rows / 2)
    assert stored.folder == Bank(halve(), numbered[rows], prepare=as_float, label="test").folder


def held_megabytes(folder, n: int) -> float:
    """Memory, files mapped into it left out, of a process that has built and read a bank of n mapped pictures."""
    script = textwrap.dedent(
        f"""
        import sys
        sys.path.insert(0, {str(__file__.rsplit("/", 1)[0])!r})
        from pathlib import Path
        import keras, numpy as np
        import test_bank as t
        from mitolib import bank, settings
        bank.FOLDER = Path({str(folder)!r})
        path = Path({str(folder)!r}) / "pixels.npy"
        path.parent.mkdir(parents=True)
        pixels = np.lib.format.open_memmap(path, "w+", np.uint8, ({n}, 64, 64, 3))
        x = keras.Input((64, 64, 3))
        backbone = keras.Model(x, keras.layers.AveragePooling2D(4)(x))
        stored = bank.Bank(backbone, pixels, augment=t.brighten, prepare=t.as_float, views=2, label="test")
        for start in range(0, {n}, 8):
            stored.read(np.arange(start, min(start + 8, {n})), view=1)
        kilobytes = [l.split()[1] for l in open("/proc/self/status") if l.startswith("RssAnon")]
        print("held", int(kilobytes[0]) / 1e3)
        """
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(done.stdout.split("held")[1])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_does_not_grow_with_the_cohort(tmp_path):
    small, large = (held_megabytes(tmp_path / str(n), n) for n in (500, 20_000))  # 6 and 246 MB of pixels
    # What a process holds varies by tens of megabytes from run to run; a copy of the pixels would be seen.
    assert large - small < 60, f"{small:.0f} MB for 500 patches, {large:.0f} MB for 20,000"


def test_a_cache_that_cannot_be_made_is_an_error(numbered, folder):
    folder.write_text("in the way")
    with pytest.raises(BankError, match=r"cannot be made .* writable"):
        Bank(halve(), numbered, prepare=as_float, label="test")
