"""The report: one page that needs nothing else, and in which no name can do anything."""

import re
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from matplotlib.figure import Figure

from container.classifier.manifest import FLOAT32, INT8, Manifest
from container.classifier.preprocessing import Preprocessing
from container.training.data.images import ImageSet
from container.training.evaluation.assessment import Assessment, Mistake, Outcome
from container.training.evaluation.calibration import Calibration
from container.training.evaluation.evaluation import Evaluation, confusion_matrix
from container.training.output import plots, report
from container.training.output.comparison import Comparison
from container.training.output.quantization import (
    METRICS,
    QUANTIZATION_SETTINGS,
    Attempt,
    served,
    verdict,
)
from tests.accessibility import check_accessibility
from tests.report_pages import Page, check_report

HOSTILE = (
    '<script>document.title="taken"</script>',
    '"><img src="http://example.invalid/x.png" onerror="alert(1)">',
    "{{ 7 * 7 }} & 'Größe' $5^2$",
)


def images(class_names: Sequence[str], *, file_name: str = "a.png") -> ImageSet:
    labels = np.arange(4 * len(class_names)) % len(class_names)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 16, 16, 3), np.uint8)
    paths = [Path("/data/validation", str(n), file_name) for n in range(len(labels))]
    return ImageSet(pixels, labels, tuple(paths), "0" * 64)


def outcome(part: str, count: int, shift: int = 1) -> Outcome:
    """Return the outcome of random logits for three images per class, most of them correct."""
    labels = np.arange(3 * count) % count
    logits = np.random.default_rng(shift).normal(0, 1, (len(labels), count)).astype(np.float32)
    logits[range(len(labels)), labels] += 1
    logits[0, 0] = -9
    confusion = confusion_matrix(labels, logits.argmax(axis=1), count)
    return Outcome.of(part, Evaluation(0.5, confusion), Calibration.of(logits, labels, 1.5))


def rendered(
    class_names: Sequence[str] = ("ant", "bee"),
    *,
    file_name: str = "a.png",
    choices: Sequence[str] = (),
    min_accuracy: float | None = None,
    with_test: bool = True,
    with_mistakes: bool = True,
    is_final: bool = True,
    precision: str = FLOAT32,
    comparison: Comparison | None = None,
    heat_maps: npt.NDArray[np.float32] | None = None,
    temperature: float = 1.5,
) -> str:
    count = len(class_names)
    found = outcome("val", count)
    mistake = Mistake(index=count + 1, label=1, predicted=0, probability=0.9)
    assessment = Assessment(
        epoch=1,
        temperature=temperature,
        validation=found,
        test=outcome("test", count, 2) if with_test else None,
        mistakes=(mistake,) if with_mistakes else (),
        predicted=np.empty(0, np.int64),
        is_final=is_final,
    )
    assert found.calibration is not None
    attempt = Attempt(QUANTIZATION_SETTINGS[0], comparison) if comparison else None
    figures = {
        "confusion_matrix": plots.confusion_matrix(found.evaluation.confusion, class_names),
        "learning_curves": plots.learning_curves([HISTORY], 1),
        "reliability": plots.reliability(found.calibration),
    }
    manifest = Manifest(
        class_names=tuple(class_names),
        network="small",
        preprocessing=Preprocessing(image_size=16),
        metrics={METRICS: verdict(precision, "the reason", attempt)},
        provenance={
            "hyperparameters": {
                "min_accuracy": min_accuracy,
                "max_minutes": 3.0,
                "epochs": 5,
                "augment": True,
            },
            "packages": {"torch": "2.11"},
            "training_job_name": class_names[0],
        },
    )
    return report.render(
        manifest,
        assessment,
        training=images(class_names),
        validation=images(class_names, file_name=file_name),
        plots=figures,
        choices=choices,
        heat_maps=heat_maps,
    )


HISTORY = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 0.5, "val_accuracy": 0.75}


def test_page_is_well_formed_and_loads_nothing(tmp_path: Path) -> None:
    page = check_report(rendered())
    (tmp_path / "report.html").write_text(rendered(), encoding="utf-8")
    check_accessibility(tmp_path / "report.html")

    assert len([name for name, _ in page.elements if name == "img"]) == 4
    check_report(rendered(is_final=False, with_mistakes=False))
    check_report(rendered([f"class {number:02}" for number in range(25)]))


