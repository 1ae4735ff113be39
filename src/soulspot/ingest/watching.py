"""Keeps the pipeline informed: the watcher reports events, and polling finds what the watcher cannot see."""

from collections.abc import Iterable
from dataclasses import dataclass

from soulspot.infrastructure.watching.watcher import Watcher
from soulspot.ingest.disk.scan_queue import ScanQueue
from soulspot.ingest.polling import Polling


@dataclass(frozen=True, slots=True)
class Watching:
    """What feeds the scan queue of a running pipeline."""

    queue: ScanQueue
    watcher: Watcher
    polling: Polling

    def hint(self, full_paths: Iterable[str]) -> None:
        """Have absolute paths checked, as if the watcher had seen something happen there."""
        self.queue.add_events(full_paths)

    def scan_everything(self) -> None:
        """Have all roots scanned, as if events had been lost."""
        self.queue.enqueue_everything()
