"""How Hypothesis runs here: on a noisy machine, time says nothing about a test."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("stateful", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("stateful")
