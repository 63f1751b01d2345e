"""Detections in other formats: HTML for notebooks, supervision."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tldet.text import counted, html_table

if TYPE_CHECKING:
    from tldet.structures.detections import Detections

HTML_ROWS = 20  # detections shown in a notebook


def detections_table(found: Detections, title: str) -> str:
    """Return an HTML table of the detections with the highest scores."""
    shown = found[:HTML_ROWS]
    corners = [", ".join(f"{value:.1f}" for value in box) for box in shown.boxes.tolist()]
    rows = zip(shown.names(), (f"{score:.3f}" for score in shown.scores.tolist()), corners, strict=True)
    more = len(found) - len(shown)
    note = f"{counted(more, 'more detection')} with lower scores" if more else ""
    return html_table(title, ("class", "score", "box (x0, y0, x1, y1)"), rows, note)


def supervision_detections(found: Detections) -> Any:
    """Return ``supervision.Detections``; see :meth:`~tldet.structures.detections.Detections.to_supervision`."""
    import supervision

    masks = found.dense_masks()
    return supervision.Detections(
        xyxy=found.boxes.cpu().numpy(),
        confidence=found.scores.cpu().numpy(),
        class_id=found.labels.cpu().numpy(),
        mask=None if masks is None else masks.bool().cpu().numpy(),
        data={"class_name": found.names()},
    )
