"""The whole workflow on this machine, without an account and without a network.

    python -m examples.tour FOLDER        (make tour)

Drawn hands are packed, audited and prepared; a model is tuned, trained, debugged, evaluated, served
and explained; a folder is classified in a batch, and two models on one multi-model endpoint. Each
program runs in a container if a Docker engine has the container images, else as a process;
IMAGE_CLASSIFIER_LOCAL chooses. FOLDER/index.html links all reports.

Processes get a network namespace with the loopback interface alone, if this system permits it, and
containers no network, or one without a route to other machines.
"""

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from container.classifier.errors import UserError
from container.classifier.report_page import template
from examples import isolation
from image_classifier.platform import containers, endpoint, hands, processes
from image_classifier.platform.multi_model_endpoint import MultiModelEndpoint, launch_of
from image_classifier.platform.sandbox.launch import Limits
from image_classifier.platform.sandbox.ports import free_port

PAGE = "index.html"

SETTINGS = """\
name = "hands"
data = { local = "hands", channels = ["train", "validation", "test"] }

[hyperparameters]
network = "small"
image_size = 32
epochs = 5

[tuning]
objective = "val_accuracy"
jobs = 2

[tuning.ranges]
learning_rate = { min = 0.005, max = 0.05, scaling = "Logarithmic" }
"""

# Nothing of the person's AWS account, and no host that is not this machine.
_ENVIRONMENT = {
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
    **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), "http://[::1]:9"),
    **dict.fromkeys(("NO_PROXY", "no_proxy"), "127.0.0.1,localhost"),
}


@dataclass(kw_only=True, slots=True)
class Step:
    """One step of the workflow, and what it left."""

    title: str
    command: str
    seconds: float = 0.0
    lines: Sequence[str] = ()
    """The end of its output."""
    pages: list[Path] = field(default_factory=list)
    """Relative to the folder."""
    is_failed: bool = False


class Tour:
    """Runs steps in a folder."""

    def __init__(self, folder: Path) -> None:
        """Begin without steps."""
        self.folder = folder
        self.steps: list[Step] = []

    def run(self, title: str, *arguments: str, pages: str = "") -> list[str]:
        """Run a verb; return the lines of its output.

        Args:
            title: of the step.
            arguments: verb and options.
            pages: pattern of the reports that it writes.

        Raises:
            UserError: it failed.
        """
        print(f"$ image-classifier {shlex.join(arguments)}", flush=True)
        return self.add(
            title, f"image-classifier {shlex.join(arguments)}", self._verb(arguments), pages
        )

    def add(
        self, title: str, command: str, action: Callable[[], list[str]], pages: str = ""
    ) -> list[str]:
        """Run a function as a step; return the lines of its output.

        Raises:
            UserError: it failed.
        """
        step = Step(title=title, command=command)
        self.steps.append(step)
        start = time.monotonic()
        try:
            lines = action()
        except UserError as error:
            step.is_failed, step.lines = True, str(error).splitlines()[-20:]
            raise
        finally:
            step.seconds = time.monotonic() - start
        step.lines = lines[-5:]
        if pages:
            step.pages = sorted(path.relative_to(self.folder) for path in self.folder.glob(pages))
        print(f"  {step.seconds:.0f} s", flush=True)
        return lines

    def write_page(self, way: str, network: str = "") -> Path:
        """Write the page that links all reports."""
        page = self.folder / PAGE
        seconds = sum(step.seconds for step in self.steps)
        facts = {
            "Programs": way,
            "Network": network,
            "Time": f"{seconds / 60:.1f} minutes",
            "CPUs": str(os.cpu_count()),
        }
        rendered = template(Path(__file__).with_name("tour.html.jinja")).render(
            steps=self.steps, facts=facts
        )
        page.write_text(rendered, encoding="utf-8")
        return page

    def _verb(self, arguments: Sequence[str]) -> Callable[[], list[str]]:
        def run() -> list[str]:
            finished = subprocess.run(
                [sys.executable, "-m", "image_classifier", *arguments],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="backslashreplace",
                check=False,
            )
            if finished.returncode:
                text = finished.stdout + finished.stderr
                raise UserError(f"{arguments[0]} ended with code {finished.returncode}:\n{text}")
            return finished.stdout.splitlines()

        return run


