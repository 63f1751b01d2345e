"""Small vehicles in large aerial images: objects of 8 to 40 pixels at any angle, four classes that differ in shape."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from benchmarks.quality.scenes import OPAQUE, Floats, Mask, Random, mixed, noise, photographed
from tldet.data.generated import Scene
from tldet.structures.image import Size

VEHICLES = ("car", "truck", "bus", "boat")
SHARES = (0.45, 0.2, 0.15, 0.2)
LENGTHS = {"car": (15, 22), "truck": (25, 36), "bus": (30, 42), "boat": (18, 38)}  # pixels
COUNT = (8, 28)  # vehicles of an image
GROUND = ((92, 108, 62), (150, 134, 96), (70, 92, 52), (172, 154, 116), (112, 120, 84))
WATER = (46, 80, 102)
PAINT = ((214, 216, 218), (40, 42, 46), (150, 26, 30), (36, 62, 132), (126, 130, 134), (222, 196, 70), (236, 236, 232))
GLASS = (26, 32, 40)
LANE = 9  # pixels from the center line of a road
SHADOW = 2  # pixels
FINE = 6  # vehicles are drawn at this scale and reduced
TRIES = 30
Lane = tuple[float, float, float]  # x, y and angle of a position on a road


@dataclass
class Terrain:
    """A landscape without vehicles.

    Attributes:
        image: (H, W, 3) colors.
        water: (H, W) mask.
        occupied: (H, W) mask of vehicles and a margin around them.
        lanes: positions on roads.
    """

    image: Floats
    water: Mask
    occupied: Mask
    lanes: list[Lane]


def aerial(count: int, random: Random, size: Size) -> Iterator[Scene]:
    """Draw images with vehicles on roads, on land and on water."""
    for _ in range(count):
        terrain = draw_terrain(random, size)
        objects = []
        for _ in range(int(random.integers(*COUNT, endpoint=True))):
            label = int(random.choice(len(VEHICLES), p=SHARES))
            mask = add_vehicle(terrain, VEHICLES[label], random)
            if mask is not None:
                objects.append((label, mask))
        yield photographed(terrain.image, random), objects


def draw_terrain(random: Random, size: Size) -> Terrain:
    """Draw fields, water, roads and trees."""
    colors = random.permutation(np.array(GROUND))
    detail = noise(random, size, 30)[..., None]
    image = mixed(colors[0], colors[1], np.clip(6 * noise(random, size, 260) - 2.5, 0, 1)) * (0.75 + 0.5 * detail)
    level = noise(random, size, 500)
    shore = np.clip(40 * (level - np.quantile(level, 1 - random.uniform(0.1, 0.35))), 0, 1)
    image = mixed(image, np.asarray(WATER) * (0.9 + 0.25 * detail), shore)
    water = (shore > 0).astype(np.uint8)
    lanes = [lane for _ in range(int(random.integers(1, 4))) for lane in _road(image, water, random)]
    for _ in range(int(random.integers(15, 60))):
        x, y, radius = int(random.integers(size[1])), int(random.integers(size[0])), int(random.integers(4, 14))
        if not shore[y, x]:
            cv2.circle(image, (x + 3, y + 3), radius, (34, 42, 30), -1, cv2.LINE_AA)
            cv2.circle(image, (x, y), radius, random.uniform((30, 62, 26), (78, 110, 56)).tolist(), -1, cv2.LINE_AA)
    return Terrain(image, water, np.zeros(size, np.uint8), lanes)


def _road(image: Floats, water: Mask, random: Random) -> list[Lane]:
    """Draw a straight road, also over water; return positions in its two lanes."""
    size = np.array(image.shape[1::-1])
    center, angle = random.uniform(0.15, 0.85, 2) * size, random.uniform(0, np.pi)
    along, reach = np.array([np.cos(angle), np.sin(angle)]), int(size.max())

    def line(start: float, end: float, gray: float, width: int) -> None:
        first, last = ((center + distance * along).astype(int).tolist() for distance in (start, end))
        cv2.line(image, first, last, (gray, gray, gray), width, cv2.LINE_AA)
        cv2.line(water, first, last, 0, width)

    line(-reach, reach, 150, 4 * LANE + 6)
    line(-reach, reach, 92, 4 * LANE)
    for start in range(-reach, reach, 24):
        line(start, start + 10, 210, 1)
    across = np.array([-along[1], along[0]])
    lanes: list[Lane] = []
    for distance in range(-reach, reach, 3):
        for side in (-1, 1):
            x, y = (center + distance * along + side * LANE * across).tolist()
            lanes.append((x, y, angle if side > 0 else angle + np.pi))
    return lanes


def add_vehicle(terrain: Terrain, kind: str, random: Random) -> Mask | None:
    """Draw a vehicle at a free position, a boat on water; return its mask, or None if no position was found."""
    height, width = terrain.water.shape
    body = draw_vehicle(kind, random)
    free = (terrain.water == (kind == "boat")) & (terrain.occupied == 0)
    for _ in range(TRIES):
        x, y, angle = random.uniform(0, width), random.uniform(0, height), random.uniform(0, 2 * np.pi)
        if kind != "boat" and random.random() < 0.6:
            x, y, angle = terrain.lanes[int(random.integers(len(terrain.lanes)))]
        patch = _turned(body, angle)
        left, top = int(x - patch.shape[1] / 2), int(y - patch.shape[0] / 2)
        bottom, right = top + patch.shape[0], left + patch.shape[1]
        if left < 0 or top < 0 or right + SHADOW > width or bottom + SHADOW > height:
            continue
        own = patch[..., 3] > OPAQUE
        if free[top:bottom, left:right][own].all():
            paste(terrain.image, patch, left, top)
            mask = np.zeros((height, width), np.uint8)
            mask[top:bottom, left:right] = own
            terrain.occupied |= cv2.dilate(mask, np.ones((7, 7), np.uint8))
            return mask
    return None


def paste(image: Floats, patch: Floats, left: int, top: int) -> None:
    """Draw an RGBA patch on an image, with a shadow right of and below it."""
    height, width = patch.shape[:2]
    cover = np.pad(patch[..., 3], ((0, SHADOW), (0, SHADOW)))
    window = image[top : top + height + SHADOW, left : left + width + SHADOW]
    window *= 1 - 0.45 * np.roll(cover, (SHADOW, SHADOW), (0, 1))[..., None]
    window[:height, :width] = mixed(window[:height, :width], patch[..., :3], patch[..., 3])


def _turned(body: Floats, angle: float) -> Floats:
    """Rotate an RGBA drawing and reduce it from the scale FINE."""
    side = int(np.hypot(*body.shape[:2]) / FINE + 3)
    large = side * FINE
    turn = cv2.getRotationMatrix2D((body.shape[1] / 2, body.shape[0] / 2), -np.degrees(angle), 1.0)
    turn[:, 2] += (large - np.array(body.shape[1::-1])) / 2
    colors = cv2.warpAffine(body[..., :3], turn, (large, large), borderMode=cv2.BORDER_REPLICATE)
    cover = cv2.warpAffine(body[..., 3], turn, (large, large))
    return np.asarray(cv2.resize(np.dstack([colors, cover]), (side, side), interpolation=cv2.INTER_AREA), np.float32)


def draw_vehicle(kind: str, random: Random) -> Floats:
    """Draw a vehicle from above at the scale FINE, facing right: RGBA, colors in 0..255, opacity in 0..1."""
    length = random.uniform(*LENGTHS[kind])
    width = {"car": 9.5, "truck": 11.5, "bus": 11.5, "boat": 0.33 * length}[kind] * random.uniform(0.9, 1.1)
    height, across = round(width * FINE), round(length * FINE)
    body = np.zeros((height, across, 4), np.float32)
    paint = np.clip(np.array(PAINT[int(random.integers(len(PAINT)))]) + random.normal(0, 12, 3), 0, 255)

    def shape(points: Any, color: Any) -> None:
        corners = np.round(np.array(points) * (across - 1, height - 1)).astype(np.int32)
        cv2.fillPoly(body, [corners], (*np.asarray(color, float).tolist(), 1.0))

    def block(start: float, end: float, margin: float, color: Any) -> None:
        shape([(start, margin), (end, margin), (end, 1 - margin), (start, 1 - margin)], color)

    {"car": _car, "truck": _truck, "bus": _bus, "boat": _boat}[kind](shape, block, paint)
    return body


def _car(shape: Any, _: Any, paint: Any) -> None:
    shape([(0.05, 0), (0.9, 0), (1, 0.2), (1, 0.8), (0.9, 1), (0.05, 1), (0, 0.85), (0, 0.15)], paint)
    shape([(0.56, 0.14), (0.7, 0.06), (0.7, 0.94), (0.56, 0.86)], GLASS)
    shape([(0.12, 0.1), (0.22, 0.18), (0.22, 0.82), (0.12, 0.9)], GLASS)


def _truck(shape: Any, block: Any, paint: Any) -> None:
    block(0.0, 0.72, 0.0, (206, 204, 198))
    for rib in (0.14, 0.28, 0.42, 0.56):
        block(rib, rib + 0.015, 0.04, (168, 166, 160))
    block(0.7, 0.78, 0.32, (40, 40, 42))
    shape([(0.77, 0.06), (0.96, 0.06), (1, 0.2), (1, 0.8), (0.96, 0.94), (0.77, 0.94)], paint)
    block(0.9, 0.955, 0.14, GLASS)


def _bus(shape: Any, block: Any, paint: Any) -> None:
    shape([(0.01, 0), (0.97, 0), (1, 0.1), (1, 0.9), (0.97, 1), (0.01, 1), (0, 0.9), (0, 0.1)], paint)
    for hatch in (0.2, 0.62):
        block(hatch, hatch + 0.1, 0.34, 0.75 * paint)
    block(0.36, 0.54, 0.26, (188, 190, 192))
    block(0.955, 0.985, 0.12, GLASS)


def _boat(shape: Any, block: Any, paint: Any) -> None:
    hull = [(0, 0.1), (0.55, 0), (0.85, 0.25), (1, 0.5), (0.85, 0.75), (0.55, 1), (0, 0.9)]
    shape(hull, (232, 230, 224))
    shape([(0.08 + 0.8 * x, 0.18 + 0.64 * y) for x, y in hull], 0.5 * paint + 70)
    block(0.3, 0.52, 0.3, (240, 240, 238))
    block(0.5, 0.55, 0.32, GLASS)
