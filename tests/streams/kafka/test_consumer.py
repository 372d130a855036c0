"""The consumer touches Faust's internals, so it is pinned to versions; what it does is tested with a real broker."""

import pytest

from backchannel.streams.kafka.consumer import check_versions


def test_other_versions_of_the_libraries_are_refused() -> None:
    with pytest.raises(ImportError, match=r"aiokafka 0\.14\.0 \(found 0\.15\.0\)"):
        check_versions({"faust-streaming": "0.15.3", "mode-streaming": "0.7.1", "aiokafka": "0.15.0"}.__getitem__)
