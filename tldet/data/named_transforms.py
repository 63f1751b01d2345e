"""Any albumentations transform by name in a config: ``dict(type='A.GaussNoise', std_range=[0.1, 0.2], p=0.5)``."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from typing import Any

from tldet.data.albumentation import Albumentation, albumentations, leaves
from tldet.errors import ConfigError
from tldet.plugins import PREFIXES

PREFIX = "A."
LEAST_VISIBLE = 0.3  # as in RandomCrop
NESTING = ("Compose", "ReplayCompose")  # have settings of their own for boxes
SUPPLIED = {"image", "bboxes", "masks"}
FAULTY = {"Morphological": "returns boxes that span several objects (a fault of albumentations)"}


def albumentation(name: str) -> Callable[..., Albumentation]:
    """Return a factory of the albumentations transform ``name``, with its parameters and ``least_visible``.

    ``least_visible`` is that of :class:`~tldet.data.crops.Albumentation`. Transforms within a composition (``A.OneOf``,
    ``A.SomeOf``, ``A.Sequential``) are dicts with a ``type`` too.

    Raises:
        ConfigError: there is no such transform, or it cannot be used for images and boxes.
    """
    kind = _class(name)

    def make(**values: Any) -> Albumentation:
        least = values.pop("least_visible", LEAST_VISIBLE)
        transform = _built(kind, values)
        for leaf in leaves(transform):
            _check(leaf)
        return Albumentation(transform, least_visible=least, name=f"{PREFIX}{name}")

    keyword = inspect.Parameter.KEYWORD_ONLY
    extra = inspect.Parameter("least_visible", keyword, default=LEAST_VISIBLE, annotation=float)
    make.__signature__ = inspect.Signature([*_parameters(kind), extra])  # type: ignore[attr-defined]
    make.__annotations__ = {"least_visible": float}
    return make


def _class(name: str) -> Any:
    library = albumentations()
    found, bases = getattr(library, name, None), (library.BasicTransform, library.BaseCompose)
    if inspect.isclass(found) and issubclass(found, bases) and name not in NESTING:
        return found
    known = [key for key, one in vars(library).items() if inspect.isclass(one) and issubclass(one, bases)]
    near = ", ".join(PREFIX + key for key in difflib.get_close_matches(name, known, n=3, cutoff=0.0))
    raise ConfigError(f"albumentations has no transform {name!r} that can be used here; nearest: {near}")


def _parameters(kind: Any) -> list[inspect.Parameter]:
    """Return the parameters of a transform, all by keyword."""
    own = list(inspect.signature(kind.__init__).parameters.values())[1:]
    named = [p for p in own if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    return [p.replace(kind=p.KEYWORD_ONLY, annotation=p.empty) for p in named]


def _built(kind: Any, values: Mapping[str, Any]) -> Any:
    """Build a transform; the dropped regions of an image are dropped from its masks too unless specified otherwise.

    Raises:
        ValueError: albumentations rejects a value (it would take its defaults instead without ``strict``).
    """
    arguments = {key: _nested(value) for key, value in values.items()}
    known = {p.name: p for p in _parameters(kind)}
    if unknown := sorted(set(arguments) - set(known)):
        raise ConfigError(f"{PREFIX}{kind.__name__} has no parameter {unknown[0]!r}; it has {', '.join(known)}")
    if "fill_mask" in known and known["fill_mask"].default is None:
        arguments.setdefault("fill_mask", 0)
    strict = {"strict": True} if hasattr(kind.__init__, "__signature__") else {}  # of validated transforms
    return kind(**arguments, **strict)


def _nested(value: Any) -> Any:
    """Build the transforms within a composition."""
    if isinstance(value, Mapping) and isinstance(value.get("type"), str):
        name = value["type"].removeprefix(PREFIX)
        return _built(_class(name), {key: one for key, one in value.items() if key != "type"})
    if isinstance(value, (list, tuple)):
        return type(value)(_nested(one) for one in value)
    return value


def _check(transform: Any) -> None:
    """Reject a transform whose inputs or outputs tldet's samples do not have.

    Raises:
        ConfigError: the transform is for volumes, does not move boxes or moves them wrongly, or needs other data.
    """
    library, name = albumentations(), f"{PREFIX}{type(transform).__name__}"
    targets = getattr(transform, "_targets", ())  # base classes have none
    kinds = {target.name for target in (targets if isinstance(targets, (tuple, list)) else (targets,))}
    if "IMAGE" not in kinds:
        raise ConfigError(f"{name}: is not for images")
    if not isinstance(transform, library.ImageOnlyTransform) and not {"BBOXES", "MASK"} <= kinds:
        raise ConfigError(f"{name}: does not transform boxes and masks")
    if why := FAULTY.get(type(transform).__name__):
        raise ConfigError(f"{name}: {why}")
    if needed := sorted(set(transform.targets_as_params) - SUPPLIED):
        raise ConfigError(f"{name}: needs {', '.join(needed)}, which a config cannot specify")


PREFIXES["transform"] = {PREFIX: albumentation}
