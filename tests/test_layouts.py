"""Files of shops in their own layouts: what is read of them with no option but the file.

Each is a small file of the platform's shape, with words of our own. Real files, where they lie
beside the checkout, are counted with `csv` alone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import AMAZON

from kinshelf.db.product import Product, pictures_of
from kinshelf.db.sources.readers import ReadOptions, open_source, read_planned, read_source
from kinshelf.db.sources.summary import Tally

FEEDS = AMAZON.parent / "data" / "feeds"


def look(path: Path, **options: Any) -> tuple[list[Product], list[str]]:
    """The products of a file, and what the summary states of it."""
    reading = ReadOptions(**options)
    opened = open_source(path, reading)
    tally = Tally(*opened)
    batches = list(tally.counted(read_planned(*opened, path, reading)))
    return [product for batch in batches for product in batch.products], tally.lines()


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_shopify_rows_of_one_handle_are_one_product(tmp_path: Path) -> None:
    path = write(tmp_path, "products_export.csv", (
        "Handle,Title,Body (HTML),Vendor,Type,Option1 Name,Option1 Value,Variant SKU,"
        "Variant Price,Image Src,Image Position,Gift Card\n"
        "red-mug,Red mug,<p>Holds <b>300&nbsp;ml</b></p><p>Oak lid</p>,Acme,Mugs > Large,Size,S,"
        "M-S,9.50,https://a.test/1.jpg,1,false\n"
        "red-mug,,,,,,L,M-L,11.00,https://a.test/2.jpg,2,\n"
        "red-mug,,,,,,,,,https://a.test/3.jpg,3,\n"
        "bowl,Bowl,,Acme,Bowls,Title,Default Title,B-1,4.00,https://a.test/b.jpg,1,false\n"
    ))  # fmt: skip
    (mug, bowl), lines = look(path)
    assert (mug.id, mug.title, mug.description) == ("red-mug", "Red mug", "Holds 300 ml Oak lid")
    assert (mug.category, mug.price, mug.brand) == ("Mugs | Large", 9.5, "Acme")
    assert pictures_of(mug) == [f"https://a.test/{i}.jpg" for i in (1, 2, 3)]
    assert mug.attributes["description_html"] == "<p>Holds <b>300&nbsp;ml</b></p><p>Oak lid</p>"
    sizes = [("S", "M-S", "9.50"), ("L", "M-L", "11.00")]
    names = ("Option1 Name", "Option1 Value", "Variant SKU", "Variant Price")
    assert json.loads(str(mug.attributes["variants"])) == [
        dict(zip(names, ("Size", *size), strict=True)) for size in sizes
    ]
    assert pictures_of(bowl) == ["https://a.test/b.jpg"]
    assert lines[0].startswith(
        "read as: Shopify product export; 2 products from 4 rows, 4 pictures, 2 categories"
    )


def test_woocommerce_variations_go_to_their_parent_wherever_they_stand(tmp_path: Path) -> None:
    path = write(tmp_path, "wc.csv", (
        "ID,Type,SKU,Name,Short description,Description,Regular price,Sale price,Categories,Images,"
        "Parent,Attribute 1 name,Attribute 1 value(s)\n"
        '8,variation,T-R,Tee red,,,12,10,,https://a.test/r.jpg,TEE,Colour,Red\n'
        '7,variable,TEE,Tee,Soft,Cotton,,,"Clothes > Tees, Sale",'
        '"https://a.test/1.jpg, https://a.test/2.jpg",,Colour,"Red, Blue"\n'
        "9,simple,CAP,Cap,,,5,,Clothes,https://a.test/c.jpg,,,\n"
        "10,variation,T-B,Tee blue,,,13,,,https://a.test/b.jpg,id:7,Colour,Blue\n"
    ))  # fmt: skip
    (tee, cap), lines = look(path)
    assert (tee.id, tee.category, tee.price) == ("TEE", "Clothes | Tees", 10.0)
    assert pictures_of(tee) == [f"https://a.test/{name}.jpg" for name in "12rb"]
    assert [v["SKU"] for v in json.loads(str(tee.attributes["variants"]))] == ["T-R", "T-B"]
    assert (cap.id, cap.price, cap.category) == ("CAP", 5.0, "Clothes")
    assert "2 products from 4 rows, 5 pictures, 2 categories" in lines[0]


CASES = {
    "magento": (
        "sku,attribute_set_code,product_type,categories,name,description,price,base_image,"
        "additional_images,visibility\n"
        'A1,Default,simple,"Default Category/Lamps,Default Category/Lamps/Desk",Lamp,<p>Warm</p>,'
        '20,/a.jpg,"/b.jpg,/c.jpg","Catalog, Search"\n'
        "A1-red,Default,simple,,Lamp red,,21,,,Not Visible Individually\n",
        ("A1", "Lamp", "Lamps | Desk", 20.0, 3),
    ),
    "bigcommerce": (
        "Item Type,Product ID,Product Name,Product Code/SKU,Brand Name,Product Description,Price,"
        "Category,Product Image File - 1,Product Image File - 2\n"
        "Product,12,Sofa,S-1,Oak & Co,<div>Soft</div>,499,Home/Sofas;Sale,a.jpg,b.jpg\n"
        "  SKU,,[S]Colour=Red,S-1-R,,,,,,\n",
        ("12", "Sofa", "Home | Sofas", 499.0, 2),
    ),
    "etsy": (
        "TITLE,DESCRIPTION,PRICE,CURRENCY_CODE,QUANTITY,TAGS,MATERIALS,IMAGE1,IMAGE2,SKU\n"
        'Ring,Silver ring,30.00,EUR,1,"ring,gift",silver,https://e.test/1.jpg,https://e.test/2.jpg,\n',
        ("Ring", "Ring", None, 30.0, 2),
    ),
    "merchant": (
        "id\ttitle\tdescription\tlink\timage_link\tadditional_image_link\tprice\tavailability\t"
        "google_product_category\n"
        "g1\tTea\tGreen &amp; mild\thttps://s.test/1\thttps://s.test/1.jpg\t"
        "https://s.test/2.jpg,https://s.test/3.jpg\t4.50 GBP\tin stock\tFood > Tea\n",
        ("g1", "Tea", "Food | Tea", 4.5, 3),
    ),
    "amazon-flat": (
        "TemplateType=home\tVersion=1\tThe top rows are Amazon's\n"
        "Seller SKU\tTitle\tPrice\tMain\tOther\tType\tParent\n"
        "item_sku\titem_name\tstandard_price\tmain_image_url\tother_image_url1\t"
        "feed_product_type\tparent_sku\n"
        "P1\tPan\t15\thttps://m.test/1.jpg\thttps://m.test/2.jpg\tcookware\t\n"
        "P1-S\tPan small\t12\thttps://m.test/s.jpg\t\tcookware\tP1\n",
        ("P1", "Pan", "cookware", 15.0, 3),
    ),
    "flipkart": (
        "uniq_id,product_name,product_category_tree,retail_price,discounted_price,image\n"
        'f1,Sari,"[""Clothing >> Women >> Saris""]",999,499,'
        '"[""http://f.test/1.jpeg"", ""http://f.test/2.jpeg""]"\n',
        ("f1", "Sari", "Clothing | Women | Saris", 499.0, 2),
    ),
    "hm": (
        "article_id,prod_name,product_type_name,product_group_name,detail_desc\n"
        "108775015,Strap top,Vest top,Garment Upper body,Jersey top\n",
        ("0108775015", "Strap top", "Garment Upper body | Vest top", None, 0),
    ),
    "open-food-facts": (
        "code\tproduct_name\tbrands\tcategories\tmain_category_en\timage_url\n"
        '0042\tOat drink\tOats\t"Drinks,Plant drinks"\tPlant drinks\thttps://o.test/1.jpg\n',
        ("0042", "Oat drink", "Plant drinks", None, 1),
    ),
    "shopee": (
        "posting_id,image,image_phash,title,label_group\n"
        "train_1,abc.jpg,94974f937d4c2433,Paper bag,249114794\n",
        ("train_1", "Paper bag", None, None, 1),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_a_layout_is_read_with_no_option_but_the_file(name: str, tmp_path: Path) -> None:
    text, expected = CASES[name]
    (product,), lines = look(write(tmp_path, "export.txt", text))
    found = (product.id, product.title, product.category, product.price, len(pictures_of(product)))
    assert found == expected
    assert lines[0].startswith("read as: ")


def test_pictures_in_the_data_sets_own_folder_are_found_by_id(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    path = write(tmp_path, "styles.csv", (
        "id,gender,masterCategory,subCategory,articleType,productDisplayName\n"
        "15,Men,Apparel,Topwear,Shirts,Blue shirt\n"
    ))  # fmt: skip
    (shirt,), _ = look(path)
    assert (shirt.image, shirt.category) == (
        str(tmp_path / "images/15.jpg"), "Apparel | Topwear | Shirts",
    )  # fmt: skip


def test_rows_that_differ_in_their_picture_alone_are_one_product(tmp_path: Path) -> None:
    path = write(tmp_path, "a.csv", (
        "id,title,image\n1,Ring,1.jpg\n1,Ring,1_b.jpg\n1,Ring,1_c.jpg\n1,Other,1_d.jpg\n2,Pin,2.jpg\n"
    ))  # fmt: skip
    (ring, pin), lines = look(path, batch_size=1)
    assert [Path(one).name for one in pictures_of(ring)] == ["1.jpg", "1_b.jpg", "1_c.jpg"]
    assert [Path(one).name for one in pictures_of(pin)] == ["2.jpg"]
    assert "4 pictures" in lines[0]


@pytest.mark.parametrize(
    ("prices", "read"),
    [
        (["1.299", "2.450", "89,90"], [1299.0, 2450.0, 89.9]),
        (["1.299", "2.450", "990"], [1299.0, 2450.0, 990.0]),
        (["1.299", "2.45"], [1.299, 2.45]),
        (["1.299", "5"], [1.299, 5.0]),
    ],
)
def test_the_prices_of_a_column_decide_what_a_point_is(
    prices: list[str], read: list[float], tmp_path: Path
) -> None:
    rows = "".join(f'{i},thing,"{price}"\n' for i, price in enumerate(prices))
    found, lines = look(write(tmp_path, "a.csv", "id,title,price\n" + rows))
    assert [product.price for product in found] == read
    assert "the price '1.299' is read as 1" in lines[-1]


def counted(name: str) -> list[str]:
    path = FEEDS / name
    if not path.is_file():
        pytest.skip("the shops' files are not beside this checkout (../shared/data/feeds)")
    return look(path)[1]


# By hand, with csv.DictReader: distinct ids, distinct picture URLs of each id, distinct categories.
REAL = {
    "shopify_rugs_export.csv": "68 products from 512 rows, 259 pictures, 5 categories",
    "shopify_sample_apparel.csv": "20 products from 22 rows, 20 pictures, 0 categories",
    "shopify_sample_home-and-garden.csv": "20 products from 21 rows, 21 pictures, 2 categories",
    "shopify_sample_jewelery.csv": "20 products from 41 rows, 41 pictures, 3 categories",
    "woocommerce_sample_excerpt.csv": "4 products from 5 rows, 6 pictures, 4 categories",
    "google_merchant_excerpt.xml": "3 products, 3 pictures, 1 category",
    "amazon_furniture.csv": "305 products, 1,915 pictures, 87 categories",
    "jewellery_bom.csv": "85 products from 156 rows, 156 pictures, 6 categories",
    "mixed_shop_products.csv": "253 products, 253 pictures, 5 categories",
    "myntra_ajio_nykaa.csv": "68 products, 68 pictures, 47 categories",
    "myntra_styles.csv": "1,000 products, 0 pictures, 87 categories",
    "myntra_styles_semicolon_bom.csv": "99 products, 0 pictures, 35 categories",
    "myntra_images.csv": "1,000 products, 1,000 pictures, 0 categories",
}


@pytest.mark.parametrize("name", REAL)
def test_a_real_file_has_what_was_counted_by_hand(name: str) -> None:
    assert REAL[name] in counted(name)[0]


def test_rows_of_one_handle_with_titles_of_their_own_are_rejected_by_name(tmp_path: Path) -> None:
    path = write(tmp_path, "doors.csv", (
        "Handle,Title,Vendor,Type,Variant Price,Image Src\n"
        "brass,Door 1,Acme,Doors,10,https://a.test/1.jpg\n"
        "brass,Door 2,Acme,Doors,20,https://a.test/2.jpg\n"
    ))  # fmt: skip
    (batch,) = read_source(path)
    assert [product.title for product in batch.products] == ["Door 1"]
    assert [reject.reason for reject in batch.rejects] == ["duplicate-id"]


def test_a_merchant_feed_without_pictures_is_one_all_the_same(tmp_path: Path) -> None:
    path = write(tmp_path, "feed.txt", (
        "id\ttitle\tlink\tavailability\tprice\tsale price\tproduct type\n"
        "7\tTea\thttps://a.test/7\tin stock\t4.50 EUR\t3.00 EUR\tFood > Tea\n"
    ))  # fmt: skip
    (tea,), _ = look(path)
    assert (tea.category, tea.price) == ("Food | Tea", 3.0)


def test_another_sheet_and_another_header_row_are_read_where_they_are_named(tmp_path: Path) -> None:
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["See the next sheet"])
    second = book.create_sheet("Products")
    for row in (["Our range"], ["id", "title"], [1, "Red mug"]):
        second.append(row)
    book.save(tmp_path / "range.xlsx")
    (mug,), _ = look(tmp_path / "range.xlsx", sheet="Products", skip_rows=1)
    assert (mug.id, mug.title) == ("1", "Red mug")


def test_magento_children_go_to_the_parent_that_lists_them(tmp_path: Path) -> None:
    path = write(tmp_path, "catalog_product.csv", (
        "sku,attribute_set_code,product_type,categories,name,price,base_image,"
        "configurable_variations,visibility\n"
        "T-R,Default,simple,,Tee red,19,/r.jpg,,Not Visible Individually\n"
        'T,Default,configurable,"Default Category/Tees",Tee,,/t.jpg,'
        '"sku=T-R,color=Red|sku=T-B,color=Blue","Catalog, Search"\n'
        "T-B,Default,simple,,Tee blue,21,/b.jpg,,Not Visible Individually\n"
        "X,Default,simple,,Other,5,/x.jpg,,Not Visible Individually\n"
    ))  # fmt: skip
    (tee,), lines = look(path)
    assert (tee.id, tee.category, tee.price) == ("T", "Tees", 19.0)
    assert [Path(one).name for one in pictures_of(tee)] == ["t.jpg", "r.jpg", "b.jpg"]
    assert [v["sku"] for v in json.loads(str(tee.attributes["variants"]))] == ["T-R", "T-B"]
    assert "1 product from 4 rows" in lines[0]


def test_shopify_products_json_has_prices_and_pictures(tmp_path: Path) -> None:
    variants = [{"id": 1, "option1": "S", "price": "9.50"}, {"id": 2, "price": "11.00"}]
    images = [{"id": 5, "src": f"https://a.test/{i}.jpg", "position": i} for i in (1, 2)]
    mug = {
        "id": 77, "handle": "red-mug", "title": "Red mug", "body_html": "<p>Holds 300 ml</p>",
        "vendor": "Acme", "product_type": "Mugs", "tags": ["a"], "variants": variants,
        "images": images, "options": [],
    }  # fmt: skip
    path = write(tmp_path, "products.json", json.dumps({"products": [mug]}))
    (found,), lines = look(path)
    assert (found.id, found.price, found.category) == ("red-mug", 9.5, "Mugs")
    assert pictures_of(found) == ["https://a.test/1.jpg", "https://a.test/2.jpg"]
    assert json.loads(str(found.attributes["variants"])) == variants
    assert lines[0].startswith("read as: Shopify products.json; 1 product, 2 pictures")


def test_meta_catalogue_is_read_below_its_template_row(tmp_path: Path) -> None:
    path = write(tmp_path, "catalog_products.csv", (
        '"# Required | A unique id","# Required | A title",,,,,,\n'
        "id,title,description,availability,price,image_link,additional_image_link,"
        "fb_product_category\n"
        'm1,Tea,Green,in stock,"4.50 USD",https://s.test/1.jpg,https://s.test/2.jpg,'
        "Food & Beverages > Tea\n"
    ))  # fmt: skip
    (tea,), _ = look(path)
    assert (tea.id, tea.price, tea.category) == ("m1", 4.5, "Food & Beverages | Tea")
    assert len(pictures_of(tea)) == 2


def test_a_hugging_face_folder_is_read_by_its_metadata(tmp_path: Path) -> None:
    lines = [{"file_name": f"{i}.png", "text": f"mug {i}", "label": "Mugs"} for i in range(2)]
    path = write(tmp_path, "metadata.jsonl", "\n".join(map(json.dumps, lines)))
    products, (line,) = look(path)
    assert [(p.title, p.category, p.image) for p in products] == [
        (f"mug {i}", "Mugs", str(tmp_path / f"{i}.png")) for i in range(2)
    ]
    assert line.startswith("read as: Hugging Face picture folder; 2 products, 2 pictures")


def test_berkeley_objects_have_their_english_texts(tmp_path: Path) -> None:
    def tagged(**texts: str) -> list[dict[str, str]]:
        return [{"language_tag": tag, "value": text} for tag, text in texts.items()]

    mug = {
        "item_id": "B1", "item_name": tagged(de_DE="Becher", en_GB="Mug"),
        "product_type": [{"value": "MUG"}], "main_image_id": "81x", "brand": tagged(en_GB="Acme"),
        "bullet_point": tagged(de_DE="Rot", en_GB="Red"), "marketplace": "Amazon",
    }  # fmt: skip
    path = write(tmp_path, "listings_0.json", json.dumps(mug) + "\n")
    (found,), lines = look(path)
    assert (found.id, found.title, found.category) == ("B1", "Mug", "MUG")
    assert (found.description, found.brand) == ("Red", "Acme")
    assert lines[0].startswith("read as: Amazon Berkeley Objects")


@pytest.mark.parametrize(
    ("text", "amount", "currency"),
    [
        ("1.299,00 €", 1299.0, "EUR"),
        ("Rs. 1,299/-", 1299.0, "INR"),
        ("299:-", 299.0, None),
        ("1980円", 1980.0, "JPY"),
        ("From $10", 10.0, "USD"),
        ("€ 12,-", 12.0, "EUR"),
        ("CHF 1'299.00", 1299.0, "CHF"),
        ("1 299,00 zł", 1299.0, "PLN"),
        ("47.00 INR", 47.0, "INR"),
        ("£5.00 \u2013 £8.00", 5.0, "GBP"),
    ],
)
def test_a_price_in_a_usual_notation_is_an_amount_and_a_currency(
    text: str, amount: float, currency: str | None, tmp_path: Path
) -> None:
    path = write(tmp_path, "a.csv", f'id,title,price\n1,mug,"{text}"\n')
    (mug,), _ = look(path)
    assert (mug.price, mug.attributes.get("currency")) == (amount, currency)
