"""The kinds of things: what the sample shop sells, and what only the tiny CLIP has seen."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from kinshelf.samples.generator import extras, home, toys, vehicles
from kinshelf.samples.generator.drawing import COLOURS, PATTERNS

if TYPE_CHECKING:
    from collections.abc import Callable

    from kinshelf.samples.generator.appearance import Look
    from kinshelf.samples.generator.drawing import Canvas

HOUSE = ("studio", "paper", "table", "wallpaper")
FLOOR = ("studio", "paper", "planks", "table")
OUTSIDE = ("sky", "outdoors", "sky", "studio", "paper")
WARM = ("brown", "beige", "orange", "yellow", "grey", "white", "pink")
GLAZES = ("white", "blue", "teal", "beige", "grey", "green", "red", "black", "yellow")
VIVID = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "teal")


@dataclass(frozen=True, slots=True)
class Concept:
    """One sort of thing.

    `category` is None for what the shop does not sell. `kinds` maps each kind that the painter
    knows to the nouns it goes by in a title. `family` groups what a vague title could be taken for:
    "boxed", "soft", "fired" or "other". `ages` and `pieces` are empty where neither applies.
    """

    category: str | None
    paint: Callable[[Canvas, Look], None]
    kinds: dict[str, tuple[str, ...]]
    colours: tuple[str, ...]
    materials: tuple[str, ...]
    prices: tuple[float, float]
    details: tuple[str, ...]
    family: str = "other"
    ages: tuple[int, ...] = ()
    pieces: tuple[int, ...] = ()
    backgrounds: tuple[str, ...] = HOUSE
    patterns: tuple[str, ...] = PATTERNS
    themed: bool = False
    stands: bool = True
    fuzzy: bool = False
    disguises: bool = False


CONCEPTS: dict[str, Concept] = {
    "jigsaw": Concept(
        category="Toys & Games | Puzzles | Jigsaw Puzzles",
        paint=toys.jigsaw,
        kinds={"laid": ("Jigsaw Puzzle", "Puzzle", "Floor Puzzle")},
        colours=tuple(COLOURS),
        materials=("cardboard", "wood", "cork"),
        prices=(8, 32),
        details=(
            "Every piece is cut differently and fits only its neighbour",
            "The finished picture measures 20 by 27 inches",
            "Puzzle poster included to help with the edges",
        ),
        family="boxed",
        ages=(3, 5, 8, 12),
        pieces=(24, 48, 100, 300, 500, 1000),
        backgrounds=FLOOR,
        themed=True,
        stands=False,
        disguises=True,
    ),
    "board game": Concept(
        category="Toys & Games | Games & Accessories | Board Games",
        paint=toys.board_game,
        kinds={
            "race": ("Board Game", "Family Board Game", "Strategy Game"),
            "checkers": ("Checkers Set", "Draughts Board Game"),
            "ladders": ("Snakes and Ladders Game", "Ladders Board Game"),
        },
        colours=tuple(COLOURS),
        materials=("cardboard", "wood"),
        prices=(10, 48),
        details=(
            "Roll the dice, move your pawn and be the first to reach the goal",
            "For 2 to 4 players, one round takes 30 minutes",
            "Contains a folding board, pawns, two dice and the rules",
        ),
        family="boxed",
        ages=(4, 6, 8, 12),
        pieces=(24, 48, 100),
        backgrounds=FLOOR,
        themed=True,
        stands=False,
        disguises=True,
    ),
    "plush": Concept(
        category="Toys & Games | Stuffed Animals & Plush Toys | Stuffed Animals & Teddy Bears",
        paint=toys.plush,
        kinds={
            "bear": ("Teddy Bear", "Plush Bear"),
            "bunny": ("Plush Bunny", "Stuffed Rabbit"),
            "cat": ("Plush Cat", "Stuffed Kitten"),
            "elephant": ("Plush Elephant", "Stuffed Elephant"),
            "penguin": ("Plush Penguin", "Stuffed Penguin"),
            "panda": ("Plush Panda", "Stuffed Panda Bear"),
            "fox": ("Plush Fox", "Stuffed Fox"),
        },
        colours=WARM,
        materials=("plush", "cotton", "wool"),
        prices=(9, 36),
        details=(
            "Super soft fur and a huggable tummy",
            "Embroidered eyes, surface washable",
            "Sits 10 inches tall and loves cuddles",
        ),
        family="soft",
        ages=(0, 1, 3),
        fuzzy=True,
    ),
    "blocks": Concept(
        category="Toys & Games | Building Toys | Building Blocks",
        paint=toys.blocks,
        kinds={
            "bricks": ("Building Bricks", "Brick Building Set"),
            "wooden": ("Wooden Building Blocks", "Stacking Cubes"),
            "castle": ("Castle Building Blocks", "Block Castle Set"),
        },
        colours=VIVID,
        materials=("plastic", "wood", "cardboard"),
        prices=(12, 60),
        details=(
            "Stack, build, knock over and start again",
            "Works with the blocks of all major systems",
            "Rounded edges for small hands, storage bag included",
        ),
        family="boxed",
        ages=(1, 3, 5, 8),
        pieces=(24, 48, 100, 300, 500),
        backgrounds=FLOOR,
        disguises=True,
    ),
    "vehicle": Concept(
        category="Toys & Games | Play Vehicles | Cars & Trucks",
        paint=vehicles.vehicle,
        kinds={
            "car": ("Toy Car", "Pull Back Car"),
            "truck": ("Toy Truck", "Delivery Truck"),
            "fire engine": ("Fire Engine", "Fire Truck Toy"),
            "bus": ("Toy Bus", "City Bus"),
            "tractor": ("Toy Tractor", "Farm Tractor"),
            "train": ("Toy Train", "Steam Train Engine"),
        },
        colours=VIVID,
        materials=("metal", "plastic", "wood"),
        prices=(6, 40),
        details=(
            "Free-rolling wheels for indoor and outdoor races",
            "Doors open and the horn really sounds",
            "Die-cast body, scale 1:32",
        ),
        family="boxed",
        ages=(1, 3, 5),
        pieces=(24, 48),
        backgrounds=(*HOUSE, "outdoors"),
        disguises=True,
    ),
    "mug": Concept(
        category="Home & Kitchen | Dining | Mugs & Cups",
        paint=home.mug,
        kinds={
            "classic": ("Coffee Mug", "Mug", "Tea Cup"),
            "tall": ("Latte Mug", "Tall Mug"),
            "espresso": ("Espresso Cup", "Small Coffee Cup"),
        },
        colours=GLAZES,
        materials=("stoneware", "ceramic", "porcelain", "enamel"),
        prices=(6, 26),
        details=(
            "Holds 12 oz of coffee, tea or cocoa",
            "Dishwasher and microwave safe",
            "A comfortable handle for cold mornings",
        ),
        family="fired",
        disguises=True,
    ),
    "pot": Concept(
        category="Patio, Lawn & Garden | Planters | Flower Pots",
        paint=home.pot,
        kinds={
            "cactus": ("Cactus Pot", "Planter with Cactus"),
            "fern": ("Plant Pot", "Indoor Planter"),
            "succulent": ("Succulent Planter", "Succulent Pot"),
            "flower": ("Flower Pot", "Flower Planter"),
        },
        colours=("brown", "orange", "white", "beige", "grey", "teal", "green", "blue"),
        materials=("stoneware", "ceramic", "terracotta", "enamel"),
        prices=(7, 38),
        details=(
            "With a drainage hole and a matching saucer",
            "Brings green to the window sill or balcony",
            "Frost resistant, for herbs and house plants",
        ),
        family="fired",
        backgrounds=(*HOUSE, "outdoors"),
        disguises=True,
    ),
    "lamp": Concept(
        category="Home & Kitchen | Lighting | Table Lamps",
        paint=home.lamp,
        kinds={
            "bedside": ("Bedside Lamp", "Table Lamp"),
            "desk": ("Desk Lamp", "Reading Lamp"),
            "mushroom": ("Mushroom Lamp", "Night Light"),
            "tripod": ("Tripod Lamp", "Table Lamp"),
        },
        colours=("white", "beige", "yellow", "grey", "red", "green", "blue", "pink"),
        materials=("ceramic", "metal", "stoneware", "linen"),
        prices=(18, 90),
        details=(
            "Warm dimmable light, E14 bulb included",
            "Switch on the cord, 5 feet long",
            "A cosy glow for the night table",
        ),
        family="fired",
    ),
}
"""What the shop sells."""

NOVELTY = Concept(
    category="Toys & Games | Sports & Outdoor Play | Kites",
    paint=toys.kite,
    kinds={"diamond": ("Diamond Kite", "Kite"), "delta": ("Delta Kite", "Stunt Kite")},
    colours=VIVID,
    materials=("nylon", "polyester", "paper"),
    prices=(8, 45),
    details=(
        "Flies from a light breeze, tail and 100 feet of line included",
        "Easy to launch at the beach or in the park",
        "Fibreglass rods, packs small",
    ),
    ages=(3, 5, 8),
    backgrounds=OUTSIDE,
    stands=False,
)
"""What the shop takes up only after its catalogue was made."""


def _unsold(
    paint: Callable[[Canvas, Look], None], nouns: tuple[str, ...], materials: tuple[str, ...]
) -> Concept:
    return Concept(None, paint, {"": nouns}, VIVID, materials, (5, 60), ())


UNSOLD: dict[str, Concept] = {
    "ball": _unsold(extras.ball, ("Play Ball", "Beach Ball"), ("rubber", "plastic")),
    "clock": _unsold(extras.clock, ("Wall Clock", "Clock"), ("metal", "wood")),
    "book": _unsold(extras.book, ("Picture Book", "Story Book"), ("paper", "cardboard")),
    "bottle": _unsold(extras.bottle, ("Water Bottle", "Bottle"), ("metal", "plastic")),
    "chair": _unsold(extras.chair, ("Kids Chair", "Dining Chair"), ("wood", "metal")),
    "cushion": _unsold(extras.cushion, ("Throw Pillow", "Cushion"), ("cotton", "linen")),
    "boat": _unsold(extras.boat, ("Sailing Boat", "Toy Boat"), ("wood", "plastic")),
    "guitar": _unsold(extras.guitar, ("Toy Guitar", "Ukulele"), ("wood", "plastic")),
    "umbrella": _unsold(extras.umbrella, ("Umbrella", "Rain Umbrella"), ("nylon", "polyester")),
    "backpack": _unsold(extras.backpack, ("Backpack", "School Backpack"), ("nylon", "cotton")),
    "candle": _unsold(extras.candle, ("Scented Candle", "Candle"), ("wax", "glass")),
    "rocket": _unsold(extras.rocket, ("Toy Rocket", "Space Rocket"), ("plastic", "wood")),
    "drum": _unsold(extras.drum, ("Drum", "Toy Drum"), ("wood", "metal")),
    "frame": _unsold(extras.frame, ("Picture Frame", "Photo Frame"), ("wood", "metal")),
}
"""What the shop never sells."""
