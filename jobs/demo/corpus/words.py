"""Tables of English words: verbs with their forms, nouns, adjectives, idioms, common mistakes."""

# base, third person, past, participle, -ing
VERBS = tuple(
    tuple(line.split())
    for line in """
write writes wrote written writing
read reads read read reading
paint paints painted painted painting
clean cleans cleaned cleaned cleaning
break breaks broke broken breaking
find finds found found finding
carry carries carried carried carrying
sell sells sold sold selling
draw draws drew drawn drawing
wash washes washed washed washing
steal steals stole stolen stealing
open opens opened opened opening
choose chooses chose chosen choosing
build builds built built building
hide hides hid hidden hiding
lift lifts lifted lifted lifting
bring brings brought brought bringing
repair repairs repaired repaired repairing
move moves moved moved moving
take takes took taken taking
""".strip().splitlines()
)
# people, all third person singular
PEOPLE = (
    "the teacher", "my brother", "the gardener", "our neighbor", "the young girl", "the artist",
    "the old man", "her cousin", "the pilot", "a tourist", "the nurse", "the farmer", "his aunt",
    "the student", "the captain", "a musician", "the baker", "the manager",
)  # fmt: skip
# any of them with any verb makes a grammatical, if sometimes odd, sentence
THINGS = (
    "letter", "picture", "table", "box", "sign", "book", "lamp", "chair", "map", "basket",
    "wooden toy", "blue vase", "heavy suitcase", "tiny boat", "green bottle", "old clock",
)  # fmt: skip
ADVERBS = ("quickly", "carefully", "quietly", "slowly", "happily", "suddenly", "gently", "eagerly")
TIMES = ("every morning", "on Sundays", "in the evening", "after lunch", "before sunrise",
         "at noon", "during the winter", "on rainy days")  # fmt: skip
PLACES = ("in the garden", "near the river", "behind the house", "at the market", "in the attic",
          "under the bridge", "beside the window", "on the terrace")  # fmt: skip

