"""How the server bears load, on loopback, beside what its encoder does alone in the same run.

    python bench/serve.py                     # the sample and a CLIP of full size, random weights
    python bench/serve.py --encoder DIR

A shelf of the sample is served by `kinshelf serve`; 8 clients ask for 30 seconds: for similar
products and for the category by id, for the category of a picture, for all at once. Bars: no error;
similar by id within 20 ms for 95 of 100 requests; pictures classified at 0.8 times the rate at
which the batch encoder (`add`'s: decode on all cores, batches of 32) encodes them. As a machine's
speed wanders, the two take turns: pictures in rounds, the encoder before and after each; the bar is
for the middle one of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kinshelf import Shelf
from kinshelf.db.images.decode import content_hash
from kinshelf.db.threads import threads
from kinshelf.probe import train_shelf
from kinshelf.samples import catalogue_dir, tiny_clip_dir
from kinshelf.store.encode.encoder import load_encoder
from kinshelf.store.ingest.pictures import Preprocessor

CLIENTS = 8
BATCH = 32
P95_MS, SHARE, ROUNDS = 20.0, 0.8, 3


def full_size(directory: Path) -> Path:
    """A CLIP ViT-B/32 with random weights and the sample's tokenizer."""
    import torch
    from transformers import CLIPConfig, CLIPModel

    directory.mkdir()
    for path in tiny_clip_dir().iterdir():
        if path.suffix in (".json", ".txt") and path.name not in ("config.json",):
            shutil.copyfile(path, directory / path.name)
    processor = json.loads((directory / "preprocessor_config.json").read_text())
    processor |= {"size": {"shortest_edge": 224}, "crop_size": {"height": 224, "width": 224}}
    (directory / "preprocessor_config.json").write_text(json.dumps(processor))
    tiny = json.loads((tiny_clip_dir() / "config.json").read_text())["text_config"]
    names = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
    text = {name: tiny[name] for name in names if name in tiny}
    torch.manual_seed(0)
    CLIPModel(CLIPConfig(text_config=text, projection_dim=512)).save_pretrained(directory)
    return directory


@dataclass(slots=True)
class Tally:
    """What clients of one kind met: milliseconds of each answer, and failures."""

    milliseconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)

    def p(self, share: float) -> float:
        """A percentile, in milliseconds."""
        return float(np.percentile(self.milliseconds, share)) if self.milliseconds else np.nan

    def shown(self) -> str:
        """Two percentiles."""
        return f"p50 {self.p(50):.1f} ms, p95 {self.p(95):.1f} ms"


Ask = Callable[[int], tuple[str, bytes, str]]


def by_id(route: str, ids: list[str]) -> Ask:
    """Requests about each product in turn."""
    bodies = [json.dumps({"id": name}).encode() for name in ids]
    return lambda i: (route, bodies[i % len(bodies)], "application/json")


def classify_by_image(pictures: list[bytes]) -> Ask:
    """Requests with a picture each, as a form."""
    kind, bodies = "multipart/form-data; boundary=kin", []
    head = b'--kin\r\nContent-Disposition: form-data; name="image"; filename="p"\r\n\r\n'
    bodies = [head + data + b"\r\n--kin--\r\n" for data in pictures]
    return lambda i: ("/classify", bodies[i % len(bodies)], kind)


def load(port: int, senders: list[Ask], seconds: float) -> tuple[list[Tally], float]:
    """One client a thread asks as fast as it is answered; a tally each, and the seconds."""
    tallies, end = [Tally() for _ in senders], time.monotonic() + seconds
    turns = itertools.count()

    def client(send: Ask, tally: Tally) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        while time.monotonic() < end:
            path, body, kind = send(next(turns))
            started = time.perf_counter()
            connection.request("POST", path, body, {"Content-Type": kind})
            response = connection.getresponse()
            text = response.read()
            tally.milliseconds.append(1000 * (time.perf_counter() - started))
            if response.status != 200:
                tally.failures.append(f"{response.status} {text[:200]!r}")

    started = time.monotonic()
    running = [
        threading.Thread(target=client, args=pair) for pair in zip(senders, tallies, strict=True)
    ]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    return tallies, time.monotonic() - started


def together(tallies: list[Tally]) -> Tally:
    """Several clients' as one."""
    whole = Tally()
    for tally in tallies:
        whole.milliseconds += tally.milliseconds
        whole.failures += tally.failures
    return whole


def batch_encoder(directory: Path, precision: str | None, pictures: list[bytes], s: float) -> float:
    """Pictures a second of decoding ahead and encoding in batches, as `add` does."""
    encoder = load_encoder(str(directory), precision=precision)
    preprocessor = Preprocessor(encoder)
    batches = [
        {content_hash(data): data for data in pictures[i : i + BATCH]}
        for i in range(0, len(pictures), BATCH)
    ]
    encoder.encode_pixels(list(preprocessor.take(batches[0]).values()))  # type: ignore[arg-type]
    done, started = 0, time.monotonic()
    turns = itertools.cycle(batches)
    ahead = next(turns)
    preprocessor.begin(ahead)
    while time.monotonic() - started < s:
        batch, ahead = ahead, next(turns)
        pixels = list(preprocessor.take(batch).values())
        preprocessor.begin(ahead)
        encoder.encode_pixels(pixels)  # type: ignore[arg-type]
        done += len(pixels)
    rate = done / (time.monotonic() - started)
    preprocessor.close()
    return rate


