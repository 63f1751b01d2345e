"""Files of D-FINE and RT-DETRv2: of the authors and of transformers, from the cache, the hub and a release."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tldet import checkpoint
from tldet.config import read_config
from tldet.config.files import shipped
from tldet.errors import CheckpointError
from tldet.models.detector import Detector, build_detector
from tldet.transfer import sources
from tldet.transfer.cached_weights import is_here
from tldet.transfer.initial_weights import load_initial, open_initial
from tldet.transfer.interop.dialects.dfine import from_dfine
from tldet.transfer.interop.known import coco_weights, recognize
from tldet.workflows.import_checkpoint import import_checkpoint

HGNET = "dfine_s"
AUTHORS = (  # our names to those of the authors' repositories, for D-FINE on HGNetV2
    (r"^backbone\.body\.", "backbone."),
    (r"^neck\.input_proj\.", "encoder.input_proj."),
    (r"^neck\.layers\.", "encoder.encoder.0.layers."),
    (r"^neck\.lateral\.", "encoder.lateral_convs."),
    (r"^neck\.downsample\.(\d+)\.0\.", r"encoder.downsample_convs.\1.0.cv1."),
    (r"^neck\.downsample\.(\d+)\.1\.", r"encoder.downsample_convs.\1.0.cv2."),
    (r"^neck\.top_down\.", "encoder.fpn_blocks."),
    (r"^neck\.bottom_up\.", "encoder.pan_blocks."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.conv1\.", r"\1.cv1."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.conv4\.", r"\1.cv4."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.csp1\.", r"\1.cv2.0."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.csp2\.", r"\1.cv3.0."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.conv2\.", r"\1.cv2.1."),
    (r"^(encoder\.(?:fpn|pan)_blocks\.\d+)\.conv3\.", r"\1.cv3.1."),
    (r"^head\.proposal\.output\.", "decoder.enc_output.proj."),
    (r"^head\.proposal\.norm\.", "decoder.enc_output.norm."),
    (r"^head\.proposal\.cls_score\.", "decoder.enc_score_head."),
    (r"^head\.proposal\.bbox_head\.", "decoder.enc_bbox_head."),
    (r"^head\.denoising_embed\.", "decoder.denoising_class_embed."),
    (r"^head\.decoder\.(up|reg_scale)$", r"decoder.\1"),
    (r"^head\.decoder\.query_pos\.", "decoder.query_pos_head."),
    (r"^head\.decoder\.pre_bbox_head\.", "decoder.pre_bbox_head."),
    (r"^head\.decoder\.layers\.(\d+)\.cls_score\.", r"decoder.dec_score_head.\1."),
    (r"^head\.decoder\.layers\.(\d+)\.bbox_head\.", r"decoder.dec_bbox_head.\1."),
    (r"^head\.decoder\.layers\.(\d+)\.quality\.", r"decoder.decoder.lqe_layers.\1.reg_conf."),
    (r"^head\.decoder\.layers\.(\d+)\.gate\.", r"decoder.decoder.layers.\1.gateway."),
    (r"^head\.decoder\.layers\.", "decoder.decoder.layers."),
)


def detector(name: str = HGNET, classes: int = 80) -> Detector:
    torch.manual_seed(2)
    section = read_config(f"recipes/{name}")["model"]
    section["head"]["num_classes"] = classes
    return build_detector(section, [f"class {n}" for n in range(classes)])


def in_authors_names(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state dict as Peterande/D-FINE writes it, with its constants."""
    found: dict[str, Tensor] = {}
    for key, value in state.items():
        name = key
        for pattern, theirs in AUTHORS:
            name = re.sub(pattern, theirs, name)
        if ".self_attn.qk_proj." in name:
            other = state[key.replace("qk_proj", "v_proj")]
            name, value = name.replace("qk_proj.", "in_proj_"), torch.cat([value, other])
        if ".self_attn.v_proj." not in name:
            found[name] = value
    constants = {"decoder.anchors": torch.zeros(1, 8400, 4), "decoder.valid_mask": torch.ones(1, 8400, 1)}
    scale = {f"decoder.decoder.layers.{n}.cross_attn.num_points_scale": torch.ones(12) for n in range(3)}
    return {**found, **constants, **scale}


