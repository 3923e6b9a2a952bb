r"""Calling what a learner wrote: on a copy, watched, counted, and not for ever.

A function that is to be graded may change its input, print, raise whatever it likes,
call the answer under another name, or never come back. Here is what the
[`grader`][minillm.exercises.grader] holds against each of these. Only a process of its
own ([`runner`][minillm.exercises.runner]) helps against what Python cannot interrupt.
"""

import _thread
import contextlib
import copy
import inspect
import io
import signal
import sys
import threading
import types
from collections.abc import Callable, Generator
from typing import Any

from minillm.exercises.compare import Outcome, difference
from minillm.exercises.exercise import Exercise

__all__ = ["answer_codes", "attempt", "lines_run", "soft_guard", "watched"]


def attempt(
    exercise: Exercise, function: Callable[..., Any], args: tuple[Any, ...]
) -> Outcome:
    """Call a function on a copy of the arguments, and note what comes of it.

    Args:
        exercise: says how to call it.
        function: what to call.
        args: its arguments.

    Returns:
        The value or the error, and whether the copy was changed. What the function
        prints is lost.

    Raises:
        KeyboardInterrupt: if the time is over, or the user has asked for it.

    Examples:
        >>> from minillm.exercises import EXERCISES
        >>> attempt(EXERCISES["bpe.count_pairs"], list.clear, ([1, 2],))
        Outcome(value=None, error=None, changed=True)
    """
    given = copy.deepcopy(args)
    nowhere = io.StringIO()
    with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
        try:
            value = exercise.call(function, *given)
        except KeyboardInterrupt:
            raise
        except (Exception, SystemExit, GeneratorExit) as error:
            return Outcome(error=error)
    return Outcome(value, changed=difference(Outcome(args), Outcome(given)) is not None)


def answer_codes(exercise: Exercise) -> frozenset[types.CodeType]:
    """Find the code objects of an answer: of functions, of all methods of classes.

    Args:
        exercise: whose answer.

    Returns:
        The code objects.

    Examples:
        >>> from minillm.exercises import EXERCISES
        >>> {code.co_name for code in answer_codes(EXERCISES["bpe.merge"])}
        {'merge'}
    """
    codes = set()
    for answer in (*exercise.answer, exercise.reference):
        members = vars(answer).values() if isinstance(answer, type) else [answer]
        for member in members:
            plain = inspect.unwrap(getattr(member, "__func__", member))
            if isinstance(plain, types.FunctionType):
                codes.add(plain.__code__)
    return frozenset(codes)


@contextlib.contextmanager
def watched(
    codes: frozenset[types.CodeType], names: frozenset[str]
) -> Generator[list[str], None, None]:
    """Notice certain calls in the block, by whatever name the callee was imported.

    Args:
        codes: functions of Python, by their code.
        names: functions of PyTorch, by their own names.

    Yields:
        A list of what has been called, in words.

    Examples:
        >>> def answer():
        ...     return 42
        >>> something_else = answer
        >>> with watched(frozenset({answer.__code__}), frozenset()) as used:
        ...     _ = something_else()
        >>> used
        ["minillm's own answer"]
    """
    used: list[str] = []

    def hook(frame: types.FrameType, event: str, arg: Any) -> None:
        if event == "call" and frame.f_code in codes:
            used.append(f"minillm's own {frame.f_code.co_qualname}")
        elif event == "c_call" and arg.__name__ in names:
            used.append(f"PyTorch's own {arg.__name__}")

    if not codes | names:
        yield used
        return
    before = sys.getprofile()
    sys.setprofile(hook)
    try:
        yield used
    finally:
        sys.setprofile(before)


def lines_run(function: Callable[..., Any], *args: Any) -> int:
    """Count the lines of Python that a call runs, loops line by line.

    Args:
        function: what to call.
        args: its arguments.

    Returns:
        The number of lines.

    Examples:
        >>> def double(n):
        ...     for i in range(n):
        ...         n += 1
        ...     return n
        >>> [lines_run(double, n) for n in (0, 10, 20)]  # two for each i, and two more
        [2, 22, 42]
    """
    lines = 0

    def tracer(frame: types.FrameType, event: str, arg: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return tracer

    before = sys.gettrace()
    sys.settrace(tracer)
    try:
        function(*args)
    finally:
        sys.settrace(before)
    return lines


@contextlib.contextmanager
def soft_guard(seconds: float) -> Generator[threading.Event, None, None]:
    """Interrupt what runs in the block, as Ctrl-C would, when the time is over.

    Args:
        seconds: when.

    Yields:
        An event that is set if that has happened.

    Examples:
        >>> try:
        ...     with soft_guard(0.01) as over:
        ...         while True:
        ...             pass
        ... except KeyboardInterrupt:
        ...     print("stopped by us:", over.is_set())
        stopped by us: True
    """
    over, done, lock = threading.Event(), threading.Event(), threading.Lock()

    def interrupt() -> None:
        with lock:
            if not done.is_set():
                over.set()
                _thread.interrupt_main()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if main:
        # What a shell runs in the background ignores Ctrl-C, and would ignore us.
        if not callable(before):
            signal.signal(signal.SIGINT, signal.default_int_handler)
        timer.start()
    try:
        yield over
    finally:
        with lock:
            done.set()
        timer.cancel()
        if main and not callable(before):
            signal.signal(signal.SIGINT, before)
