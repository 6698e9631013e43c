"""FastStream's broker with the settings' address and security."""

from faststream.kafka import KafkaBroker
from faststream.security import BaseSecurity, SASLOAuthBearer, SASLPlaintext, SASLScram256, SASLScram512

from ..settings.kafka import CLIENT_ID
from ..settings.settings import KafkaSettings


def make_broker(kafka: KafkaSettings) -> KafkaBroker:
    """Return FastStream's broker with the settings' address and security."""
    return KafkaBroker(
        kafka.bootstrap_servers.split(","),
        security=_security(kafka),
        sasl_oauth_token_provider=kafka.client_options().get("sasl_oauth_token_provider"),
        client_rack=kafka.client_rack,
        request_timeout_ms=kafka.request_timeout_ms,
        metadata_max_age_ms=kafka.metadata_max_age_ms,
        client_id=CLIENT_ID,
        allow_auto_create_topics=False,
        logger=None,
    )


def _security(kafka: KafkaSettings) -> BaseSecurity | None:
    security = kafka.security
    context = security.ssl_context()
    if not security.sasl_mechanism:
        return BaseSecurity(ssl_context=context) if context else None
    if security.token:
        return SASLOAuthBearer(ssl_context=context)
    password = security.password.get_secret_value() if security.password else ""
    kinds = {"PLAIN": SASLPlaintext, "SCRAM-SHA-256": SASLScram256, "SCRAM-SHA-512": SASLScram512}
    return kinds[security.sasl_mechanism](username=security.username or "", password=password, ssl_context=context)
