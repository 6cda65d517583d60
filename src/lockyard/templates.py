"""Templates: Jinja2 text in, text out. An undefined name is an error, and a template reaches nothing but its values."""

from collections.abc import Mapping
from types import TracebackType

from lockyard.errors import ConfigError

SUFFIX = ".j2"
_MAIN = "<template>"


def render(text: str, values: Mapping[str, object], *, source: str, library: Mapping[str, str] | None = None) -> str:
    """Render `text`; `source` is its file, for messages. Loads jinja2.

    With a `library` (name → text) it may extend and include those, and lines that hold nothing but a tag vanish.

    Raises:
        ConfigError: it does not parse or names something that `values` lack; file and line are named.

    """
    from jinja2 import FunctionLoader, StrictUndefined, TemplateError, TemplateNotFound, TemplateSyntaxError
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    known = library or {}
    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False,
        loader=FunctionLoader(lambda name: (known[name], name, None) if name in known else None),
        trim_blocks=library is not None, lstrip_blocks=library is not None,
    )  # fmt: skip
    try:
        return environment.from_string(text).render(values)
    except TemplateNotFound as error:
        _, line = _place(error.__traceback__, known)
        names = f"there are {', '.join(sorted(known))}" if known else "it can extend and include nothing"
        raise ConfigError(f"{source}:{line}: no template {error.name!r}", hint=names) from error
    except TemplateError as error:
        name, line = _place(error.__traceback__, known)
        if isinstance(error, TemplateSyntaxError):
            name, line = error.name or _MAIN, error.lineno
        raise ConfigError(
            f"{source if name == _MAIN else name}:{line}: {error.message or type(error).__name__}",
            hint=f"a template knows {', '.join(sorted(values))}",
        ) from error
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        name, line = _place(error.__traceback__, known)
        raise ConfigError(f"{source if name == _MAIN else name}:{line}: {error}") from error


def _place(trace: TracebackType | None, library: Mapping[str, str]) -> tuple[str, int]:
    """Return the template and its line where an error rose; Jinja2 rewrites tracebacks to hold them."""
    found = _MAIN, 1
    while trace is not None:
        name = trace.tb_frame.f_code.co_filename
        if name == _MAIN or name in library:
            found = name, trace.tb_lineno
        trace = trace.tb_next
    return found
