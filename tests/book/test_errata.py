"""The errata of the paper: complete, and with the numbers of its tables."""

from __future__ import annotations

import errata


def test_errata_are_complete_and_distinct():
    assert len(errata.ERRATA) >= 10
    assert len({erratum.claim for erratum in errata.ERRATA}) == len(errata.ERRATA)
    for erratum in errata.ERRATA:
        assert erratum.claim and erratum.where and erratum.problem.endswith("."), erratum
        assert any(word in erratum.where for word in ("ection", "Table", "Abstract", "Appendix")), erratum


def test_errata_quote_the_numbers_of_the_tables():
    text = " ".join(f"{erratum.claim} {erratum.problem}" for erratum in errata.ERRATA)
    for number in ("112", "122", "124", "64:16:20", "95.50%", "95.25%", "67%", "73.0%"):
        assert number in text, number


def test_the_page_shows_them_all(render):
    text, warnings = render("```{errata-table}\n```")
    assert not warnings and "64:16:20" in text
    assert all(" ".join(erratum.where.split()) in text for erratum in errata.ERRATA)
