"""Put on PYTHONPATH by one test: processes started there have a clock that is wrong by so many seconds."""

import datetime
import os

_SHIFT = datetime.timedelta(seconds=float(os.environ.get("TEST_CLOCK_SHIFT", "0")))


class _Shifted(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> "_Shifted":
        return super().now(tz) + _SHIFT


datetime.datetime = _Shifted  # type: ignore[misc]
