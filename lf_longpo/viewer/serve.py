"""`longpo view`: opens a data set or a run on a local page until somebody ends it."""

import socket
import sys
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from lf_longpo.data.review import Reviews
from lf_longpo.errors import UserError
from lf_longpo.run_folder.pair_sets import Viewed, find_viewed
from lf_longpo.viewer.index import PairIndex


def view(name: str, dataset_dir: Path, host: str, port: int) -> None:
    """Serves until Ctrl-C.

    Args:
        name: a run's folder, a file of pairs, or a registered data set.
        dataset_dir: where data sets are registered.
        host: address to listen on.
        port: likewise.

    Raises:
        UserError: there is nothing of that name to be viewed, or the address cannot be listened on.
    """
    viewed = find_viewed(name, dataset_dir)
    listener = _listen(host, port)
    reviews = Reviews(viewed.decisions)
    index = PairIndex(viewed, reviews.all())
    index.start()
    try:
        _serve(listener, host, viewed, index, reviews)
    finally:
        index.stop()
        reviews.close()


def _serve(listener: socket.socket, host: str, viewed: Viewed, index: PairIndex, reviews: Reviews) -> None:
    import uvicorn

    from lf_longpo.viewer.app import make_app

    hosts = {"127.0.0.1", "localhost", "::1", host} if _is_loopback(host) else None
    app = make_app(viewed, index, reviews, hosts)
    address = f"[{host}]" if ":" in host else host
    address = f"http://{address}:{listener.getsockname()[1]}/"
    print(f"{viewed.name}: {address}  (decisions go to {reviews.path}; Ctrl-C ends)", flush=True)
    if hosts is None:
        print(f"warning: everybody who reaches {host} can read and decide", file=sys.stderr, flush=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", access_log=False))
    with suppress(KeyboardInterrupt):  # how it is to be ended
        server.run(sockets=[listener])


def _listen(host: str, port: int) -> socket.socket:
    try:
        return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise UserError(f"--host {host} --port {port}: {error.strerror}; choose another one") from None


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
