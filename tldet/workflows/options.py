"""Options of a command, each declared once: a field of a request with its help text.

The fields define the arguments of the command line (:func:`tldet.cli.arguments.add_options`) and of the Python function
(:func:`tldet.workflows.requests.takes`), the record of a run and the config keys that an option sets. Nothing heavy is
imported here, so that ``--help`` answers at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from tldet.inference import OVERLAP

CFG_OPTIONS = "--cfg-options"
COUNT, FROM_0, ABOVE_0, SHARE, PROBABILITY = "[1, inf)", "[0, inf)", "(0, inf)", "(0, 1]", "[0, 1]"  # intervals
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
SPLITS = ("train", "val", "test")
REQUIRED: Any = object()  # default of an option that must be given


class _Interval(NamedTuple):
    """Range of numbers of a type, such as ``(int, "[0, inf)")``; a round bracket excludes the end."""

    kind: type
    text: str

    def holds(self, value: Any) -> bool:
        """Return True for a number of the type in the interval; NaN and integers of more than 64 bits are in none."""
        if isinstance(value, bool) or not isinstance(value, int if self.kind is int else (int, float)):
            return False
        if isinstance(value, int) and not -(2**63) <= value < 2**63:  # libraries accept at most 64 bits
            return False
        low, high = self._ends
        above = value >= low if self.text[0] == "[" else value > low
        return above and (value <= high if self.text[-1] == "]" else value < high)

    def __str__(self) -> str:
        low, high = self._ends
        least = f"at least {low:g}" if self.text[0] == "[" else f"above {low:g}"
        if high != float("inf"):
            return f"{least} and at most {high:g}" if low or self.text[0] == "(" else f"from {low:g} to {high:g}"
        return f"an integer of {least}" if self.kind is int else f"a number {least}"

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = (float(end) for end in self.text[1:-1].split(","))
        return low, high


@dataclass(frozen=True)
class Option:
    """Properties of an option besides its name, type hint and default, which are those of its field.

    Attributes:
        help: help text.
        kind: type of a value on the command line; ``bool`` for a flag.
        interval: range of allowed numbers, as text.
        metavar: placeholder of the value in the help text.
        choices: allowed words.
        many: takes several values.
        repeated: takes one value each time it is given.
        auto: also takes the word ``auto``.
        const: value of the option without an argument.
        file: names an output file, which must not be a folder.
        sets: config keys that the option sets; ``--cfg-options`` must not set these.
        setting: the value is that of the first key in ``sets``; further keys become None.
        recorded: a resumed run must be given the same value.
        group: title in the help text.
        exclusive: name of a set of options of which one may be given.
        positional: has no name on the command line.
        off: flag that sets a flag with three states (default None) to False, with its help text.
    """

    help: str
    kind: type = str
    interval: str = ""
    metavar: str | None = None
    choices: Sequence[str] = ()
    many: bool = False
    repeated: bool = False
    auto: bool = False
    const: object = None
    file: bool = False
    sets: Sequence[str] = ()
    setting: bool = False
    recorded: bool = True
    group: str = ""
    exclusive: str = ""
    positional: bool = False
    off: tuple[str, str] | None = None

    @property
    def numbers(self) -> _Interval | None:
        """The allowed numbers; None for values that are not numbers."""
        return _Interval(self.kind, self.interval) if self.interval else None

    @property
    def allowed(self) -> str:
        """Description of the allowed numbers."""
        return f"'auto' or {self.numbers}" if self.auto else str(self.numbers)

    def values(self, value: Any) -> Sequence[Any]:
        """Return the values of an option that takes one or many."""
        return list(value) if self.many or self.repeated else [] if value is None else [value]

    def wrong(self, value: Any) -> Any:
        """Return the first value out of range; None if there is none."""
        numbers = self.numbers
        if numbers is None:
            return None
        return next((v for v in self.values(value) if not numbers.holds(v) and not (self.auto and v == "auto")), None)


def option(help: str, kind: type = str, *, default: Any = None, **details: Any) -> Any:
    """Return a dataclass field with an :class:`Option`.

    Args:
        help: help text.
        kind: type of a value.
        default: value if it is not given; ``REQUIRED`` for none. For flags, None means False, and for options with
            several values an empty tuple.
        details: see :class:`Option`.
    """
    if default is None and "off" not in details:
        default = False if kind is bool else () if details.get("many") or details.get("repeated") else None
    more: dict[str, Any] = {} if default is REQUIRED else {"default": default}
    return field(kw_only=True, metadata=described(help, kind, **details), **more)


def described(help: str, kind: type = str, **details: Any) -> dict[str, Option]:
    """Return the metadata of a field with an :class:`Option`, for arguments that may be given by position in Python."""
    return {"option": Option(help, kind, **details)}


def flag(name: str, default: object = None) -> str:
    """Return the name of an option on the command line; a flag that is on by default is turned off there."""
    return f"--{'no-' if default is True else ''}{name.replace('_', '-')}"


def overwrite_option() -> Any:
    """Return the field of ``overwrite``."""
    return option("replace existing output files (default: an error)", bool)


def device_option() -> Any:
    """Return the field of ``device``."""
    return option("device: cpu, cuda, cuda:1, ... (default: auto, a GPU if there is one)", default="auto", metavar="D")


def precision_option(auto: str) -> Any:
    """Return the field of ``precision``; ``auto`` describes the default."""
    return option(f"inference precision (default: {auto})", default="auto", choices=PRECISIONS)


def threads_option() -> Any:
    """Return the field of ``threads``; None: chosen by the runtime."""
    return option(
        "number of CPU threads for an exported detector (default: chosen by ONNX Runtime or OpenVINO)",
        int,
        metavar="N",
        interval=COUNT,
    )


def report_option() -> Any:
    """Return the field of ``report``, of commands that train one model."""
    return option(
        "do not write report.html, curves.png and samples (drawn validation images) at the end",
        bool,
        default=True,
        recorded=False,
    )


def format_option() -> Any:
    """Return the field of ``format``, the name of an annotation format; None detects it."""
    return option("annotation format: coco, yolo, voc, ... (default: detected); see docs/formats.md", metavar="NAME")


def split_option() -> Any:
    """Return the field of ``split``, a split of the checkpoint's config."""
    return option(
        "split of the checkpoint's config to evaluate on (default: test, or val if there is no test split)",
        choices=SPLITS,
    )


def voc_boxes_option() -> Any:
    """Return the field of ``voc_boxes``: "continuous", "inclusive", or None to detect it."""
    return option(
        "coordinates in Pascal VOC files: continuous (edges of the box), or inclusive (its first and last pixel, "
        "counted from 1) (default: detected)",
        choices=["continuous", "inclusive"],
    )


def nms_option() -> Any:
    """Return the field of ``nms_per_class``: True, False, or None for the setting of the checkpoint."""
    return option(
        "apply NMS within each class (default: setting of the checkpoint, per class in all recipes)",
        bool,
        off=(
            "--nms-agnostic",
            "apply NMS across classes: of two near-duplicate boxes, keep the one with the higher score",
        ),
    )


def tiles_option() -> Any:
    """Return the field of ``tiles``."""
    return option(
        "cut images larger than N pixels into tiles of N x N pixels, predict on the tiles and on the whole image, and "
        "merge the detections (default: no tiles)",
        int,
        metavar="N",
        interval=COUNT,
    )


def overlap_option() -> Any:
    """Return the field of ``overlap``."""
    text = f"minimum overlap of neighboring tiles, as a fraction of --tiles (default: {OVERLAP})"
    return option(text, float, default=OVERLAP, metavar="F", interval="[0, 0.5]")
