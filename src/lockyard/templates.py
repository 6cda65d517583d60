"""Templates: Jinja2 text in, text out. An undefined name is an error, and a template reaches nothing but its values."""

from collections.abc import Mapping
from types import TracebackType

from lockyard.errors import ConfigError

SUFFIX = ".j2"


def render(text: str, values: Mapping[str, object], *, source: str) -> str:
    """Render `text`; `source` is its file, for messages. Loads jinja2.

    Raises:
        ConfigError: it does not parse or names something that `values` lack; file and line are named.

    """
    from jinja2 import StrictUndefined, TemplateError, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)
    try:
        return environment.from_string(text).render(values)
    except TemplateError as error:
        line = error.lineno if isinstance(error, TemplateSyntaxError) else _line(error.__traceback__)
        raise ConfigError(
            f"{source}:{line}: {error.message or type(error).__name__}",
            hint=f"a template knows {', '.join(sorted(values))}",
        ) from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise ConfigError(f"{source}:{_line(error.__traceback__)}: {error}") from error


def _line(trace: TracebackType | None) -> int:
    """Return the template's line where an error rose; Jinja2 rewrites tracebacks to hold it."""
    line = 1
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    return line
