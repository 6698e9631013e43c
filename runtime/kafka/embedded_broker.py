"""A Kafka broker in this process: the mock cluster of librdkafka, over the real wire protocol.

For the demo, the examples and fast tests of groups with one member. It keeps everything in memory (5 MiB per partition)
and lacks CreateTopics, transactions and compaction; a second member of a group may fail to join. Do not test rebalances
or durability with it.

A fetch never returns early: set `fetch_max_wait_ms` <= 5 in clients, or each record waits for up to that long.
"""

import ctypes
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from ..errors import SetupError

FETCH_MAX_WAIT_MS: Final = 5
REBALANCE_DELAY_MS: Final = 100
"""How long a group waits for its first members. librdkafka's default is 3 s."""

_POINTER, _TEXT, _INT = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_int
# The C functions that are used: result and arguments, as in rdkafka.h and rdkafka_mock.h.
_FUNCTIONS: Final[dict[str, tuple[Any, list[Any]]]] = {
    "rd_kafka_conf_new": (_POINTER, []),
    "rd_kafka_conf_set": (_INT, [_POINTER, _TEXT, _TEXT, _TEXT, ctypes.c_size_t]),
    "rd_kafka_new": (_POINTER, [_INT, _POINTER, _TEXT, ctypes.c_size_t]),
    "rd_kafka_destroy": (None, [_POINTER]),
    "rd_kafka_mock_cluster_new": (_POINTER, [_POINTER, _INT]),
    "rd_kafka_mock_cluster_destroy": (None, [_POINTER]),
    "rd_kafka_mock_cluster_bootstraps": (_TEXT, [_POINTER]),
    "rd_kafka_mock_topic_create": (_INT, [_POINTER, _TEXT, _INT, _INT]),
    "rd_kafka_mock_group_initial_rebalance_delay_ms": (None, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_down": (_INT, [_POINTER, ctypes.c_int32]),
    "rd_kafka_mock_broker_set_up": (_INT, [_POINTER, ctypes.c_int32]),
}
_ERROR_BYTES: Final = 512
_BROKER: Final = 1


class EmbeddedBroker:
    """One broker on a free loopback port. It runs for the duration of the `with` block.

    It runs in threads of librdkafka without the GIL, so it does not block an event loop. Stop its clients first: they
    would retry the connection without end.
    """

    def __init__(self, topics: Mapping[str, int] | None = None) -> None:
        """`topics` maps names to partition counts. Any other topic is created with four partitions on first use."""
        self._topics = dict(topics or {})
        self._library: Any = None
        self._client: int | None = None
        self._cluster: int | None = None
        self.bootstrap = ""
        """HOST:PORT."""

    def __enter__(self) -> Self:
        self._library = library = _load_library()
        error = ctypes.create_string_buffer(_ERROR_BYTES)
        configuration = library.rd_kafka_conf_new()
        # librdkafka would log to stderr, into a live table.
        library.rd_kafka_conf_set(configuration, b"log_level", b"0", error, _ERROR_BYTES)
        self._client = library.rd_kafka_new(0, configuration, error, _ERROR_BYTES)
        if not self._client:
            raise SetupError(f"the embedded broker did not start: {error.value.decode(errors='replace')}")
        self._cluster = library.rd_kafka_mock_cluster_new(self._client, 1)
        library.rd_kafka_mock_group_initial_rebalance_delay_ms(self._cluster, REBALANCE_DELAY_MS)
        self.bootstrap = library.rd_kafka_mock_cluster_bootstraps(self._cluster).decode()
        for name, partitions in self._topics.items():
            self.create_topic(name, partitions)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        cluster, client = self._cluster, self._client
        self._cluster = self._client = None
        if cluster:
            self._library.rd_kafka_mock_cluster_destroy(cluster)
        if client:
            self._library.rd_kafka_destroy(client)

    def create_topic(self, name: str, partitions: int) -> None:
        """Create a topic. It must not exist."""
        code = self._library.rd_kafka_mock_topic_create(self._cluster, name.encode(), partitions, 1)
        if code:
            raise SetupError(f"the embedded broker did not make topic {name}: librdkafka error {code}")

    def go_down(self) -> None:
        """Close all connections and accept no new ones. Records are kept."""
        self._library.rd_kafka_mock_broker_set_down(self._cluster, _BROKER)

    def come_up(self) -> None:
        self._library.rd_kafka_mock_broker_set_up(self._cluster, _BROKER)


def _load_library() -> ctypes.CDLL:
    try:
        from confluent_kafka import cimpl  # noqa: PLC0415  (an extra)
    except ImportError:
        raise SetupError(
            "the embedded broker needs confluent-kafka, which is not installed: pip install 'murmura[demo]'"
        ) from None
    # The extension module is linked with librdkafka, so its symbols are found through it.
    library = ctypes.CDLL(cimpl.__file__)
    try:
        for name, (result, arguments) in _FUNCTIONS.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except AttributeError as error:
        raise SetupError(
            f"the embedded broker is not in this build of confluent-kafka ({error}): pip install 'murmura[demo]'"
        ) from None
    return library
