"""Weights files as people save them: which are loaded, and what the message is for the others."""

import argparse
import collections
import datetime as dt
import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import timm
import torch
import torchvision
from torch import Tensor, nn

from container.classifier.errors import UserError
from container.networks.network import build
from container.training.fitting.pretrained import load_channel
from tests.test_pretrained import Malicious, write_archive

State = Mapping[str, Tensor]

torch.manual_seed(0)
RESNET = torchvision.models.resnet18(num_classes=10)
STATE: State = RESNET.state_dict()
CHILDREN = [name for name, _ in RESNET.named_children()]


class AttributeDict(dict[str, object]):
    """Like the type of the hyperparameters in Lightning's checkpoints."""


class Settings:
    """A type that the training program does not have."""

    def __init__(self) -> None:
        self.momentum = np.float64(0.9)


def behind(prefix: str, state: State = STATE) -> dict[str, Tensor]:
    return {prefix + name: tensor for name, tensor in state.items()}


def numbered(prefix: str) -> dict[str, Tensor]:
    """Return the names that `nn.Sequential(*resnet.children())` gives."""
    parts = [(name.partition("."), tensor) for name, tensor in STATE.items()]
    return {f"{prefix}{CHILDREN.index(p[0])}.{p[2]}": t for p, t in parts if p[0] != "fc"}


EXTRAS = {
    "epoch": 3,
    "best_acc1": np.float64(0.4),
    "history": np.arange(3),
    "args": argparse.Namespace(lr=0.1, data=Path("data")),
    "time": dt.datetime.now(dt.UTC),
    "counts": collections.defaultdict(list, a=[1]),
    "recent": collections.deque([1]),
    "settings": Settings(),
    "optimizer": torch.optim.SGD(RESNET.parameters(), 0.1).state_dict(),
    "optimizer_class": torch.optim.SGD,
}
DOUBLE_HEAD = {"head.weight": torch.zeros(4, 512), "criterion.weight": torch.ones(4)}

FORMS: Mapping[str, object] = {
    **{
        f"prefix {prefix}": behind(prefix)
        for prefix in ("module.", "_orig_mod.", "model.", "backbone.", "net.", "encoder.")
    },
    "prefixes": behind("module._orig_mod.model.backbone."),
    "DataParallel inside": {n.replace("layer1.", "layer1.module."): t for n, t in STATE.items()},
    **{
        f"wrapper {name}": {name: STATE, "epoch": 1}
        for name in ("state_dict", "model_state_dict", "model", "net", "ema", "module", "params")
    },
    "wrapper in a wrapper": {"checkpoint": {"model": behind("module.")}},
    "Lightning": {
        "state_dict": {**behind("model."), **DOUBLE_HEAD},
        "hyper_parameters": AttributeDict(lr=0.1),
        "callbacks": {"ModelCheckpoint": {"best_model_score": torch.tensor(0.3)}},
    },
    "with that of the optimizer": (STATE, {"state": {}, "param_groups": [{"lr": 0.1}]}),
    "extras": {"state_dict": STATE, **EXTRAS},
    "fastai": {"model": {**numbered("0."), "1.8.weight": torch.zeros(4, 512)}, "opt": None},
    "thop": {**STATE, "total_ops": torch.zeros(1), "layer1.0.total_params": torch.zeros(1)},
    "children in a Sequential": numbered("feature_extractor."),
    "half precision": {n: t.half() if t.is_floating_point() else t for n, t in STATE.items()},
    "parameters": dict(RESNET.named_parameters()) | dict(RESNET.named_buffers()),
}


def load(path: Path, network: str = "resnet18") -> nn.Module:
    ours = build(network, 3, 64)
    load_channel(ours, path.parent)
    return ours.module


def message_of(path: Path, network: str = "resnet18") -> str:
    with pytest.raises(UserError) as rejection:
        load(path, network)
    return str(rejection.value)


@pytest.mark.parametrize("form", FORMS)
def test_common_forms_are_loaded(tmp_path: Path, form: str) -> None:
    torch.save(FORMS[form], tmp_path / "w.pth")

    loaded = load(tmp_path / "w.pth").state_dict()

    for name in ("conv1.weight", "layer4.1.bn2.running_var"):
        assert torch.allclose(loaded[name], STATE[name], atol=1e-3)
        assert loaded[name].dtype == torch.float32


