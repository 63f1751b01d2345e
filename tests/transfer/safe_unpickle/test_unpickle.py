"""Foreign files: what is harmless comes through, nothing in them runs, claims are held against the file."""

from __future__ import annotations

import builtins
import contextlib
import functools
import io
import os
import pickle
import resource
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tldet.errors import CheckpointError
from tldet.transfer.safe_unpickle.archives import MAGIC, Archive, read_archive
from tldet.transfer.safe_unpickle.objects import StandIn
from tldet.transfer.safe_unpickle.unpickle import Machine


class Calls:
    """Pickles as a call of ``function``; with ``state`` the result is given a state afterwards."""

    def __init__(self, function: Any, *arguments: Any, state: Any = None) -> None:
        self.function, self.arguments, self.state = function, arguments, state

    def __reduce__(self) -> Any:
        call = (self.function, self.arguments)
        return call if self.state is None else (*call, self.state)


class Swallower:
    """An unknown class whose state holds a call, and whose ``__setstate__`` would run it."""

    def __init__(self, inside: Any) -> None:
        self.inside = inside

    def __setstate__(self, state: Any) -> None:
        os.system(state["command"])


def write(path: Path, value: Any, layout: str) -> Path:
    if layout == "pickle":
        path.write_bytes(pickle.dumps(value, protocol=4))
    else:
        torch.save(value, path, _use_new_zipfile_serialization=layout == "zip")
    return path


LAYOUTS = ["zip", "older", "pickle"]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize(
    "hostile",
    [
        lambda touch: Calls(os.system, touch),
        lambda touch: Calls(eval, f"__import__('os').system({touch!r})"),
        lambda touch: Calls(exec, f"import os; os.system({touch!r})"),
        lambda touch: Calls(map, os.system, [touch]),
        lambda touch: Calls(functools.partial, os.system, touch),
        lambda touch: Calls(getattr, Calls(__import__, "os"), "system"),
        lambda touch: Swallower(Calls(os.system, touch)),
        lambda touch: Calls(Swallower, None, state={"command": touch}),
        lambda touch: Calls(OrderedDict, [("a", Calls(os.system, touch))]),
        lambda touch: Calls(OrderedDict, state={"__class__": Calls(os.system, touch), "update": os.system}),
        lambda touch: Calls(torch.hub.load, touch, "model"),
        lambda touch: Calls(torch.jit.load, touch),
        lambda touch: Calls(torch.load, touch),
        lambda touch: Calls(torch.storage._load_from_bytes, pickle.dumps(Calls(os.system, touch))),
        lambda touch: Calls(pickle.loads, pickle.dumps(Calls(os.system, touch))),
        lambda touch: Calls(builtins.open, touch.split()[1], "w"),
        lambda touch: Calls(np.fromfile, touch),
        lambda touch: {Calls(os.system, touch): 1},
    ],
)
def test_code_in_a_file_is_never_executed(tmp_path: Path, layout: str, hostile: Callable[[str], Any]) -> None:
    marker = tmp_path / "ran"
    content = {"state_dict": {"w": torch.arange(3.0)}, "evil": hostile(f"touch {marker}")}
    if layout == "pickle":
        content["state_dict"] = {"w": np.arange(3, dtype=np.float32)}
    archive = read_archive(write(tmp_path / "f.pth", content, layout))
    assert archive.tensors(archive.value["state_dict"])["w"].tolist() == [0, 1, 2]
    assert sum(archive.set_aside.values()) >= 1
    assert not marker.exists()
    assert {p.name for p in tmp_path.iterdir()} == {"f.pth"}


def test_the_hostile_files_are_hostile(tmp_path: Path) -> None:
    """Else the test above could not fail."""
    path = write(tmp_path / "f.pth", Calls(os.system, f"touch {tmp_path / 'ran'}"), "pickle")
    with path.open("rb") as file:
        pickle.load(file)
    assert (tmp_path / "ran").exists()


