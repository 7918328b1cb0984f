"""`train` and `tune` on SageMaker."""

from collections.abc import Mapping

from container.classifier.errors import UserError
from image_classifier.sagemaker import names, sdk, training_requests
from image_classifier.sagemaker.aws import Answer, Aws
from image_classifier.settings.metric_definitions import PROGRAM_METRICS
from image_classifier.settings.schema import Settings
from image_classifier.settings.settings_file import SettingsFile

RUNNING = frozenset({"InProgress", "Stopping", "Pending"})


def train(
    aws: Aws, file: SettingsFile, *, from_tuning: str | None = None, wait: bool = True
) -> str:
    """Start a training job and wait for its end; return its name.

    Raises:
        UserError: AWS refuses something, or the job failed.
    """
    file.require("train")
    settings = file.settings
    if from_tuning is not None:
        settings = with_best(settings, best_of_tuning(aws, from_tuning))
    name = names.new(settings)
    asks_service = settings.debugger.service and (
        settings.debugger.rules or settings.profiler.rules
    )
    rule_image = sdk.image("debugger", aws) if asks_service else None
    aws.send(
        "CreateTrainingJob",
        training_requests.training_job(settings, name, rule_image=rule_image),
    )
    if aws.is_dry:
        return name
    aws.show(f"training job {name}: logs in CloudWatch, /aws/sagemaker/TrainingJobs")
    if wait:
        answer = aws.wait(
            lambda: aws.ask("DescribeTrainingJob", {"TrainingJobName": name}),
            "TrainingJobStatus",
            RUNNING,
        )
        _judge(name, answer, answer["TrainingJobStatus"])
        for line in _metrics(answer):
            aws.show(line)
    return name


def tune(aws: Aws, file: SettingsFile, *, wait: bool = True) -> str:
    """Start a tuning job, wait for its end and print its best; return its name.

    Raises:
        UserError: AWS refuses something, or no job came to an end.
    """
    file.require("tune")
    settings, tuning = file.settings, file.settings.tuning
    if tuning is None:
        raise AssertionError
    name = names.new(settings)
    aws.send("CreateHyperParameterTuningJob", training_requests.tuning_job(settings, tuning, name))
    if aws.is_dry:
        return name
    aws.show(f"tuning job {name}")
    if wait:
        answer = aws.wait(
            lambda: _describe_tuning(aws, name), "HyperParameterTuningJobStatus", RUNNING
        )
        _judge(name, answer, answer["HyperParameterTuningJobStatus"])
        show_best(aws, answer.get("BestTrainingJob") or {})
    return name


def show_best(aws: Aws, best: Answer) -> None:
    """Print the best job of a tuning job, and how to train with what it found."""
    if not best:
        aws.show("no job has come to an end: there is no best one")
        return
    metric = best.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
    value = f" {metric['MetricName']}={metric['Value']:.5g}" if metric else ""
    aws.show(f"best: {best['TrainingJobName']}{value}")
    for name, found in sorted((best.get("TunedHyperParameters") or {}).items()):
        aws.show(f"  {name} = {found}")


def best_of_tuning(aws: Aws, name: str) -> Answer:
    """Return the best training job of a tuning job.

    Raises:
        UserError: there is no such job, or it has no best one yet.
    """
    best: Answer = _describe_tuning(aws, name).get("BestTrainingJob") or {}
    if not best:
        message = f"the tuning job {name} has no best job yet: wait for its end"
        raise UserError(message)
    return best


def with_best(settings: Settings, best: Answer) -> Settings:
    """Return settings with the hyperparameters that a tuning job found."""
    found: Mapping[str, object] = best.get("TunedHyperParameters") or {}
    return settings.model_copy(update={"hyperparameters": {**settings.hyperparameters, **found}})


def _describe_tuning(aws: Aws, name: str) -> Answer:
    return aws.ask("DescribeHyperParameterTuningJob", {"HyperParameterTuningJobName": name})


def _judge(name: str, answer: Answer, status: str) -> None:
    if status == "Failed":
        reason = answer.get("FailureReason", "no reason given")
        message = f"{name} failed: {reason}; its log is in CloudWatch, /aws/sagemaker/TrainingJobs"
        raise UserError(message)


def _metrics(answer: Answer) -> list[str]:
    found = {each["MetricName"]: each["Value"] for each in answer.get("FinalMetricDataList") or []}
    return [f"  {name}={found[name]:.5g}" for name in PROGRAM_METRICS if name in found]
