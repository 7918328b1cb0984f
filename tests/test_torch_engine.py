"""The PyTorch engine on the CPU: its predictions match those of OpenVINO."""

import gc
import http.client
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from container.classifier import machine
from container.classifier.artifact import WEIGHTS
from container.classifier.checked_files import sha256_of
from container.classifier.errors import ArtifactError, UserError
from container.classifier.manifest import MANIFEST, Manifest
from container.classifier.preprocessing import Pixels, Preprocessing
from container.networks.network import Classifier, build
from container.serving import gpu
from container.serving.gpu import serves_batches
from container.serving.model import torch_engine
from container.serving.model.batching import Batching
from container.serving.model.outcome import Probabilities
from container.serving.model.predictor import Predictor
from container.serving.model.registry import Registry
from container.serving.settings import Settings
from container.training.output.export import write_artifact
from tests.artifacts import encode, random_pixels
from tests.servers import serving, starting

BATCHING = Batching(max_batch_size=6, batch_timeout_seconds=0.01)

TORCH = {"SAGEMAKER_CLASSIFIER_ENGINE": "torch", "SAGEMAKER_CLASSIFIER_MAX_BATCH_SIZE": "4"}

CLASS_NAMES = ("a", "b", "c")


def write(
    directory: Path,
    network: str = "small",
    image_size: int = 32,
    flips: tuple[tuple[int, ...], ...] = (),
) -> Path:
    """Write an artifact as training does, whose predictions differ between images."""
    torch.manual_seed(0)
    manifest = Manifest(
        class_names=CLASS_NAMES,
        network=network,
        preprocessing=Preprocessing(image_size=image_size, crop_fraction=0.875),
        temperature=1.7,
        flips=flips,
    )
    classifier = Classifier(build(network, 3, image_size).module, flips)
    for module in classifier.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.2)
    with torch.no_grad():
        images = torch.from_numpy(some_pixels(16, image_size)).permute(0, 3, 1, 2)
        classifier.train()(images.float())
    image_folder = directory.with_name("images")
    image_folder.mkdir(exist_ok=True)
    for seed in range(3):
        (image_folder / f"{seed}.png").write_bytes(encode(random_pixels(seed=seed)))
    write_artifact(directory, manifest, classifier, sorted(image_folder.iterdir()))
    return directory


