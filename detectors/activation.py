"""Profiles announced through the compacted profiles topic: from a stated moment on one counts instead of another.

A profile is cut into chunks below the record limit and followed by a head that says how many, their digest, and from
when; the moment is far enough ahead for every worker to have read it. `Follower` is the reading end that workers and
evaluators hold beside their book; writing is `servelens profile activate`'s.
"""

import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import orjson
from kafka import KafkaConsumer, TopicPartition
from kafka.errors import KafkaError

from detectors import chunks
from detectors.book import Book
from detectors.profile import Profile
from detectors.profile_file import pack, unpack
from servelens.contract.errors import PayloadError, StateError
from servelens.io.kafka import consumer, partition_count
from servelens.io.kafka_settings import KafkaSettings

log = logging.getLogger(__name__)

MOST_CHUNKS: Final = 200
REFRESH: Final = 5.0  # seconds between looks at the topic
# Event time may run a minute ahead of the broker's; then a look at the topic, and the clocks' differences.
NOTICE: Final = 90.0  # seconds between an announcement and its moment at least


def records(profile: Profile, from_us: int) -> Iterator[tuple[bytes, bytes]]:
    """(key, value) pairs in the order to append them; `from_us` in Unix microseconds."""
    return chunks.split(f"{profile.identity}|{profile.segment or ''}|{from_us}", pack(profile), {"from_us": from_us})


@dataclass(slots=True)
class Announced:
    """The topic's records so far. A head whose chunks are not all there says nothing; compaction may take chunks."""

    _chunks: dict[str, dict[int, bytes]] = field(default_factory=lambda: defaultdict(dict))

    def offer(self, key: bytes | None, value: bytes | None) -> tuple[Profile, int] | None:
        """One record in order; a profile and its moment once it is whole. Raises PayloadError for anything else."""
        line, _, number = (key or b"").decode(errors="replace").rpartition("/")
        if not value:
            return None
        if number.isdecimal() and int(number) < MOST_CHUNKS:
            self._chunks[line][int(number)] = value
            return None
        if number != chunks.HEAD:
            raise PayloadError("profiles", "a record that is no chunk and no head")
        return self._whole(line, value)

    def _whole(self, line: str, value: bytes) -> tuple[Profile, int]:
        try:
            head = orjson.loads(value)
            packed = chunks.join(head, self._chunks.pop(line, {}))
            if packed is None:
                raise PayloadError("profiles", f"the chunks of {line[:200]} are not those of its head")
            return unpack(packed), int(head["from_us"])
        except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, StateError) as error:
            raise PayloadError("profiles", f"{line[:200]} is incomplete or damaged ({error})") from error


class Follower:
    """Keeps a book up to date with the topic. `refresh` reads to its end; `refresh_if_due` does so every few seconds.

    Whoever was asleep for longer must have looked again before it counts on: that is what `refresh_if_due` sees to.
    """

    def __init__(
        self, kafka: KafkaSettings, topic: str, book: Book, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._book, self._clock, self._announced = book, clock, Announced()
        self._where = TopicPartition(topic, 0)
        self._client: KafkaConsumer = consumer(kafka, fetch_max_wait_ms=20)
        self._looked = float("-inf")
        self._there = False

    def close(self) -> None:
        """End the client."""
        self._client.close()

    def refresh_if_due(self) -> bool:
        """Read what is new, if the last look is some seconds ago; False while that cannot be done.

        A broker that is away for a while is no reason to end, but nothing may be counted meanwhile.
        """
        if self._clock() - self._looked < REFRESH:
            return True
        try:
            self.refresh()
        except KafkaError as error:
            log.warning("announced profiles cannot be read now", extra={"error": type(error).__name__})
            return False
        return True

    def refresh(self) -> None:
        """Read to the end as of now; a topic that is not there yet has nothing to say."""
        if not self._there:
            self._there = partition_count(self._client, self._where.topic) > 0
            if not self._there:
                self._looked = self._clock()
                return
            self._client.assign([self._where])
            self._client.seek_to_beginning(self._where)
        end = self._client.end_offsets([self._where])[self._where]
        begin = self._client.beginning_offsets([self._where])[self._where]
        while end > begin and self._client.position(self._where) < max(end, self._client.highwater(self._where) or 0):
            for record in self._client.poll(timeout_ms=200).get(self._where, []):
                self._take(record)
        self._looked = self._clock()

    def _take(self, record: Any) -> None:
        try:
            found = self._announced.offer(record.key, record.value)
        except PayloadError as error:
            log.warning("profiles topic holds a foreign record", extra={"offset": record.offset, "error": str(error)})
            return
        if found is not None:
            profile, from_us = found
            self._book.announce(profile, from_us)
            log.info("profile announced", extra={"model": str(profile.identity), "digest": profile.digest[:12]})
