"""Shows the tasks of an example store in a web browser, to this machine alone, or writes the pages as files.

    python -m iml.browse --gin.STORE_DIR=store --gin.VOCABULARY_DIR=vocabulary
    python -m iml.browse --gin.STORE_DIR=store --gin.VOCABULARY_DIR=vocabulary --export=pages

Pages show families, categories, levels and counts, every task's prompts as a model sees them with what enters
the loss marked, and packed rows of the training stream. Text of the data is shown, never obeyed.
"""

from __future__ import annotations

import os
from collections.abc import Sequence

from iml import configuration
from iml.bench import mixing
from iml.browser.catalogue import Catalogue
from iml.browser.parts import counted
from iml.browser.site import Site, Stream
from iml.data import prompts
from iml.data.prompts import PromptFormat
from iml.data.store import ExampleStore
from iml.data.vocabulary import Vocabulary
from iml.errors import InputError


def browse(
    store_dir: str,
    vocabulary_dir: str | None = None,
    split_scheme: str = "opt_iml",
    prompt_format: PromptFormat = PromptFormat(),  # noqa: B008 (frozen)
    stream: Stream = Stream(),  # noqa: B008
    shots: Sequence[int] = (0,),
    seed: int = 1234,
    instances: int = 3,
    packed_rows: int = 2,
    most_characters: int = 8_000,
    host: str = "127.0.0.1",
    port: int = 8321,
    export: str = "",
    dry_run: bool = False,
) -> None:
    """Serves the site until it is interrupted, or exports it.

    Args:
      store_dir: the example store that iml.prepare wrote.
      vocabulary_dir: folder of the BPE's two files; None for pages without tokens and packed rows.
      split_scheme: name or path of the scheme whose levels are shown first.
      prompt_format: how examples become prompts.
      stream: the training stream whose rows are shown.
      shots: numbers of demonstrations that the export shows; the first is what the server begins with.
      seed: draws rows, delimiters and demonstrations.
      instances: rows of a task on its page.
      packed_rows: packed rows on their page.
      most_characters: characters of a prompt that are shown; the middle of a longer one is left out.
      host: a loopback address.
      port: where to listen; 0 for any free port.
      export: folder to write the pages to, instead of serving them.
      dry_run: print the configuration and what the store holds.

    Raises:
      InputError: a setting is wrong, or there is no store.
    """
    from rich.console import Console

    from iml.browser.export import export as write
    from iml.browser.server import Server, loopback_address

    console = Console()
    if not shots or min(shots) < 0:
        raise InputError("needs numbers of at least 0", field="browse.shots")
    for name, value in {"instances": instances, "packed_rows": packed_rows}.items():
        if value < 1:
            raise InputError(f"must be at least 1, not {value}", field=f"browse.{name}")
    if export is True:
        raise InputError("needs a folder", field="--export", remedy="Write --export=FOLDER")
    loopback_address(host)
    store = ExampleStore(store_dir)
    vocabulary = None if vocabulary_dir is None else Vocabulary(os.fspath(vocabulary_dir))
    if vocabulary:
        vocabulary.encode("")  # Says now, not on every page, that its files are missing or damaged.
    catalogue = Catalogue(store, split_scheme)
    site = Site(
        catalogue,
        prompt_format,
        vocabulary,
        stream,
        tuple(shots),
        seed,
        instances,
        packed_rows,
        most_characters,
    )
    parts = (
        counted(len(catalogue.tasks), "task"),
        counted(len(catalogue.families), "family", "families"),
        counted(len(catalogue.categories), "category", "categories"),
    )
    console.print("{} of {} in {}".format(*parts), highlight=False)
    if dry_run:
        console.print(configuration.operative(), markup=False, highlight=False)
        return
    if export:
        pages = sum(1 for _ in site.addresses())
        with console.status(f"writing {pages:,} pages"):
            size = write(site, export)
        console.print(
            f"{pages:,} pages, {size / 1e6:.1f} MB: {export}/index.html", markup=False, soft_wrap=True
        )
        return
    server = Server(site, host, port)
    console.print(f"serving {server.url}, to this machine alone; end with Ctrl-C", highlight=False)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        pass
    finally:
        server.server_close()


if __name__ == "__main__":
    configuration.run(
        browse,
        doc=__doc__,
        configurables=(*mixing.CONFIGURABLES, *prompts.CONFIGURABLES, Stream),
        flags={"export": "folder to write the pages to, instead of serving them"},
    )
