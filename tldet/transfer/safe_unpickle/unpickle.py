"""Restricted unpickler: reads pickles without running code from them.

A pickle is a program for a stack machine with an instruction that calls any importable function. This machine supports
all instructions, but calls only its own constructors of tensors, arrays and plain containers (``PLAIN`` and those of
the archive reader). All other classes and functions become a :class:`StandIn`, which ignores all operations and is
counted. Nothing is imported by a name from the file, no attribute is set, and only plain scalars are hashed. Memory is
bounded: a pickle can refer to a long object repeatedly with two bytes, so the total size of constructor arguments is
limited by the number of bytes read.
"""

from __future__ import annotations

import pickletools
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, BinaryIO

import numpy as np

from tldet.transfer.safe_unpickle.objects import PLAIN, Array, Builder, StandIn, plain_dict

PUSH = frozenset(
    {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"}
    | {"STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"}
    | {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
)
FRESH: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": list,  # a set would hash what the file puts into it
}
TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
LONGEST_NAME = 500  # characters of the name of a class or function
COPIES, ALLOWANCE = 4, 10_000  # largest size of constructor arguments: COPIES * bytes read + ALLOWANCE


class Machine:
    """Stack machine that runs pickles; stand-ins are counted over all of them.

    Args:
        builders: constructors by ``module.name``, in addition to ``PLAIN``.
        persistent: creates the value of a persistent id (torch's storages).

    Attributes:
        set_aside: number of stand-ins by class or function.
    """

    def __init__(self, builders: Mapping[str, Builder], persistent: Callable[[Any], Any]) -> None:
        self.builders = {**PLAIN, **builders}
        self.persistent = persistent
        self.set_aside: Counter[str] = Counter()
        self._stack: list[Any] = []
        self._below: list[list[Any]] = []  # stacks under the open marks
        self._memo: dict[int, Any] = {}
        self._read = self._given = 0  # bytes read, and total size of constructor arguments
        self._steps: dict[str, Callable[[Any], None]] = {
            **dict.fromkeys(("PROTO", "FRAME"), lambda _: None),
            **dict.fromkeys(PUSH, self._push),
            **{name: self._pushing(make) for name, make in FRESH.items()},
            **{name: self._pushing(partial(self._tuple, count)) for name, count in TUPLES.items()},
            "TUPLE": lambda _: self._push(tuple(self._marked())),
            "LIST": lambda _: self._push(self._marked()),
            "FROZENSET": lambda _: self._push(self._marked()),
            "DICT": lambda _: self._set_items(self._marked(), {}),
            "APPEND": lambda _: self._extend(self._take(1)),
            "APPENDS": lambda _: self._extend(self._marked()),
            "ADDITEMS": lambda _: self._extend(self._marked()),
            "SETITEM": lambda _: self._set_items(self._take(2), self._stack.pop()),
            "SETITEMS": lambda _: self._set_items(self._marked(), self._stack.pop()),
            "MARK": lambda _: self._mark(),
            "POP": lambda _: self._drop(),
            "POP_MARK": lambda _: self._drop_marked(),
            "DUP": lambda _: self._push(self._stack[-1]),
            **dict.fromkeys(("GET", "BINGET", "LONG_BINGET"), lambda number: self._push(self._memo[number])),
            **dict.fromkeys(("PUT", "BINPUT", "LONG_BINPUT"), self._remember),
            "MEMOIZE": lambda _: self._remember(len(self._memo)),
            "GLOBAL": lambda name: self._push(self._global(*name.split(" "))),
            "STACK_GLOBAL": lambda _: self._push(self._global(*self._take(2))),
            "REDUCE": lambda _: self._push(self._call(*self._take(2))),
            "NEWOBJ": lambda _: self._push(self._call(*self._take(2))),
            "NEWOBJ_EX": lambda _: self._push(self._call(*self._take(3))),
            "OBJ": lambda _: self._object(*self._marked()),
            "INST": lambda name: self._object(self._global(*name.split(" ")), *self._marked()),
            "BUILD": lambda _: self._build(self._stack.pop()),
            "PERSID": lambda text: self._push(self.persistent(text)),
            "BINPERSID": lambda _: self._push(self.persistent(self._stack.pop())),
        }

    def run(self, file: BinaryIO) -> Any:
        """Read the pickle at the current position of ``file``, which is then behind it.

        Raises:
            ValueError, TypeError, KeyError, IndexError: the pickle is invalid, truncated or unsupported.
        """
        self._stack, self._below, self._memo = [], [], {}
        before, start = self._read, file.tell()
        for opcode, argument, _ in pickletools.genops(file):
            self._read = before + file.tell() - start
            if opcode.name == "STOP":
                break
            if opcode.name not in self._steps:
                raise ValueError(f"a pickle with {opcode.name}")
            self._steps[opcode.name](argument)
        return self._stack.pop()

    def _push(self, value: Any) -> None:
        self._stack.append(value)

    def _pushing(self, make: Callable[[], Any]) -> Callable[[Any], None]:
        return lambda _: self._push(make())

    def _tuple(self, count: int) -> tuple[Any, ...]:
        return tuple(self._take(count))

    def _drop(self) -> None:
        if self._stack:
            self._stack.pop()
        else:
            self._marked()

    def _drop_marked(self) -> None:
        self._marked()

    def _take(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("a pickle that pops more values than it pushed")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _mark(self) -> None:
        self._below.append(self._stack)
        self._stack = []

    def _marked(self) -> list[Any]:
        items, self._stack = self._stack, self._below.pop()
        return items

    def _remember(self, number: int) -> None:
        self._memo[number] = self._stack[-1]

    def _extend(self, items: list[Any]) -> None:
        if isinstance(self._stack[-1], list):
            self._stack[-1].extend(items)

    def _set_items(self, flat: list[Any], onto: Any) -> None:
        if isinstance(onto, dict):
            onto.update(plain_dict(zip(flat[::2], flat[1::2], strict=True)))
        self._push(onto)

    def _global(self, *parts: Any) -> StandIn:
        if not all(isinstance(part, str) and len(part) <= LONGEST_NAME for part in parts):
            raise ValueError("a class or function with an invalid name")
        self._give(*parts)
        return StandIn(".".join(map(str.strip, parts)))

    def _give(self, *values: Any) -> None:
        """Count the size of constructor arguments.

        Raises:
            ValueError: it exceeds the limit.
        """
        self._given += sum(len(value) for value in values if isinstance(value, (str, bytes, list, tuple, dict)))
        if self._given > COPIES * self._read + ALLOWANCE:
            raise ValueError("a pickle that copies its objects too often")

    def _call(self, function: Any, arguments: Any, named: Any = None) -> Any:
        if not isinstance(function, StandIn):
            raise ValueError(f"a pickle that calls a {type(function).__name__}")
        builder = None if function.called or named else self.builders.get(function.name)
        if builder is not None and isinstance(arguments, tuple):
            self._give(*arguments)
            return builder(*arguments)
        self.set_aside[function.name] += 1
        return StandIn(function.name, called=True)

    def _object(self, function: Any, *arguments: Any) -> None:
        self._push(self._call(function, arguments))

    def _build(self, state: Any) -> None:
        """Set the state of an array; containers and stand-ins have none.

        Raises:
            ValueError: a dtype is big-endian.
        """
        made = self._stack[-1]
        if isinstance(made, Array):
            self._give(*state)
            made.fill(state)
        elif isinstance(made, np.dtype) and isinstance(state, tuple) and state[1:2] == (">",):
            raise ValueError("numbers in big-endian byte order")
