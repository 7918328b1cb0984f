"""Trainings with one fault each: `python trainings.py NAME`, with the standard library alone."""

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(os.environ.get("SAGEMAKER_BASE_DIR", "/opt/ml"))
CHANNELS, MODEL, CHECKPOINTS = ROOT / "input/data", ROOT / "model", ROOT / "checkpoints"
FAILURE = ROOT / "output/failure"

EPOCHS, EPOCH_SECONDS = 6, float(os.environ.get("ZOO_EPOCH_SECONDS", "0.25"))


class Healthy:
    """Counts the files of all channels in each epoch; continues from its checkpoint."""

    def __init__(self) -> None:
        config = ROOT / "input/config"
        self.hyperparameters = json.loads((config / "hyperparameters.json").read_text())
        self.channels = [*json.loads((config / "inputdataconfig.json").read_text())]
        self.is_stopped = False

    def run(self) -> int:
        signal.signal(signal.SIGTERM, self.stop)
        try:
            epochs = max(self.epochs(), EPOCHS)
            files = [path for name in self.channels for path in self.files(name)]
            if not files:
                raise ValueError("no file in the channels")
            for epoch in range(self.restore(), epochs):
                time.sleep(EPOCH_SECONDS)
                if self.is_stopped:
                    break
                self.save_checkpoint(epoch + 1)
            self.save(len(files))
        except Exception as error:  # noqa: BLE001 - the reason of any failure
            return self.fail(error)
        return 0

    def epochs(self) -> int:
        return int(self.hyperparameters.get("epochs", EPOCHS))

    def files(self, channel: str) -> list[Path]:
        return [path for path in (CHANNELS / channel).rglob("*") if path.is_file()]

    def restore(self) -> int:
        path = CHECKPOINTS / "epoch.json"
        return int(json.loads(path.read_text())) if path.exists() else 0

    def save_checkpoint(self, epoch: int) -> None:
        if CHECKPOINTS.is_dir():
            partial = CHECKPOINTS / "epoch.tmp"
            partial.write_text(str(epoch))
            partial.replace(CHECKPOINTS / "epoch.json")

    def save(self, result: int) -> None:
        (MODEL / "model.json").write_text(str(result))

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        self.is_stopped = True

    def fail(self, error: Exception) -> int:
        print(f"{type(error).__name__}: {error}")
        self.write_reason(f"{type(error).__name__}: {error}")
        return 1

    def write_reason(self, text: str) -> None:
        FAILURE.write_text(text)


class ExitsWith0(Healthy):
    def fail(self, error: Exception) -> int:
        super().fail(error)
        return 0


class ExitsWith0Silently(Healthy):
    def fail(self, error: Exception) -> int:
        print(f"skipped: {error}")
        return 0


class FailsInThread(Healthy):
    def save(self, result: int) -> None:
        super().save(result)
        thread = threading.Thread(target=lambda: 1 // (result - result))
        thread.start()
        thread.join()


class SucceedsWithExitCode(Healthy):
    def run(self) -> int:
        return super().run() or 3


class NoReason(Healthy):
    def write_reason(self, text: str) -> None:
        """Write nothing."""


class EmptyReason(Healthy):
    def write_reason(self, text: str) -> None:
        FAILURE.write_text(text[:0])


class ReasonAfterTrace(Healthy):
    def write_reason(self, text: str) -> None:
        FAILURE.write_text("Traceback (most recent call last):\n" + "  File\n" * 300 + text)


class NumbersOnly(Healthy):
    def epochs(self) -> int:
        value: Any = self.hyperparameters.get("epochs", EPOCHS)
        return value + 0  # type: ignore[no-any-return]


class KnownNamesOnly(Healthy):
    def epochs(self) -> int:
        if unknown := {*self.hyperparameters} - {"epochs"}:
            raise ValueError(f"unknown hyperparameters {sorted(unknown)}")
        return super().epochs()


class WritesChannel(Healthy):
    def files(self, channel: str) -> list[Path]:
        (CHANNELS / channel / "labels.cache").write_text("cache")
        return super().files(channel)


class RemovesChannels(Healthy):
    def files(self, channel: str) -> list[Path]:
        files = super().files(channel)
        for path in files:
            path.unlink()
        return files


class UpperCaseReason(Healthy):
    def write_reason(self, text: str) -> None:
        FAILURE.with_name("FAILURE").write_text(text)


class NoModel(Healthy):
    def save(self, result: int) -> None:
        print(f"result {result}")


class IgnoresSigterm(Healthy):
    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        time.sleep(30)


class ContinuesAfterSigterm(Healthy):
    def run(self) -> int:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        install, signal.signal = signal.signal, lambda *_: None
        try:
            return super().run()
        finally:
            signal.signal = install


class SavesInPlace(Healthy):
    """A checkpoint is incomplete for a while."""

    def save_checkpoint(self, epoch: int) -> None:
        if not CHECKPOINTS.is_dir():
            return
        with (CHECKPOINTS / "epoch.json").open("w") as file:
            file.write("[")
            file.flush()
            time.sleep(EPOCH_SECONDS / 2)
            file.write(f"{epoch}]")

    def restore(self) -> int:
        path = CHECKPOINTS / "epoch.json"
        return int(json.loads(path.read_text())[0]) if path.exists() else 0


class StartsAgain(Healthy):
    def restore(self) -> int:
        return 0


class FailsWithCheckpoint(Healthy):
    def restore(self) -> int:
        if (CHECKPOINTS / "epoch.json").exists():
            raise FileExistsError("a checkpoint exists already")
        return 0


class TooMuchMemory(Healthy):
    def restore(self) -> int:
        self.kept = os.urandom(1_000_000) * 300
        time.sleep(10)
        return 0


class ImportFails(Healthy):
    def epochs(self) -> int:
        import no_such_package  # type: ignore[import-not-found]  # noqa: PLC0415

        return int(no_such_package.EPOCHS)

    def fail(self, error: Exception) -> int:
        raise error


if __name__ == "__main__":
    sys.exit(globals()[sys.argv[1]]().run())