def test_hostile_names_are_escaped() -> None:
    harmless = Page(rendered(("a", "b", "c"), choices=("a", "b", "c")))

    page = Page(rendered(HOSTILE, file_name=HOSTILE[0].replace("/", "_"), choices=HOSTILE))

    assert [name for name, _ in page.elements] == [name for name, _ in harmless.elements]
    assert not [attributes for _, attributes in page.elements if "onerror" in attributes]
    for name in HOSTILE:
        # In the choices and in the table of each channel.
        assert page.text.count(name) >= 3
    assert "49 &" not in page.text
    assert HOSTILE[0].replace("/", "_") in page.text


def test_file_name_that_is_not_utf8_can_be_written(tmp_path: Path) -> None:
    page = rendered(file_name="caf\udce9.png")

    (tmp_path / "report.html").write_text(page, encoding="utf-8", errors="backslashreplace")
    assert "caf\\udce9.png" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_file_names_are_relative_to_their_channel() -> None:
    assert "3/a.png" in Page(rendered()).text
    assert "/data/validation" not in Page(rendered()).text


def test_headline_is_about_the_test_channel_if_there_is_one() -> None:
    assert "test images are classified correctly" in Page(rendered()).text
    assert "validation images are classified correctly" in Page(rendered(with_test=False)).text


def test_worst_of_many_classes_come_first_with_confused_pairs() -> None:
    names = [f"class {number:02}" for number in range(25)]
    text = Page(rendered(names, with_test=False)).text
    _, _, classes = text.partition("the worst first")
    scores = outcome("val", 25).evaluation.counts.scores()["f1"]

    listed = re.findall(r"class \d\d", classes)[:25]

    assert sorted(listed) == names
    assert scores[names.index(listed[0])] == scores.min() < scores.max()
    assert scores[names.index(listed[-1])] == scores.max()
    assert "Most confused pairs of the validation images" in text
    assert "Most confused" not in Page(rendered()).text


def test_confused_pairs_are_sorted_by_their_number() -> None:
    confusion = np.array([[5, 3, 2], [0, 9, 1], [4, 0, 6]])

    found = report.confused_pairs(confusion, ("a", "b", "c"))

    assert found == [
        ("c", "a", 4, 0.4),
        ("a", "b", 3, 0.3),
        ("a", "c", 2, 0.2),
        ("b", "c", 1, 0.1),
    ]


@pytest.mark.parametrize(
    ("minimum", "words"), [(0.01, "1.0 %, reached"), (1.0, "100.0 %, missed: the job failed")]
)
def test_minimum_accuracy_is_shown(minimum: float, words: str) -> None:
    assert f"(min_accuracy): {words}." in Page(rendered(min_accuracy=minimum)).text


def test_report_of_a_stopped_job_has_no_calibration_and_mistakes() -> None:
    text = Page(rendered(is_final=False, with_mistakes=False, min_accuracy=0.9)).text

    assert "The job was stopped" in text
    assert "Misclassified images" not in text
    assert "Calibration" not in text
    assert "(min_accuracy)" not in text


def test_report_without_mistakes_has_no_gallery() -> None:
    text = Page(rendered(with_mistakes=False)).text

    assert "All validation images are classified correctly" in text


def test_calibration_that_did_not_help_is_reported() -> None:
    found = outcome("val", 2).calibration
    assert found is not None
    assert found.after.error > found.before.error

    assert "did not help on the validation images" in Page(rendered(with_test=False)).text
    assert "Calibration did not help: " in Page(rendered(temperature=1.0)).text


def test_epoch_0_is_drawn_if_its_weights_were_saved(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "_png", drawn.append)

    plots.learning_curves([HISTORY], 0, {"val_loss": 0.25, "val_accuracy": 0.875})
    plots.learning_curves([HISTORY], 1)

    for figure, validation in zip(drawn, ([0.25, 0.5], [0.5]), strict=True):
        loss, accuracy = figure.axes
        training, other, saved = loss.lines
        assert np.asarray(training.get_ydata()).tolist() == [1.0]
        assert np.asarray(other.get_ydata()).tolist() == validation
        assert np.asarray(other.get_xdata()).tolist()[-1] == 1
        assert np.asarray(saved.get_xdata()).tolist()[0] == 2 - len(validation)
        assert loss.get_ylim()[0] == accuracy.get_ylim()[0] == 0


