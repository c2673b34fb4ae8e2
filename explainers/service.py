"""The explainer as a process: read the artifact, listen, serve until SIGTERM. Called by `servelens explainer`."""

import logging
import threading

from prometheus_client import CollectorRegistry

from explainers.access import Access
from explainers.artifact import read_artifact
from explainers.explaining import Explaining
from explainers.methods import anchor_tabular
from explainers.predictor import PredictorSettings
from explainers.routes import create_app
from explainers.settings import ExplainerSettings
from servelens import __version__
from servelens.contract.errors import ConfigError
from servelens.contract.metrics import Instruments
from servelens.io import http
from servelens.io.keys import read_key

log = logging.getLogger(__name__)


class Explainer:
    """One model's explainer. Nothing is served before the artifact has been read and found good."""

    def __init__(self, settings: ExplainerSettings) -> None:
        self.settings = settings
        self.artifact = read_artifact(settings.artifacts)
        if "anchor_tabular" in self.artifact.methods and not anchor_tabular.installed():
            remedy = "Install servelens[anchors], or leave the method out."
            raise ConfigError("explainer.yaml: methods", "anchor_tabular needs alibi, which is not installed", remedy)
        self.registry = CollectorRegistry()
        self.stop = threading.Event()
        metrics = Instruments(self.registry)
        metrics["servelens_build_info"].labels(version=__version__, service="explainer").set(1)
        key, token = settings.synthetic_key, settings.predictor_token_file
        section = self.artifact.file.predictor
        predictor = PredictorSettings(
            url=settings.predictor_url,
            model=settings.model_name,
            protocol=settings.predictor_protocol,
            binary=section.binary,
            shape=section.shape(),
            token=read_key(token, "--predictor-token-file").decode() if token else "",
            key=read_key(key) if key else b"",
            call_seconds=settings.predictor_timeout,
        )
        self.explaining = Explaining(
            self.artifact, predictor, metrics, limit=settings.workers, seconds=settings.deadline, seed=settings.seed
        )
        callers = settings.caller_token_file
        access = Access(
            token=read_key(callers, "--caller-token-file").decode() if callers else "",
            forward=settings.forward_authorization,
        )
        self.app = create_app(self.explaining, settings.model_name, self.registry, access)

    def open(self) -> str:
        """Start the HTTP server; its address."""
        bound = http.bind(f"{self.settings.host}:{self.settings.http_port}", "--http_port")
        self._server = http.Server(self.app, bound)
        self._server.start()
        if "anchor_tabular" in self.artifact.methods:
            threading.Thread(target=anchor_tabular.warm, name="warm", daemon=True).start()
        return http.address_of(bound)

    def run(self) -> None:
        """Until `stop`; requests under way are finished, up to the deadline."""
        self.stop.wait()
        self._server.stop(self.settings.deadline)
