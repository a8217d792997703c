"""Grade-school mathematics: word problems and exercises whose answers are computed."""

from fractions import Fraction
from math import comb, gcd, lcm

import numpy as np

from .base import Draw, Pair, draw_from, number, pick

NAMES = (
    "Maria", "Tom", "Aisha", "Ben", "Chloe", "David", "Elena", "Farid", "Grace", "Hugo",
    "Ines", "Jack", "Kenji", "Lara", "Mateo", "Nina", "Omar", "Priya", "Quinn", "Rosa",
    "Sam", "Tara", "Umar", "Vera", "Will", "Yara", "Zoe", "Leo", "Mia", "Noah",
)  # fmt: skip
GOODS = (
    ("apple", "apples"), ("pencil", "pencils"), ("notebook", "notebooks"), ("ticket", "tickets"),
    ("muffin", "muffins"), ("book", "books"), ("marble", "marbles"), ("sticker", "stickers"),
    ("balloon", "balloons"), ("cookie", "cookies"), ("bottle", "bottles"), ("orange", "oranges"),
)  # fmt: skip
PLACES = ("bakery", "school", "library", "farm", "factory", "museum", "garden shop", "bookshop")
VEHICLES = ("car", "train", "bus", "cyclist", "truck", "boat")
LEADS = ("", "", "", "Solve this step by step. ", "Help me with my homework: ",
         "Please show your work. ",
         "I am preparing for a test next week and my solution differs from the one printed at the "
         "end of the textbook. ")  # fmt: skip


def _pair(text: str, steps: str, answer: object) -> Pair:
    return Pair(text, f"{steps} The answer is {answer}.")


