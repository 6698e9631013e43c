"""A real Kafka with Kafka's own authorizer, users and TLS: what is not denied is allowed, and only the admin is above it.

Listeners: `bootstrap` without a password (user ANONYMOUS), `sasl` with PLAIN, SCRAM and unsecured OAUTHBEARER, `tls` with a
certificate that `cafile` vouches for, `only_plain` with PLAIN alone, and `lost`, which advertises an address that nobody can
reach.
"""

import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import ExitStack, contextmanager
from functools import cached_property
from pathlib import Path

from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from kafka_broker import OwnBroker

ADMIN, ADMIN_PASSWORD = "admin", "admin-password"
PLAIN_USERS = {ADMIN: ADMIN_PASSWORD, "alice": "alice-password"}
ANONYMOUS = "ANONYMOUS"
TIMEOUT_S = 20.0
LOST_AS = "kafka-0.kafka.prod.invalid:9092"

PROPERTIES = """
listeners=PLAINTEXT://127.0.0.1:$port,SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls},ONLYPLAIN://127.0.0.1:{only_plain},LOST://127.0.0.1:{lost},CONTROLLER://127.0.0.1:$controller_port
advertised.listeners=PLAINTEXT://127.0.0.1:$port,SASL://127.0.0.1:{sasl},TLS://127.0.0.1:{tls},ONLYPLAIN://127.0.0.1:{only_plain},LOST://{lost_as},CONTROLLER://127.0.0.1:$controller_port
listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL:SASL_PLAINTEXT,TLS:SSL,ONLYPLAIN:SASL_PLAINTEXT,LOST:PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
super.users=User:{admin}
allow.everyone.if.no.acl.found=true
sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512,OAUTHBEARER
listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
listener.name.sasl.scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;
listener.name.sasl.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.onlyplain.sasl.enabled.mechanisms=PLAIN
listener.name.onlyplain.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required {users};
listener.name.tls.ssl.keystore.type=PEM
listener.name.tls.ssl.keystore.location={keystore}
"""


class GuardedBroker(OwnBroker):
    """Deny and allow by topic (or group) while it runs. Changes are in force when a call returns."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder / "kafka", folder / "added.properties")
        self.cafile = folder / "ca.pem"
        self.sasl, self.tls, self.only_plain, self.lost = (f"127.0.0.1:{port}" for port in _free_ports(4))
        keystore = folder / "keystore.pem"
        _make_certificate(self.cafile, keystore)
        users = " ".join(f'user_{name}="{password}"' for name, password in PLAIN_USERS.items())
        assert self.properties is not None
        self.properties.write_text(
            PROPERTIES.format(
                sasl=self.sasl.rpartition(":")[2],
                tls=self.tls.rpartition(":")[2],
                only_plain=self.only_plain.rpartition(":")[2],
                lost=self.lost.rpartition(":")[2],
                lost_as=LOST_AS,
                admin=ADMIN,
                users=users,
                keystore=keystore,
            )
        )

    @cached_property
    def admin(self) -> AdminClient:
        """A client that may do everything."""
        return AdminClient(
            {
                "bootstrap.servers": self.sasl,
                "security.protocol": "SASL_PLAINTEXT",
                "sasl.mechanism": "PLAIN",
                "sasl.username": ADMIN,
                "sasl.password": ADMIN_PASSWORD,
                "log_level": 0,  # it outlives the broker for a moment
            }
        )

    def add_user(self, name: str, password: str, mechanism: str = "SCRAM-SHA-256") -> None:
        """Let a user in by SCRAM."""
        kind = {"SCRAM-SHA-256": ScramMechanism.SCRAM_SHA_256, "SCRAM-SHA-512": ScramMechanism.SCRAM_SHA_512}[mechanism]
        change = UserScramCredentialUpsertion(name, ScramCredentialInfo(kind, 4096), password.encode())
        _settle(self.admin.alter_user_scram_credentials([change]))

    def deny(self, name: str, operation: str, user: str = ANONYMOUS, *, kind: str = "topic") -> None:
        """Deny an operation (`read`, `write`, `describe`, `all`, ...) on a topic, `group` or `transactional_id`."""
        wanted = [_binding(kind, name, f"User:{user}", operation, AclPermissionType.DENY), _everybody(kind, name)]
        _settle(self.admin.create_acls(wanted))
        # The controller answers; the broker, which decides, follows a moment later.
        deadline = time.monotonic() + TIMEOUT_S
        while not set(wanted) <= set(self.admin.describe_acls(_all_of(kind, name)).result(TIMEOUT_S)):
            assert time.monotonic() < deadline, f"the broker does not deny {operation} on {name}"
            time.sleep(0.02)

    def allow_again(self, name: str, *, kind: str = "topic") -> None:
        """Take back everything that was denied on it."""
        _settle(self.admin.delete_acls([_all_of(kind, name)]))

    @contextmanager
    def denied(self, name: str, operation: str, user: str = ANONYMOUS, *, kind: str = "topic") -> Iterator[None]:
        """Deny it for as long as the block runs."""
        self.deny(name, operation, user, kind=kind)
        try:
            yield
        finally:
            self.allow_again(name, kind=kind)


def _binding(kind: str, name: str, user: str, operation: str, permission: AclPermissionType) -> AclBinding:
    pattern = ResourcePatternType.LITERAL
    return AclBinding(ResourceType[kind.upper()], name, pattern, user, "*", AclOperation[operation.upper()], permission)


def _all_of(kind: str, name: str) -> AclBindingFilter:
    literal, anyone = ResourcePatternType.LITERAL, AclOperation.ANY
    return AclBindingFilter(ResourceType[kind.upper()], name, literal, None, None, anyone, AclPermissionType.ANY)


def _everybody(kind: str, name: str) -> AclBinding:
    # With an entry of its own a resource is closed to all others, unless one lets them in.
    return _binding(kind, name, "User:*", "all", AclPermissionType.ALLOW)


def _settle(futures: "dict[object, Future[object]]") -> None:
    for future in futures.values():
        future.result(TIMEOUT_S)


def _make_certificate(cafile: Path, keystore: Path) -> None:
    key = keystore.with_suffix(".key")
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(cafile), "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"),
        ],
        check=True,
        capture_output=True,
    )
    keystore.write_text(key.read_text() + cafile.read_text())


def _free_ports(count: int) -> list[int]:
    """Return different ports: all are held until the last is found."""
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
