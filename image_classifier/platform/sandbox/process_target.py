"""A command as the program under test: a plain process of this machine."""

import os
import signal
import stat
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryFile

from container.classifier.environment import BASE_DIR_VARIABLE
from container.classifier.errors import UserError
from image_classifier.platform.sandbox import labels, process_tree, sockets
from image_classifier.platform.sandbox.launch import (
    POLL_SECONDS,
    Launch,
    Running,
    StartError,
    Target,
)
from image_classifier.platform.sandbox.ports import why_taken

# Between two measurements of the memory.
_MEMORY_SECONDS = 0.1

# How long killed processes may take to end.
_END_SECONDS = 10

_DOCKERS_OFFSET = 128


class ProcessTarget(Target):
    """A command. `SAGEMAKER_BASE_DIR` names the folder that stands for /opt/ml."""

    def __init__(self, command: Sequence[str], cwd: Path | None = None) -> None:
        """Use this command, with the environment of this process and, by default, its folder."""
        self._command, self._cwd = command, cwd

    def start(self, launch: Launch) -> Running:
        """Start it.

        Raises:
            StartError: the command does not exist, or is not executable.
            UserError: another program listens on its port.
        """
        if launch.port is not None and why_taken(launch.port):
            raise UserError(
                f"port {launch.port} is in use: stop the program that uses it, or choose another "
                "one with --port, which the command gets as SAGEMAKER_BIND_TO_PORT"
            )
        return _RunningProcess(self._command, self._cwd, launch)


class _RunningProcess(Running):
    def __init__(self, command: Sequence[str], cwd: Path | None, launch: Launch) -> None:
        self.address = ("127.0.0.1", launch.port or 0)
        self.memory_limit = launch.memory
        self._log = TemporaryFile()  # noqa: SIM115 - closed by close()
        self._protected = [
            launch.base_dir / folder
            for folder, is_writable in launch.folders.items()
            if not is_writable
        ]
        self._was_killed_for_memory = False
        # Jobs of several hosts may share the folder; servers do not.
        self._base_dir = None if launch.port is None else str(launch.base_dir)
        _set_writable(self._protected, is_writable=False)
        stdout, stderr = launch.output or (self._log, subprocess.STDOUT)
        variables = {BASE_DIR_VARIABLE: str(launch.base_dir), **launch.variables}
        try:
            self._process = subprocess.Popen(
                command,
                cwd=cwd,
                env=os.environ | {"PYTHONUNBUFFERED": "1"} | labels.variables() | variables,
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                # It inherits the lock of the folder that it works in, if this process has one.
                close_fds=False,
                start_new_session=True,
            )
        except OSError as error:
            self._release()
            raise StartError(f"{command[0]}: {error.strerror}") from error
        if launch.memory is not None:
            threading.Thread(target=self._watch, args=[launch.memory], daemon=True).start()

    def exit_code(self) -> int | None:
        code = self._process.poll()
        return code if code is None or code >= 0 else _DOCKERS_OFFSET - code

    def log(self) -> str:
        # Not seek(): the program writes through the same open file.
        size = os.fstat(self._log.fileno()).st_size
        return os.pread(self._log.fileno(), size, 0).decode(errors="backslashreplace")

    def terminate(self) -> None:
        self._process.terminate()

    def kill(self) -> None:
        # macOS raises PermissionError for processes that have ended.
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        for pid in self._pids():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def close(self) -> None:
        deadline = time.monotonic() + _END_SECONDS
        self.kill()
        self._process.wait()
        # A worker keeps the port of the next server until it has ended, too.
        while self._pids() and time.monotonic() < deadline:
            self.kill()
            time.sleep(POLL_SECONDS)
        self._kill_daemons(deadline)
        self._release()

    def ran_out_of_memory(self) -> bool:
        return self._was_killed_for_memory

    def memory(self) -> int | None:
        page = os.sysconf("SC_PAGE_SIZE")
        total = 0
        for pid in self._pids():
            # Resident pages that are not shared, so that forks are not counted twice.
            with suppress(OSError):
                fields = Path(f"/proc/{pid}/statm").read_text().split()
                total += (int(fields[1]) - int(fields[2])) * page
        return total or None

    def ignores_sigterm(self) -> bool:
        return process_tree.ignores(self._process.pid, signal.SIGTERM)

    def programs(self) -> set[str]:
        return set(process_tree.names(self._pids()))

    def cpu_waits(self) -> Mapping[str, float]:
        return process_tree.cpu_waits(self._pids())

    def sockets(self) -> list[sockets.Socket] | None:
        return sockets.of_processes(self._pids(), own_network=False)

    def waits_for_back_end(self) -> bool:
        return sockets.has_unaccepted(self._pids(), self.address[1], own_network=False)

    def left_processes(self) -> int:
        return len(self._pids())

    def _pids(self) -> list[int]:
        """Return the processes of the session that the command leads."""
        return list(process_tree.of_session(self._process.pid))

    def _kill_daemons(self, deadline: float) -> None:
        """Kill processes with a session of their own, which have the port, too."""
        if self._base_dir is None:
            return
        while time.monotonic() < deadline:
            found = [
                pid
                for pid, base_dir in process_tree.with_variable(BASE_DIR_VARIABLE)
                if base_dir == self._base_dir
            ]
            if not found:
                return
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(POLL_SECONDS)

    def _watch(self, limit: int) -> None:
        while self._process.poll() is None:
            if (self.memory() or 0) > limit:
                self._was_killed_for_memory = True
                with suppress(ProcessLookupError, PermissionError):
                    os.killpg(self._process.pid, signal.SIGKILL)
            time.sleep(_MEMORY_SECONDS)

    def _release(self) -> None:
        _set_writable(self._protected, is_writable=True)
        self._log.close()


def kill_left() -> None:
    """Kill the processes of commands that were killed; wait until they hold no lock any more."""
    left = list(labels.left_processes())
    for pid in left:
        with suppress(ProcessLookupError, PermissionError):
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _END_SECONDS
    while not all(map(process_tree.has_ended, left)) and time.monotonic() < deadline:
        time.sleep(POLL_SECONDS)


def _set_writable(folders: Sequence[Path], *, is_writable: bool) -> None:
    """Change the mode of folders and files; root can write them in any case."""
    for folder in folders:
        for path in [folder, *folder.rglob("*")]:
            if not path.is_symlink():
                mode = stat.S_IMODE(path.stat().st_mode)
                path.chmod(mode | stat.S_IWUSR if is_writable else mode & ~0o222)


@contextmanager
def changes_in(folder: Path) -> Iterator[list[str]]:
    """Yield a list, to which the end of the `with` block adds the files that it has changed.

    These are the files in the folder that it has created, changed or removed.
    """
    changes: list[str] = []
    before = _state(folder)
    yield changes
    after = _state(folder)
    changes += sorted(p for p in before.keys() | after if before.get(p) != after.get(p))


def _state(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        # Python leaves its compiled files out where it cannot write.
        if path.is_file() and path.parent.name != "__pycache__"
    }
