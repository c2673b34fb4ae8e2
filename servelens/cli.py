"""The command line, `servelens COMMAND`; a command imports its room when it runs."""

import threading
from pathlib import Path
from typing import Annotated

import typer

from servelens import __version__, options
from servelens.contract import settings as spelled
from servelens.contract.topics import DEFAULT_PARTITIONS, DEFAULT_PREFIX
from servelens.detecting import detector, dlq_app
from servelens.io.kafka_settings import KafkaSettings
from servelens.options import Prefix, connected
from servelens.preparing import dashboards_app, topics_app
from servelens.profiles import profile_app

app = typer.Typer(name="servelens", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
app.add_typer(profile_app, name="profile")
app.add_typer(topics_app, name="topics")
app.add_typer(dlq_app, name="dlq")
app.add_typer(dashboards_app, name="dashboards")


app.command()(connected(detector))


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"servelens {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, help="Print the version.")] = False,
    config: Annotated[Path | None, typer.Option(help="YAML file of `flag: value` lines for the command.")] = None,
) -> None:
    """Observability and explainability for KServe."""
    del version, config  # both have been seen to: by the callback above, and before the command line was parsed


@app.command()
@connected
def logger(
    connection: KafkaSettings | None,
    upstream: Annotated[str, typer.Option(help="The predictor: http://HOST:PORT or unix:/PATH.", metavar="URL")],
    inference_service: Annotated[str, typer.Option(help="Name of the InferenceService.")],
    namespace: Annotated[str, typer.Option(help="Its namespace.")],
    spool: Annotated[Path, typer.Option(help="Folder of the spool.")] = Path("spool"),
    listen: Annotated[str, typer.Option(help="Where clients connect.", metavar="H:P")] = "0.0.0.0:8090",
    admin: Annotated[str, typer.Option(help="Health, metrics, spool.", metavar="H:P")] = "0.0.0.0:8091",
    topic_prefix: Prefix = DEFAULT_PREFIX,
    component: Annotated[str, typer.Option(help="predictor, transformer or explainer.")] = "predictor",
    revision: Annotated[str, typer.Option(help="Revision of the InferenceService.")] = "",
    endpoint: Annotated[str, typer.Option(help="Its endpoint: default or canary.")] = "",
    workers: Annotated[int, typer.Option(help="Taps on the port, each with a recorder and a spool.")] = 1,
    probe_path: Annotated[str, typer.Option(help="Ready when the predictor answers this; else when it accepts.")] = "",
    rules: Annotated[Path | None, typer.Option(help="Selection and redaction (YAML), re-read on change.")] = None,
    redaction_key: Annotated[Path | None, typer.Option(help="Key file of the rules' hmac.")] = None,
    add_request_id: Annotated[bool, typer.Option(help="Insert x-request-id and traceparent where missing.")] = False,
    log_mode: Annotated[str, typer.Option(help="exchange, all, request, response or none.")] = "exchange",
    role: Annotated[str, typer.Option(help="all, tap or recorder (recorder and shipper).")] = "all",
    capture_socket: Annotated[Path | None, typer.Option(help="Where tap and recorder meet.")] = None,
    synthetic_key: Annotated[Path | None, typer.Option(help="Key file of the synthetic guard.")] = None,
    capture_memory: Annotated[str, typer.Option(help="Bodies held in memory at most.")] = "32MiB",
    body_cap: Annotated[str, typer.Option(help="Bytes kept of one body.")] = "1MiB",
    on_unparsable: Annotated[str, typer.Option(help="blind or close.")] = "blind",
    max_connections: Annotated[int, typer.Option(help="Client connections at once.")] = 4096,
    idle_timeout: Annotated[str, typer.Option(help="Close what is silent and owed no answer; 0s: never.")] = "10m",
    spool_bytes: Annotated[str, typer.Option(help="All spool files together.")] = "512MiB",
    spool_policy: Annotated[str, typer.Option(help="drop-new or drop-old.")] = "drop-new",
    accounting_slot: Annotated[str, typer.Option(help="An accounting event each.")] = "10s",
    create_topics: Annotated[bool, typer.Option(help="Create missing topics.")] = True,
    partitions: Annotated[int, typer.Option(help="Partitions of created topics.")] = DEFAULT_PARTITIONS,
    grace: Annotated[str, typer.Option(help="Time to finish on SIGTERM.")] = "10s",
    otlp: Annotated[str, typer.Option(help="OTLP/HTTP collector for spans.", metavar="URL")] = "",
    otlp_headers_file: Annotated[Path | None, typer.Option(help="`name: value` lines sent to it.")] = None,
    otlp_ca_file: Annotated[Path | None, typer.Option(help="CA certificates (PEM) of it.")] = None,
    trace_ratio: Annotated[float, typer.Option(help="Share of exchanges that get a span.")] = 0.01,
) -> None:
    """Stand before a predictor and log every inference to Kafka, without slowing or losing one."""
    from logger.parent import Parent
    from logger.settings import LoggerSettings
    from servelens.io import http, logs
    from servelens.io.processes import stop_on_signals

    logs.configure("logger")
    parent = Parent(
        LoggerSettings(
            listen=listen,
            upstream=upstream,
            admin=admin,
            spool=spool,
            kafka=connection,
            topic_prefix=topic_prefix,
            namespace=namespace,
            inference_service=inference_service,
            component=component,
            revision=revision,
            endpoint=endpoint,
            workers=workers,
            probe_path=probe_path,
            rules=rules,
            redaction_key=redaction_key,
            add_request_id=add_request_id,
            log_mode=log_mode,  # type: ignore[arg-type]  # checked by LoggerSettings, which names the choices
            role=role,
            capture_socket=capture_socket,
            synthetic_key=synthetic_key,
            capture_memory=spelled.size(capture_memory, "--capture-memory"),
            body_cap=spelled.size(body_cap, "--body-cap"),
            on_unparsable=on_unparsable,
            max_connections=max_connections,
            idle_seconds=spelled.duration(idle_timeout, "--idle-timeout"),
            spool_bytes=spelled.size(spool_bytes, "--spool-bytes"),
            spool_policy=spool_policy,
            accounting_seconds=spelled.duration(accounting_slot, "--accounting-slot"),
            create_topics=create_topics,
            partitions=partitions,
            grace_seconds=spelled.duration(grace, "--grace"),
            otlp=otlp,
            otlp_headers_file=otlp_headers_file,
            otlp_ca_file=otlp_ca_file,
            trace_ratio=trace_ratio,
        )
    )
    parent.open()
    stop_on_signals(parent.stop)
    addresses = {"listening": parent.listening, "admin": parent.admin}
    http.announce(**{name: address for name, address in addresses.items() if address})
    parent.run()


