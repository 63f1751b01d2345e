"""Output files of a report: HTML, tables and plots."""

from __future__ import annotations

from pathlib import Path

from tldet.system.output import make_folder, write_bytes, write_json, write_text
from tldet.visualize.page.document import asset, document
from tldet.visualize.page.plots import png, svg
from tldet.workflows.report.report import Report


def write_report_page(report: Report, path: str | Path) -> None:
    """Write the HTML file.

    Raises:
        OutputError: the file cannot be written.
    """
    write_text(path, document(report.title, report.subtitle, report.sections, script=asset("gallery.js")))


def write_files(report: Report, folder: str | Path) -> None:
    """Write each table as CSV, LaTeX and JSON, and each plot as PNG and SVG.

    Raises:
        OutputError: a file cannot be written.
    """
    out = make_folder(folder)
    for table in report.tables:
        write_text(out / f"{table.name}.csv", table.csv())
        write_text(out / f"{table.name}.tex", table.latex())
        write_json(out / f"{table.name}.json", table.to_dict(), indent=1)
    for plot in report.plots:
        write_text(out / f"{plot.name}.svg", svg(plot))
        write_bytes(out / f"{plot.name}.png", png(plot), sync=False)
