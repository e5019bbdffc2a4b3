"""The layouts of platforms, each as a table: how it is recognised, and what its columns are.

To add one: append a `Layout` to `LAYOUTS` with the columns by which it is told from others, and
a small file of its shape to `tests/test_layouts.py`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from kinshelf.db.layouts.cells import first_path, first_price, path_of, stem, tag_path, ten_digits
from kinshelf.db.layouts.names import amazon_description, key_of

Read = Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Layout:
    """A published format of product files.

    `signatures`: a header that holds all names of one of them is of this layout; names here are
    those of `key_of`. `fields` gives for each field its columns or templates, of which the first
    that is there and not empty throughout is taken; `read` what is done to a field's cell.
    `pictures`, `variant` and `ignored` are patterns of columns: those with pictures, in order,
    those that a variant has of its own, and those that say nothing of a product; `kept` are
    attributes though a template reads them.

    Rows become one product where `group` has the same value as in the row before, where `parent`
    names another row's `parent_keys`, where another row's `children` (column, pattern) names the
    first of its `parent_keys`, or where `starts` (column, value) does not begin a new one.
    `hidden` (column, value) marks rows that no shop shows. `beside` is a folder next to the file,
    and the template of the pictures in it.
    """

    name: str
    signatures: tuple[frozenset[str], ...]
    fields: Mapping[str, tuple[str, ...]]
    read: Mapping[str, Read] = field(default_factory=dict)
    pictures: tuple[str, ...] = ()
    variant: tuple[str, ...] = ()
    kept: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    group: str | None = None
    parent: str | None = None
    parent_keys: tuple[str, ...] = ()
    children: tuple[str, str] | None = None
    starts: tuple[str, str] | None = None
    hidden: tuple[str, str] | None = None
    beside: tuple[str, str] | None = None

    @property
    def gathers(self) -> bool:
        """Whether several rows may be one product."""
        return any((self.group, self.parent, self.children, self.starts, self.hidden))


def _names(text: str) -> frozenset[str]:
    return frozenset(part.strip() for part in text.split(","))


def matching(columns: Iterable[str], patterns: Iterable[str]) -> list[str]:
    """The columns whose keys match one of the patterns, in the order of the patterns."""
    keys = [(column, key_of(column)) for column in columns]
    found = [c for p in patterns for c, key in keys if re.fullmatch(p, key)]
    return list(dict.fromkeys(found))


AMAZON_2020 = Layout(
    "amazon-2020",
    (_names("uniq id, product name, about product"),),
    {
        "id": ("uniq id",), "title": ("product name",), "category": ("category",),
        # "Product Description" is there too, and empty; "List Price" likewise.
        "description": ("about product",), "price": ("selling price",),
        "brand": ("brand name",), "image": ("image",),
    },
    {"description": amazon_description},
)  # fmt: skip
"""The raw file of "Amazon Product Dataset 2020", 28 columns."""

SHOPIFY = Layout(
    "Shopify product export",
    (_names("handle, title, variant price"), _names("handle, title, image src"),
     _names("url handle, title, product image url")),
    {
        "id": ("handle", "url handle"), "title": ("title",),
        "description": ("body (html)", "body html", "description"),
        "category": ("type", "product category", "standard product type", "custom product type"),
        "price": ("variant price", "price"), "brand": ("vendor",),
    },
    {"category": path_of},
    pictures=("image src", "product image url", "variant image", "variant image url"),
    variant=(r"option\d (name|value)", "variant .*", "sku", "barcode", "unit price .*",
             "cost per item", "price", "compare at price", "inventory .*", "weight .*"),
    ignored=("image position", "image alt text", r"option\d linked to", "published.*",
             "gift card", "google shopping / .*", "seo .*", r".*\(product\.metafields\..*\)",
             "variant (grams|inventory .*|fulfillment .*|requires .*|taxable|weight .*|tax code)",
             "(charge tax|tax code|fulfillment .*|requires shipping|inventory .*|weight .*)",
             "cost per item", "unit price .*"),
    group="handle",
)  # fmt: skip
SHOPIFY_JSON = Layout(
    "Shopify products.json",
    (_names("handle, title, variants, images"),),
    {
        "id": ("handle",), "title": ("title",), "description": ("body html",),
        "category": ("product type",), "price": ("{variants}",), "brand": ("vendor",),
    },
    {"category": path_of, "price": first_price},
    pictures=("images", "image"),
    ignored=("id", "published .*", "created at", "updated at", "template suffix", "admin .*"),
    kept=("variants",),
)  # fmt: skip
WOOCOMMERCE = Layout(
    "WooCommerce product export",
    (_names("name, regular price, images, categories"), _names("type, sku, name, images")),
    {
        "id": ("{sku|id}",), "title": ("name",),
        "description": ("{short description} {description}", "description", "short description"),
        "category": ("categories",), "price": ("{sale price|regular price}", "regular price"),
        "brand": ("brands", "brand"),
    },
    {"category": first_path},
    pictures=("images",),
    variant=("sku", "regular price", "sale price", r"attribute \d+ (name|value\(s\))", "stock"),
    ignored=("published", "is featured\\?", "visibility in catalog", "date sale .*", "tax .*",
             "backorders .*", "sold individually\\?", "low stock .*", "allow customer reviews\\?",
             "purchase note", "shipping class", "download .*", "upsells", "cross sells",
             "external url", "button text", "position", r"attribute \d+ (visible|global|default)",
             "meta: .*"),
    parent="parent", parent_keys=("sku", "id:{id}"),
)  # fmt: skip
MAGENTO = Layout(
    "Magento 2 product export",
    (_names("sku, attribute set code, product type"), _names("sku, name, base image")),
    {
        "id": ("sku",), "title": ("name",),
        "description": ("{short description} {description}", "description"),
        "category": ("categories",), "price": ("{special price|price}", "price"),
        "brand": ("manufacturer", "brand"),
    },
    {"category": lambda text: path_of(max(text.split(","), key=lambda p: p.count("/"))
                                      .removeprefix("Default Category/").replace("/", ">"))},
    pictures=("base image", "additional images", "small image", "thumbnail image"),
    ignored=("store view code", "attribute set code", "product websites", "tax class name",
             "meta .*", "created at", "updated at", ".* label", ".* labels", "display .*",
             "new (from|to) date", "custom .*", "page layout", "use config .*", "options container",
             "msrp .*", "gift message available", "is decimal divided", "website id",
             "related .*", "crosssell .*", "upsell .*", "bundle .*", "hide from product page",
             "configurable variation.*"),
    variant=("sku", "price", "special price", "additional attributes", "qty"),
    parent_keys=("sku",), children=("configurable variations", r"(?:^|\|)sku=([^,|]+)"),
    hidden=("visibility", "Not Visible Individually"),
)  # fmt: skip
BIGCOMMERCE = Layout(
    "BigCommerce product export",
    (_names("item type, product name, product id"), _names("item, id, name, image url (import)"),
     _names("item type, product name, product image file 1")),
    {
        "id": ("product id", "id", "{product code/sku|product name}"),
        "title": ("product name", "name"), "description": ("product description", "description"),
        "category": ("category", "categories"), "price": ("price", "calculated price"),
        "brand": ("brand name", "brand"),
    },
    {"category": lambda text: path_of(re.split(r"\s*;\s*", text)[0].replace("/", ">"))},
    pictures=(r"product image (file|url)  ?(- )?\d+", r"product image (file|url)\D*\d+",
              r"image url \(import\)", "internal image url \\(export\\)"),
    variant=("product code/sku", "sku", "price", "options", "option set"),
    ignored=(r"product image (id|description|is thumbnail|sort)\D*\d+",),
    starts=(r"item type|item", "product"),
)  # fmt: skip
ETSY = Layout(
    "Etsy listings",
    (_names("title, description, price, currency code, image1"),),
    {
        "id": ("{sku|title}", "{title}"), "title": ("title",), "description": ("description",),
        "price": ("price",), "category": ("section", "category"),
    },
    pictures=(r"image\d+",),
)  # fmt: skip
MERCHANT = Layout(
    "Google Merchant or Meta feed",
    (_names("id, title, image link, availability"), _names("id, title, image link, price"),
     _names("id, title, image link, condition"), _names("id, title, link, availability, price")),
    {
        "id": ("id",), "title": ("title",), "description": ("description",),
        "category": ("product type", "google product category", "fb product category"),
        "price": ("{sale price|price}", "price"), "brand": ("brand",),
    },
    {"category": path_of},
    pictures=("image link", "additional image link.*"),
    variant=("id", "size", "color", "price", "sale price", "availability", "gtin"),
    group="item group id",
)  # fmt: skip
AMAZON_FLAT = Layout(
    "Amazon flat file",
    (_names("item sku, item name, main image url"), _names("sku, item name, main image url")),
    {
        "id": ("item sku", "sku"), "title": ("item name",), "description": ("product description",),
        "category": ("{feed product type} > {item type}", "feed product type", "item type",
                     "product type"),
        "price": ("standard price", "list price"), "brand": ("brand name", "brand"),
    },
    pictures=("main image url", r"other image url\d+", "other image url .*"),
    variant=("item sku", "standard price", "size name", "color name"),
    parent="parent sku", parent_keys=("item sku", "sku"),
)  # fmt: skip
LAYOUTS = (
    AMAZON_2020, SHOPIFY, SHOPIFY_JSON, WOOCOMMERCE, MAGENTO, BIGCOMMERCE, ETSY, AMAZON_FLAT,
    MERCHANT,
    Layout(
        "Amazon products with lists",
        (_names("uniq id, title, categories, images"), _names("asin, title, categories")),
        {"id": ("uniq id", "asin", "parent asin"), "title": ("title",), "category": ("categories",),
         "description": ("description",), "brand": ("brand", "store")},
        {"category": path_of},
        pictures=("images", "imageurlhighres", "imurl"),
    ),
    Layout(
        "Flipkart products",
        (_names("uniq id, product category tree, product name"),),
        {"id": ("uniq id",), "title": ("product name",), "category": ("product category tree",),
         "price": ("{discounted price|retail price}",), "brand": ("brand",)},
        {"category": path_of},
    ),
    Layout(
        "Fashion Product Images (Myntra)",
        (_names("id, mastercategory, subcategory, articletype"),),
        {"id": ("id",), "title": ("productdisplayname",),
         "category": ("{mastercategory} > {subcategory} > {articletype}",), "price": ("price",)},
        beside=("images", "images/{id}.jpg"),
    ),
    Layout(
        "picture list (filename, link)",
        (_names("filename, link"),),
        {"id": ("filename",), "image": ("link",)},
        {"id": stem},
    ),
    Layout(
        "H&M articles",
        (_names("article id, prod name, product type name"),),
        {"id": ("article id",), "title": ("prod name",), "description": ("detail desc",),
         "category": ("{product group name} > {product type name}", "product type name")},
        {"id": ten_digits},
        beside=("images", "images/{article id}.jpg"),
    ),
    Layout(
        "Amazon Berkeley Objects",
        (_names("item id, item name, product type, main image id"),),
        {"id": ("item id",), "title": ("item name",), "category": ("product type",),
         "description": ("bullet point", "product description"), "brand": ("brand",)},
    ),
    Layout(
        "Open Food Facts",
        (_names("code, product name, categories"),),
        {"id": ("code",), "title": ("product name",), "brand": ("brands",),
         "category": ("main category en", "main category", "categories en", "categories"),
         "description": ("generic name", "ingredients text"), "image": ("image url",)},
        {"category": tag_path},
    ),
    Layout(
        "Shopee product matching",
        (_names("posting id, image, title, label group"),),
        {"id": ("posting id",), "title": ("title",), "image": ("image",)},
        beside=("train_images", "train_images/{image}"),
    ),
    Layout(
        "Hugging Face picture folder",
        (_names("file name"),),
        {"id": ("id", "file name"), "image": ("file name",),
         "title": ("title", "text", "caption"), "category": ("category", "label")},
    ),
)  # fmt: skip
"""The layouts that are known; a header takes the first that it fits."""


def layout_of(columns: Iterable[str]) -> Layout | None:
    """The known layout one of whose signatures the header holds."""
    keys = {key_of(column) for column in columns}
    return next((one for one in LAYOUTS if any(keys >= names for names in one.signatures)), None)


LAYOUT_KEYS = frozenset(name for one in LAYOUTS for names in one.signatures for name in names)
"""The names by which layouts are recognised, by `key_of`."""