@app.command()
@connected
def bridge(
    connection: KafkaSettings,
    spool: Annotated[Path, typer.Option(help="Folder of the spool.")] = Path("spool"),
    listen: Annotated[str, typer.Option(help="Where events are posted.", metavar="H:P")] = "0.0.0.0:8092",
    admin: Annotated[str, typer.Option(help="Health, metrics, spool.", metavar="H:P")] = "0.0.0.0:8091",
    topic_prefix: Prefix = DEFAULT_PREFIX,
    tokens: Annotated[Path | None, typer.Option(help="Who may send (YAML), re-read; without: everybody.")] = None,
    rules: Annotated[Path | None, typer.Option(help="Selection and redaction (YAML), re-read on change.")] = None,
    redaction_key: Annotated[Path | None, typer.Option(help="Key file of the rules' hmac.")] = None,
    max_body: Annotated[str, typer.Option(help="Bytes of one post at most.")] = "4MiB",
    max_pending: Annotated[str, typer.Option(help="Bytes of all posts under way.")] = "64MiB",
    body_timeout: Annotated[str, typer.Option(help="Time a post may take to come.")] = "30s",
    spool_bytes: Annotated[str, typer.Option(help="All spool files together.")] = "512MiB",
    spool_policy: Annotated[str, typer.Option(help="drop-new (503) or drop-old (counted).")] = "drop-new",
    create_topics: Annotated[bool, typer.Option(help="Create missing topics.")] = True,
    partitions: Annotated[int, typer.Option(help="Partitions of created topics.")] = DEFAULT_PARTITIONS,
    grace: Annotated[str, typer.Option(help="Time to finish on SIGTERM.")] = "10s",
) -> None:
    """Take CloudEvents (KServe's agent, Knative) and labels by HTTP, and bring them to Kafka."""
    from logger.bridge import Bridge, BridgeSettings
    from logger.reception import Bounds
    from servelens.io import http, logs
    from servelens.io.processes import stop_on_signals

    logs.configure("bridge")
    service = Bridge(
        BridgeSettings(
            kafka=connection,
            spool=spool,
            listen=listen,
            admin=admin,
            topic_prefix=topic_prefix,
            tokens=tokens,
            rules=rules,
            redaction_key=redaction_key,
            bounds=Bounds(
                spelled.size(max_body, "--max-body"),
                spelled.size(max_pending, "--max-pending"),
                spelled.duration(body_timeout, "--body-timeout"),
            ),
            spool_bytes=spelled.size(spool_bytes, "--spool-bytes"),
            spool_policy=spool_policy,  # type: ignore[arg-type]  # checked by the spool, which names the choices
            create_topics=create_topics,
            partitions=partitions,
            grace_seconds=spelled.duration(grace, "--grace"),
        )
    )
    stop_on_signals(service.stop)
    service.open()
    http.announce(listening=service.listening, admin=service.admin)
    service.run()


