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
    run = settings.read_parameters({"profile": "paper", "epochs": None, "views": 4})
    assert run == dataclasses.replace(settings.PROFILES["paper"], views=4)


def test_a_misspelt_parameter_is_an_error_that_names_the_right_one():
    with pytest.raises(ValueError, match=r"epoch;.*Did you mean epochs"):
        settings.read_parameters({"profile": "smoke", "epoch": 3})


def test_an_unknown_profile_is_an_error_that_lists_the_profiles():
    with pytest.raises(ValueError, match="smoke, quick, paper"):
        settings.read_parameters({"profile": "fast"})


def test_a_notebooks_own_names_are_no_parameters():
    namespace = {"In": [""], "Out": {}, "_i": "x", "get_ipython": print, "settings": settings, "stride_px": 224}
    assert settings.read_parameters({**namespace, "profile": "smoke"}, known=("stride_px",)).name == "smoke"


def test_the_paper_profile_is_the_published_protocol():
    paper = settings.PROFILES["paper"]
    assert (paper.scale, paper.epochs, paper.patience, paper.batch_size, paper.learning_rate) == (1, 100, 30, 2, 1e-3)
    assert paper.views == 0, "a new augmentation at every epoch"
