"""Pretrained weights from a channel: accepted and rejected files, and no code execution."""

import io
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import Tensor

from container.classifier.errors import UserError
from container.networks.network import Network, build
from container.training.fitting.pretrained import load_channel
from tests.opt_ml import HYPERPARAMETERS, configure, failure, make_job, train_here

SQUEEZENET = Path(__file__).resolve().parent.parent.parent / "shared/data/weights"


def network(seed: int, num_classes: int = 3, name: str = "small") -> Network:
    torch.manual_seed(seed)
    return build(name, num_classes)


def state_of(network: Network) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in network.module.state_dict().items()}


def are_equal(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def write_archive(path: Path, files: Mapping[str, bytes]) -> None:
    with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))


@pytest.mark.parametrize("form", ["pth", "pt", "state_dict", "model", "module.", "safetensors"])
def test_all_common_forms_of_a_state_dict_are_read(tmp_path: Path, form: str) -> None:
    saved = state_of(network(seed=1))
    if form == "safetensors":
        safetensors.torch.save_file(saved, tmp_path / "weights.safetensors")
    elif form in {"state_dict", "model"}:
        torch.save({form: saved, "epoch": 3}, tmp_path / "weights.pth")
    elif form == "module.":
        torch.save({f"module.{name}": t for name, t in saved.items()}, tmp_path / "weights.pth")
    else:
        torch.save(saved, tmp_path / f"weights.{form}")
    ours = network(seed=2)

    load_channel(ours, tmp_path)

    assert are_equal(state_of(ours), saved)


@pytest.mark.parametrize("prefix", ["", "./"])
def test_the_archive_of_an_earlier_job_is_read(tmp_path: Path, prefix: str) -> None:
    saved = state_of(network(seed=1))
    data = safetensors.torch.save(saved)
    files = {f"{prefix}manifest.json": b"{}", f"{prefix}weights.safetensors": data}
    write_archive(tmp_path / "model.tar.gz", files)
    ours = network(seed=2)

    load_channel(ours, tmp_path)

    assert are_equal(state_of(ours), saved)


def test_a_head_for_other_classes_is_skipped(tmp_path: Path) -> None:
    saved = state_of(network(seed=1, num_classes=1000))
    torch.save(saved, tmp_path / "weights.pth")
    ours = network(seed=2)
    head = ours.module.get_submodule(ours.heads[0])
    before = {name: tensor.clone() for name, tensor in head.state_dict().items()}

    load_channel(ours, tmp_path)

    assert are_equal(head.state_dict(), before)
    assert torch.equal(state_of(ours)["stem.0.weight"], saved["stem.0.weight"])


@pytest.mark.parametrize(
    "name",
    ["densenet121", "googlenet", "inception_v3", "mnasnet0_5", "mobilenet_v3_small", "vit_b_32"],
)
def test_torchvision_files_with_earlier_names_are_read(tmp_path: Path, name: str) -> None:
    saved = state_of(network(seed=1, num_classes=1000, name=name))
    torch.save({_name_of_old(name, key): t for key, t in saved.items()}, tmp_path / "old.pth")
    ours = network(seed=2, name=name)

    load_channel(ours, tmp_path)

    loaded = state_of(ours)
    first = next(key for key in loaded if key.endswith("weight"))
    assert torch.equal(loaded[first], saved[first])


def test_position_embeddings_are_resized_to_the_image_size(tmp_path: Path) -> None:
    places = "encoder.pos_embedding"
    saved = state_of(network(seed=1, name="vit_b_32"))
    # A grid of 7 x 7 positions; each holds the number of its row.
    saved[places][0, 1:] = torch.arange(7.0).repeat_interleave(7)[:, None]
    torch.save(saved, tmp_path / "vit.pth")
    ours = build("vit_b_32", 3, image_size=96)

    load_channel(ours, tmp_path)

    grid = state_of(ours)[places][0, 1:].view(3, 3, -1)
    assert torch.equal(state_of(ours)[places][0, 0], saved[places][0, 0])
    assert torch.equal(grid[:, 0], grid[:, 2])
    assert 0 <= grid[0].mean() < 1.5 < grid[1].mean() < 4.5 < grid[2].mean() <= 6.5
    assert ours.module(torch.zeros(2, 3, 96, 96)).shape == (2, 3)


def _name_of_old(network: str, key: str) -> str:
    """Return the name of a tensor in torchvision's published files."""
    if network == "densenet121" and "denselayer" in key:
        for layer in ("norm", "conv"):
            key = key.replace(f".{layer}1.", f".{layer}.1.").replace(f".{layer}2.", f".{layer}.2.")
    return key.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2.")


def test_auxiliary_heads_are_skipped(tmp_path: Path) -> None:
    saved = state_of(network(seed=1, name="googlenet"))
    saved |= {"aux1.fc2.weight": torch.zeros(1000, 1024), "aux2.fc2.bias": torch.zeros(1000)}
    torch.save(saved, tmp_path / "googlenet.pth")

    load_channel(network(seed=2, name="googlenet"), tmp_path)