def shopping(rng: np.random.Generator) -> Pair:
    """Total price of two kinds of goods, or the change from a note."""
    name = pick(rng, NAMES)
    one, other = GOODS[number(rng, 0, 5)], GOODS[number(rng, 6, 11)]
    n, p, m, q = (number(rng, 2, 9) for _ in range(4))
    total = n * p + m * q
    bought = f"{name} buys {n} {one[1]} for ${p} each and {m} {other[1]} for ${q} each."
    steps = (
        f"The {one[1]} cost {n} * {p} = {n * p} dollars and the {other[1]} cost {m} * {q} = "
        + (f"{m * q} dollars, so the total is {n * p} + {m * q} = {total} dollars.")
    )
    if rng.random() < 0.5:
        return _pair(f"{bought} How much does {name} pay in total?", steps, f"${total}")
    note = (total // 50 + 1) * 50
    text = f"{bought} {name} pays with ${note}. How much change does {name} get?"
    return _pair(text, f"{steps} The change is {note} - {total} = {note - total}.",
                 f"${note - total}")  # fmt: skip


def speed(rng: np.random.Generator) -> Pair:
    """Distance, time or speed of a vehicle at constant speed."""
    vehicle, pace, hours = pick(rng, VEHICLES), 5 * number(rng, 3, 24), number(rng, 2, 9)
    way = pace * hours
    kind = number(rng, 0, 2)
    if kind == 0:
        text = f"A {vehicle} travels at {pace} km per hour for {hours} hours. How far does it go?"
        return _pair(text, f"Distance is speed times time: {pace} * {hours} = {way}.",
                     f"{way} km")  # fmt: skip
    if kind == 1:
        text = f"A {vehicle} covers {way} km at {pace} km per hour. How many hours does it take?"
        return _pair(text, f"Time is distance over speed: {way} / {pace} = {hours}.",
                     f"{hours} hours")  # fmt: skip
    text = f"A {vehicle} needs {hours} hours for {way} km. What is its average speed?"
    return _pair(text, f"Speed is distance over time: {way} / {hours} = {pace}.",
                 f"{pace} km per hour")  # fmt: skip


def percentage(rng: np.random.Generator) -> Pair:
    """A percentage of a number, or a price after a discount."""
    share, whole = 5 * number(rng, 1, 18), 20 * number(rng, 2, 40)
    part = share * whole // 100
    if rng.random() < 0.5:
        steps = f"{share}% of {whole} is {share} / 100 * {whole} = {part}."
        return _pair(f"What is {share}% of {whole}?", steps, part)
    text = f"A jacket costs ${whole}. In a sale its price drops by {share}%. What is the new price?"
    steps = f"The discount is {share}% of {whole}, which is {part}, and {whole} - {part} = "
    return _pair(text, f"{steps}{whole - part}.", f"${whole - part}")


def linear(rng: np.random.Generator) -> Pair:
    """A linear equation with a whole solution."""
    x, a, b = number(rng, -9, 15), number(rng, 2, 12), number(rng, 1, 40)
    if rng.random() < 0.6:
        left, steps = f"{a}x + {b} = {a * x + b}", f"Subtract {b} from both sides: {a}x = {a * x}."
    else:
        left, steps = f"{a}x - {b} = {a * x - b}", f"Add {b} to both sides: {a}x = {a * x}."
    text = pick(rng, ("Solve for x: {}", "Find x if {}.", "What is the value of x when {}?",
                      "Solve the equation {}."))  # fmt: skip
    return _pair(text.format(left), f"{steps} Divide by {a}: x = {x}.", f"x = {x}")


def geometry(rng: np.random.Generator) -> Pair:
    """Area, perimeter or volume of a simple figure."""
    a, b, c = number(rng, 2, 25), number(rng, 2, 25), number(rng, 2, 12)
    kind = number(rng, 0, 4)
    if kind == 0:
        text = f"What is the area of a rectangle that is {a} cm long and {b} cm wide?"
        return _pair(text, f"Area is length times width: {a} * {b} = {a * b}.",
                     f"{a * b} square cm")  # fmt: skip
    if kind == 1:
        text = f"Find the perimeter of a rectangle with sides {a} m and {b} m."
        total = 2 * (a + b)
        return _pair(text, f"The perimeter is 2 * ({a} + {b}) = {total}.", f"{total} m")
    if kind == 2:
        text = f"A triangle has a base of {2 * a} cm and a height of {b} cm. What is its area?"
        steps = f"The area is half of base times height: {2 * a} * {b} / 2 = {a * b}."
        return _pair(text, steps, f"{a * b} square cm")
    if kind == 3:
        text = f"A box is {a} cm long, {b} cm wide and {c} cm high. What is its volume?"
        steps = f"The volume is {a} * {b} * {c} = {a * b * c}."
        return _pair(text, steps, f"{a * b * c} cubic cm")
    text = f"Two angles of a triangle measure {3 * a} and {3 * b} degrees. How large is the third?"
    third = 180 - 3 * a - 3 * b
    return _pair(text, f"The angles add up to 180: 180 - {3 * a} - {3 * b} = {third}.",
                 f"{third} degrees")  # fmt: skip


def fractions(rng: np.random.Generator) -> Pair:
    """The sum, difference or product of two fractions in lowest terms."""
    p = Fraction(number(rng, 1, 8), number(rng, 2, 9))
    q = Fraction(number(rng, 1, 8), number(rng, 2, 9))
    sign, value = pick(rng, (("+", p + q), ("-", p - q), ("*", p * q)))
    first, second = f"{p.numerator}/{p.denominator}", f"{q.numerator}/{q.denominator}"
    text = pick(rng, ("Calculate {} and give the result in lowest terms.", "What is {}?",
                      "Simplify the expression {}."))  # fmt: skip
    base = lcm(p.denominator, q.denominator)
    steps = "Multiply the numerators and the denominators, then reduce."
    if sign != "*":
        steps = f"The common denominator is {base}."
    return _pair(text.format(f"{first} {sign} {second}"), steps, value)


def mean(rng: np.random.Generator) -> Pair:
    """The mean of a few whole numbers."""
    count = number(rng, 3, 6)
    values = [number(rng, 1, 60) for _ in range(count - 1)]
    last = number(rng, 1, 60)
    values.append(last + -(sum(values) + last) % count)
    total = sum(values)
    shown = ", ".join(map(str, values))
    text = pick(rng, ("Find the mean of {}.", "What is the average of the numbers {}?",
                      "The scores of a team are {}. What is the average score?"))  # fmt: skip
    steps = f"The sum is {total} and there are {count} numbers: {total} / {count}."
    return _pair(text.format(shown), steps, total // count)


def sequence(rng: np.random.Generator) -> Pair:
    """The next or a later term of an arithmetic or geometric sequence."""
    start, step, place = number(rng, 1, 20), number(rng, 2, 11), number(rng, 8, 30)
    if rng.random() < 0.35:
        ratio = number(rng, 2, 4)
        terms = [start * ratio**i for i in range(5)]
        text = f"What is the next number in the sequence {', '.join(map(str, terms[:4]))}?"
        return _pair(text, f"Each term is {ratio} times the one before.", terms[4])
    terms = [start + step * i for i in range(4)]
    text = f"The sequence {', '.join(map(str, terms))} goes on. What is term number {place}?"
    value = start + step * (place - 1)
    steps = f"Each term is {step} more: {start} + {step} * {place - 1} = {value}."
    return _pair(text, steps, value)


def divisors(rng: np.random.Generator) -> Pair:
    """Greatest common divisor, least common multiple or remainder."""
    a, b = number(rng, 12, 96), number(rng, 12, 96)
    kind = number(rng, 0, 2)
    if kind == 0:
        text = f"What is the greatest common divisor of {a} and {b}?"
        return _pair(text, f"Both are multiples of {gcd(a, b)} and of no larger number.",
                     gcd(a, b))  # fmt: skip
    if kind == 1:
        text = f"Find the least common multiple of {a} and {b}."
        return _pair(text, f"It is {a} * {b} divided by {gcd(a, b)}.", lcm(a, b))
    divisor = number(rng, 3, 11)
    text = f"What remainder is left when {a * b} is divided by {divisor}?"
    steps = f"{divisor} * {a * b // divisor} = {a * b // divisor * divisor}."
    return _pair(text, steps, a * b % divisor)


def arithmetic(rng: np.random.Generator) -> Pair:
    """An expression with two operations."""
    a, b, c = number(rng, 2, 99), number(rng, 2, 20), number(rng, 2, 20)
    shown, value = pick(rng, (
        (f"{a} + {b} * {c}", a + b * c), (f"({a} + {b}) * {c}", (a + b) * c),
        (f"{a} * {b} - {c}", a * b - c), (f"{a} * ({b} + {c})", a * (b + c)),
    ))  # fmt: skip
    text = pick(rng, ("What is {}?", "Calculate {}.", "Evaluate {}.", "Work out {} for me."))
    return _pair(text.format(shown), f"{shown} = {value}.", value)


def sharing(rng: np.random.Generator) -> Pair:
    """Things given away and shared equally among friends."""
    name, goods = pick(rng, NAMES), pick(rng, GOODS)[1]
    friends, each, given = number(rng, 2, 9), number(rng, 2, 15), number(rng, 2, 20)
    total = friends * each + given
    text = (
        f"{name} has {total} {goods}. After giving {given} {goods} to a neighbor, {name} shares "
        f"the rest equally among {friends} friends. How many {goods} does each friend get?"
    )
    steps = (
        f"There are {total} - {given} = {total - given} left, and {total - given} / {friends} = "
    )
    return _pair(text, f"{steps}{each}.", each)


def ages(rng: np.random.Generator) -> Pair:
    """Ages of two people from their ratio and sum."""
    first, second = pick(rng, NAMES[:15]), pick(rng, NAMES[15:])
    times, young = number(rng, 2, 5), number(rng, 4, 16)
    total = young * (times + 1)
    text = (
        f"{first} is {times} times as old as {second}. Together they are {total} years old. "
        f"How old is {second}?"
    )
    steps = f"Let {second} be x years old. Then x + {times}x = {total}, so {times + 1}x = {total}."
    return _pair(text, steps, young)


def production(rng: np.random.Generator) -> Pair:
    """Weekly output of a place, some of which is spoilt."""
    place, goods = pick(rng, PLACES), pick(rng, GOODS)[1]
    rate, hours, days, lost = (
        number(rng, 6, 60), number(rng, 2, 9), number(rng, 2, 7), number(rng, 3, 12)
    )  # fmt: skip
    total = rate * hours * days
    text = (
        f"A {place} packs {rate} {goods} every hour and works {hours} hours a day. In {days} days "
        f"{lost} of the {goods} get lost. How many {goods} are left at the end?"
    )
    steps = f"In {days} days it packs {rate} * {hours} * {days} = {total}. {total} - {lost} = "
    return _pair(text, f"{steps}{total - lost}.", total - lost)


def chance(rng: np.random.Generator) -> Pair:
    """The probability of a colour, or a number of combinations."""
    red, blue = number(rng, 2, 12), number(rng, 2, 12)
    if rng.random() < 0.6:
        text = (
            f"A bag holds {red} red and {blue} blue balls. One ball is drawn at random. "
            "What is the probability that it is red?"
        )
        steps = f"There are {red + blue} balls and {red} of them are red."
        return _pair(text, steps, Fraction(red, red + blue))
    n, k = number(rng, 5, 14), number(rng, 2, 3)
    text = f"In how many ways can {k} students be chosen from a group of {n}?"
    return _pair(text, f"That is {n} choose {k}.", comb(n, k))


def derivative(rng: np.random.Generator) -> Pair:
    """The derivative or a value of a polynomial."""
    a, b, c = number(rng, 2, 9), number(rng, 2, 12), number(rng, 1, 30)
    if rng.random() < 0.5:
        text = f"What is the derivative of f(x) = {a}x^2 + {b}x + {c}?"
        return _pair(text, "Use the power rule on each term.", f"{2 * a}x + {b}")
    x = number(rng, 2, 7)
    value = a * x * x + b * x + c
    text = f"Let f(x) = {a}x^2 + {b}x + {c}. Compute f({x})."
    steps = f"f({x}) = {a} * {x * x} + {b} * {x} + {c} = {value}."
    return _pair(text, steps, value)


DRAWS: tuple[Draw, ...] = (
    shopping, speed, percentage, linear, geometry, fractions, mean, sequence, divisors,
    arithmetic, sharing, ages, production, chance, derivative,
)  # fmt: skip


def draw(rng: np.random.Generator) -> Pair:
    """Draw a mathematical question with its worked answer."""
    return draw_from(DRAWS, rng)
