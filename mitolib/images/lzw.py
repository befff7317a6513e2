"""LZW streams as TIFF 6 defines them, looked over before they are decoded.

imagecodecs looks up the first code after a clear code in a table that is empty by then. Where a damaged file has a
number there that is no grey, it writes past its buffer and takes the process down, and no exception can be caught.
"""

from __future__ import annotations

import numpy as np

from mitolib.images.channel import Unfit

CLEAR, END, N_CODES = 256, 257, 4096  # the two codes that are no greys; what 12 bits can number
# The k-th code after a clear code is read when the table holds 257 + k entries; TIFF widens one entry early.
N_ENTRIES = CLEAR + 1 + np.arange(N_CODES - CLEAR)
WIDTHS = 9 + np.searchsorted([511, 1023, 2047], N_ENTRIES, side="right")
STARTS = np.concatenate([[0], np.cumsum(WIDTHS)])  # bits since the clear code
LONGEST = int(WIDTHS[-1])


def check(stream: bytes) -> None:
    """ValueError for a stream that is damaged where a decoder would trust it, Unfit for the older kind of LZW."""
    if stream[:1] == b"\0" and stream[1:2] and stream[1] & 1:  # codes from the other end of each byte
        raise Unfit("its LZW is of the kind before TIFF 6", "Save it with deflate or none.")
    data, start, n_bits = np.frombuffer(stream, np.uint8), 0, 8 * len(stream)
    while n_bits - start >= WIDTHS[0]:
        codes = _codes(data, start)
        if codes[0] > END:
            raise ValueError(f"damaged: its LZW stream has code {codes[0]} where only a grey can stand")
        (ends,) = np.nonzero((codes == CLEAR) | (codes == END))
        if not len(ends) or codes[ends[0]] == END:
            return  # a stream without an end is cut, or fuller than the table: a decoder stops there by itself
        start += int(STARTS[ends[0] + 1])


def _codes(data: np.ndarray, start: int) -> np.ndarray:
    """The codes from bit `start` on, as they are read if that is where the table was cleared."""
    first, shift = divmod(start, 8)
    bits = np.unpackbits(data[first : first + STARTS[-1] // 8 + 2])[shift:]
    n = np.searchsorted(STARTS, min(len(bits), STARTS[-1]), side="right") - 1
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(bits, (0, LONGEST)), LONGEST)[STARTS[:n]]
    return (windows @ (1 << np.arange(LONGEST)[::-1])) >> (LONGEST - WIDTHS[:n])