def same(mine: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    names = [name for name in other if not name.endswith("num_batches_tracked")]
    return all(torch.equal(mine[name], other[name]) for name in names)


def test_the_authors_names() -> None:
    """Every tensor comes back; none is left over."""
    state = detector().state_dict()
    theirs = in_authors_names(state)
    assert not any(name.startswith(("neck.", "head.", "backbone.body.")) for name in theirs)
    back = from_dfine(theirs)
    assert set(back) == set(state)
    assert same(back, state)
    layout = recognize(theirs)
    assert (layout.dialect, layout.case, layout.classes, layout.backbone) == ("dfine", "dfine_s", 80, "hgnetv2_b0")


@pytest.mark.parametrize(("key", "averaged"), [("model", False), ("ema", True)])
def test_import_of_the_authors_files(tmp_path: Path, key: str, averaged: bool) -> None:
    """Averaged weights are preferred where a training checkpoint holds both."""
    state = detector(classes=5).state_dict()
    theirs = in_authors_names(state)
    content: dict[str, Any] = {"model": theirs}
    if averaged:
        content = {
            "model": {name: value + 1 if value.is_floating_point() else value for name, value in theirs.items()},
            "ema": {"module": theirs, "updates": 100},
            "last_epoch": 3,
        }
    torch.save(content, tmp_path / "best.pth")
    import_checkpoint(tmp_path / "best.pth", out=tmp_path / "ours.pt", classes=["a", "b", "c", "d", "e"])
    found = checkpoint.load_checkpoint(tmp_path / "ours.pt")
    assert same(found["model"], state)
    assert found["meta"]["class_names"] == ["a", "b", "c", "d", "e"]
    assert found["meta"]["input"] == {"short": 640, "long": 640}


@pytest.mark.parametrize("newer", [False, True])
@pytest.mark.parametrize("name", ["dfine_s", "rtdetrv2_r18"])
def test_import_of_transformers_files(name: str, newer: bool, tmp_path: Path) -> None:
    """In the older naming, which ``save_pretrained`` writes, and in that of the running model; nothing is unmatched."""
    from tests.dfine_reference import their_state, theirs

    model = theirs(name, 7)
    if newer:
        own = {key: value.clone() for key, value in model.state_dict().items()}
        assert any(".aifi." in key for key in own)
        save_file(own, tmp_path / "model.safetensors")
    else:
        model.save_pretrained(tmp_path)
    import_checkpoint(tmp_path / "model.safetensors", out=tmp_path / "ours.pt")
    found = checkpoint.load_checkpoint(tmp_path / "ours.pt")["model"]
    assert same(found, from_dfine(their_state(model)))


def test_published_weights_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every size has a source; a file in the cache is used without network, by class name."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    assert coco_weights("dfine_x", shipped()) == "dfine:dfine_x_coco"
    assert coco_weights("rtdetrv2_r50_m", shipped()) == "hf:PekingU/rtdetr_v2_r50vd_m"
    source = coco_weights(HGNET, shipped())
    assert not is_here(source)
    (tmp_path / "checkpoints").mkdir()
    published = detector().state_dict()
    torch.save({"model": in_authors_names(published)}, tmp_path / "checkpoints" / "dfine_s_coco.pth")
    assert is_here(source)
    model = detector(classes=2)
    model.class_names = ("dog", "person")
    report = load_initial(model, source)
    assert report.classes == {"dog": "dog", "person": "person"}
    for layer in ("head.proposal.cls_score.weight", "head.denoising_embed.weight"):
        assert torch.equal(model.state_dict()[layer][:2], published[layer][[16, 0]]), layer
    assert not report.new
    assert not report.unused
    start = open_initial(tmp_path / "checkpoints" / "dfine_s_coco.pth")
    assert start is not None
    assert start.backbone == "hgnetv2_b0"


def test_without_network_the_message_names_url_and_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(sources, "HUB", "http://127.0.0.1:9")
    place = re.escape(str(tmp_path / "checkpoints" / "ustc-community--dfine-small-coco--model.safetensors"))
    with pytest.raises(CheckpointError, match=rf"cannot download http://127.0.0.1:9/ustc.*place the file at {place}"):
        sources.fetch_source("hf:ustc-community/dfine-small-coco")
    with pytest.raises(CheckpointError, match="expected hf:OWNER/NAME"):
        sources.fetch_source("hf:nothing")


class Hub(BaseHTTPRequestHandler):
    """Redirects to a storage and states the SHA-256 of the file, as the hub does."""

    content = b"weights"
    stated = ""

    def do_GET(self) -> None:
        if self.path.startswith("/storage"):
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.content)
        else:
            self.send_response(302)
            self.send_header("Location", "/storage")
            self.send_header("X-Linked-Etag", f'"{self.stated}"')
            self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setattr(sources, "HUB", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
        yield tmp_path / "checkpoints" / "a--b--model.safetensors"
        server.shutdown()


def test_the_hub_s_digest_is_checked(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest = hashlib.sha256(Hub.content).hexdigest()
    monkeypatch.setattr(Hub, "stated", digest)
    assert sources.fetch_source("hf:a/b") == hub
    assert hub.read_bytes() == Hub.content
    assert hub.with_name(f"{hub.name}.sha256").read_text() == digest
    assert sources.fetch_source("hf:a/b") == hub
    hub.write_bytes(b"changed")
    with pytest.raises(CheckpointError, match=r"its SHA-256 is .* remove the file and try again"):
        sources.fetch_source("hf:a/b")


def test_another_file_than_the_hub_states_is_refused(hub: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Hub, "stated", "0" * 64)
    with pytest.raises(CheckpointError, match=r"the server states 0000"):
        sources.fetch_source("hf:a/b")
    assert not hub.exists()