def main(argv: Sequence[str] | None = None) -> int:
    """Run all steps; return 0, or 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="of everything; is replaced")
    parser.add_argument("--isolated", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--images", type=int, default=240, help="drawn (default: %(default)s)")
    arguments = parser.parse_args(argv)
    folder = arguments.folder.resolve()
    if folder.exists() and not (folder / PAGE).is_file() and any(folder.iterdir()):
        print(f"tour: {folder} has other files: choose a new folder", file=sys.stderr)
        return 1
    in_containers = containers.choose(containers.TRAIN_IMAGE, chosen=None)
    if not in_containers and not arguments.isolated:
        isolation.restart(["-m", "examples.tour", *(sys.argv[1:] if argv is None else argv)])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        del os.environ[name]
    os.environ.update(_ENVIRONMENT)
    is_isolated: bool = arguments.isolated
    with isolation.without_network(in_containers=in_containers, is_isolated=is_isolated) as network:
        print(f"network: {network}", flush=True)
        return _run(Tour(folder), arguments.images, network, in_containers=in_containers)


def _run(tour: Tour, images: int, network: str, *, in_containers: bool) -> int:
    is_done = False
    try:
        _run_steps(tour, images, in_containers=in_containers)
        is_done = True
    except UserError as error:
        print(f"tour: {error}", file=sys.stderr)
    finally:
        page = tour.write_page("containers" if in_containers else "processes", network)
    print(f"open {page}")
    return 0 if is_done else 1


def _run_steps(tour: Tour, images: int, *, in_containers: bool) -> None:
    folder, port = tour.folder, str(free_port())
    tour.add("A zip of images, each with the class in its name", "", lambda: _draw(folder, images))
    (folder / "hands.toml").write_text(SETTINGS)
    tour.run(
        "Find what is wrong with it",
        "audit",
        "hands.zip",
        "--page",
        "audit.html",
        pages="audit.html",
    )
    tour.run("Prepare a data set", "prepare", "hands.zip", "hands", pages="hands/report.html")
    tour.run("Check the settings", "check", "hands.toml")
    runs = ".launcher/hands"
    tour.run("Tune", "tune", "hands.toml", "--local", pages=f"{runs}/tuning/*.html")
    train = ("train", "hands.toml", "--local", "--from-tuning", "best")
    tour.run("Train and evaluate", *train, pages=f"{runs}/ml/output/data/report.html")
    debug = f"{runs}/ml/output/data/debug-report.html"
    tour.run("Debug", "debug", "hands.toml", "--local", pages=debug)
    tour.run("Serve", "deploy", "hands.toml", "--local", "--port", port)
    try:
        (image, *_) = sorted((folder / "hands/test").rglob("*.png"))
        name = str(image.relative_to(folder))
        tour.run("Predict", "predict", "hands.toml", name, "--local")
        page = f"{runs}/explanations/report.html"
        tour.run("Explain", "explain", "hands.toml", name, "--local", pages=page)
    finally:
        tour.run("Stop the server", "delete", "hands.toml", "--local", "--yes")
    batch = ("transform", "hands.toml", "hands/test", "--local", "--output", "predictions")
    tour.run("Classify a folder in a batch", *batch)
    tour.add(
        "Many models on one endpoint",
        "",
        lambda: _invoke_multi_model(folder, image, in_container=in_containers),
    )


def _draw(folder: Path, count: int) -> list[str]:
    hands.write_images(folder / "drawn", count, 0)
    with zipfile.ZipFile(folder / "hands.zip", "w") as archive:
        for path in sorted((folder / "drawn").iterdir()):
            archive.write(path, path.name)
    return [f"{count} images of drawn hands in hands.zip"]


def _invoke_multi_model(folder: Path, image: Path, *, in_container: bool) -> list[str]:
    """Load the trained model and the best one of the tuning; send each an image."""
    models, base_dir = folder / "models", folder / "many-models"
    models.mkdir()
    base_dir.mkdir()
    shutil.copy(folder / ".launcher/hands/model.tar.gz", models / "trained.tar.gz")
    shutil.copy(folder / ".launcher/hands/tuning/model.tar.gz", models / "tuned.tar.gz")
    headers: Mapping[str, str] = {"Content-Type": "image/png", "Accept": "text/csv"}
    container = Limits() if in_container else None
    target, launch = endpoint.server(base_dir, {}, folders={}, container=container)
    lines = []
    with endpoint.running(target, launch_of(launch), processes.STARTUP_SECONDS) as server:
        platform = MultiModelEndpoint(server, base_dir, models, in_container=in_container)
        for name in ("trained.tar.gz", "tuned.tar.gz", "trained.tar.gz"):
            response = platform.invoke(name, image.read_bytes(), headers)
            if not response.is_success:
                raise UserError(f"{name}: {response}")
            lines.append(f"{name}: {response.body.decode()[:60]}...")
        lines.append(f"{platform.loads} models loaded")
    return lines


if __name__ == "__main__":
    sys.exit(main())
