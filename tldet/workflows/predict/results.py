"""Output files with the detections of a prediction run, except drawings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from pathlib import Path

from tldet.coco.results import write_csv
from tldet.errors import DataError
from tldet.structures.detections import Detections
from tldet.structures.image import ImageArray
from tldet.system.output import write_json
from tldet.text import counted
from tldet.workflows.predict.numbering import Numbering
from tldet.workflows.predict.outputs import CropWriter, OutputPaths, YoloWriter, coco_dataset
from tldet.workflows.predict.summary import Summary

log = logging.getLogger(__name__)


class ResultsWriter:
    """Writer of the detections of a run.

    Args:
        paths: the outputs.
        category_ids: category id of each label.
        class_names: name of each label.
        numbering: ids of a dataset; None counts images from 1.
        summary: takes the records and counts.
    """

    def __init__(
        self,
        paths: OutputPaths,
        category_ids: Sequence[int],
        class_names: Sequence[str],
        numbering: Numbering | None,
        summary: Summary,
    ) -> None:
        self.paths, self.numbering, self.summary = paths, numbering, summary
        self.category_ids, self.class_names = category_ids, class_names
        self._yolo = YoloWriter(paths.yolo, class_names) if paths.yolo else None
        self._crops = CropWriter(paths.crops, class_names) if paths.crops else None

    def add(self, detections: Detections, name: str, size: tuple[int, int]) -> None:
        """Append the COCO results of an image or frame.

        Args:
            detections: the detections.
            name: path of the image, or path#number of the frame.
            size: (height, width).
        """
        summary = self.summary
        summary.detections += len(detections)
        if self.numbering:
            image_id, file_name = self.numbering.image(name)
            summary.records += self.numbering.records(detections, name)
        else:
            image_id, file_name = summary.images + summary.frames + 1, name
            rows = zip(detections.to_coco(image_id, self.category_ids), detections.names(), strict=True)
            summary.records += [{**record, "file_name": name, "category_name": category} for record, category in rows]
        if self.paths.coco:
            image = {"id": image_id, "file_name": file_name, "width": size[1], "height": size[0]}
            summary.image_records.append(image)

    def export(
        self, detections: Detections, name: Path, image: ImageArray, size: tuple[int, int], extension: str
    ) -> None:
        """Write the labels and crops of an image or frame.

        Args:
            detections: the detections.
            name: output name without extension.
            image: (H, W, 3) uint8 RGB; only crops need it at full size.
            size: (height, width) at full size.
            extension: format of the crops.
        """
        if self._yolo:
            self._yolo.write(name, detections, size)
        if self._crops:
            self._crops.write(name, detections, image, extension)

    def write(self) -> None:
        """Write the outputs of the whole run; one that fails does not prevent the others.

        Raises:
            DataError: an output cannot be written.
        """
        paths, summary = self.paths, self.summary
        writers: list[tuple[Path | None, Callable[[Path], None]]] = [
            (paths.json, lambda path: write_json(path, summary.records)),
            (paths.csv, lambda path: write_csv(path, summary.records)),
            (
                paths.coco,
                lambda path: write_json(path, coco_dataset(summary.image_records, summary.records, self._names())),
            ),
        ]
        errors = []
        for path, write in writers:
            try:
                if path:
                    write(path)
            except DataError as error:
                errors.append(error)
        if self.numbering and self.numbering.left_out:
            text = "%s left out: %s does not have their classes"
            log.warning(text, counted(self.numbering.left_out, "detection"), self.numbering.path)
        if errors:
            raise errors[0]

    def _names(self) -> dict[int, str]:
        if self.numbering:
            return self.numbering.categories
        return dict(zip(self.category_ids, self.class_names, strict=True))

    def describe(self) -> str:
        """Name the outputs."""
        written = ", ".join(str(path) for path in self.paths.given().values())
        return f"saved to {written}" if written else "nothing saved (no output given)"
