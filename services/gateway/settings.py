"""What the gateway is told by its environment."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from services.bus.settings import StepSettings
from services.gateway.addresses import Network, read_networks


class GatewaySettings(StepSettings):
    """The settings of all steps, and those of HTTP."""

    fingerprint_key_file: Path = Field(
        description="the file with the key of fingerprints; lead ids and webhook secrets follow from it"
    )
    http_host: str = Field(default="127.0.0.1", description="the address that HTTP is served on")
    http_port: int = Field(default=8080, ge=1, le=65_535, description="the port that HTTP is served on")
    http_rate_per_s: int = Field(
        default=5_000, ge=1, le=1_000_000, description="requests, or lines of streams, of one key in a second"
    )
    http_stream_bytes_max: int = Field(
        default=8_388_608,
        ge=65_536,
        le=1_073_741_824,
        description="the longest stream of leads in one request",
    )
    http_requests_max: int = Field(
        default=500, ge=1, le=100_000, description="so many requests are answered at once"
    )
    webhook_networks: str = Field(
        default="",
        description="networks of the house that webhooks may go to, such as 127.0.0.0/8 (several with commas)",
    )

    @field_validator("webhook_networks")
    @classmethod
    def _are_networks(cls, text: str) -> str:
        read_networks(text)
        return text

    @property
    def allowed_networks(self) -> tuple[Network, ...]:
        """The networks of the house that webhooks may go to."""
        return read_networks(self.webhook_networks)