@pytest.mark.skipif(not SQUEEZENET.is_dir(), reason="no folder ../shared/data here")
def test_a_real_file_is_read(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    shutil.copy(SQUEEZENET / "squeezenet1_0-deepcompression.pth", tmp_path)
    ours = network(seed=0, name="squeezenet1_0")
    caplog.set_level("INFO")

    load_channel(ours, tmp_path)

    assert "weights=squeezenet1_0-deepcompression.pth sha256=" in caplog.text


def test_weights_of_another_network_are_rejected(tmp_path: Path) -> None:
    torch.save(state_of(network(seed=1, name="squeezenet1_1")), tmp_path / "squeezenet.pth")

    with pytest.raises(UserError) as refusal:
        load_channel(network(seed=2), tmp_path)

    assert str(refusal.value).startswith(
        "squeezenet.pth holds weights of another network than small: "
    )
    assert "for example " in str(refusal.value)


def test_another_shape_outside_the_head_is_rejected(tmp_path: Path) -> None:
    saved = state_of(network(seed=1))
    saved["stem.0.weight"] = torch.zeros(32, 3, 5, 5)
    torch.save(saved, tmp_path / "weights.pth")

    with pytest.raises(UserError, match=r"1 tensors with another shape, for example stem\.0\."):
        load_channel(network(seed=2), tmp_path)


@pytest.mark.parametrize("name", ["w.pth", "w.pt", "w.safetensors", "w.tar.gz"])
@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty: copy"),
        (b"garbage" * 100, "a text file, not weights: "),
        (b"PK\x03\x04", "not a readable state dict: "),
        (b"\x80\x02h\x05.", "a pickle, which is not loaded: "),
    ],
    ids=["empty", "text", "zip", "pickle"],
)
def test_garbage_is_rejected_in_one_sentence(
    tmp_path: Path, name: str, data: bytes, reason: str
) -> None:
    (tmp_path / name).write_bytes(data)

    with pytest.raises(UserError, match=f"^{name} is {reason}"):
        load_channel(network(seed=2), tmp_path)


@pytest.mark.parametrize("content", [torch.zeros(3), {"epoch": 3}, [1], {"state_dict": {"a": "b"}}])
def test_a_file_without_a_state_dict_is_rejected(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")

    with pytest.raises(UserError, match=r"^w\.pth is not a state dict: expected tensors by name"):
        load_channel(network(seed=2), tmp_path)


def test_an_archive_without_weights_is_rejected(tmp_path: Path) -> None:
    write_archive(tmp_path / "model.tar.gz", {"code/inference.py": b""})

    with pytest.raises(UserError, match=r"^model.tar.gz does not contain weights.safetensors"):
        load_channel(network(seed=2), tmp_path)


class Malicious:
    """A pickle that creates a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


def test_a_pickle_that_runs_code_is_rejected(tmp_path: Path) -> None:
    (tmp_path / "channel").mkdir()
    torch.save({"a": Malicious(tmp_path / "executed")}, tmp_path / "channel" / "w.pth")

    with pytest.raises(UserError, match=r"^w.pth is not a readable state dict: it has pickled"):
        load_channel(network(seed=2), tmp_path / "channel")
    assert not (tmp_path / "executed").exists()


def test_the_channel_must_hold_exactly_one_visible_file(tmp_path: Path) -> None:
    (tmp_path / "._w.pth").write_bytes(b"AppleDouble")
    with pytest.raises(UserError, match=r"must hold one file of .*; found none"):
        load_channel(network(seed=2), tmp_path)

    for name in ("a.pth", "b.pt"):
        torch.save({}, tmp_path / name)
    with pytest.raises(UserError, match=r"must hold one file of .*; found a\.pth, b\.pt"):
        load_channel(network(seed=2), tmp_path)


@pytest.mark.parametrize("channel", ["weights", "model"])
def test_a_job_starts_from_the_artifact_of_an_earlier_job(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], channel: str
) -> None:
    base_dir = make_job(tmp_path, learning_rate="1e-9")
    saved = state_of(network(seed=1))
    directory = base_dir / "input" / "data" / channel
    directory.mkdir()
    safetensors.torch.save_file(saved, directory / "weights.safetensors")
    hyperparameters = {**HYPERPARAMETERS, "learning_rate": "1e-9"}
    configure(base_dir, hyperparameters, "training", channel)

    assert train_here(base_dir, "train") == 0
    assert "weights=weights.safetensors sha256=" in capsys.readouterr().out
    written = safetensors.torch.load_file(base_dir / "model" / "weights.safetensors")
    assert torch.allclose(written["stem.0.weight"], saved["stem.0.weight"], atol=1e-6)


def test_a_weights_channel_with_pretrained_false_is_rejected(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path)
    (base_dir / "input" / "data" / "weights").mkdir()
    hyperparameters = {**HYPERPARAMETERS, "pretrained": "false"}
    configure(base_dir, hyperparameters, "training", "weights")

    assert train_here(base_dir, "train") == 1
    assert failure(base_dir).startswith("pretrained=false, but the job has a `weights` channel")


def test_small_has_no_weights_to_download(tmp_path: Path) -> None:
    base_dir = make_job(tmp_path, pretrained="true")

    assert train_here(base_dir, "train") == 1
    assert failure(base_dir).startswith("torchvision has no weights of `small`")
