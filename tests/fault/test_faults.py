"""Each scenario once, small, with a seed that is always the same; tests/fault/run repeats them for long at random moments."""

import os
import sys
import zlib

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import registry  # noqa: E402
import world  # noqa: E402

SHORT = sorted((s for s in registry.load().values() if s.in_short), key=lambda s: (s.group, s.name))


@pytest.mark.parametrize("scenario", SHORT, ids=[f"{s.group}-{s.name}" for s in SHORT])
def test_what_was_answered_200_arrives(scenario, tmp_path):
    small = world.World(tmp_path, zlib.crc32(scenario.name.encode()), 0.5)
    try:
        scenario.function(small)
    except world.Skip as why:
        pytest.skip(str(why))
    finally:
        small.close()