@pytest.mark.parametrize("layout", LAYOUTS[:2])
def test_harmless_content_is_loaded(tmp_path: Path, layout: str) -> None:
    from mmengine.logging import HistoryBuffer

    base = torch.arange(12.0).view(3, 4)
    content = {
        "meta": {"CLASSES": ("a", "b"), "epoch": 3, "time": 1.5, "none": None, "yes": True, "bytes": b"\x00\xff"},
        "state_dict": OrderedDict(
            whole=base,
            turned=base.t(),
            row=base[1],
            half=base.half(),
            brain=base.bfloat16(),
            integers=torch.tensor([1, -2]),
            flags=torch.tensor([True, False]),
            empty=torch.zeros(0, 3),
            number=torch.tensor(7),
            parameter=torch.nn.Parameter(base.clone()),
        ),
        "numbers": {"scalar": np.float64(2.5), "array": np.arange(6).reshape(2, 3), "words": np.array(["a"])},
        "message_hub": {"log_scalars": OrderedDict(loss=HistoryBuffer([1.0, 2.0], [1, 1]))},
    }
    archive = read_archive(write(tmp_path / "f.pth", content, layout))
    tensors = archive.tensors(archive.value["state_dict"])
    assert list(tensors) == list(content["state_dict"])
    for name, tensor in content["state_dict"].items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert archive.value["meta"] == content["meta"]
    assert archive.value["numbers"]["scalar"] == 2.5
    arrays = archive.tensors(archive.value["numbers"])
    assert arrays.keys() == {"array"}
    assert arrays["array"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert archive.set_aside["mmengine.logging.history_buffer.HistoryBuffer"] == 1
    assert isinstance(archive.value["message_hub"]["log_scalars"]["loss"], StandIn)


@pytest.mark.parametrize("protocol", range(6))
def test_every_protocol_of_pickle(tmp_path: Path, protocol: int) -> None:
    shared = [1]
    content = {
        "ints": [0, -1, 255, 65536, -(2**31), 2**40, 2**3000],
        "text": ["", "plain", "naïve ☃", "\ud800x"],
        "floats": [0.1, float("inf"), -1e-300],
        "tuples": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "nested": {"a": {"b": [{}, [], None, True, False]}},
        "twice": [shared, shared],
        "bytes": b"ab\x00",
        "order": OrderedDict(a=1, b=2),
    }
    (tmp_path / "f.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    archive = read_archive(tmp_path / "f.pkl")
    assert archive.value == content
    assert archive.value["twice"][0] is archive.value["twice"][1]


def parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as file:
        return {name: file.read(name) for name in file.namelist()}


def packed(path: Path, content: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        for name, data in content.items():
            file.writestr(name, data)
    return path


def read_all(path: Path) -> dict[str, torch.Tensor]:
    archive = read_archive(path)
    return archive.tensors(archive.value)


def refused(path: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_all(path)
    assert str(raised.value).startswith(f"{path}: ")
    assert "\n" not in str(raised.value)
    return str(raised.value)


HERE = object()


def rebuilt(size: tuple[int, ...], stride: tuple[int, ...], offset: int = 0, numel: int = 4) -> bytes:
    """A data.pkl with one tensor that claims this."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value: Any) -> Any:
            return ("storage", torch.FloatStorage, "0", "cpu", numel) if value is HERE else None

    stream = io.BytesIO()
    call = Calls(torch._utils._rebuild_tensor_v2, HERE, offset, size, stride, False, OrderedDict())
    Pickler(stream, protocol=2).dump({"w": call})
    return stream.getvalue()


@pytest.mark.parametrize(
    ("claim", "expected"),
    [
        (rebuilt((10**12,), (1,)), "claims more than its storage"),
        (rebuilt((10**12,), (0,)), "claims more than its storage"),
        (rebuilt((5,), (1,)), "claims more than its storage"),
        (rebuilt((4,), (1,), offset=1), "claims more than its storage"),
        (rebuilt((2, 2), (3, 1)), "claims more than its storage"),
        (rebuilt((4,), (1,), numel=10**12), "claims 4,000,000,000,000 bytes and has 16"),
        (rebuilt((4,), (-1,), offset=3), "an invalid tensor"),
        (rebuilt((-4,), (1,)), "an invalid tensor"),
        (rebuilt((2**63,), (1,)), "an invalid tensor"),
        (rebuilt((4,), (2**80_000,)), "an invalid tensor"),
        (rebuilt((4,), (1,), offset=2**80_000), "an invalid tensor"),
        (rebuilt((4,), (1,), numel=2**80_000), "an invalid storage"),
    ],
)
def test_a_tensor_lies_inside_its_storage(tmp_path: Path, claim: bytes, expected: str) -> None:
    path = packed(tmp_path / "f.pth", {"a/data.pkl": claim, "a/data/0": bytes(16)})
    assert expected in refused(path)


def test_the_honest_claim_is_read(tmp_path: Path) -> None:
    path = packed(
        tmp_path / "f.pth", {"a/data.pkl": rebuilt((2, 2), (2, 1)), "a/data/0": struct.pack("4f", 1, 2, 3, 4)}
    )
    archive = read_archive(path)
    assert archive.tensors(archive.value)["w"].tolist() == [[1, 2], [3, 4]]


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02]r\xff\xff\xff\x7f.",  # remembers a list under the number 2**31 - 1
        b"\x80\x04\x96\xff\xff\xff\xff\xff\xff\xff\x00x.",  # a bytearray of 2**56 bytes
        b"\x80\x04\x8e\xff\xff\xff\xff\x00\x00\x00\x00x.",  # bytes: 4 GB
        b"\x80\x04\x95\xff\xff\xff\xff\xff\xff\xff\x7fN.",  # a frame of 2**63 - 1 bytes
        b"\x80\x02" + b"]" + b"2l" * 3,  # an unknown end
        b"\x80\x02]" + b"q\x00h\x00h\x00\x86" * 3000 + b".",  # tuples of themselves, 2**3000 in all
        b"\x80\x02" + b"N" + b"\x85" * 200_000 + b".",  # nested deeper than the machine's own stack
        b"\x80\x02}" + b"(N" + b"\x85" * 200_000 + b"Nu.",  # a key that deep
    ],
)
def test_memory_grows_no_faster_than_the_pickle(tmp_path: Path, program: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    (tmp_path / "f.pkl").write_bytes(program)
    for path in (packed(tmp_path / "f.pth", {"a/data.pkl": program}), tmp_path / "f.pkl"):
        with contextlib.suppress(CheckpointError):
            read_archive(path)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 300_000, "kilobytes"


TEXT = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000
PAIRS = b"](" + b"(K\x01K\x02t" * 100_000 + b"e"
SIDES = b"](" + b"K\x01" * 500_000 + b"e"
BYTES = b"B" + struct.pack("<I", 1_000_000) + bytes(1_000_000)


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02(c_codecs\nencode\nq\x000"
        + TEXT
        + b"q\x010"
        + b"h\x00h\x01X\x06\x00\x00\x00latin1\x86R" * 400
        + b"l.",
        b"\x80\x02(ccollections\nOrderedDict\nq\x000" + PAIRS + b"q\x010" + b"h\x00h\x01\x85R" * 400 + b"l.",
        b"\x80\x02(ctorch\nSize\nq\x000" + SIDES + b"q\x010" + b"h\x00h\x01\x85R" * 400 + b"l.",
        b"\x80\x04(\x8c\xf0" + b"m" * 240 + b"q\x000" + b"h\x00h\x00\x93" * 20_000 + b"l.",
    ],
)
def test_a_long_object_is_not_copied_again_and_again(tmp_path: Path, program: bytes) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "copies its objects too often" in refused(packed(tmp_path / "f.pth", {"a/data.pkl": program}))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert after - before < 200_000, "kilobytes"


def test_arrays_are_copied_once(tmp_path: Path) -> None:
    array = np.arange(1000.0)
    (tmp_path / "f.pkl").write_bytes(pickle.dumps({str(i): array for i in range(50)}, protocol=2))
    found = read_all(tmp_path / "f.pkl")
    assert len(found) == 50
    assert len({tensor.data_ptr() for tensor in found.values()}) == 1
    state = b"(K\x01M\xe8\x03\x85cnumpy\ndtype\nX\x02\x00\x00\x00u1\x85R\x89" + BYTES + b"t"
    state = state.replace(b"M\xe8\x03", b"J" + struct.pack("<i", 1_000_000))
    make = b"cnumpy.core.multiarray\n_reconstruct\n)R"
    program = b"\x80\x03(" + state + b"q\x010" + (make + b"h\x01b") * 100 + b"l."
    (tmp_path / "g.pkl").write_bytes(program)
    assert "too often" in refused(tmp_path / "g.pkl"), "a hundred arrays of the same bytes"


def test_a_name_has_an_end(tmp_path: Path) -> None:
    (tmp_path / "f.pkl").write_bytes(b"\x80\x02c" + b"m" * 501 + b"\nname\n.")
    assert "with an invalid name" in refused(tmp_path / "f.pkl")


def test_a_storage_s_key_is_text(tmp_path: Path) -> None:
    """The older layout's list of keys holds a tuple so deep that hashing it would overflow the stack."""
    magic, rest = pickle.dumps(MAGIC, protocol=2), pickle.dumps(1001, protocol=2) + pickle.dumps({}, protocol=2)
    keys = b"\x80\x02](N" + b"\x85" * 200_000 + b"e."
    (tmp_path / "f.pth").write_bytes(magic + rest + pickle.dumps({}, protocol=2) + keys + bytes(64))
    assert "a storage whose key is not a string" in refused(tmp_path / "f.pth")


def test_an_archive_that_unpacks_to_more_than_it_is(tmp_path: Path) -> None:
    bomb = {"a/data.pkl": rebuilt((4,), (1,)), "a/data/0": bytes(50_000_000)}
    assert "a compressed archive" in refused(packed(tmp_path / "f.pth", bomb, zipfile.ZIP_DEFLATED))
    torch.save({"w": torch.zeros(100_000)}, tmp_path / "g.pth")
    content = parts(tmp_path / "g.pth")
    with zipfile.ZipFile(tmp_path / "h.pth", "w") as file:
        for name, data in content.items():
            file.writestr(name, data)
        for twin in range(3):  # entries of the directory that share one stretch of the file
            info = zipfile.ZipInfo(f"x/data/{twin}")
            info.header_offset = file.getinfo("g/data/0").header_offset
            info.file_size, info.compress_size, info.CRC = 400_000, 400_000, 0
            file.filelist.append(info)
            file.NameToInfo[info.filename] = info
    assert "entries are larger than the file" in refused(tmp_path / "h.pth")


def test_names_in_an_archive_lead_nowhere(tmp_path: Path) -> None:
    inner = tmp_path / "inner"
    inner.mkdir()
    claim = rebuilt((4,), (1,)).replace(b"X\x01\x00\x00\x000", b"X\x0a\x00\x00\x00../../evil")
    content = {"a/data.pkl": claim, "a/data/../../evil": bytes(16), "../../evil": b"x", "/abs": b"x"}
    tensors = read_all(packed(inner / "f.pth", content))
    assert tensors["w"].tolist() == [0, 0, 0, 0], "a name in the archive, and nothing more"
    assert not (tmp_path / "evil").exists()
    assert not (tmp_path.parent / "evil").exists()
    assert {p.name for p in inner.iterdir()} == {"f.pth"}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_file_cut_off_anywhere_is_refused_in_one_line(tmp_path: Path, layout: str) -> None:
    content = {"w": np.arange(100.0)} if layout == "pickle" else {"w": torch.arange(100.0)}
    whole = write(tmp_path / "whole", content, layout).read_bytes()
    path = tmp_path / "f.pth"
    for length in [0, 1, 3, 4, 10, len(whole) // 4, len(whole) // 2, len(whole) - 40, len(whole) - 1]:
        path.write_bytes(whole[:length])
        refused(path)
    path.write_bytes(os.urandom(999))
    refused(path)
    path.write_text("version https://git-lfs.github.com/spec/v1\n")
    refused(path)
    assert "no such file" in refused(tmp_path / "none.pth")
    assert "is a folder" in refused(tmp_path)


def test_a_damaged_storage_is_named(tmp_path: Path) -> None:
    torch.save({"w": torch.ones(1000)}, tmp_path / "f.pth")
    data = bytearray((tmp_path / "f.pth").read_bytes())
    location = data.find(struct.pack("4f", 1, 1, 1, 1)) + 8
    data[location] ^= 0xFF
    (tmp_path / "f.pth").write_bytes(data)
    assert "CRC" in refused(tmp_path / "f.pth")


def test_unpicklers_share_no_state() -> None:
    machine = Machine({}, lambda key: key)
    value = machine.run(io.BytesIO(pickle.dumps([Calls(os.getcwd), torch.Size([2]), len], protocol=4)))
    assert [item.name for item in value] == [f"{os.getcwd.__module__}.getcwd", "torch.Size", "builtins.len"]
    assert [item.called for item in value] == [True, True, False]
    assert isinstance(Archive(Path("x"), value, machine.set_aside, {}).set_aside, dict)