# word, synonym, antonym, part of speech
WORDS = tuple(
    tuple(line.split())
    for line in """
happy joyful sad adjective
large huge small adjective
quick fast slow adjective
brave courageous cowardly adjective
ancient old modern adjective
difficult hard easy adjective
silent quiet noisy adjective
wealthy rich poor adjective
clever smart foolish adjective
gentle mild harsh adjective
begin start finish verb
accept receive refuse verb
increase grow decrease verb
arrive come depart verb
remember recall forget verb
protect defend attack verb
victory triumph defeat noun
courage bravery fear noun
friend companion enemy noun
beauty loveliness ugliness noun
generous giving selfish adjective
bright shiny dark adjective
polite courteous rude adjective
calm peaceful nervous adjective
rarely seldom often adverb
quickly rapidly slowly adverb
enormous gigantic tiny adjective
honest truthful dishonest adjective
strange odd ordinary adjective
humble modest proud adjective
""".strip().splitlines()
)
PLURALS = tuple(
    tuple(line.split())
    for line in """
child children
mouse mice
leaf leaves
tooth teeth
city cities
knife knives
foot feet
goose geese
analysis analyses
cactus cacti
potato potatoes
sheep sheep
woman women
wolf wolves
baby babies
church churches
crisis crises
ox oxen
hero heroes
thief thieves
phenomenon phenomena
criterion criteria
shelf shelves
berry berries
""".strip().splitlines()
)
# adjective, comparative, superlative
GRADES = tuple(
    tuple(part.strip() for part in line.split(","))
    for line in """
good, better, best
bad, worse, worst
far, farther, farthest
happy, happier, happiest
big, bigger, biggest
careful, more careful, most careful
thin, thinner, thinnest
little, less, least
simple, simpler, simplest
beautiful, more beautiful, most beautiful
heavy, heavier, heaviest
expensive, more expensive, most expensive
hot, hotter, hottest
friendly, friendlier, friendliest
modern, more modern, most modern
""".strip().splitlines()
)
IDIOMS = (
    ("break the ice", "to make people feel more relaxed when they meet"),
    ("a piece of cake", "something that is very easy"),
    ("hit the nail on the head", "to say exactly the right thing"),
    ("under the weather", "feeling slightly ill"),
    ("spill the beans", "to tell a secret"),
    ("once in a blue moon", "very rarely"),
    ("cost an arm and a leg", "to be very expensive"),
    ("bite the bullet", "to face something unpleasant with courage"),
    ("let the cat out of the bag", "to reveal a secret by accident"),
    ("burn the midnight oil", "to work late into the night"),
    ("on the same page", "in agreement about something"),
    ("cut corners", "to do something in a cheap or careless way"),
    ("pull someone's leg", "to tease somebody as a joke"),
    ("the last straw", "the final problem that makes a situation too much"),
    ("keep an eye on something", "to watch it carefully"),
    ("call it a day", "to stop working for now"),
)
# wrong pattern, right pattern, reason; {p} a person, {t} a thing
MISTAKES = (
    ("{p} don't like the {t}.", "{p} doesn't like the {t}.",
     "a singular subject takes 'doesn't'"),
    ("{p} have seen the {t} yesterday.", "{p} saw the {t} yesterday.",
     "'yesterday' calls for the simple past"),
    ("{p} has went home with the {t}.", "{p} has gone home with the {t}.",
     "the participle of 'go' is 'gone'"),
    ("There is many reasons why {p} needs a {t}.", "There are many reasons why {p} needs a {t}.",
     "the plural noun 'reasons' needs 'are'"),
    ("{p} is more taller than the {t}.", "{p} is taller than the {t}.",
     "the comparative is not doubled"),
    ("{p} forgot the {t} it's lid.", "{p} forgot the {t} and its lid.",
     "'its' is the possessive, 'it's' means 'it is'"),
    ("{p} and me carried the {t}.", "{p} and I carried the {t}.",
     "a subject pronoun is needed"),
    ("Me told {p} about the {t}.", "I told {p} about the {t}.", "a subject pronoun is needed"),
    ("{p} should of brought the {t}.", "{p} should have brought the {t}.",
     "the verb form is 'should have'"),
    ("{p} didn't took the {t}.", "{p} didn't take the {t}.", "after 'did' the base form follows"),
    ("Their is a {t} that {p} wants.", "There is a {t} that {p} wants.",
     "'there' is the right word here"),
    ("{p} is interested on the {t}.", "{p} is interested in the {t}.",
     "'interested' goes with 'in'"),
)  # fmt: skip
AFFIXES = (
    ("un", "unhappy, unfair and unlock", "not or the reverse of"),
    ("re", "rewrite, rebuild and replay", "again"),
    ("pre", "preview, preheat and prepay", "before"),
    ("mis", "misread, mislead and misplace", "wrongly"),
    ("sub", "subway, submarine and subtitle", "under"),
    ("inter", "international, interact and interview", "between"),
    ("dis", "disagree, dislike and disappear", "the opposite of"),
    ("over", "oversleep, overcook and overpay", "too much"),
)
TERMS = (
    ("a noun", "a word that names a person, place, thing or idea", "garden"),
    ("an adverb", "a word that describes a verb, an adjective or another adverb", "slowly"),
    ("a conjunction", "a word that joins words or clauses", "because"),
    ("a preposition", "a word that shows how a noun relates to another word", "under"),
    ("a metaphor", "a figure of speech that describes one thing as another", "time is a thief"),
    ("a simile", "a comparison with 'like' or 'as'", "as brave as a lion"),
    ("an infinitive", "the base form of a verb, often after 'to'", "to sing"),
    ("a gerund", "a verb form in -ing that works as a noun", "swimming is fun"),
    ("a homophone", "a word that sounds like another but is spelled differently", "sea and see"),
    ("an oxymoron", "two opposite words put together", "a deafening silence"),
    ("a pronoun", "a word that stands for a noun", "they"),
    ("a palindrome", "a word that reads the same both ways", "level"),
    ("alliteration", "the repetition of the same first sound", "wild winds whistle"),
    ("a relative clause", "a clause that describes a noun", "the man who sings"),
    ("a modal verb", "a helping verb that shows ability or duty", "must"),
    ("an acronym", "a word built from the first letters of other words", "NASA"),
)
