"""The user's cache folder. Everything in it can be deleted and is recreated."""

from pathlib import Path

from lf_longpo.errors import UserError


def cache_folder(part: str = "") -> Path:
    """lf-longpo's folder in the user's cache; created if it is missing.

    Args:
        part: a subfolder of it.

    Raises:
        UserError: the folder cannot be created.
    """
    from platformdirs import user_cache_path

    folder = user_cache_path("lf-longpo") / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be created: {error.strerror}; set XDG_CACHE_HOME to another folder"
        ) from None
    return folder