@pytest.mark.parametrize(
    "name",
    [
        "last.ckpt",
        "w.bin",
        "model_best.pth.tar",
        "W.PT",
        "w.pkl",
        "weights",
        "model.tar.gz",
        "w.tar",
    ],
)
def test_suffixes_and_both_formats_are_loaded(tmp_path: Path, name: str) -> None:
    file, is_zip = io.BytesIO(), name not in {"weights", "W.PT"}
    content = {"state_dict": behind("module."), **EXTRAS}
    torch.save(content, file, _use_new_zipfile_serialization=is_zip)
    # Programs leave copies in such folders.
    (tmp_path / ".ipynb_checkpoints").mkdir()
    (tmp_path / ".ipynb_checkpoints" / "w-checkpoint.pth").touch()
    if name.endswith((".gz", "w.tar")):
        write_archive(tmp_path / name, {"code/inference.py": b"", "model.pth": file.getvalue()})
    else:
        (tmp_path / name).write_bytes(file.getvalue())

    assert torch.equal(load(tmp_path / name).state_dict()["conv1.weight"], STATE["conv1.weight"])


@pytest.mark.parametrize(
    "averaged",
    [
        {"state_dict": STATE, "state_dict_ema": behind("", {**STATE, "bn1.bias": torch.ones(64)})},
        {"student": behind("module."), "teacher": {**behind("b."), "b.bn1.bias": torch.ones(64)}},
        {**behind("model."), **behind("ema_model."), "ema_model.bn1.bias": torch.ones(64)},
    ],
)
def test_averages_of_the_weights_are_preferred(tmp_path: Path, averaged: object) -> None:
    torch.save(averaged, tmp_path / "w.pth")

    assert load(tmp_path / "w.pth").state_dict()["bn1.bias"].eq(1).all()


def test_several_networks_in_a_file_are_named(tmp_path: Path) -> None:
    torch.save(behind("encoder_q.") | behind("encoder_k."), tmp_path / "w.pth")

    assert message_of(tmp_path / "w.pth") == (
        "w.pth holds several sets of weights of resnet18, behind `encoder_q.` and `encoder_k.`: "
        "save one of them alone"
    )


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_pickled_module_is_rejected_with_a_command_that_converts_it(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_zip: bool,  # noqa: FBT001
) -> None:
    (tmp_path / "channel").mkdir()
    path = tmp_path / "channel" / "w.pth"
    torch.save({"model": RESNET}, path, _use_new_zipfile_serialization=is_zip)

    message = message_of(path)

    assert "could run code when it is loaded: convert it where you trust it, with" in message
    program = re.search(r'python -c "(.+)"$', message)
    assert program
    monkeypatch.chdir(path.parent)
    exec(program[1], {})  # noqa: S102
    path.unlink()
    loaded = load(path.with_name("weights.pth")).state_dict()
    assert torch.equal(loaded["conv1.weight"], STATE["conv1.weight"])


@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")
def test_a_torchscript_program_is_rejected_with_a_command_that_converts_it(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), tmp_path / "w.pt")

    message = message_of(tmp_path / "w.pt")

    assert message.startswith("w.pt is a TorchScript program, which could run code")
    assert "torch.jit.load('w.pt', 'cpu')" in message


def test_code_in_a_file_of_the_legacy_format_is_not_run(tmp_path: Path) -> None:
    (tmp_path / "channel").mkdir()
    path = tmp_path / "channel" / "w.pth"
    content = {"a": torch.zeros(2), "extra": Malicious(tmp_path / "executed")}
    torch.save(content, path, _use_new_zipfile_serialization=False)

    assert "it has pickled Python objects, which could run code" in message_of(path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [
        ("w.pth", b"version https://git-lfs.github.com/spec/v1\n", "run `git lfs pull`"),
        ("w.safetensors", b"<!DOCTYPE html><html>", "is a web page"),
        ("w.bin", b"\x89HDF\r\n\x1a\n", "is an HDF5 file of Keras"),
        ("w.pth", b"", "w.pth is empty"),
        ("w.pth", b"weights of my network\n", "is a text file, not weights"),
        ("w.pkl", pickle.dumps({"a": 1}), "is a pickle, which is not loaded"),
        ("w.pt", b"PK\x05\x06" + bytes(18), "is a zip, but not of torch.save"),
    ],
)
def test_files_that_are_something_else_are_named(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)

    assert reason in message_of(tmp_path / name)


