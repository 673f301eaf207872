"""The user's cache folder, which holds nothing that cannot be made again."""

from pathlib import Path

from lf_longpo.errors import UserError


def cache_folder(part: str = "") -> Path:
    """The folder of lf-longpo, or a part of it, in the user's cache; it is made where it is missing.

    Raises:
        UserError: it cannot be made.
    """
    from platformdirs import user_cache_path

    folder = user_cache_path("lf-longpo") / part
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(
            f"the cache folder {folder} cannot be made: {error.strerror}; set XDG_CACHE_HOME to another folder"
        ) from None
    return folder
