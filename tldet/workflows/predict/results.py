"""Output files with the detections of a prediction run, except drawn images and videos."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from tldet.inference.sources import InputSource
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray, Size
from tldet.text import counted
from tldet.workflows.predict.formats import records, write_all
from tldet.workflows.predict.numbering import Numbering
from tldet.workflows.predict.outputs import CropWriter, OutputPaths, Stems, YoloWriter
from tldet.workflows.predict.summary import Summary

log = logging.getLogger(__name__)


class Store(Protocol):
    """Results of a run, one line per image or frame (see :mod:`tldet.workflows.predict.jsonl`)."""

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line."""
        ...

    def lines(self) -> Iterable[Mapping[str, Any]]:
        """Yield the results in the order of the inputs."""
        ...


class MemoryStore:
    """Results that are kept in memory."""

    def __init__(self) -> None:
        self._lines: list[Mapping[str, Any]] = []

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a line; only results are kept."""
        if "detections" in line:
            self._lines.append(line)

    def lines(self) -> Iterable[Mapping[str, Any]]:
        """Return the results in the order of the inputs."""
        return sorted(self._lines, key=lambda line: (line["index"], line.get("frame", 0)))


class ResultsWriter:
    """Writer of the detections of a run.

    Args:
        paths: the outputs.
        sources: all inputs, including those of other shards; each result contains the number of its input.
        category_ids: category id of each label.
        class_names: name of each label.
        numbering: ids of a dataset; None numbers the images from 1.
        summary: receives the records and counts.
        store: receives the results.
    """

    def __init__(
        self,
        paths: OutputPaths,
        sources: Sequence[InputSource],
        category_ids: Sequence[int],
        class_names: Sequence[str],
        numbering: Numbering | None,
        summary: Summary,
        store: Store,
    ) -> None:
        self.paths, self.numbering, self.summary, self.store = paths, numbering, summary, store
        self._ids, self._names = category_ids, class_names
        self._index = {source: number for number, source in enumerate(sources)}
        self._stems = Stems([source.name for source in sources if source.kind == "image"])
        self._yolo = YoloWriter(paths.yolo, class_names) if paths.yolo else None
        self._crops = CropWriter(paths.crops, class_names) if paths.crops else None

    def add(self, source: InputSource, detections: Detections, size: Size, frame: int | None = None) -> None:
        """Append the results of an image or frame.

        Args:
            source: the image or video.
            detections: the detections.
            size: (height, width).
            frame: number of the frame.
        """
        self.summary.detections += len(detections)
        path = source.path.as_posix()
        record = {"path": path, "index": self._index[source], **({} if frame is None else {"frame": frame})}
        name = path if frame is None else f"{path}#{frame}"
        found: list[dict[str, Any]]
        if self.numbering:
            image_id, file_name = self.numbering.image(name)
            record |= {"image_id": image_id, "file_name": file_name}
            found = self.numbering.records(detections, name)
        else:
            record |= {"file_name": name}
            rows = zip(detections.to_coco(0, self._ids), detections.names(), strict=True)
            found = [{**record, "category_name": category} for record, category in rows]
        objects = [{k: v for k, v in one.items() if k not in ("image_id", "file_name")} for one in found]
        self.store.append({**record, "width": size[1], "height": size[0], "detections": objects})

    def end_video(self, source: InputSource, frames: int) -> None:
        """Record that a video is complete."""
        self.store.append({"path": source.path.as_posix(), "index": self._index[source], "frames": frames})

    def fail(self, source: InputSource, error: Exception) -> None:
        """Record and log that an input could not be read."""
        self.summary.failed[str(source.path)] = str(error)
        log.warning("%s", error)
        self.store.append({"path": source.path.as_posix(), "index": self._index[source], "error": str(error)})

    def export(
        self,
        source: InputSource,
        detections: Detections,
        image: ImageArray | None,
        size: Size,
        frame: int | None = None,
    ) -> None:
        """Write the labels and crops of an image or frame.

        Args:
            source: the image or video.
            detections: the detections.
            image: (H, W, 3) uint8 RGB at full size; only crops need it.
            size: (height, width).
            frame: number of the frame.
        """
        if not self._yolo and not self._crops:
            return
        name = source.name
        stem = self._stems.of(name) if frame is None else self._stems.of_frame(name, frame)
        if self._yolo:
            self._yolo.write(stem, detections, size)
        if self._crops and image is not None:
            self._crops.write(stem, detections, image, name.suffix if frame is None else ".jpg")

    def write(self) -> None:
        """Write the outputs of the whole run; one that fails does not prevent the others.

        Raises:
            DataError: an output cannot be written.
        """
        if self.numbering and self.numbering.left_out:
            text = "%s left out because their classes are not in %s"
            log.warning(text, counted(self.numbering.left_out, "detection"), self.numbering.path)
        try:
            write_all(self.paths, self.store.lines, self.categories())
        finally:
            if isinstance(self.store, MemoryStore):
                self.summary.records = list(records(self.store.lines()))

    def categories(self) -> dict[int, str]:
        """Return the name of each category id."""
        if self.numbering:
            return self.numbering.categories
        return dict(zip(self._ids, self._names, strict=True))

    def describe(self) -> str:
        """Name the outputs."""
        written = ", ".join(str(path) for path in self.paths.given().values())
        return f"saved to {written}" if written else "nothing saved (no output given)"
