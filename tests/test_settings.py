from __future__ import annotations

import dataclasses

import pytest

from mitolib import settings


def test_without_a_profile_it_is_quick(monkeypatch):
    monkeypatch.delenv("MITOLIB_PROFILE", raising=False)
    assert settings.read_parameters({"profile": None}) == settings.PROFILES["quick"]


def test_the_environment_names_the_profile_only_where_the_parameter_does_not(monkeypatch):
    monkeypatch.setenv("MITOLIB_PROFILE", "smoke")
    assert settings.read_parameters({"profile": None}).name == "smoke"
    assert settings.read_parameters({"profile": "paper"}).name == "paper"


def test_a_parameter_left_at_none_takes_the_profiles_value():
    run = settings.read_parameters({"profile": "paper", "epochs": None, "views": 3})
    assert run == dataclasses.replace(settings.PROFILES["paper"], views=3)


def test_a_misspelt_parameter_is_an_error_that_names_the_right_one():
    with pytest.raises(ValueError, match=r"epoch;.*Did you mean epochs"):
        settings.read_parameters({"profile": "smoke", "epoch": 3})


def test_a_cell_run_again_by_hand_does_not_take_later_variables_for_parameters():
    first = settings.read_parameters({"profile": "smoke"})
    assert settings.read_parameters({"profile": "smoke", "run": first, "later": 3}) == first


def test_an_unknown_profile_is_an_error_that_lists_the_profiles():
    with pytest.raises(ValueError, match="smoke, quick, paper"):
        settings.read_parameters({"profile": "fast"})


def test_a_notebooks_own_names_are_no_parameters():
    namespace = {"In": [""], "Out": {}, "_i": "x", "get_ipython": print, "settings": settings, "stride_px": 224}
    assert settings.read_parameters({**namespace, "profile": "smoke"}, known=("stride_px",)).name == "smoke"


def test_the_paper_profile_is_the_published_protocol():
    paper = settings.PROFILES["paper"]
    assert (paper.scale, paper.epochs, paper.patience, paper.batch_size, paper.learning_rate) == (1, 100, 30, 2, 1e-3)
    assert paper.views > 1, "0 is the literal loop, -p views 0; one view would be no augmentation between epochs"


def test_a_mirrored_file_is_found_in_a_subfolder_and_the_first_name_wins(monkeypatch, tmp_path):
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path))
    (tmp_path / "sub").mkdir()
    for name in ("a.h5", "b.h5"):
        (tmp_path / "sub" / name).touch()
    assert settings.mirrored("b.h5", "a.h5") == tmp_path / "sub" / "b.h5"
    assert settings.mirrored("c.h5") is None
    monkeypatch.delenv("MITOLIB_MIRROR")
    assert settings.mirrored("a.h5") is None


def test_a_mirror_that_is_no_folder_is_an_error(monkeypatch, tmp_path):
    monkeypatch.setenv("MITOLIB_MIRROR", str(tmp_path / "nowhere"))
    with pytest.raises(ValueError, match=r"nowhere: no such folder\. Correct or unset"):
        settings.mirrored("a.h5")
