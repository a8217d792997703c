"""Tables for stories and other texts: heroes, places, objects, moods, occasions, images."""

HEROES = (
    "a lonely lighthouse keeper", "a young dragon", "a retired astronaut", "a clumsy wizard",
    "a street musician", "a curious robot", "a runaway princess", "an old sailor", "a shy ghost",
    "a brave little fox", "a time traveler", "a talking tree", "a blind painter",
    "a tired detective",
    "an orphaned shepherd", "a clockmaker", "a mermaid", "a circus acrobat", "a village baker",
    "a forgotten king", "a snow owl", "a beekeeper",
)  # fmt: skip
PLACES = (
    "an abandoned theater", "a floating city", "a misty forest", "a desert caravan",
    "a quiet harbor town", "a castle in the clouds", "an underwater library", "a snowbound cabin",
    "a night train", "a secret garden", "a ruined temple", "a busy marketplace", "a distant planet",
    "a flooded valley", "a small attic room", "a moonlit beach", "a haunted mansion",
)  # fmt: skip
OBJECTS = (
    "a silver key", "a broken compass", "a letter without a sender", "a glowing stone",
    "an old violin", "a map of stars", "a music box", "a red umbrella", "a golden feather",
    "a mirror that lies", "a locked diary", "a paper boat", "a candle that never burns down",
)  # fmt: skip
TONES = (
    "funny", "mysterious", "melancholy", "heartwarming", "dark", "romantic", "hopeful", "magical",
    "dramatic", "playful", "dreamy", "suspenseful", "cheerful", "nostalgic", "whimsical",
)  # fmt: skip
FEELINGS = (
    "hope", "longing", "wonder", "courage", "homesickness", "joy", "friendship", "freedom",
    "first love", "loneliness", "gratitude", "curiosity",
)  # fmt: skip
SEASONS = ("spring", "summer", "autumn", "winter")
EVENTS = (
    "at a winter wedding", "on the last day of summer", "after the great storm",
    "at the end of the war", "on the eve of a long voyage", "at a school reunion",
    "during a power cut", "under a sky full of lanterns", "at the opening of a bakery",
    "on the first snow of the year", "at midnight in the old town",
    "after a hundred years of sleep",
)  # fmt: skip
PRODUCTS = (
    "a handmade candle", "a pair of running shoes", "an organic tea", "a folding bicycle",
    "a smart alarm clock", "a chocolate bar with sea salt", "a wooden toy train",
    "a rain jacket", "a family bakery", "a travel backpack", "a jar of wild honey",
    "a new coffee shop", "a notebook with a linen cover", "a pottery class", "a garden lamp",
)  # fmt: skip
# why somebody writes, to whom
OCCASIONS = (
    ("to apologize for missing the rehearsal", "the director of my choir"),
    ("to invite everyone to a garden party", "my neighbors"),
    ("to thank you for the wonderful dinner", "a friend from work"),
    ("to ask for a few days off", "my manager"),
    ("to congratulate you on the new baby", "my cousin"),
    ("to complain about a damaged parcel", "the delivery company"),
    ("to apply for the position of gardener", "the botanical garden"),
    ("to say goodbye before moving abroad", "my colleagues"),
    ("to announce a charity concert", "the local newspaper"),
    ("to ask for a letter of recommendation", "my former professor"),
    ("to cancel a hotel booking", "the hotel reception"),
    ("to wish you a happy birthday", "my grandfather"),
    ("to suggest a new reading club", "the town library"),
    ("to share news from a long journey", "my best friend"),
)
# lines of a poem
IMAGES = (
    "the wind hums softly through the open door", "a single star leans over the sleeping roofs",
    "the river carries moonlight to the sea", "old footsteps fade along the silver shore",
    "a bird unfolds the morning with its song", "the rain writes letters on the window glass",
    "the snow keeps all the secrets of the field", "the lanterns dance above the narrow street",
    "a whisper wanders through the yellow leaves", "the clouds are ships that never come to land",
    "my shadow waits for me beside the gate", "the fire tells its story to the night",
    "the roses hold the sunlight in their hands", "the mountains dream beneath a quilt of mist",
    "an echo answers from the empty hall", "the tide returns with pebbles and with foam",
)  # fmt: skip
