"""Fingerprints of datasets, by which a resumed run recognizes that its data has changed."""

from __future__ import annotations

import hashlib

from tldet.data.folder import ImageFolderDataset
from tldet.data.index import AnnotationIndex


def index_fingerprint(index: AnnotationIndex) -> str:
    """Return the SHA-256 of classes, images and objects, without paths: moved data has the same fingerprint."""
    digest = hashlib.sha256(repr(index.class_names).encode())
    for column in (index.image_ids, index.sizes, index.offsets, index.boxes, index.labels, index.crowd):
        digest.update(column.tobytes())
    return digest.hexdigest()


def folder_fingerprint(data: ImageFolderDataset) -> str:
    """Return the SHA-256 of the classes and of the images' names within the folder."""
    return hashlib.sha256(repr((data.class_names, data.names)).encode(errors="surrogatepass")).hexdigest()