def some_pixels(count: int, image_size: int) -> Pixels:
    return np.stack([random_pixels(image_size, image_size, seed) for seed in range(count)])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact whose predictions are averaged over flips."""
    return write(tmp_path_factory.mktemp("trained") / "model", flips=((3,), (2,), (2, 3)))


@pytest.fixture
def base_dir(trained: Path, tmp_path: Path) -> Path:
    shutil.copytree(trained, tmp_path / "model")
    return tmp_path


def predict(predictor: Predictor, pixels: Pixels) -> Probabilities:
    """Predict all images at the same time, so that they form batches."""
    with ThreadPoolExecutor(len(pixels)) as threads:
        rows = threads.map(lambda image: predictor.predict(image, is_idle=False), pixels)
        return np.stack(list(rows))


def assert_same_predictions(directory: Path, image_size: int) -> None:
    pixels = some_pixels(11, image_size)
    openvino = Predictor.load(directory, precision="float32")
    pytorch = Predictor.load(directory, precision="float32", batching=BATCHING)

    expected = predict(openvino, pixels)
    found = predict(pytorch, pixels)
    single = pytorch.predict(pixels[0], is_idle=True)
    pytorch.close()

    # The predictions differ between images.
    assert np.ptp(expected, axis=0).max() > 0.1
    assert np.abs(found - expected).max() < 1e-3
    assert np.abs(single - expected[0]).max() < 1e-3


def test_predictions_match_openvino_with_flips_and_temperature(trained: Path) -> None:
    assert_same_predictions(trained, 32)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "image_size"), [("resnet18", 64), ("mobilenet_v3_small", 64), ("vit_b_32", 64)]
)
def test_predictions_of_torchvision_networks_match_openvino(
    network: str, image_size: int, tmp_path: Path
) -> None:
    assert_same_predictions(write(tmp_path / "model", network, image_size), image_size)


def test_bfloat16_is_close_to_float32_but_not_equal(trained: Path) -> None:
    pixels = some_pixels(7, 32)
    answers = []
    for precision in ("float32", "bfloat16"):
        predictor = Predictor.load(trained, precision=precision, batching=BATCHING)
        answers.append(predict(predictor, pixels))
        predictor.close()

    difference = np.abs(answers[0] - answers[1]).max()
    assert 1e-5 < difference < 0.1


def test_model_that_differs_from_training_is_rejected_and_leaves_no_thread(
    trained: Path, tmp_path: Path
) -> None:
    # Without this key, the engine predicts without flips.
    directory = Path(shutil.copytree(trained, tmp_path / "model"))
    document = json.loads((directory / MANIFEST).read_text())
    del document["flips"]
    (directory / MANIFEST).write_text(json.dumps(document))
    before = threading.active_count()

    with pytest.raises(ArtifactError, match="differs from training's"):
        Predictor.load(directory, precision="float32", batching=BATCHING)

    assert threading.active_count() == before


def change_weights(directory: Path, content: bytes | None) -> None:
    document = json.loads((directory / MANIFEST).read_text())
    if content is None:
        del document["files"][WEIGHTS]
    else:
        (directory / WEIGHTS).write_bytes(content)
        document["files"][WEIGHTS] = sha256_of(directory / WEIGHTS)
    (directory / MANIFEST).write_text(json.dumps(document))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not weights", r"weights\.safetensors does not match small"),
        (None, r"lists no weights\.safetensors"),
    ],
)
def test_weights_that_do_not_match_the_network_are_rejected(
    trained: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    directory = Path(shutil.copytree(trained, tmp_path / "model"))
    change_weights(directory, content)

    with pytest.raises(ArtifactError, match=message):
        Predictor.load(directory, batching=BATCHING)


def test_network_whose_predictions_depend_on_the_batch_is_rejected() -> None:
    class Sum(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            return pixels.float().mean(dim=(1, 2)) * len(pixels)

    network = torch_engine.Network(
        Sum(),  # type: ignore[arg-type]
        image_size=16,
        precision="float32",
        max_batch_size=2,
    )

    with pytest.raises(ArtifactError, match="predictions in a batch of 2 images differ"):
        torch_engine.check_batch_sizes(torch_engine.Lane(network, 3), network, "float32")


def test_worker_stops_when_the_gpu_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def forward(self, pixels: torch.Tensor) -> torch.Tensor:
            message = f"CUDA error: unspecified launch failure, {len(pixels)}"
            raise torch.AcceleratorError(message)

    network = torch_engine.Network(
        Broken(),  # type: ignore[arg-type]
        image_size=16,
        precision="float32",
        max_batch_size=2,
    )
    signals: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "kill", lambda *sent: signals.append(sent))

    with pytest.raises(torch.AcceleratorError):
        torch_engine.Lane(network, 3).infer([random_pixels(16, 16)])

    assert signals == [(os.getpid(), signal.SIGTERM)]


@pytest.mark.parametrize(
    ("max_batch_size", "sizes"),
    [(1, [1]), (2, [1, 2]), (6, [1, 2, 4, 6]), (32, [1, 2, 4, 8, 16, 32])],
)
def test_batch_sizes_are_powers_of_two_and_the_maximum(
    max_batch_size: int, sizes: list[int]
) -> None:
    assert torch_engine.batch_sizes(max_batch_size) == sizes


@pytest.mark.parametrize(
    ("engine", "devices", "expected"),
    [
        ("", [], False),
        ("", ["nvidiactl", "nvidia-uvm"], False),
        ("", ["nvidiactl", "nvidia0"], True),
        ("openvino", ["nvidia0"], False),
        ("torch", [], True),
    ],
)
def test_gpu_selects_the_engine_unless_it_is_set(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    engine: str,
    devices: list[str],
    *,
    expected: bool,
) -> None:
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    for name in devices:
        (tmp_path / name).touch()

    assert serves_batches(Settings(engine=engine)) == expected


def test_image_without_pytorch_serves_with_openvino_and_rejects_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    (tmp_path / "nvidia0").touch()
    monkeypatch.setattr(gpu, "find_spec", lambda name: None if name == "torch" else object())

    assert not serves_batches(Settings())
    with pytest.raises(UserError, match=r"ENGINE=torch needs PyTorch, .* --build-arg DEVICE=gpu"):
        serves_batches(Settings(engine="torch"))


@pytest.mark.skipif(machine.gpu_count() > 0, reason="needs a machine without a GPU")
def test_gpu_that_pytorch_cannot_use_is_an_error(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "DEVICES", tmp_path)
    (tmp_path / "nvidia0").touch()

    with pytest.raises(UserError, match=r"PyTorch cannot use the GPU: .*_ENGINE=openvino"):
        Predictor.load(trained, batching=BATCHING)


def test_openvino_server_does_not_import_pytorch(artifact: Path) -> None:
    program = (
        "import sys; from pathlib import Path; import container.serving.loading;"
        "from container.serving.model.predictor import Predictor;"
        "Predictor.load(Path(sys.argv[1]));"
        "print({'torch', 'container.networks', 'safetensors'} & sys.modules.keys())"
    )

    result = subprocess.run(
        [sys.executable, "-c", program, artifact],
        capture_output=True,
        text=True,
        check=True,
    )

    assert result.stdout == "set()\n"


def client_of(port: int, number: int, bodies: list[bytes]) -> Callable[[], list[bytes | int]]:
    """Return a function that predicts one image again and again until the server closes."""

    def ask() -> list[bytes | int]:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        headers = {"Content-Type": "image/png", "Accept": "text/csv"}
        answers: list[bytes | int] = []
        while True:
            try:
                connection.request("POST", "/invocations", bodies[number % len(bodies)], headers)
            except ConnectionRefusedError:
                return answers
            response = connection.getresponse()
            body = response.read()
            answers.append(body if response.status == 200 else response.status)

    return ask


def scores(body: bytes | int) -> Probabilities:
    assert isinstance(body, bytes), body
    return np.array([float(text) for text in body.split(b",")], np.float32)


def test_each_client_gets_its_prediction_and_sigterm_loses_none(
    base_dir: Path,
) -> None:
    bodies = [encode(random_pixels(seed=seed)) for seed in range(8)]

    with serving(base_dir, **TORCH) as server:
        expected = [server.invoke(body, accept="text/csv").body for body in bodies]
        assert len(set(expected)) == len(bodies)

        with ThreadPoolExecutor(16) as threads:
            clients = [
                threads.submit(client_of(server.port, number, bodies)) for number in range(16)
            ]
            time.sleep(1)
            server.process.send_signal(signal.SIGTERM)
            assert server.process.wait(30) == 0
            found = [client.result() for client in clients]
        log = server.log.read_text()

    assert sum(map(len, found)) > len(clients)
    for number, answers in enumerate(found):
        wanted = scores(expected[number % len(bodies)])
        # Where the CPU has bfloat16, the batch size changes a prediction slightly.
        assert all(np.abs(scores(body) - wanted).max() < 0.05 for body in answers)
    assert "device=cpu batch_sizes=[1, 2, 4]" in log
    assert "Traceback" not in log


def test_unloaded_model_leaves_neither_threads_nor_its_network(trained: Path) -> None:
    load = partial(Predictor.load, precision="float32", batching=BATCHING)
    registry = Registry(trained.parent, budget=2**40, needed=lambda _directory: 1, load=load)
    before = threading.active_count()

    for _ in range(2):
        registry.load("m", str(trained))
        with registry.borrow("m") as predictor:
            predict(predictor, some_pixels(3, 32))
        assert threading.active_count() > before
        del predictor
        registry.unload("m")

        assert threading.active_count() == before
        assert not [each for each in gc.get_objects() if type(each) is torch_engine.Network]


def test_wrong_setting_is_reported_before_anything_starts(base_dir: Path) -> None:
    with starting(base_dir, SAGEMAKER_CLASSIFIER_BATCH_TIMEOUT_SECONDS="soon") as server:
        assert server.process.wait(10) == 1
        assert "BATCH_TIMEOUT_SECONDS must be a number from 0 to 2" in server.log.read_text()
