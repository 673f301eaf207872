"""A pair's place in a list: what comes before and after it, and the way back."""

from lf_longpo.viewer.index import PairIndex
from lf_longpo.viewer.paging import PAGE
from lf_longpo.viewer.pair_filter import PairFilter


class Place:
    """The place of a pair in a list. A pair that does not pass the list's filter has a place, too: by the order.

    Args:
        index: the pairs.
        pair_filter: of the list.
        number: the pair's.
    """

    def __init__(self, index: PairIndex, pair_filter: PairFilter, number: int) -> None:
        numbers = index.numbers(pair_filter)
        self.found = len(numbers)
        """The number of pairs in the list."""
        passes = number in numbers
        if not passes:
            numbers = index.numbers(pair_filter, also=number)
        at = numbers.index(number) if number in numbers else 0  # a file that was just replaced may not have it
        self.position = at + 1 if passes else 0
        """From 1; 0 if the pair does not pass the filter."""
        self.previous = numbers[at - 1] if at else None
        """The number of the pair before it, if there is one."""
        self.following = numbers[at + 1] if at + 1 < len(numbers) else None
        """The number of the pair after it, if there is one."""
        page = at // PAGE + 1
        self._query = pair_filter.query
        self.list_address = address("/", self._query, f"page={page}" if page > 1 else "") + f"#pair-{number}"
        """The address of the list's page with the pair."""

    def next_address(self, changed: str = "") -> str:
        """The address of the next pair, or of the end of the list.

        Args:
            changed: the change that the page reports, see `Reviews.decide`.
        """
        path = f"/pair/{self.following}" if self.following else "/end"
        return address(path, self._query, f"changed={changed}" if changed else "")


def address(path: str, *parameters: str) -> str:
    """An address with parameters, without the empty ones."""
    return f"{path}?{'&'.join(filter(None, parameters))}"
