"""LZW streams: whole ones pass to the last code, damaged ones never reach the decoder that they would bring down."""

from __future__ import annotations

import io
import struct

import imagecodecs
import numpy as np
import pytest
import tifffile

from mitolib.images import formats, lzw
from mitolib.images.channel import CohortError, Unfit


def packed(*codes: int) -> bytes:
    """Codes of nine bits each, as the first 254 after a clear code are."""
    return np.packbits([int(bit) for code in codes for bit in f"{code:09b}"]).tobytes()


@pytest.mark.parametrize("n", [1, 300, 5_000, 100_000])
@pytest.mark.parametrize("n_greys", [1, 3, 256])
def test_a_whole_stream_is_followed_to_its_last_code(rng, monkeypatch, n, n_greys):
    stream = imagecodecs.lzw_encode(rng.integers(0, n_greys, n, dtype=np.uint8).tobytes())
    blocks, codes = [], lzw._codes
    monkeypatch.setattr(lzw, "_codes", lambda *of: blocks.append(codes(*of)) or blocks[-1])
    lzw.check(stream)
    n_read = [int(np.isin(block, (lzw.CLEAR, lzw.END)).argmax()) for block in blocks]
    assert [block[k] for block, k in zip(blocks, n_read, strict=True)] == [lzw.CLEAR] * (len(blocks) - 1) + [lzw.END]


@pytest.mark.parametrize("codes", [(256, 355, 35, 64), (256, 5, 6, 256, 300, 7), (300, 5)])
def test_a_code_that_nothing_stands_behind_is_damage(codes):
    with pytest.raises(ValueError, match="only a grey"):
        lzw.check(packed(*codes, lzw.END))


@pytest.mark.parametrize("stream", [b"", b"\x80", packed(256), packed(256, 5, 258, 300), packed(256, 256, 5, 257)])
def test_a_short_or_a_cut_stream_is_left_to_the_decoder(stream):
    lzw.check(stream)


def test_the_lzw_of_before_tiff_6_is_told_apart():
    with pytest.raises(Unfit, match="before TIFF 6"):
        lzw.check(b"\x00\x01\x02")


@pytest.mark.parametrize("tile", [None, (16, 16)])
@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("fill_order", [1, 2])  # 2: the bits of each byte from the lowest
def test_a_damaged_file_is_refused_by_name(tmp_path, rng, n, tile, fill_order):
    path = tmp_path / "SDHA.tif"
    stack = rng.integers(0, 256, (n, 32, 48), dtype=np.uint8)
    file = io.BytesIO()
    tifffile.imwrite(
        file,
        stack,
        compression="lzw",
        tile=tile,
        photometric="minisblack",
        metadata=None,  # tifffile's own would make one page of the stack
        extratags=[(65_000, "H", 1, fill_order, False)],  # it writes no FillOrder, 266
    )
    path.write_bytes(file.getvalue().replace(struct.pack("<HHI", 65_000, 3, 1), struct.pack("<HHI", 266, 3, 1)))
    with tifffile.TiffFile(path) as tiff:
        parts = [part for page in tiff.pages for part in zip(page.dataoffsets, page.databytecounts, strict=True)]

    def write(content: np.ndarray) -> None:
        if fill_order == 2:
            content = content.copy()
            for first, size in parts:
                content[first : first + size] = np.packbits(
                    np.unpackbits(content[first : first + size]), bitorder="little"
                )
        path.write_bytes(content.tobytes())

    content = np.fromfile(path, np.uint8)
    write(content)
    assert all((channel.raw_yx() == yx).all() for channel, yx in zip(formats.channels(path), stack, strict=True))
    behind_clear = parts[-1][0] + 1
    content[behind_clear : behind_clear + 2] |= np.uint8(
        [0x7F, 0xC0]
    )  # all nine bits of the code behind the clear code
    write(content)
    with pytest.raises(CohortError, match=r"SDHA\.tif: cannot be decoded .*only a grey.*Copy the file again"):
        formats.channels(path)[-1].raw_yx()
