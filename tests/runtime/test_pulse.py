"""Standing still for longer than a session puts everything in doubt, until heartbeats or an assignment say otherwise."""

import pytest

from murmura.runtime.flow.standstill import Pulse
from murmura.runtime.testing.fakes import ManualClock


@pytest.mark.parametrize(("still_s", "doubtful"), [(0.5, False), (1.0, False), (1.5, True), (600.0, True)])
def test_standing_still_for_longer_than_the_session_is_a_freeze(still_s, doubtful):
    clock = ManualClock()
    pulse = Pulse(1.0, clock)
    clock.advance(still_s)
    assert pulse.in_doubt == doubtful
    assert pulse.in_doubt == doubtful


def test_doubt_passes_with_a_session_of_heartbeats_or_a_new_assignment():
    clock = ManualClock()
    pulse = Pulse(1.0, clock)
    clock.advance(5)
    assert pulse.in_doubt
    clock.advance(0.6)
    assert pulse.in_doubt
    clock.advance(0.6)
    assert not pulse.in_doubt
    clock.advance(5)
    pulse.trust()
    assert not pulse.in_doubt
