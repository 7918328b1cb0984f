"""Progress of a tuning job on SageMaker: a line for each training job that ends."""

from container.classifier.errors import UserError
from image_classifier.sagemaker.aws import Aws, Response, is_changing


class TuningProgress:
    """The training jobs of a tuning job that have ended, and the best of them."""

    def __init__(self, aws: Aws, name: str) -> None:
        """Watch the tuning job of this name."""
        self._aws, self._name = aws, name
        self._ended: set[str] = set()
        self._best: tuple[float, str] | None = None
        self._problem = ""

    def show_new(self) -> None:
        """Print the training jobs that have ended since the last call.

        A list that cannot be read does not end what waits for the tuning job.
        """
        request = {"HyperParameterTuningJobName": self._name, "SortOrder": "Ascending"}
        operation = "ListTrainingJobsForHyperParameterTuningJob"
        try:
            for page in self._aws.pages(operation, request):
                for job in page["TrainingJobSummaries"]:
                    is_ended = not is_changing(job["TrainingJobStatus"])
                    if is_ended and job["TrainingJobName"] not in self._ended:
                        self._ended.add(job["TrainingJobName"])
                        self._aws.show(self._line(job))
        except UserError as error:
            if str(error) != self._problem:
                self._problem = str(error)
                self._aws.show(f"the training jobs are not shown: {error}")

    def _line(self, job: Response) -> str:
        """Return name, status, objective and hyperparameters of a job, and the best objective."""
        # Training jobs are called TUNING-JOB-003-0a1b2c3d.
        name = job["TrainingJobName"].removeprefix(f"{self._name}-")
        metric = job.get("FinalHyperParameterTuningJobObjectiveMetric") or {}
        parts = [f"{name} {job['TrainingJobStatus']}"]
        if metric:
            parts.append(f"{metric['MetricName']}={metric['Value']:.5g}")
            sign = -1 if metric.get("Type") == "Maximize" else 1
            found = (sign * metric["Value"], f"{metric['Value']:.5g} ({name})")
            self._best = min(found, self._best or found)
        tuned = job.get("TunedHyperParameters") or {}
        parts += [f"{key}={value}" for key, value in sorted(tuned.items())]
        parts += [job["FailureReason"]] if job.get("FailureReason") else []
        return " ".join(parts) + (f"; best so far {self._best[1]}" if self._best else "")