@pytest.mark.parametrize("saved", ["resnet34", "squeezenet1_1", "regnet_y_400mf"])
def test_weights_of_another_network_name_the_network_that_fits(tmp_path: Path, saved: str) -> None:
    module = torchvision.models.get_model(saved, num_classes=7)
    torch.save({"model": behind("module.", module.state_dict())}, tmp_path / "w.pth")

    message = message_of(tmp_path / "w.pth")

    assert message.startswith(
        "w.pth holds weights of another network than resnet18: they fit "
        f"{saved}, so set network={saved}; "
    )


def test_values_that_are_not_finite_are_rejected(tmp_path: Path) -> None:
    for value in (torch.tensor(torch.nan), torch.tensor(1e300, dtype=torch.float64)):
        torch.save({**STATE, "bn1.weight": value.expand(64).clone()}, tmp_path / "w.pth")

        assert "bn1.weight has values that are not finite" in message_of(tmp_path / "w.pth")


def test_a_damaged_file_is_rejected(tmp_path: Path) -> None:
    torch.save(STATE, tmp_path / "w.pth")
    data = bytearray((tmp_path / "w.pth").read_bytes())
    data[len(data) // 2] ^= 1
    (tmp_path / "w.pth").write_bytes(data)

    assert message_of(tmp_path / "w.pth").startswith("w.pth is damaged: ")


@pytest.mark.parametrize(
    ("tensor", "what"),
    [
        (torch.ones(64, device="meta"), r"no values \(device `meta`\)"),
        (torch.ones(64, dtype=torch.complex64), "complex numbers"),
        (torch.ones(64).to_sparse(), "sparse values"),
    ],
)
def test_tensors_without_real_values_are_rejected(
    tmp_path: Path, tensor: Tensor, what: str
) -> None:
    torch.save({**STATE, "bn1.weight": tensor}, tmp_path / "w.pth")

    assert re.search(f"bn1.weight has {what}: save", message_of(tmp_path / "w.pth"))


@pytest.mark.filterwarnings("ignore:.*quantize_per_tensor:UserWarning")
def test_quantized_tensors_are_rejected(tmp_path: Path) -> None:
    quantized = torch.quantize_per_tensor(torch.ones(64), 0.1, 0, torch.qint8)
    torch.save({**STATE, "bn1.weight": quantized}, tmp_path / "w.pth")

    assert "bn1.weight has quantized values: save" in message_of(tmp_path / "w.pth")


TIMM = {
    "convnext_tiny": ("convnext_tiny", 64),
    "densenet121": ("densenet121", 64),
    "efficientnet_b0": ("efficientnet_b0", 64),
    "mnasnet0_5": ("mnasnet_050", 64),
    "mobilenet_v2": ("mobilenetv2_100", 64),
    "mobilenet_v3_small": ("mobilenetv3_small_100", 64),
    "regnet_y_400mf": ("regnety_004", 64),
    "resnet18": ("resnet18", 64),
    "swin_t": ("swin_tiny_patch4_window7_224", 224),
    "vit_b_32": ("vit_base_patch32_224", 224),
}


@pytest.mark.parametrize("name", TIMM)
def test_weights_of_timm_give_the_same_features(tmp_path: Path, name: str) -> None:
    theirs_name, size = TIMM[name]
    torch.manual_seed(0)
    theirs: Any = timm.create_model(theirs_name, num_classes=5)
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.load_state_dict({"running_var": torch.rand(module.num_features)}, strict=False)
    # safetensors sorts the names.
    safetensors.torch.save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    ours = build(name, 3, size)
    images = torch.randn(1, 3, size, size, dtype=torch.float64)

    load_channel(ours, tmp_path)

    ours.module.set_submodule(ours.heads[-1], nn.Identity())
    theirs.reset_classifier(0)
    with torch.inference_mode():
        features = ours.module.double().eval()(images)
        expected = theirs.double().eval()(images)
    difference = (features - expected.flatten(1)).norm() / expected.norm()
    assert difference < 1e-5


def test_variants_of_timm_with_further_layers_are_rejected(tmp_path: Path) -> None:
    state = timm.create_model("vit_base_patch32_clip_224").state_dict()
    torch.save(state, tmp_path / "w.pth")

    assert message_of(tmp_path / "w.pth", "vit_b_32").startswith(
        "w.pth holds weights of another network than vit_b_32: "
    )
