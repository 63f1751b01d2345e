"""Corner indices of 52 playing cards: classes that differ in a rank or a suit of 15 to 30 pixels.

The cards are rotated, seen in perspective and partly covered by others. An index is annotated if most of it is visible,
and no index is visible by less.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from benchmarks.quality.scenes import OPAQUE, Floats, Mask, Random, mixed, noise, photographed
from tldet.data.generated import Scene
from tldet.structures.image import Size

RANKS = ("A", "2", "3", "4", "5", "6", "7", "8", "9", "10", "J", "Q", "K")
SUITS = ("clubs", "diamonds", "hearts", "spades")
CARDS = tuple(f"{rank} {suit}" for suit in SUITS for rank in RANKS)
COUNT = (3, 6)  # cards of an image
SIDES = (336, 240)  # height and width of a drawn card
INDEX, CORNER = (88, 44), (12, 10)  # height and width of an index; its distance from the top and the left
SCALES = (0.45, 0.75)  # of a card on an image of 480 pixels
COVERED, VISIBLE = 0.1, 0.75  # no index has a visible fraction in between
PERSPECTIVE = 0.06  # shift of a corner, as a fraction of the height
FONTS = (cv2.FONT_HERSHEY_DUPLEX, cv2.FONT_HERSHEY_COMPLEX, cv2.FONT_HERSHEY_TRIPLEX)
BLACK, RED = (24, 24, 28), (186, 24, 34)
TABLES = ((44, 92, 62), (112, 78, 50), (60, 66, 92), (150, 132, 110))
PIPS = {1: (1, 0), 2: (2, 0), 3: (3, 0), 4: (0, 2), 5: (1, 2), 6: (0, 3), 7: (1, 3), 8: (2, 3), 9: (1, 4), 10: (2, 4)}
TRIES = 20
FINE = 4  # symbols are drawn at this scale and reduced


@dataclass
class Seen:
    """An index on a table: its label, the visible part of its mask (H, W), and its number of pixels."""

    label: int
    mask: Mask
    pixels: int


def cards(count: int, random: Random, size: Size) -> Iterator[Scene]:
    """Draw images of cards on tables; every card occurs equally often."""
    deck: list[int] = []
    for _ in range(count):
        table = mixed(TABLES[int(random.integers(len(TABLES)))], (20, 20, 22), 0.35 * noise(random, size, 120))
        seen: list[Seen] = []
        for _ in range(int(random.integers(*COUNT, endpoint=True))):
            deck = deck or random.permutation(len(CARDS)).tolist()
            if lay(table, seen, deck[-1], random):
                deck.pop()
        yield photographed(table, random), [(one.label, one.mask) for one in seen]


def lay(table: Floats, seen: list[Seen], label: int, random: Random) -> bool:
    """Lay a card on a table where each index stays visible or is covered; return False if there is no such position."""
    face, indices = draw_card(label, random)
    height, width = table.shape[:2]
    scale = random.uniform(*SCALES) * min(height, width) / 480
    for _ in range(TRIES):
        corners = np.asarray(_corners(scale, random) + random.uniform(0, 1, 2) * (width, height), np.float32)
        if (corners < 2).any() or (corners > (width - 2, height - 2)).any():
            continue
        cover, *warped = _warped([np.ones(SIDES, np.float32), *indices], corners, (height, width))
        rest = [one.mask & (cover < 0.5) for one in seen]
        shares = [mask.sum() / one.pixels for one, mask in zip(seen, rest, strict=True)]
        if any(COVERED < share < VISIBLE for share in shares):
            continue
        shadow = cv2.GaussianBlur(np.roll(cover, (4, 3), (0, 1)), (0, 0), 4)
        table *= 1 - 0.5 * shadow[..., None]
        table[:] = mixed(table, _warped([face], corners, (height, width))[0], cover)
        seen[:] = [
            Seen(one.label, mask, one.pixels)
            for one, mask, share in zip(seen, rest, shares, strict=True)
            if share >= VISIBLE
        ]
        masks = [(index > OPAQUE).astype(np.uint8) for index in warped]
        seen += [Seen(label, mask, int(mask.sum())) for mask in masks]
        return True
    return False


def _corners(scale: float, random: Random) -> Floats:
    """Return the corners (4, 2) of a card around the origin: turned to any angle, in perspective."""
    half = scale * np.array([SIDES[1], SIDES[0]]) / 2
    corners = np.array([(-1, -1), (1, -1), (1, 1), (-1, 1)]) * half
    angle = random.uniform(0, 2 * np.pi)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    shift = random.uniform(-1, 1, (4, 2)) * PERSPECTIVE * half[1]
    return np.asarray(corners @ turn + shift, np.float32)


def _warped(drawings: list[Floats], corners: Floats, size: Size) -> list[Floats]:
    """Project drawings of a card to the place of its corners."""
    edge = np.linalg.norm(corners[0] - corners[3]) / SIDES[0]
    side = tuple(max(8, round(edge * length)) for length in SIDES[::-1])  # reduced first, against aliasing
    start = np.array([(0, 0), (side[0], 0), side, (0, side[1])], np.float32) - 0.5
    project = cv2.getPerspectiveTransform(start, np.asarray(corners - 0.5, np.float32))
    small = [cv2.resize(one, side, interpolation=cv2.INTER_AREA) for one in drawings]
    return [np.asarray(cv2.warpPerspective(one, project, size[::-1]), np.float32) for one in small]


def draw_card(label: int, random: Random) -> tuple[Floats, list[Floats]]:
    """Draw a card; return its face (H, W, 3), and the opacity (H, W) of the ink of its two indices."""
    suit, rank = divmod(label, len(RANKS))
    ink = RED if SUITS[suit] in ("diamonds", "hearts") else BLACK
    face = np.full((*SIDES, 3), random.uniform(228, 255), np.float32)
    font = FONTS[int(random.integers(len(FONTS)))]
    cv2.rectangle(face, (0, 0), (SIDES[1] - 1, SIDES[0] - 1), (150, 150, 150), 2)
    face = mixed(face, ink, _pips(rank + 1, SUITS[suit]) if rank < 10 else _figure(RANKS[rank], SUITS[suit], font))
    first = _placed(_index(RANKS[rank], SUITS[suit], font), *CORNER)
    indices = [first, np.ascontiguousarray(first[::-1, ::-1])]
    return mixed(face, ink, np.maximum(*indices)), indices


def _placed(symbol: Floats, top: int, left: int) -> Floats:
    whole = np.zeros(SIDES, np.float32)
    whole[top : top + symbol.shape[0], left : left + symbol.shape[1]] = symbol
    return whole


def _index(rank: str, suit: str, font: int) -> Floats:
    """Return the opacity of a rank above its suit."""
    side = round(0.75 * INDEX[1])
    suit_part = np.pad(_suit(suit, side), ((0, 0), ((INDEX[1] - side) // 2, INDEX[1] - side - (INDEX[1] - side) // 2)))
    return np.vstack(
        [_text(rank, font, (INDEX[0] - side - 6, INDEX[1])), np.zeros((6, INDEX[1]), np.float32), suit_part]
    )


def _text(text: str, font: int, size: Size) -> Floats:
    """Return the opacity of a text that fills the height of a size."""
    height, width = size[0] * FINE, size[1] * FINE
    canvas = np.zeros((3 * height, 4 * width), np.float32)
    cv2.putText(canvas, text, (width // 2, 2 * height), font, height / 24, 1.0, 3 * FINE, cv2.LINE_AA)
    rows, columns = np.where(canvas.any(1))[0], np.where(canvas.any(0))[0]
    tight = canvas[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    wide = min(size[1], round(size[0] * tight.shape[1] / tight.shape[0]))
    fitted = cv2.resize(tight, (wide, size[0]), interpolation=cv2.INTER_AREA)
    left = (size[1] - wide) // 2
    return np.asarray(np.pad(fitted, ((0, 0), (left, size[1] - wide - left))), np.float32)


def _suit(suit: str, side: int) -> Floats:
    """Return the opacity (side, side) of the symbol of a suit."""
    large = side * FINE
    canvas = np.zeros((large, large), np.float32)

    def disk(x: float, y: float, radius: float) -> None:
        cv2.circle(canvas, (round(x * large), round(y * large)), round(radius * large), 1.0, -1, cv2.LINE_AA)

    def shape(*points: Any) -> None:
        cv2.fillPoly(canvas, [np.round(np.array(points) * large).astype(np.int32)], 1.0, cv2.LINE_AA)

    if suit == "diamonds":
        shape((0.5, 0), (0.88, 0.5), (0.5, 1), (0.12, 0.5))
    elif suit == "clubs":
        for x, y in ((0.5, 0.24), (0.25, 0.57), (0.75, 0.57)):
            disk(x, y, 0.235)
        shape((0.46, 0.4), (0.54, 0.4), (0.54, 0.75), (0.66, 0.99), (0.34, 0.99), (0.46, 0.75))
    else:
        for x in (0.27, 0.73):
            disk(x, 0.28, 0.26)
        shape((0.02, 0.36), (0.5, 0.2), (0.98, 0.36), (0.5, 0.99))
    if suit == "spades":
        canvas = np.ascontiguousarray(canvas[::-1])
        canvas = np.asarray(cv2.warpAffine(canvas, np.array([[1, 0, 0], [0, 0.84, 0]], np.float32), (large, large)))
        shape((0.46, 0.5), (0.54, 0.5), (0.66, 0.99), (0.34, 0.99))
    return np.asarray(cv2.resize(canvas, (side, side), interpolation=cv2.INTER_AREA), np.float32)


def _pips(number: int, suit: str) -> Floats:
    """Return the opacity of the symbols in the middle of a card."""
    middle, aside = PIPS[number]
    side = 90 if number == 1 else 38
    columns = [(0.5, middle)] if middle else []
    columns += [(0.36, aside), (0.64, aside)] if aside else []
    whole = np.zeros(SIDES, np.float32)
    for x, count in columns:
        rows = np.linspace(0.16, 0.84, count).tolist() if count > 1 else [0.5]
        if aside > 2 and x == 0.5:  # between the rows of the other columns
            rows = [0.33, 0.67][:count] if aside == 3 else [0.27, 0.73] if count == 2 else [0.5]
        for y in rows:
            symbol = _suit(suit, side)
            corner = round(y * SIDES[0] - side / 2), round(x * SIDES[1] - side / 2)
            whole = np.maximum(whole, _placed(symbol if y <= 0.5 else symbol[::-1], *corner))
    return whole


def _figure(rank: str, suit: str, font: int) -> Floats:
    """Return the opacity of a frame with a letter and symbols, in place of the figure of a court card."""
    frame = np.zeros(SIDES, np.float32)
    cv2.rectangle(frame, (62, 40), (SIDES[1] - 63, SIDES[0] - 41), 0.8, 2)
    for offset in range(0, 2 * SIDES[0], 14):
        cv2.line(frame, (64, 42 + offset), (64 + offset, 42), 0.18, 2)
    frame[:, SIDES[1] - 62 :] = frame[:40] = frame[SIDES[0] - 40 :] = 0
    symbol = _placed(_suit(suit, 40), 50, 68)
    letter = _placed(_text(rank, font, (96, 72)), 120, 84)
    return np.asarray(np.maximum.reduce([frame, letter, symbol, symbol[::-1, ::-1]]), np.float32)
