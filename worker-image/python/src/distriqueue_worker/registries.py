"""The registry: every task that this worker can run, by job type.

Tasks come from the built-in ones, from installed packages that announce them (entry points of the group
`distriqueue.tasks`), and from modules named in DISTRIQUEUE_WORKER_TASKS. Guarantees: a type has one handler; two that
want the same are an error at the start that names both. Fails with `TaskError`.
"""

import importlib
import importlib.metadata
from collections.abc import Iterable, Iterator
from types import ModuleType
from typing import Any, Final, Self

from pydantic import TypeAdapter

from distriqueue_worker import builtin_tasks
from distriqueue_worker.tasks import DEFAULT_TASK, Task, TaskError, marked

ENTRY_POINTS: Final = "distriqueue.tasks"
TYPES_MOST: Final = 256
"""So many types fit into a registration."""


class Registry:
    """Tasks by name, with what validates their payloads.

    Args:
        tasks: Those to start with.

    Raises:
        TaskError: Two tasks have the same name, or one cannot be a handler.
    """

    def __init__(self, tasks: Iterable[Task] = ()) -> None:
        self._tasks: dict[str, tuple[Task, TypeAdapter[Any] | None]] = {}
        for one in tasks:
            self.add(one)

    @classmethod
    def load(cls, modules: Iterable[str] = (), *, default_task: bool = True) -> Self:
        """Collect the tasks of this installation.

        Args:
            modules: Names of modules to import.
            default_task: Whether the built-in `*` is among them.

        Raises:
            TaskError: A module cannot be imported or holds no task, an entry point is no task, or a name is taken.
        """
        registry = cls(one for one in _tasks_in(builtin_tasks) if default_task or one.name != DEFAULT_TASK)
        for point in importlib.metadata.entry_points(group=ENTRY_POINTS):
            where = f"entry point '{point.name}' ({point.value})"
            try:
                found = point.load()
            except Exception as error:  # whatever the author's module raises at import
                raise TaskError(f"{where} cannot be loaded: {type(error).__name__}: {error}") from error
            registry._add_from(found, where)
        for module in modules:
            where = f"module '{module}' of DISTRIQUEUE_WORKER_TASKS"
            try:
                found = importlib.import_module(module)
            except Exception as error:  # whatever the author's module raises at import
                raise TaskError(f"{where} cannot be imported: {type(error).__name__}: {error}") from error
            registry._add_from(found, where)
        if len(registry.types) > TYPES_MOST:
            raise TaskError(f"{len(registry.types)} task types are registered, and {TYPES_MOST} is the limit")
        return registry

    @property
    def types(self) -> tuple[str, ...]:
        """The names of all tasks, sorted."""
        return tuple(sorted(self._tasks))

    def add(self, task: Task) -> None:
        """Add a task.

        Raises:
            TaskError: Its name is taken by another function, or its payload's annotation is unclear.
        """
        known = self._tasks.get(task.name)
        if known is None:
            self._tasks[task.name] = (task, task.payload_reader())
        elif known[0].function is not task.function:
            raise TaskError(
                f"two tasks are named '{task.name}': {known[0].origin} and {task.origin}; rename one"
                + (", or set DISTRIQUEUE_WORKER_DEFAULT_TASK=false" if task.name == DEFAULT_TASK else "")
            )

    def find(self, name: str) -> tuple[Task, TypeAdapter[Any] | None] | None:
        """The task for a job type with what validates its payload; `*` if it has none of its own; None if neither."""
        return self._tasks.get(name) or self._tasks.get(DEFAULT_TASK)

    def _add_from(self, found: object, where: str) -> None:
        tasks = list(_tasks_in(found)) if isinstance(found, ModuleType) else [one for one in [marked(found)] if one]
        if not tasks:
            raise TaskError(f"{where} holds no task: functions need the decorator distriqueue_worker.tasks.task")
        for one in tasks:
            self.add(one)


def _tasks_in(module: ModuleType) -> Iterator[Task]:
    return filter(None, map(marked, vars(module).values()))
