"""Answers to the demo's mathematics, worked out from the question's text alone."""

import ast
import operator
import re
from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from math import gcd

OPERATORS: dict[type[ast.operator], Callable[[Fraction, Fraction], Fraction]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
}  # fmt: skip


def evaluated(expression: str) -> Fraction:
    """Evaluate an expression of whole numbers exactly."""

    def value(node: ast.expr) -> Fraction:
        if isinstance(node, ast.BinOp):
            return OPERATORS[type(node.op)](value(node.left), value(node.right))
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        assert isinstance(node, ast.Constant)
        assert isinstance(node.value, int)
        return Fraction(node.value)

    return value(ast.parse(expression.strip(), mode="eval").body)


def root(equation: str) -> Fraction:
    """Find x by trying whole numbers."""
    left, right = equation.split("=")
    solutions = [
        x for x in range(-50, 51) if evaluated(left.replace("x", f" * ({x})")) == evaluated(right)
    ]
    assert len(solutions) == 1
    return Fraction(solutions[0])


def chosen(people: int, group: int) -> int:
    return len(list(combinations(range(people), group)))


def smallest_common_multiple(a: int, b: int) -> int:
    return next(n for n in range(a, a * b + 1, a) if n % b == 0)


Rule = Callable[..., Fraction | int]

# What the question says about its numbers -> the answer. Numbers arrive in the text's order.
RULES: tuple[tuple[str, Rule], ...] = (
    (r"pays with", lambda n, p, m, q, note: note - n * p - m * q),
    (r"pay in total", lambda n, p, m, q: n * p + m * q),
    (r"How far does", lambda pace, hours: pace * hours),
    (r"How many hours does it take", lambda way, pace: Fraction(way, pace)),
    (r"average speed", lambda hours, way: Fraction(way, hours)),
    (r"In a sale", lambda price, share: Fraction(price * (100 - share), 100)),
    (r"% of", lambda share, whole: Fraction(share * whole, 100)),
    (r"area of a rectangle", lambda a, b: a * b),
    (r"perimeter", lambda a, b: a + b + a + b),
    (r"triangle has a base", lambda base, height: Fraction(base * height, 2)),
    (r"volume", lambda a, b, c: a * b * c),
    (r"angles of a triangle", lambda a, b: 180 - a - b),
    (r"mean|average", lambda *values: Fraction(sum(values), len(values))),
    (r"next number", lambda a, b, _c, last: Fraction(last * b, a)),
    (r"goes on", lambda a, b, _c, _d, place: a + (b - a) * (place - 1)),
    (r"greatest common divisor", gcd),
    (r"least common multiple", smallest_common_multiple),
    (r"remainder", lambda a, b: a % b),
    (r"After giving", lambda total, given, friends: Fraction(total - given, friends)),
    (r"times as old", lambda times, total: Fraction(total, times + 1)),
    (r"get lost", lambda rate, hours, days, lost: rate * hours * days - lost),
    (r"balls", lambda red, blue: Fraction(red, red + blue)),
    (r"can be chosen|In how many ways", lambda group, people: chosen(people, group)),
)


def expected(question: str) -> str:
    """Return the answer that follows from the question's own numbers."""
    if derivative := re.search(r"derivative of f\(x\) = (\d+)x\^2 \+ (\d+)x", question):
        a, b = map(int, derivative.groups())
        return f"{a + a}x + {b}"
    if value := re.search(r"f\(x\) = (\d+)x\^2 \+ (\d+)x \+ (\d+)\. Compute f\((\d+)\)", question):
        a, b, c, x = map(int, value.groups())
        return str(sum(a * x for _ in range(x)) + b * x + c)
    if equation := re.search(r"\d+x [+-] \d+ = -?\d+", question):
        return str(root(equation[0]))
    if expression := re.search(r"[(\d][\d ()/]* [*+-] [\d ()*/+-]*[\d)]", question):
        return str(evaluated(expression[0]))
    for pattern, rule in RULES:
        if re.search(pattern, question):
            return str(Fraction(rule(*map(int, re.findall(r"\d+", question)))))
    raise AssertionError(f"no rule for: {question}")
