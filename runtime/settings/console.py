"""Settings of the console in the browser."""

from typing import Annotated, Literal

from pydantic import Field, IPvAnyNetwork, StringConstraints

from .kafka import FilePath, HostPort, KafkaName, Positive, Section, split_address

RoleName = Literal["reader", "annotator", "operator"]
Masked = Literal["email", "phone", "card", "iban"]
HeaderName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{1,100}$")]
HostName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9.\-\[\]:]{1,253}$", to_lower=True)]
WebAddress = Annotated[str, StringConstraints(pattern=r"^https?://[^\s@]+$")]
GroupName = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class ConsoleSettings(Section):
    """`murmura console`: who may do what, what is shown, and how much is kept in memory."""

    http: HostPort = "127.0.0.1:9480"
    """HOST:PORT of the console; port 0 takes a free one."""
    hosts: tuple[HostName, ...] = ()
    """Names by which browsers reach it, without a port, beside those of this machine."""
    read_only: bool = False
    """Nobody may write, whatever their role."""
    trusted_proxies: tuple[IPvAnyNetwork, ...] = ()
    """Addresses from which the headers with user and roles are believed. With it, requests from elsewhere are refused."""
    user_header: HeaderName = "X-Forwarded-User"
    roles_header: HeaderName = "X-Forwarded-Groups"
    """Names of roles or of groups, with commas between them. The highest known one counts; without one: reader."""
    roles: dict[GroupName, RoleName] = Field(default_factory=dict)
    """The role of a group, beside the names of the roles themselves."""
    masked: tuple[Masked, ...] = ()
    """What is hidden in texts."""
    max_body_bytes: Positive = 64 * 1024
    """Maximum size of what a browser sends."""
    kept_records: Positive = 50_000
    """Maximum number of records of a topic that are kept to be listed."""
    kept_bytes: Positive = 32 * 1024 * 1024
    """Maximum size of them."""
    group: KafkaName | None = None
    """Consumer group on `murmura.reviews`, shared by the consoles of an app. Default: that of the app with `.console` behind it."""
    overlap: Annotated[float, Field(ge=0, le=1)] = 0.05
    """Share of reviews that two people judge without knowing of each other."""
    guidelines: FilePath | None = None
    """A text file that people may open beside the review queue."""
    metrics: tuple[WebAddress, ...] = ()
    """Addresses of the processes' `/metrics`, for what no topic says: lag and suspended agents."""
    runbooks: WebAddress | None = None
    """Where `docs/operations.md` can be read as a page: what is red in the overview has a link into it."""

    @property
    def http_address(self) -> tuple[str, int]:
        return split_address(self.http)