@contextmanager
def served(shelf: Path) -> Iterator[int]:
    """`kinshelf serve` in a process of its own; its port."""
    line = [sys.executable, "-m", "kinshelf.cli", "serve", "--shelf", str(shelf), "--port", "0",
            "--json", "--quiet", "--rate", "1000000"]  # fmt: skip
    with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout
        try:
            yield int(json.loads(child.stdout.readline())["url"].rsplit(":", 1)[1])
        finally:
            child.terminate()
            child.wait(60)


def shown(values: Iterable[float], digits: int = 1) -> str:
    """Figures in a row."""
    return ", ".join(f"{value:.{digits}f}" for value in values)


def verdict(name: str, met: bool, text: str) -> bool:
    """One line for one bar."""
    print(f"{'holds' if met else 'falls short'}: {name}: {text}")
    return met


@dataclass(slots=True)
class Seen:
    """What all clients met, kind by kind, and rates a second, of server and encoder in turns."""

    similar: Tally
    classified: Tally
    pictures: Tally
    mixed: list[Tally]
    mixed_seconds: float
    rates: list[float]
    alone: list[float]


def measure(shelf: Path, seconds: float) -> Seen:
    """The load and the encoder alone, in turns."""
    with Shelf.open(shelf) as opened:
        ids = list(opened.snapshot().view.row_by_id())
        encoder, precision = Path(opened.manifest.encoder), opened.manifest.precision
    images = [p.read_bytes() for p in sorted((catalogue_dir() / "images").glob("*"))][:320]
    part, turn = seconds / 3, seconds / 3 / ROUNDS
    similar, classify = by_id("/similar", ids), by_id("/classify", ids)
    by_image = classify_by_image(images)
    alone, rates, pictures = [batch_encoder(encoder, precision, images, turn)], [], []
    with served(shelf) as port:
        load(port, [similar, classify, by_image], 5.0)  # what is loaded lazily, is
        found, _ = load(port, [similar] * CLIENTS, part / 2)
        judged, _ = load(port, [classify] * CLIENTS, part / 2)
        for _ in range(ROUNDS):
            tallies, took = load(port, [by_image] * CLIENTS, turn)
            pictures += tallies
            rates.append(sum(len(tally.milliseconds) for tally in tallies) / took)
            alone.append(batch_encoder(encoder, precision, images, turn))
        mixed, both = load(port, [similar, by_image, classify, by_image] * (CLIENTS // 4), part)
    return Seen(together(found), together(judged), together(pictures), mixed, both, rates, alone)


def judge(seen: Seen) -> bool:
    """Print what was seen, and whether the bars hold."""
    ratios = np.array(seen.rates) / np.mean([seen.alone[:-1], seen.alone[1:]], axis=0)
    for name, tally in (("similar", seen.similar), ("classify", seen.classified)):
        # each client asks again as soon as it is answered
        rate = 1000 * CLIENTS / np.mean(tally.milliseconds)
        print(f"{name} by id, {CLIENTS} clients: {rate:.0f} a second, {tally.shown()}")
    print(
        f"classify by picture, {CLIENTS} clients: {shown(seen.rates)} a second,"
        f" {seen.pictures.shown()}; batch encoder alone {shown(seen.alone)} a second"
    )
    for name, tally in zip(("id", "picture"), (seen.mixed[::2], seen.mixed[1::2]), strict=True):
        rate = len(together(tally).milliseconds) / seen.mixed_seconds
        print(f"all at once: by {name} {rate:.0f} a second, {together(tally).shown()}")
    failures = together([seen.similar, seen.classified, seen.pictures, *seen.mixed]).failures
    p95, ratio = seen.similar.p(95), float(np.median(ratios))
    return all(
        (
            verdict("errors", not failures, f"{len(failures)} {failures[:3]}"),
            verdict("similar by id", p95 <= P95_MS, f"p95 {p95:.1f} ms"),
            verdict(
                "pictures",
                ratio >= SHARE,
                f"{ratio:.2f} times the batch encoder ({shown(ratios, 2)})",
            ),
        )
    )


def main() -> None:
    """Make the shelf, measure, judge."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--encoder", type=Path, help="a CLIP directory; default: full size, random")
    parser.add_argument("--shelf", type=Path, help="one that is there, or kept for next time")
    parser.add_argument("--seconds", type=float, default=30.0)
    given = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, {threads()} threads")
    with tempfile.TemporaryDirectory() as folder:
        shelf = given.shelf or Path(folder, "bench.shelf")
        if not shelf.exists():
            encoder = given.encoder or full_size(shelf.with_suffix(".clip"))
            with Shelf.create(shelf, encoder=str(encoder)) as opened:
                opened.add(catalogue_dir() / "products.csv")
                train_shelf(opened)
        sys.exit(not judge(measure(shelf, given.seconds)))


if __name__ == "__main__":
    main()
