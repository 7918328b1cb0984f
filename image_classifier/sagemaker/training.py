"""`train` and `tune` on SageMaker."""

from container.classifier.errors import UserError
from container.classifier.metric_lines import METRIC_NAMES
from image_classifier.sagemaker import logs, training_requests
from image_classifier.sagemaker.aws import Aws, Response
from image_classifier.sagemaker.request_fields import new_name
from image_classifier.sagemaker.tuning_progress import TuningProgress
from image_classifier.settings.schema import Settings
from image_classifier.settings.service_model import Request
from image_classifier.settings.settings_file import SettingsFile

_LOG = "its log is in CloudWatch, /aws/sagemaker/TrainingJobs"


def train(
    aws: Aws, file: SettingsFile, *, from_tuning: str | None = None, wait: bool = True
) -> str:
    """Run a training job; return its name.

    Raises:
        UserError: AWS rejected a request, or the job failed.
    """
    file.require("train")
    settings = file.settings
    if from_tuning is not None:
        settings = _with_best(aws, file, from_tuning)
    name = new_name(settings)
    aws.send("CreateTrainingJob", request_of(aws, settings, name))
    if aws.is_dry:
        return name
    aws.show(f"training job {name}: {_LOG}")
    if wait:
        response = _watch(aws, name)
        metrics = response.get("FinalMetricDataList") or []
        values = {metric["MetricName"]: metric["Value"] for metric in metrics}
        for metric in METRIC_NAMES:
            if metric in values:
                aws.show(f"  {metric}={values[metric]:.5g}")
    return name


def request_of(aws: Aws, settings: Settings, name: str) -> Request:
    """Return CreateTrainingJob, with the service's rules where the settings have them."""
    debugger = settings.debugger
    uses_service = debugger.service and (debugger.rules or settings.profiler.rules)
    rule_image = aws.container_image("debugger") if uses_service else None
    return training_requests.training_job(settings, name, rule_image=rule_image)


def tune(aws: Aws, file: SettingsFile, *, wait: bool = True) -> str:
    """Run a tuning job and print its best training job; return the tuning job's name.

    Raises:
        UserError: AWS rejected a request, or the job failed.
    """
    file.require("tune")
    settings, tuning = file.settings, file.settings.tuning
    if tuning is None:
        raise AssertionError
    name = new_name(settings)
    aws.send("CreateHyperParameterTuningJob", training_requests.tuning_job(settings, tuning, name))
    if aws.is_dry:
        return name
    aws.show(f"tuning job {name}")
    if wait:
        progress = TuningProgress(aws, name)
        hint = f"; {_LOG}"
        response = aws.wait("DescribeHyperParameterTuningJob", name, hint, progress.show_new)
        _show_best(aws, response.get("BestTrainingJob") or {})
    return name


def _watch(aws: Aws, name: str) -> Response:
    """Wait for a training job, and print its log as it grows."""
    log = logs.of_training(aws, name)
    try:
        return aws.wait("DescribeTrainingJob", name, f"; {_LOG}", log.show_new)
    except KeyboardInterrupt:
        rest = f"logs SETTINGS --job {name} --follow --since {log.position}"
        message = f"stopped; the job on SageMaker continues: `image-classifier {rest}` shows it"
        raise KeyboardInterrupt(message) from None


def _show_best(aws: Aws, best: Response) -> None:
    if not best:
        aws.show("no training job is completed: the tuning job has no best one")
        return
    metric = best.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
    value = f" {metric['MetricName']}={metric['Value']:.5g}" if metric else ""
    aws.show(f"best: {best['TrainingJobName']}{value}")
    for name, value in sorted((best.get("TunedHyperParameters") or {}).items()):
        aws.show(f"  {name} = {value}")


def _with_best(aws: Aws, file: SettingsFile, tuning_job: str) -> Settings:
    """Return the settings with the hyperparameters of a tuning job's best training job.

    A dry run does not ask for them.
    """
    if aws.is_dry:
        what = f"the best hyperparameters of {tuning_job}"
        aws.show_placeholder(what, "those of the settings")
        return file.settings
    request = {"HyperParameterTuningJobName": tuning_job}
    best = aws.query("DescribeHyperParameterTuningJob", request).get("BestTrainingJob")
    if not best:
        raise UserError(
            f"the tuning job {tuning_job} has no best job yet: wait until it is completed"
        )
    return file.with_tuned(best.get("TunedHyperParameters") or {})