@app.command()
def explainer(
    model_name: Annotated[str, typer.Option("--model_name", help="The model, as its predictor calls it.")],
    predictor_host: Annotated[str, typer.Option("--predictor_host", help="The predictor.", metavar="H[:P]")],
    http_port: Annotated[int, typer.Option("--http_port", help="Where it listens; 0 = any free port.")] = 8080,
    workers: Annotated[int, typer.Option("--workers", help="Requests explained at once at most.")] = 8,
    predictor_protocol: Annotated[str, typer.Option("--predictor_protocol", help="v1 or v2.")] = "v1",
    predictor_use_ssl: Annotated[str, typer.Option("--predictor_use_ssl", help="true or false.")] = "false",
    predictor_request_timeout_seconds: Annotated[
        float, typer.Option("--predictor_request_timeout_seconds", help="One call to the predictor at most.")
    ] = 60.0,
    artifacts: Annotated[Path, typer.Option(help="Folder of explainer.yaml and model.yaml.")] = Path("/mnt/models"),
    synthetic_key: Annotated[Path | None, typer.Option(help="Key file of the synthetic guard.")] = None,
    predictor_token_file: Annotated[Path | None, typer.Option(help="Bearer token shown to the predictor.")] = None,
    caller_token_file: Annotated[Path | None, typer.Option(help="Bearer token callers must show.")] = None,
    forward_authorization: Annotated[bool, typer.Option(help="Ask with the caller's authorization.")] = False,
    deadline: Annotated[str, typer.Option(help="Default and longest time of a request.")] = "10s",
    seed: Annotated[int, typer.Option(help="Of every random choice.")] = 0,
    host: Annotated[str, typer.Option(help="Address it listens on.")] = "0.0.0.0",
) -> None:
    """Explain predictions on request, asking the predictor; KServe's flags for a custom explainer are these."""
    from explainers.service import Explainer
    from explainers.settings import ExplainerSettings
    from servelens.io import http, logs
    from servelens.io.processes import stop_on_signals

    logs.configure("explainer")
    service = Explainer(
        ExplainerSettings(
            model_name=model_name,
            predictor_host=predictor_host,
            http_port=http_port,
            workers=workers,
            predictor_protocol=predictor_protocol,
            predictor_use_ssl=predictor_use_ssl,
            predictor_timeout=predictor_request_timeout_seconds,
            artifacts=artifacts,
            synthetic_key=synthetic_key,
            predictor_token_file=predictor_token_file,
            caller_token_file=caller_token_file,
            forward_authorization=forward_authorization,
            deadline=spelled.duration(deadline, "--deadline"),
            seed=seed,
            host=host,
        )
    )
    stop_on_signals(service.stop)
    http.announce(listening=service.open())
    service.run()


@app.command()
def broker(
    listen: Annotated[str, typer.Option(help="Where it listens.", metavar="H:P")] = "127.0.0.1:9092",
) -> None:
    """Run the embedded broker: Kafka's protocol, memory only, for trying things out."""
    from servelens.io import embedded, http, processes

    host, port = spelled.address(listen, "--listen")
    running = embedded.EmbeddedBroker(host, port)
    stop = threading.Event()
    processes.stop_on_signals(stop)
    running.start()
    http.announce(listening=running.address)
    while not stop.wait(0.2) and running.process is not None and running.process.poll() is None:
        pass
    running.stop()


@app.command()
def demo(
    check: Annotated[bool, typer.Option("--check", help="Exit 1 unless everything held.")] = False,
    kafka: Annotated[str, typer.Option(help="Use this broker instead of the embedded one.")] = "",
    out: Annotated[Path, typer.Option(help="Everything it writes.")] = Path("out"),
    kill: Annotated[str, typer.Option(help="SIGKILL these during the run, comma-separated.")] = "",
    keep: Annotated[bool, typer.Option("--keep", help="Leave everything running until Ctrl-C.")] = False,
    seed: Annotated[int, typer.Option(help="Of the order of the flights.")] = 0,
) -> None:
    """Run the whole loop on this machine: a real model, real flights, a shift, and the verdict on it."""
    from servelens.demo.run import run

    ok = run(out=out, kafka=kafka or None, kill=[name for name in kill.split(",") if name], keep=keep, seed=seed)
    if check and not ok:
        raise typer.Exit(1)


def main() -> None:
    """The `servelens` command."""
    raise SystemExit(options.run(typer.main.get_command(app)))


if __name__ == "__main__":
    main()
