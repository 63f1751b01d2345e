import csv
from pathlib import Path

import torch

from tldet.data.images import read_image
from tldet.registry import DATASETS
from tldet.structures.target import Target


@DATASETS.register_module()
class CsvDataset:
    """Boxes in a CSV file with the columns image, x0, y0, x1, y1, label; the images are in a folder."""

    def __init__(self, annotations: str, images: str) -> None:
        self.folder, self.rows = Path(images), {}
        with open(annotations, newline="") as file:
            for row in csv.DictReader(file):
                self.rows.setdefault(row["image"], []).append(row)
        self.names = list(self.rows)
        self.class_names = sorted({row["label"] for rows in self.rows.values() for row in rows})

    def __len__(self) -> int:
        return len(self.names)

    def load(self, index: int):
        rows = self.rows[self.names[index]]
        boxes = torch.tensor([[float(row[key]) for key in ("x0", "y0", "x1", "y1")] for row in rows])
        labels = torch.tensor([self.class_names.index(row["label"]) for row in rows])
        return read_image(self.folder / self.names[index]), Target(boxes, labels)
