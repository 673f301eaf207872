"""`longpo view`: serves a data set or a run on a local page until Ctrl-C."""

import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from lf_longpo.data.review import Reviews
from lf_longpo.errors import UserError
from lf_longpo.run_folder.pair_sets import PairSet, find_pair_set
from lf_longpo.viewer.index import PairIndex


def view(name: str, dataset_dir: Path, host: str, port: int, reviewer: str = "") -> None:
    """Serves until Ctrl-C.

    Args:
        name: a run's folder, a file of pairs, or a registered data set.
        dataset_dir: the folder with the dataset_info.json of registered data sets.
        host: the address to listen on.
        port: the port to listen on; 0 for any free port.
        reviewer: who decides; the decisions have this name.

    Raises:
        UserError: there are no pairs of that name, or the address is not available.
    """
    pairs = find_pair_set(name, dataset_dir)
    listener = _listen(host, port)
    reviews = Reviews(pairs.decisions, reviewer)
    index = PairIndex(pairs, reviews.all())
    try:
        _serve(listener, host, pairs, index, reviews)
    finally:
        index.reader.stop()
        reviews.close()


def _serve(listener: socket.socket, host: str, pairs: PairSet, index: PairIndex, reviews: Reviews) -> None:
    import uvicorn

    from lf_longpo.viewer.app import make_app

    hosts = {"127.0.0.1", "localhost", "::1", host} if _is_loopback(host) else None
    app = make_app(pairs, index, reviews, hosts)
    address = f"[{host}]" if ":" in host else host
    address = f"http://{address}:{listener.getsockname()[1]}/"
    print(f"{pairs.name}: {address}  (decisions are saved in {reviews.path}; Ctrl-C stops the server)", flush=True)
    if hosts is None:
        print(f"warning: everyone who can reach {host} can read and review the pairs", file=sys.stderr, flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    index.reader.start()  # after the imports, which it would slow down
    with suppress(KeyboardInterrupt):  # the usual way to stop the server
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror}; choose another address or port") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
