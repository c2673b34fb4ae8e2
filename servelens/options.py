"""The command line's shared options, and what stands between a flag and a setting: environment, file, foreign flags.

The order is flag > environment > file > default. Apart from `cli`, which has the commands.
"""

import inspect
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, get_args

import typer

from servelens.contract.errors import ConfigError, ServeLensError
from servelens.contract.settings import ENV_PREFIX, check_environment, check_file
from servelens.io.kafka_settings import KafkaSettings

Kafka = Annotated[str, typer.Option("--kafka", help="Brokers as HOST:PORT, several with commas.", metavar="H:P")]
Security = Annotated[str, typer.Option("--kafka-security", help="PLAINTEXT, SSL, SASL_PLAINTEXT or SASL_SSL.")]
CaFile = Annotated[Path | None, typer.Option("--kafka-ca-file", help="CA certificates (PEM).")]
CertFile = Annotated[Path | None, typer.Option("--kafka-cert-file", help="Client certificate (PEM).")]
KeyFile = Annotated[Path | None, typer.Option("--kafka-key-file", help="Client key (PEM).")]
SaslMechanism = Annotated[
    str | None, typer.Option("--kafka-sasl-mechanism", help="PLAIN, SCRAM-SHA-256, SCRAM-SHA-512 or OAUTHBEARER.")
]
SaslUser = Annotated[str | None, typer.Option("--kafka-sasl-username", help="SASL user.")]
SaslPassword = Annotated[Path | None, typer.Option("--kafka-sasl-password-file", help="File with the SASL password.")]
SaslToken = Annotated[Path | None, typer.Option("--kafka-sasl-token-file", help="OAUTHBEARER token, read anew.")]
Prefix = Annotated[str, typer.Option("--topic-prefix", help="Prefix of every topic.", metavar="P")]

# Flags KServe's agent and SDK pass or document, which we know and do not use: a warning each, not an error. Value =
# whether a value follows.
FOREIGN: Final[Mapping[str, Mapping[str, bool]]] = {
    "logger": {
        "--log-url": True,
        "--source-uri": True,
        "--metadata-headers": True,
        "--metadata-annotations": True,
        "--enable-batcher": False,
        "--max-batchsize": True,
        "--max-latency": True,
        "--enable-puller": False,
        "--config-dir": True,
        "--model-dir": True,
        "--log-store-path": True,
        "--log-store-format": True,
        "--log-marshaller-url": True,
        "--log-marshaller-port": True,
        "--log-batch-size": True,
        "--log-batch-interval": True,
        "--logger-ca-cert-file": True,
        "--logger-tls-skip-verify": False,
    },
    "explainer": {
        "--grpc_port": True,
        "--max_threads": True,
        "--max_asyncio_workers": True,
        "--enable_grpc": True,
        "--enable_docs_url": True,
        "--enable_latency_logging": True,
        "--enable_predictor_health_check": False,
        "--configure_logging": True,
        "--log_config_file": True,
        "--access_log_format": True,
        "--event-loop": True,
        "--timeout-keep-alive": True,
        "--predictor_request_retries": True,
        "--storage_uri": True,
    },
}

# Flags of KServe's agent that say what a flag of ours says: ours, and how its value is made of theirs.
ALIASES: Final[Mapping[str, Mapping[str, tuple[str, str]]]] = {
    "logger": {
        "--port": ("--listen", "0.0.0.0:{}"),
        "--component-port": ("--upstream", "http://127.0.0.1:{}"),
    },
}


# The parameters of a connection beside --kafka, by their names in `KafkaSettings`.
_CONNECTION: Final[Mapping[str, tuple[Any, Any]]] = {
    "security_protocol": (Security, "PLAINTEXT"),
    "ca_file": (CaFile, None),
    "cert_file": (CertFile, None),
    "key_file": (KeyFile, None),
    "sasl_mechanism": (SaslMechanism, None),
    "sasl_username": (SaslUser, None),
    "sasl_password_file": (SaslPassword, None),
    "sasl_token_file": (SaslToken, None),
}


