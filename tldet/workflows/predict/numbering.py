"""Image ids, file names and category ids for predictions, taken from a COCO JSON."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tldet.coco.detection_checks import common_classes
from tldet.coco.names import FileNames
from tldet.coco.reader import read_coco
from tldet.errors import DataError
from tldet.inference.sources import InputSource
from tldet.structures.detections import Detections
from tldet.text import counted


class Numbering:
    """Assignment of a dataset's image and category ids to predictions.

    Args:
        path: the COCO JSON.
        sources: the inputs; each must match exactly one image of the JSON.

    Raises:
        DataError: the JSON cannot be read, an input matches none or several of its images, or two inputs the same one.
    """

    def __init__(self, path: Path, sources: Sequence[InputSource]) -> None:
        self.path, self.coco, self.left_out = path, read_coco(path), 0
        names = FileNames([image.file_name for image in self.coco.images])
        self._rank_of: dict[str, int] = {}
        owners: dict[int, str] = {}
        for source in sources:
            name = source.path.as_posix()
            fitting = names.find(name) if source.kind == "image" else []
            if len(fitting) != 1:
                what = f"matches {counted(len(fitting), 'image')} of" if fitting else "is not an image of"
                raise DataError(f"{name}: {what} {path}; pass only images of this file, or leave out --annotations")
            if owners.setdefault(fitting[0], name) != name:
                raise DataError(
                    f"{name}: matches image id {self.coco.images[fitting[0]].id} of {path}, and so does "
                    f"{owners[fitting[0]]}; pass only one of them"
                )
            self._rank_of[name] = fitting[0]

    def take_classes(self, names: Sequence[str]) -> None:
        """Match the classes of a model by name.

        Raises:
            DataError: the JSON has none of the classes.
        """
        ids = {category.name: category.id for category in self.coco.categories}
        try:
            common_classes([str(name) for name in ids], names)
        except DataError as error:
            raise DataError(f"{self.path}: {error}") from None
        self._category_ids = [ids.get(name) for name in names]

    @property
    def categories(self) -> dict[int, str]:
        """Name of each category id of the JSON."""
        return {category.id: str(category.name) for category in self.coco.categories}

    def image(self, name: str) -> tuple[int, str]:
        """Return image id and file name of an input."""
        image = self.coco.images[self._rank_of[name]]
        return image.id, image.file_name or name

    def records(self, detections: Detections, name: str) -> list[dict[str, Any]]:
        """Return the COCO results of an input; detections of classes missing in the JSON are dropped and counted."""
        image = self.coco.images[self._rank_of[name]]
        rows = detections.to_coco(image.id, [-1 if key is None else key for key in self._category_ids])
        labels = [self._category_ids[label] for label in detections.labels.tolist()]
        kept = [
            {**record, "file_name": image.file_name, "category_name": category}
            for record, category, key in zip(rows, detections.names(), labels, strict=True)
            if key is not None
        ]
        self.left_out += len(rows) - len(kept)
        return kept