def test_plots_of_a_head_alone_have_no_empty_series(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Figure] = []
    monkeypatch.setattr(plots, "_png", drawn.append)
    logits = np.array([[2.0, 0.0], [0.0, 1.0]], np.float32)

    plots.learning_curves([], 0, {"val_loss": 0.25, "val_accuracy": 0.875})
    plots.reliability(Calibration.of(logits, np.array([0, 0]), 1.0))

    curves, diagram = drawn
    assert [len(axis.lines) for axis in curves.axes] == [2, 2]
    assert curves.axes[0].get_xlim() == (-0.5, 0.5)
    labels = [text.get_text() for text in diagram.axes[0].get_legend().get_texts()]  # type: ignore[union-attr]
    assert labels == ["perfect calibration", "not calibrated: ECE 0.425"]


def test_choices_of_the_job_are_listed() -> None:
    assert (
        "Rare classes were drawn more often."
        in Page(rendered(choices=("Rare classes were drawn more often.",))).text
    )


def test_settings_are_listed_with_their_values() -> None:
    text = Page(rendered()).text

    assert "min accuracyunset" in text
    assert "augmenttrue" in text
    assert "epochsnot used with max_minutes" in text
    assert "torch2.11" in text


def test_browser_shows_the_page_and_runs_no_script(tmp_path: Path) -> None:
    program = shutil.which("chromium") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("no browser is installed")
    path = tmp_path / "report.html"
    path.write_text(rendered(HOSTILE), encoding="utf-8")

    arguments = ("--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={tmp_path}/user")
    result = subprocess.run(
        [program, *arguments, "--dump-dom", path.as_uri()],
        capture_output=True,
        text=True,
        check=True,
    )

    page = Page(result.stdout)
    assert "<title>taken</title>" not in result.stdout
    assert "script" not in {name for name, _ in page.elements}
    assert HOSTILE[0] in page.text


def test_heat_map_is_below_a_mistake() -> None:
    with_map = rendered(heat_maps=np.linspace(0, 1, 256, dtype=np.float32).reshape(1, 16, 16))
    without = rendered()

    assert Page(with_map).open == []
    assert with_map.count("data:image/jpeg") == without.count("data:image/jpeg") + 1
    assert "Grad-CAM" in Page(with_map).text
    assert "Grad-CAM" not in Page(without).text


def test_images_of_mistakes_are_the_networks_input() -> None:
    seen: npt.NDArray[np.uint8] = images(("ant", "bee")).pixels[3]

    assert report._thumbnail(seen) in rendered()


def test_quantization_is_reported_with_its_reason() -> None:
    labels = np.zeros(2000, np.int64)
    float32 = np.repeat([0, 1], [1941, 59])
    int8 = np.repeat([0, 1, 0], [1930, 67, 3])
    comparison = Comparison.of(labels, float32, int8, np.where(int8 != float32, 0.25, 0), 0.005)

    accepted = Page(rendered(precision=INT8, comparison=comparison)).text
    rejected = Page(rendered(comparison=comparison)).text
    untried = Page(rendered()).text

    assert "served in int8 on" in accepted
    assert "Served: int8 on processors where it is fastest" in accepted
    assert "not served in int8. On a CPU, the server measures" in rejected
    assert "not served in int8. On a CPU, the server measures" in untried
    for text in (accepted, rejected, untried):
        assert "the reason" in text
    for text in (accepted, rejected):
        assert all(figure in text for figure in ("2000", "97.05", "96.65", "99.30"))
        assert "the probability of so many lost images is 0.87" in text
        assert "can show a drop of 0.75 points or more" in text
        assert "expected drop is 0.18 points with a standard error of 0.05" in text
        assert "300 training images with NNCF's preset performance." in text
    assert "accuracy on" not in untried
    attempt = Attempt(QUANTIZATION_SETTINGS[0], comparison)
    assert served(verdict(INT8, "", attempt)) == (
        "served: int8 on processors where it is fastest, with an accuracy of 96.65% on 2000 "
        "validation images, where float32 has 97.05%"
    )
    assert served(verdict(FLOAT32, "", attempt)) == "served: this network, without int8"
