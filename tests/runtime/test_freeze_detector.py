"""Standing still for longer than a session puts everything in doubt, until heartbeats or an assignment say otherwise."""

import pytest

from murmura.runtime.flow.handlers.freeze_detector import FreezeDetector
from murmura.runtime.testing.fakes import ManualClock


@pytest.mark.parametrize(("still_s", "doubtful"), [(0.5, False), (1.0, False), (1.5, True), (600.0, True)])
def test_standing_still_for_longer_than_the_session_is_a_freeze(still_s, doubtful):
    clock = ManualClock()
    detector = FreezeDetector(1.0, clock)
    clock.advance(still_s)
    assert detector.in_doubt == doubtful
    assert detector.in_doubt == doubtful


def test_doubt_passes_with_a_session_of_heartbeats_or_a_new_assignment():
    clock = ManualClock()
    detector = FreezeDetector(1.0, clock)
    clock.advance(5)
    assert detector.in_doubt
    clock.advance(0.6)
    assert detector.in_doubt
    clock.advance(0.6)
    assert not detector.in_doubt
    clock.advance(5)
    detector.reset()
    assert not detector.in_doubt
