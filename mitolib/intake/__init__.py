"""A data folder of your own: is it whole, what will a run cost, and the paper's 8-bit layout of it.

python -m mitolib check FOLDER                 reads all that a run would read and lists every problem
python -m mitolib convert FOLDER NEW_FOLDER    writes 8-bit TIFFs in the paper's layout

`examples` writes a small cohort in every format that is read.
"""

from mitolib.intake import examples
from mitolib.intake.checking import check, cost, report
from mitolib.intake.conversion import convert, pseudonyms

__all__ = ["check", "convert", "cost", "examples", "pseudonyms", "report"]