def connected(command: Callable[..., None]) -> Callable[..., None]:
    """A command whose first parameter is `connection`, as one that takes the Kafka flags in its place.

    Where `connection` may be None, `--kafka` may be left out. typer reads a command's flags off its signature, so that
    is what is made here: every command that speaks to Kafka takes all of them.
    """
    own = inspect.signature(command).parameters
    optional = type(None) in get_args(own["connection"].annotation)

    def run(**given: Any) -> None:
        bootstrap, flags = given.pop("kafka"), {name: given.pop(name) for name in _CONNECTION}
        command(connection=KafkaSettings(bootstrap, **flags) if bootstrap or not optional else None, **given)

    def flag(name: str, annotation: Any, default: Any) -> inspect.Parameter:
        return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

    kept = [flag(name, one.annotation, one.default) for name, one in own.items() if name != "connection"]
    others = [flag(name, annotation, default) for name, (annotation, default) in _CONNECTION.items()]
    parameters = [flag("kafka", Kafka, "" if optional else inspect.Parameter.empty), *kept, *others]
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {one.name: one.annotation for one in parameters}
    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what inspect looks at first
    return run


def translated(path: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """The arguments of a command with the aliases of KServe's agent put into our words."""
    known = ALIASES.get(" ".join(path), {})
    words = iter(arguments)
    ours: list[str] = []
    for word in words:
        flag, joined, value = word.partition("=")
        if flag in known:
            name, form = known[flag]
            ours += [name, form.format(value if joined else next(words, ""))]
        else:
            ours.append(word)
    return ours


def without_foreign(path: Sequence[str], arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments of a command without KServe's own flags, and the flags left out."""
    known = FOREIGN.get(" ".join(path), {})
    kept: list[str] = []
    dropped: list[str] = []
    words = iter(arguments)
    for word in words:
        flag, _, value = word.partition("=")
        if flag not in known:
            kept.append(word)
            continue
        dropped.append(flag)
        if known[flag] and not value:
            next(words, None)
    return kept, dropped


def _flags(command: Any) -> dict[str, str]:
    """Long flag without dashes → parameter name, of one command."""
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    return {max(option.opts, key=len).removeprefix("--"): option.name for option in options}


def _walk(command: Any, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], Any]:
    found = {path: command}
    for name, child in getattr(command, "commands", {}).items():
        found |= _walk(child, (*path, name))
    return found


def _variable(path: Sequence[str], flag: str) -> str:
    return ENV_PREFIX + "_".join((*path, flag)).upper().replace("-", "_")


def environment_names(root: Any) -> list[str]:
    """Every environment variable that is read: SERVELENS__ + command words + flag."""
    return [_variable(path, flag) for path, command in _walk(root).items() for flag in _flags(command)]


def defaults(root: Any, arguments: Sequence[str], environ: Mapping[str, str]) -> dict[str, Any]:
    """The default map for click: environment over file, after both have been checked for unknown names."""
    check_environment(environ, environment_names(root))
    path, command = _chosen(root, arguments)
    flags = _flags(command)
    values: dict[str, Any] = {}
    file = _config_file(arguments) or environ.get(_variable((), "config"))
    if file:
        try:
            text = Path(file).read_text()
        except OSError as error:
            raise ConfigError("--config", f"cannot read {file} ({error.strerror})", "Give a readable file.") from error
        values |= {flags[key]: value for key, value in check_file(text, file, flags).items()}
    for flag, name in flags.items():
        if (value := environ.get(_variable(path, flag))) is not None:
            values[name] = value
    for word in reversed(path):
        values = {word: values}
    return values


def _chosen(root: Any, arguments: Sequence[str]) -> tuple[tuple[str, ...], Any]:
    """The command the words name, and the words: `("topics", "apply")`."""
    path: tuple[str, ...] = ()
    for word in arguments:
        child = getattr(root, "commands", {}).get(word)
        if child is not None:
            path, root = (*path, word), child
        elif path:
            break
    return path, root


def _config_file(arguments: Sequence[str]) -> str | None:
    for word, following in zip(arguments, [*arguments[1:], ""], strict=True):
        if word == "--config":
            return following
        if word.startswith("--config="):
            return word.partition("=")[2]
    return None


def run(root: Any, arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run the command line; the exit code. An error of ours is one line on stderr: 2 for a setting, 1 for the rest."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        path = _chosen(root, words)[0]
        kept, dropped = without_foreign(path, translated(path, words))
        for flag in dropped:
            sys.stderr.write(f"servelens: {flag} belongs to KServe and is ignored here\n")
        given = defaults(root, kept, os.environ if environ is None else environ)
        root.main(kept, "servelens", default_map=given)
    except ServeLensError as error:
        sys.stderr.write(f"servelens: {error}\n")
        return 2 if isinstance(error, ConfigError) else 1
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else 1
    return 0
