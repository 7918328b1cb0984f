"""The cases of a training."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

from image_classifier.platform.doctor import interruption, startup, traffic
from image_classifier.platform.doctor.examination import Examination
from image_classifier.platform.doctor.job import Job, Result, copy_data, run
from image_classifier.platform.doctor.serving import report_trouble
from image_classifier.platform.sandbox.launch import StartError

# What SageMaker shows of the failure file.
FAILURE_CHARACTERS = 1024

# Added by tuning jobs and by the SDK.
ADDED = {
    "_tuning_objective_metric": "validation:accuracy",
    "sagemaker_estimator_class_name": "Estimator",
    "sagemaker_estimator_module": "sagemaker.estimator",
}

# Common names, for a training whose hyperparameters are unknown.
_COMMON: Mapping[str, int | float] = {"epochs": 1, "batch_size": 8, "learning_rate": 0.001}

# The program itself is broken, whatever the job is.
_BROKEN = re.compile(r"^(ModuleNotFoundError|ImportError|SyntaxError|NameError)\b|KeyError: 'SM_")
_CANNOT_EXECUTE = {126, 127}

_TRACEBACK = "Traceback (most recent call last)"
_TYPE_ERROR = re.compile(
    r"'str' object cannot be interpreted|'str' and '(int|float)'|'(int|float)' and 'str'"
    r"|can only concatenate str|must be (an integer|real number|int|float), not str"
    r"|unsupported operand type.*'str'"
)

_HINTS = {
    "no-network-train": r"resol|network|connect|unreachable|urlopen|timed out|getaddrinfo",
    "channels-read-only": r"read-only|permission|errno 30|erofs",
    "hyperparameter-strings": _TYPE_ERROR.pattern,
}

_NEED_SUCCESS = (
    "model-artifact",
    "hyperparameter-strings",
    "channels-read-only",
    "no-network-train",
    "sigterm",
    "checkpoint-resume",
)


def examine(examination: Examination) -> None:
    """Run training jobs as SageMaker does, and check all cases."""
    report = examination.report
    copy_data(examination)
    if not examination.target.is_container:
        reason = "a process shares the {} of this machine: use a container image"
        report.skip("no-network-train", reason.format("network"))
        report.skip("writes-outside", reason.format("files"))
    job = Job(name="job", hyperparameters=examination.options.hyperparameters)
    try:
        result = run(examination, job)
        if _report_broken(examination, result):
            return
        if not result.is_success:
            job, result = _with_fewer_restrictions(examination, job, result)
        _check_result(examination, result)
        failed = result if not result.is_success else _failing(examination, job)
        _check_failure(examination, failed)
        if result.is_success:
            _check_hyperparameters(examination, job)
            interruption.check(examination, job, result)
        report.accept("memory", "channels-read-only", "no-network-train")
    except StartError as error:
        report_trouble(examination, startup.of_start_error(str(error), examination))
    report.skip_rest("the job ended before")


def _report_broken(examination: Examination, result: Result) -> bool:
    """Report a program that cannot run at all; return whether it is one."""
    report = examination.report
    limit = examination.options.memory / 2**20
    if result.exit_code is None:
        report.accept("start", "image-entrypoint")
        if result.has_model:
            message = "the training saves a model, and does not end"
            report.fail("train-exit-code", message, f"last line of the log: {result.last_line}")
        report.skip_rest(
            f"the job did not end within {examination.limits.job:g} s: give a smaller --data, or "
            "--hyperparameters of a shorter job"
        )
    elif result.is_out_of_memory or "MemoryError" in result.last_line:
        report.accept("start", "image-entrypoint")
        report.fail(
            "memory",
            f"the job was out of memory, with a limit of {limit:.0f} MiB",
            f"exit code {result.exit_code}; {result.last_line}",
        )
        report.skip_rest("a consequence of memory")
    elif result.exit_code in _CANNOT_EXECUTE or (
        not result.is_success and _BROKEN.match(result.last_line)
    ):
        message = f"the program cannot run: it ended with exit code {result.exit_code}"
        remedy = startup.remedy_of(result.log, examination)
        report.fail("start", message, result.last_line, remedy)
        report.skip_rest("a consequence of start")
    else:
        report.accept("start", "image-entrypoint")
        return False
    return True


def _with_fewer_restrictions(
    examination: Examination, job: Job, result: Result
) -> tuple[Job, Result]:
    """Return a job that succeeds with one restriction less, and report it; else the same job."""
    numbers = {key: _number(value) for key, value in job.hyperparameters.items()}
    relaxed = {
        "no-network-train": replace(job, name="with-network", has_network=True),
        "channels-read-only": replace(job, name="writable", has_writable_channels=True),
        "hyperparameter-strings": replace(job, name="numbers", hyperparameters=numbers),
    }
    end = "\n".join(result.log.splitlines()[-20:])
    for case_id, candidate in relaxed.items():
        is_hinted = re.search(_HINTS[case_id], end, re.IGNORECASE) is not None
        if examination.report.is_open(case_id) and is_hinted:
            other = run(examination, candidate)
            if other.is_success:
                examination.report.fail(case_id, _RELAXED[case_id], result.last_line)
                return candidate, other
    return job, result


_RELAXED = {
    "no-network-train": "the training succeeds only with a network",
    "channels-read-only": "the training succeeds only with writable channels",
    "hyperparameter-strings": "the training succeeds only if hyperparameters are numbers, and "
    "SageMaker makes all of them strings",
}


def _check_result(examination: Examination, result: Result) -> None:
    report = examination.report
    shown = f"exit code {result.exit_code}; {result.last_line}"
    if result.changed_data:
        message = "the training writes into its channels, which are read-only"
        report.fail("channels-read-only", message, f"changed: {', '.join(result.changed_data[:3])}")
    if files := traffic.unusual_files(result.changed_files):
        message = "the training writes files that are not in /tmp"
        report.fail("writes-outside", message, ", ".join(files[:3]))
    report.accept("writes-outside")
    if result.is_success:
        if _is_hidden_failure(result):
            message = "the exit code is 0 after a failed training"
            if result.failure.is_file():
                reason = result.failure.read_bytes()[:100].decode(errors="replace")
                shown = f"{shown}; /opt/ml/output/failure: {reason!r}"
            report.fail("train-exit-code", message, shown)
            report.skip("model-artifact", "a consequence of train-exit-code")
        elif not result.has_model:
            message = "the training ended with exit code 0, and /opt/ml/model is empty"
            report.fail("model-artifact", message, shown)
        report.accept("model-artifact")
        return
    if result.has_model and not result.failure.is_file() and _TRACEBACK not in result.log:
        message = f"the exit code of a training that saves a model is {result.exit_code}"
        report.fail("train-exit-code", message, result.last_line)
        report.skip("failure-file", "a consequence of train-exit-code")
        reason = "a consequence of train-exit-code"
    elif examination.options.data is not None:
        message = f"the training with the given data ended with exit code {result.exit_code}"
        report.fail("train-exit-code", message, result.last_line)
        reason = "a consequence of train-exit-code"
    else:
        reason = f"the job failed with the doctor's own images: give --data ({result.last_line})"
    for case_id in _NEED_SUCCESS:
        report.skip(case_id, reason)


def _is_hidden_failure(result: Result) -> bool:
    has_reason = result.failure.is_file() and result.failure.stat().st_size > 0
    has_raised = _TRACEBACK in result.log and (not result.has_model or _ends_with_error(result))
    return has_reason or has_raised


def _ends_with_error(result: Result) -> bool:
    """Return whether an exception, such as one of a thread, is all that the log ends with."""
    end = result.log.rpartition(_TRACEBACK)
    # What a destructor raises is ignored.
    before, lines = end[0].splitlines()[-1:], end[2].strip().splitlines()
    is_ignored = any("Exception ignored" in line for line in before)
    return not is_ignored and bool(lines) and lines[-1].strip() == result.last_line


def _failing(examination: Examination, job: Job) -> Result | None:
    """Return a job that fails, because it has no data; None: even then it succeeds."""
    result = run(examination, replace(job, name="without-channels", has_channels=False))
    if result.is_success and (_is_hidden_failure(result) or not result.has_model):
        examination.report.fail(
            "train-exit-code",
            "the exit code is 0 after a failed training: a job without channels",
            result.last_line,
        )
    return None if result.is_success else result


def _check_failure(examination: Examination, failed: Result | None) -> None:
    report = examination.report
    report.accept("train-exit-code")
    if failed is None:
        if "train-exit-code" in report.failed:
            report.skip("failure-file", "a consequence of train-exit-code")
        report.skip("failure-file", "a job without channels succeeds, too: none failed")
        return
    shown = f"exit code {failed.exit_code}; {failed.last_line}"
    if not failed.failure.is_file():
        message = "a failed training leaves no file /opt/ml/output/failure"
        others = [path for path in failed.folder.rglob("*") if path.name.lower() == "failure"]
        names = ", ".join(f"/opt/ml/{path.relative_to(failed.folder)}" for path in others)
        report.fail("failure-file", message, f"{shown}; found: {names}" if names else shown)
        return
    text = failed.failure.read_bytes().decode(errors="replace")
    if not text.strip():
        report.fail("failure-file", "the file /opt/ml/output/failure is empty", shown)
    elif "\N{REPLACEMENT CHARACTER}" in text:
        report.fail("failure-file", "the file /opt/ml/output/failure is not UTF-8", text[:100])
    elif text.lstrip().startswith("Traceback") and len(text) > FAILURE_CHARACTERS:
        message = (
            "the first 1,024 characters of /opt/ml/output/failure are a stack trace without the "
            "message of the exception"
        )
        report.fail("failure-file", message, text[:100])
    report.accept("failure-file")


def _check_hyperparameters(examination: Examination, job: Job) -> None:
    report = examination.report
    if not report.is_open("hyperparameter-strings"):
        return
    common = {key: str(value) for key, value in _COMMON.items()}
    given = job.hyperparameters or common
    result = run(examination, replace(job, name="added", hyperparameters={**given, **ADDED}))
    if result.is_success:
        report.accept("hyperparameter-strings")
        return
    numbers = {key: _number(value) for key, value in given.items()}
    other = replace(job, name="as-numbers", hyperparameters={**numbers, **ADDED})
    if _TYPE_ERROR.search(result.log) or run(examination, other).is_success:
        message = _RELAXED["hyperparameter-strings"]
        report.fail("hyperparameter-strings", message, result.last_line)
    # The common names may be unknown to the program: then only the added keys count.
    elif not run(
        examination,
        replace(job, name="only-added", hyperparameters={**job.hyperparameters, **ADDED}),
    ).is_success:
        message = f"the training rejects keys that SageMaker adds: {', '.join(ADDED)}"
        report.fail("hyperparameter-strings", message, result.last_line)
    report.accept("hyperparameter-strings")


def _number(value: object) -> object:
    for kind in (int, float):
        with suppress(ValueError):
            return kind(str(value))
    return value
