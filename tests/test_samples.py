"""The sample catalogue and the tiny CLIP: what is promised about the files that we carry."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from kinshelf.samples import catalogue_dir, tiny_clip_dir
from kinshelf.samples.generator.drawing import COLOURS, PATTERNS, Canvas, pattern_sheet
from kinshelf.samples.generator.generate import SEED, build, write
from kinshelf.samples.generator.photo import BACKGROUNDS, PHOTO_SIDE
from kinshelf.samples.generator.rows import stream
from kinshelf.samples.generator.scenes import SCENE_SIDE, THEMES, scene
from kinshelf.samples.training.pairs import draw_pairs

if TYPE_CHECKING:
    from collections.abc import Sequence

SMALL = 0.1


def table(name: str) -> list[dict[str, str]]:
    with (catalogue_dir() / name).open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def rows_of(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode(), newline="")))


def notes(row: dict[str, str]) -> list[str]:
    return [note.partition("=")[0] for note in row["note"].split()]


@pytest.fixture(scope="module")
def products() -> list[dict[str, str]]:
    return table("products.csv")


@pytest.fixture(scope="module")
def truth() -> dict[str, dict[str, str]]:
    return {row["id"]: row for row in table("truth.csv")}


@pytest.fixture(scope="module")
def small() -> dict[str, bytes]:
    return build(seed=11, share=SMALL)


# The generator


def test_the_same_seed_gives_the_same_bytes(small: dict[str, bytes]) -> None:
    assert build(seed=11, share=SMALL) == small


def test_another_seed_gives_other_products(small: dict[str, bytes]) -> None:
    other = build(seed=12, share=SMALL)
    titles = [{row["title"] for row in rows_of(files["products.csv"])} for files in (small, other)]
    assert len(titles[0] & titles[1]) < 0.1 * len(titles[0])


def test_what_is_written_is_what_was_built(small: dict[str, bytes], tmp_path: Path) -> None:
    write(small, tmp_path / "new" / "folder")
    written = {
        path.relative_to(tmp_path / "new" / "folder").as_posix(): path.read_bytes()
        for path in (tmp_path / "new" / "folder").rglob("*")
        if path.is_file()
    }
    assert written == small


def test_the_tables_we_carry_are_the_generators(small: dict[str, bytes]) -> None:
    """The two tables that a smaller catalogue leaves alone must equal the committed ones."""
    files = build(SEED, share=SMALL)
    for name in ("incoming.csv", "new_category.csv"):
        assert files[name] == (catalogue_dir() / name).read_bytes()


def test_the_generator_does_not_touch_global_randomness() -> None:
    before = np.random.get_state(legacy=False)
    build(seed=3, share=0.05)
    after = np.random.get_state(legacy=False)
    assert json.dumps(before, default=str) == json.dumps(after, default=str)


@pytest.mark.parametrize("theme", THEMES)
def test_every_theme_is_an_opaque_landscape(theme: str) -> None:
    picture = scene(theme, stream(1, theme))
    assert picture.size == (SCENE_SIDE, SCENE_SIDE)
    assert picture.getchannel("A").getextrema() == (255, 255)


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_every_background_is_opaque(background: str) -> None:
    assert BACKGROUNDS[background](stream(1, background)).getchannel("A").getextrema() == (255, 255)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_shows_both_its_colours(pattern: str) -> None:
    sheet = pattern_sheet(pattern, COLOURS["white"], COLOURS["red"])
    dots = np.asarray(sheet.convert("RGB")).reshape(-1, 3)
    colours = {tuple(dot) for dot in np.unique(dots, axis=0).tolist()}
    assert colours == (
        {COLOURS["white"]} if pattern == "plain" else {COLOURS["white"], COLOURS["red"]}
    )


def test_a_canvas_counts_in_hundredths_of_its_side() -> None:
    canvas = Canvas(200)
    canvas.box(25, 50, 75, 100, COLOURS["blue"])
    assert canvas.image.getchannel("A").getbbox() == (50, 100, 151, 200)


# The catalogue that we carry


def test_the_catalogue_is_large_enough_and_small_enough(products: list[dict[str, str]]) -> None:
    assert len(products) >= 600
    size = sum(path.stat().st_size for path in catalogue_dir().rglob("*") if path.is_file())
    assert size <= 3_000_000


def test_at_least_seven_categories_and_none_of_them_rare(products: list[dict[str, str]]) -> None:
    counts = Counter(row["category"] for row in products if row["category"])
    assert len(counts) >= 7
    assert min(counts.values()) >= 40


def test_ids_are_unique_across_all_tables() -> None:
    ids = [row["id"] for name in TABLES for row in table(name)]
    assert len(ids) == len(set(ids))


TABLES = ("products.csv", "incoming.csv", "new_category.csv")


def test_the_truth_covers_every_product_and_nothing_else(truth: dict[str, dict[str, str]]) -> None:
    assert set(truth) == {row["id"] for name in TABLES for row in table(name)}


def test_every_image_opens_and_is_large_enough() -> None:
    named = {row["image"] for name in TABLES for row in table(name) if row["image"]}
    for name in named:
        with Image.open(catalogue_dir() / name) as picture:
            picture.load()
            assert (picture.format, picture.mode) == ("JPEG", "RGB")
            assert picture.size == (PHOTO_SIDE, PHOTO_SIDE) and PHOTO_SIDE >= 64
    files = {f"images/{path.name}" for path in (catalogue_dir() / "images").iterdir()}
    assert files == named


def test_every_product_has_a_picture_or_words(products: list[dict[str, str]]) -> None:
    lacking = Counter(
        (bool(row["image"]), bool(row["title"] or row["description"])) for row in products
    )
    assert lacking[False, False] == 0
    assert lacking[False, True] >= 5
    assert lacking[True, False] >= 5
    assert any(row["title"] and not row["description"] for row in products)


def test_about_two_in_a_hundred_labels_are_wrong_and_each_is_noted(
    products: list[dict[str, str]], truth: dict[str, dict[str, str]]
) -> None:
    labelled = [row for row in products if row["category"]]
    wrong = {row["id"] for row in labelled if row["category"] != truth[row["id"]]["true_category"]}
    assert wrong == {key for key, row in truth.items() if "wrong-label" in notes(row)}
    assert 0.015 <= len(wrong) / len(labelled) <= 0.025


def test_the_split_is_four_to_one_in_every_category(products: list[dict[str, str]]) -> None:
    counts = Counter((row["category"], row["split"]) for row in products)
    assert {split for category, split in counts if not category} == {""}
    for category in {category for category, _ in counts if category}:
        held, kept = counts[category, "val"], counts[category, "train"]
        assert abs(held / (held + kept) - 0.2) < 0.02


def pixels(row: dict[str, str]) -> np.ndarray[Any, np.dtype[np.float64]]:
    with Image.open(catalogue_dir() / row["image"]) as picture:
        return np.asarray(picture.convert("L").resize((16, 16)), dtype=np.float64).ravel()


def test_exact_duplicates_are_alike_in_every_byte(
    products: list[dict[str, str]], truth: dict[str, dict[str, str]]
) -> None:
    by_id = {row["id"]: row for row in products}
    pairs = duplicates("duplicate-of", truth)
    assert len(pairs) >= 5
    for twin, original in pairs:
        a, b = by_id[twin], by_id[original]
        assert all(a[column] == b[column] for column in ("title", "description", "category"))
        images = [(catalogue_dir() / row["image"]).read_bytes() for row in (a, b)]
        assert images[0] == images[1]


def test_near_duplicates_differ_but_look_alike(
    products: list[dict[str, str]], truth: dict[str, dict[str, str]]
) -> None:
    by_id = {row["id"]: row for row in products}
    pairs = duplicates("near-duplicate-of", truth)
    assert len(pairs) >= 4
    for twin, original in pairs:
        a, b = by_id[twin], by_id[original]
        assert a["title"] != b["title"]
        assert (catalogue_dir() / a["image"]).read_bytes() != (
            catalogue_dir() / b["image"]
        ).read_bytes()
        assert np.corrcoef(pixels(a), pixels(b))[0, 1] > 0.75


def duplicates(kind: str, truth: dict[str, dict[str, str]]) -> list[tuple[str, str]]:
    marked = [(key, note) for key, row in truth.items() for note in row["note"].split()]
    return [(key, note.partition("=")[2]) for key, note in marked if note.startswith(f"{kind}=")]


def test_incoming_products_are_of_known_categories_and_not_in_the_catalogue(
    products: list[dict[str, str]],
) -> None:
    incoming = table("incoming.csv")
    assert len(incoming) >= 20
    assert {row["category"] for row in incoming} == {""}
    assert {row["true_category"] for row in incoming} == {
        row["category"] for row in products if row["category"]
    }
    assert not contents(incoming) & contents(products)


def test_the_new_category_is_nowhere_in_the_catalogue(products: list[dict[str, str]]) -> None:
    new_categories = table("new_category.csv")
    assert len(new_categories) >= 30
    (name,) = {row["category"] for row in new_categories}
    known = {row["category"] for row in products} | {
        r["true_category"] for r in table("incoming.csv")
    }
    assert name and name not in known
    assert not [row["id"] for row in products if "kite" in row["title"].lower().split()]


def contents(rows: Sequence[dict[str, str]]) -> set[tuple[str, bytes]]:
    return {
        (row["title"] + row["description"], (catalogue_dir() / row["image"]).read_bytes())
        for row in rows
        if row["image"]
    }


def test_prices_ages_and_piece_counts_are_numbers(products: list[dict[str, str]]) -> None:
    assert all(0 < float(row["price"]) < 200 for row in products)
    for column in ("age", "pieces"):
        given = [int(row[column]) for row in products if row[column]]
        assert 0 < len(given) < len(products)
        assert min(given) >= 0
    assert {row["colour"] for row in products} <= set(COLOURS)


# The tiny CLIP that we carry


def test_the_tiny_clip_is_small_and_holds_no_pickle() -> None:
    files = [path for path in tiny_clip_dir().iterdir() if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 4_000_000
    assert {path.suffix for path in files} <= {".json", ".csv", ".safetensors"}


@pytest.fixture(scope="module")
def offline(request: pytest.FixtureRequest) -> None:
    patch = pytest.MonkeyPatch()
    request.addfinalizer(patch.undo)
    patch.setenv("HF_HUB_OFFLINE", "1")
    patch.setattr("socket.socket.connect", _no_network)


def _no_network(*_: object) -> None:
    raise AssertionError("the tiny CLIP reached for the network")


@pytest.fixture(scope="module")
def clip(offline: None) -> tuple[Any, Any]:
    from transformers import CLIPModel, CLIPProcessor

    model = CLIPModel.from_pretrained(tiny_clip_dir()).eval()
    return model, CLIPProcessor.from_pretrained(tiny_clip_dir())


def embeddings(clip: tuple[Any, Any], rows: list[dict[str, str]]) -> tuple[Any, Any]:
    import torch

    model, processor = clip
    pictures = [Image.open(catalogue_dir() / row["image"]).convert("RGB") for row in rows]
    inputs = processor(
        text=[row["title"] for row in rows], images=pictures, padding=True, return_tensors="pt"
    )
    with torch.inference_mode():
        out = model(**inputs)
    return out.image_embeds.numpy(), out.text_embeds.numpy()


def test_the_tiny_clip_loads_offline_and_embeds(clip: tuple[Any, Any]) -> None:
    rows = [row for row in table("incoming.csv") if row["image"]][:4]
    for matrix in embeddings(clip, rows):
        assert matrix.shape == (4, clip[0].config.projection_dim)
        assert matrix.dtype == np.float32
        np.testing.assert_allclose(np.linalg.norm(matrix, axis=1), 1, atol=1e-5)


def test_pictures_of_one_category_lie_nearer_than_of_others(clip: tuple[Any, Any]) -> None:
    known = [row for row in table("products.csv") if row["image"] and row["title"]][:120]
    new_categories = [row for row in table("new_category.csv") if row["image"] and row["title"]]
    images, _ = embeddings(clip, known + new_categories)
    labels = np.array([row["category"] for row in known + new_categories])
    similarity = images @ images.T
    same = labels[:, None] == labels[None, :]
    apart = ~np.eye(len(labels), dtype=bool)
    assert similarity[same & apart].mean() > similarity[~same].mean() + 0.2


def test_a_picture_finds_the_words_for_what_it_shows(clip: tuple[Any, Any]) -> None:
    import torch

    model, processor = clip
    pairs = draw_pairs(120, seed=99, purpose="test")
    names = [name for name in WORDS if name in pairs.names]
    shown = [at for at, name in enumerate(pairs.names) if name in names]
    inputs = processor(
        text=[f"a photo of a {WORDS[name]}" for name in names],
        images=[Image.fromarray(pairs.pictures[at]) for at in shown],
        padding=True,
        return_tensors="pt",
    )
    with torch.inference_mode():
        guessed = model(**inputs).logits_per_image.argmax(1).tolist()
    hits = [names[guess] == pairs.names[at] for guess, at in zip(guessed, shown, strict=True)]
    assert len(shown) >= 50
    assert np.mean(hits) > 0.6  # chance would be one in nine


@pytest.mark.slow
def test_picture_and_words_together_tell_more_than_either_alone(
    clip: tuple[Any, Any], products: list[dict[str, str]], truth: dict[str, dict[str, str]]
) -> None:
    """The band that keeps the demo honest: neither trivial nor poor, by logistic regression."""
    from sklearn.linear_model import LogisticRegression

    rows = [row for row in products if row["image"] and row["title"] and row["category"]]
    train = np.array([row["split"] == "train" for row in rows])
    given = np.array([row["category"] for row in rows])
    right = np.array([truth[row["id"]]["true_category"] for row in rows])
    images, texts = embeddings(clip, rows)
    accuracy = {}
    for name, matrix in (
        ("image", images),
        ("text", texts),
        ("both", np.hstack([images, texts]) / np.sqrt(2)),
    ):
        model = LogisticRegression(C=2, max_iter=2000).fit(matrix[train], given[train])
        accuracy[name] = float(np.mean(model.predict(matrix[~train]) == right[~train]))
    assert 0.75 <= accuracy["image"] <= 0.93
    assert 0.75 <= accuracy["text"] <= 0.93
    assert max(accuracy["image"], accuracy["text"]) < accuracy["both"] <= 0.98
    assert accuracy["both"] >= 0.92


WORDS = {
    "jigsaw": "jigsaw puzzle",
    "board game": "board game",
    "plush": "teddy bear",
    "blocks": "building blocks",
    "vehicle": "toy car",
    "mug": "mug",
    "pot": "flower pot",
    "lamp": "table lamp",
    "kite": "kite",
}


# Any text can be encoded


@pytest.mark.parametrize(
    "text", ["", "Søren & Fjell", "☃ 雪だるま", "a\tb\n c", "100% wool'll do", "x" * 500]
)
def test_transformers_and_tokenizers_agree_on_any_text(offline: None, text: str) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    ours = Tokenizer.from_file(str(tiny_clip_dir() / "tokenizer.json"))
    theirs = AutoTokenizer.from_pretrained(tiny_clip_dir())
    ids = ours.encode(text).ids
    assert theirs(text)["input_ids"] == ids
    assert ids[0] == theirs.bos_token_id
    assert ids[-1] == theirs.eos_token_id
    assert theirs.unk_token_id not in ids[1:-1]


def test_a_token_sequence_spells_its_text_again(offline: None) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tiny_clip_dir())
    ids = tokenizer("striped blue mug 雪")["input_ids"]
    assert tokenizer.decode(ids, skip_special_tokens=True) == "striped blue mug 雪"


def test_the_config_names_the_tokens_that_the_tokenizer_uses(clip: tuple[Any, Any]) -> None:
    model, processor = clip
    text, tokenizer = model.config.text_config, processor.tokenizer
    assert text.eos_token_id == tokenizer.eos_token_id == len(tokenizer) - 1
    assert text.bos_token_id == tokenizer.bos_token_id
    assert text.pad_token_id == tokenizer.pad_token_id
    assert text.vocab_size == len(tokenizer) <= 1500
    assert tokenizer.model_max_length == text.max_position_embeddings == 77


def test_the_training_log_tells_how_it_was_made() -> None:
    with (tiny_clip_dir() / "training_log.csv").open(encoding="utf-8", newline="") as file:
        lines = list(csv.DictReader(file))
    assert [int(line["epoch"]) for line in lines] == list(range(1, int(lines[0]["epochs"]) + 1))
    assert float(lines[-1]["loss"]) < float(lines[0]["loss"])
    assert float(lines[-1]["image_to_text_top5"]) > 20 * 5 / int(lines[0]["held_out"])
