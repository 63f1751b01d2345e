"""Tables and plots of pages."""

import io
import re

import numpy as np
from PIL import Image

from tldet.visualize.page.document import Section, anchor, document
from tldet.visualize.page.images import mask_outline
from tldet.visualize.page.plots import COLORS, Plot, Series, png, svg
from tldet.visualize.page.tables import Table, shown

TABLE = Table("t", "T", ("name", "share"), [["a & b_1", 0.12345], ["<c>", None], ["d", float("nan")]])
PLOT = Plot("p", "P", "x (px)", "y", [Series("one", [0, 1], [0, 0.5]), Series("two", [0, 1], [1, np.nan])])


def test_a_table_in_every_form() -> None:
    assert TABLE.csv() == "name,share\na & b_1,0.12345\n<c>,\nd,\n"
    assert r"a \& b\_1 & 0.123 \\" in TABLE.latex()
    assert r"\begin{tabular}{lr}" in TABLE.latex()
    assert TABLE.to_dict()["rows"] == [["a & b_1", 0.12345], ["<c>", None], ["d", None]]
    assert "&lt;c&gt;" in TABLE.html()
    assert '<td class="number">0.123</td>' in TABLE.html()


def test_values_as_text() -> None:
    assert [shown(v) for v in (None, 1234, 0.5, 12345.6, "x", float("inf"))] == [
        "-",
        "1,234",
        "0.500",
        "12,346",
        "x",
        "-",
    ]


def test_a_plot_in_every_form() -> None:
    page, file = svg(PLOT, page=True), svg(PLOT)
    assert "var(--series0)" in page
    assert "currentColor" in page
    assert COLORS[0] in file
    assert "x (px)" in file
    assert svg(PLOT) == file  # the same bytes each time
    picture = Image.open(io.BytesIO(png(PLOT)))
    assert picture.size[0] > 600
    assert picture.convert("RGB").getpixel((2, 2)) == (255, 255, 255)


def test_the_text_of_a_page_is_escaped() -> None:
    page = document("<t>", "s & t", [Section("A b", ["x < y"], [TABLE], [PLOT])])
    assert "&lt;t&gt;" in page
    assert "x &lt; y" in page
    assert 'id="a-b"' in page
    assert anchor("Size, shape") == "size-shape"


def test_no_heading_occurs_twice() -> None:
    long = Table("long", "Long", ("n",), [[n] for n in range(13)])
    page = document(
        "t", "", [Section("T", tables=[TABLE, long]), Section("U", tables=[Table("v", "V", ("n",), [[1]])])]
    )
    assert re.findall(r"<h\d>.*?</h\d>", page) == ["<h1>t</h1>", "<h2>T</h2>", "<h2>U</h2>", "<h3>V</h3>"]
    assert "<summary>Long (13 rows)</summary>" in page
    assert 'id="table-t"' in page


def test_an_outline_runs_around_the_mask() -> None:
    mask = np.zeros((10, 12), np.uint8)
    mask[2:5, 3:8] = 1
    assert mask_outline(mask) == "M3 2L3 4L7 4L7 2Z"
    assert mask_outline(mask * 0) == ""
    mask[3, 4] = 0
    assert mask_outline(mask).count("M") == 2, "one of the mask, one of its hole"
