"""The shapes of requests, checked; those of answers are in `http/answers.py`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from kinshelf.store.query import Against, Mode, Strategy

MAX_K = 100
MAX_TEXT = 20_000
MAX_ATTRIBUTES = 200
MAX_EXAMPLES, MAX_FACETS = 16, 8
MAX_OFFSET = 10_000

Text = Annotated[str, Field(max_length=MAX_TEXT)]
Id = Annotated[str, Field(min_length=1, max_length=500)]
Name = Annotated[str, Field(max_length=200)]
K = Annotated[int, Field(ge=1, le=MAX_K)]
Where = Annotated[str, Field(max_length=4000, examples=["price < 20 AND category IS NOT NULL"])]
Url = Annotated[str, Field(max_length=4000, examples=["https://example.com/train.jpg"])]
Row = Annotated[int, Field(ge=1, le=2**31 - 1)]
Scalar = str | int | float | bool | None


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class Asked(_Request):
    """A product by `id`, or a picture by URL, a text, or both."""

    id: Id | None = None
    image: Url | None = None
    text: Text | None = None
    where: Where | None = None


class ClassifyRequest(Asked):
    """The query of `classify`."""

    k: K | None = None
    probe: Row | None = None


class Example(_Request):
    """An example: a product by `id`, a picture by URL, or a text."""

    id: Id | None = None
    image: Url | None = None
    text: Text | None = None


Examples = Annotated[list[Example], Field(max_length=MAX_EXAMPLES)]
Share = Annotated[float, Field(ge=0, le=1)]


class SimilarRequest(Asked):
    """The query of `similar`."""

    k: K = 10
    weight_image: Share = 0.5
    against: Against | None = None
    like: Examples = []
    unlike: Examples = []
    strategy: Strategy = "average"
    offset: Annotated[int, Field(ge=0, le=MAX_OFFSET)] = 0
    min_similarity: Annotated[float, Field(ge=-1, le=1)] | None = None
    one_per: Name | None = None
    diverse: Share | None = None
    facets: Annotated[list[Name], Field(max_length=MAX_FACETS)] = []
    mode: Mode = "meaning"
    weight_keywords: Share = 0.5


class ProductFields(_Request):
    """The fields of a product that may be given; a picture by URL."""

    title: Text | None = None
    description: Text | None = None
    category: Annotated[str, Field(max_length=1000)] | None = None
    price: Annotated[float, Field(ge=0, le=1e12)] | None = None
    brand: Annotated[str, Field(max_length=1000)] | None = None
    image: Url | None = None
    split: Annotated[str, Field(max_length=100)] | None = None
    attributes: Annotated[dict[Name, Scalar], Field(max_length=MAX_ATTRIBUTES)] | None = None


class Changes(ProductFields):
    """Fields of a product to change. `new_category` confirms a category that no product has yet:
    without it, that is an answer of 409 which names those that look like it."""

    new_category: bool = False


class NewProduct(ProductFields):
    """A product to add, or to update if its id is on the shelf."""

    id: Id


class TrainRequest(_Request):
    """Settings as those of `kinshelf train`; what is left out is the recipe's."""

    epochs: Annotated[int, Field(ge=1, le=1000)] | None = None
    batch_size: Annotated[int, Field(ge=1, le=65536)] | None = None
    lr: Annotated[float, Field(gt=0, le=10)] | None = None
    weight_decay: Annotated[float, Field(ge=0, le=10)] | None = None
    hidden: Annotated[int, Field(ge=1, le=4096)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    patience: Annotated[int, Field(ge=1, le=1000)] | None = None
    seed: Annotated[int, Field(ge=0, le=2**53)] | None = None
    warm_start: bool = False


class FillRequest(_Request):
    """Which products on the shelf to classify; `apply`: write the categories that the policy
    accepts."""

    where: Where | None = None
    apply: bool = False
    include_predicted: bool = False
    probe: Row | None = None
