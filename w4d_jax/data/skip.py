"""Going on in spite of damaged records, up to a point."""

import logging

from w4d_jax.types import InputError


class SkipBad:
    """A source in which a bad record reads as the next good one.

    Which record stands in depends on the data alone, so order, threads and resuming change
    nothing. `bad` holds what was found so far, by index; each is logged once. InputError
    when more than `share` of the source is bad.
    """

    def __init__(self, source, share: float):
        if not 0 <= share < 1:
            raise InputError(f"share of bad records {share}: need 0 <= share < 1")
        self.source, self.share = source, share
        self.bad: dict[int, InputError] = {}

    def __len__(self) -> int:
        return len(self.source)

    def __repr__(self) -> str:
        return f"SkipBad({self.source!r}, {self.share})"

    def __getitem__(self, index: int):
        for j in (*range(index, len(self)), *range(index)):
            if j not in self.bad:
                try:
                    return self.source[j]
                except InputError as error:
                    self._note(j, error)
        raise InputError(f"all {len(self)} records are bad")

    def _note(self, j: int, error: InputError) -> None:
        if self.bad.setdefault(j, error) is error:  # one thread of several is the first
            logging.warning("skipped a bad record: %s", error)
        if len(self.bad) > self.share * len(self):
            raise InputError(
                f"{error} ({len(self.bad)} of {len(self)} records bad, "
                f"allowed {self.share:.2%})"
            ) from error
