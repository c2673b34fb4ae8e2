"""The observer of one connection, and what happens where it fails: nothing that either end could notice.

Apart from `forward`, which moves bytes, and from `http1`, which may raise. Here an error ends the sight of a
connection, counted; so does what cannot be framed, which `close` answers by closing where the operator wants that.
"""

import logging
from collections.abc import Callable
from typing import Final

from logger.http1 import Observer
from logger.seen import Seen

log = logging.getLogger(__name__)

_TASK: Final = "observer"


class Sight:
    """Copies in, nothing out. `on_unparsable` is called once if bytes cannot be framed, `on_error` if we fail."""

    __slots__ = ("_observer", "_on_error", "_on_unparsable")

    def __init__(
        self,
        observer: Observer,
        on_error: Callable[[str], None],
        on_unparsable: Callable[[], None] | None = None,
    ) -> None:
        self._observer: Observer | None = observer
        self._on_error, self._on_unparsable = on_error, on_unparsable

    @property
    def blind(self) -> bool:
        """Whether nothing of this connection is seen any more."""
        return self._observer is None

    @property
    def idle(self) -> bool:
        """Whether no exchange is open, as far as can be told."""
        return self._observer is not None and self._observer.idle

    @property
    def owed(self) -> bool:
        """Whether the predictor owes an answer to a whole request, as far as can be told."""
        return self._observer is not None and self._observer.owed

    @property
    def upgrading(self) -> bool:
        """Whether the connection may turn into something else at the next response."""
        return self._observer is not None and self._observer.upgrading

    @property
    def due(self) -> Seen | None:
        """The exchange whose response is due and has not begun, if that can be told."""
        return self._observer.answerable if self._observer is not None else None

    def request(self, data: bytes) -> None:
        """Bytes from the client."""
        observer = self._observer
        if observer is not None:
            try:
                observer.request(data)
            except Exception as error:  # noqa: BLE001  the observer's top
                self._give_up(observer, error)
            if observer.trouble:
                self._settle(observer)

    def response(self, data: bytes) -> None:
        """Bytes to the client."""
        observer = self._observer
        if observer is not None:
            try:
                observer.response(data)
            except Exception as error:  # noqa: BLE001  the observer's top
                self._give_up(observer, error)
            if observer.trouble:
                self._settle(observer)

    def request_eof(self) -> None:
        """The client sends no more."""
        self._end(Observer.request_eof)

    def response_eof(self) -> None:
        """The predictor sends no more."""
        self._end(Observer.response_eof)

    def lost(self) -> None:
        """The connection is gone."""
        self._end(Observer.lost)

    def _end(self, end: Callable[[Observer], None]) -> None:
        observer = self._observer
        if observer is not None:
            try:
                end(observer)
            except Exception as error:  # noqa: BLE001  the observer's top
                self._give_up(observer, error)

    def _settle(self, observer: Observer) -> None:
        if observer.blind:
            self._observer = None
        if observer.trouble == "unparsable" and self._on_unparsable is not None:
            close, self._on_unparsable = self._on_unparsable, None
            close()

    def _give_up(self, observer: Observer, error: Exception) -> None:
        log.error("the observer failed; this connection is forwarded unseen", exc_info=error)
        self._observer = None
        self._on_error(_TASK)
        try:
            observer.abandon()
        except Exception:
            log.exception("an exchange of that connection stays open in the account until this process ends")
