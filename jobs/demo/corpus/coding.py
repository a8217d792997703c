"""Programming requests: functions, queries, classes, shell commands, bugs and what code prints."""

import numpy as np

from .base import Draw, Pair, a_or_an, draw_from, listing, number, pick
from .snippets import (
    CLASSES,
    COMMANDS,
    CONDITIONS,
    COUNT,
    ENDINGS,
    FOLDERS,
    KEEP,
    LANGUAGES,
    SUM,
    TABLES,
    TASKS,
    VALUES,
)

LEADS = (
    "", "", "", "", "I'm new to programming. ", "Quick coding question: ",
    "For a small project at work: ", "My code review asked for this. ",
    "I maintain a small service that two colleagues and I wrote over the last year, and I am "
    "cleaning up its code before the next release. ",
)  # fmt: skip
TYPES = {
    "Java": {"text": "String", "whole": "int", "real": "double"},
    "C#": {"text": "string", "whole": "int", "real": "double"},
    "Go": {"text": "string", "whole": "int", "real": "float64"},
    "Rust": {"text": "String", "whole": "u32", "real": "f64"},
    "TypeScript": {"text": "string", "whole": "number", "real": "number"},
    "Python": {"text": "str", "whole": "int", "real": "float"},
}


def _fence(language: str, code: str) -> str:
    fence = {"C++": "cpp", "C#": "csharp"}.get(language, language.lower())
    return f"```{fence}\n{code}\n```"


def _spelled(language: str, expression: str) -> str:
    if language in {"JavaScript", "TypeScript"}:
        return expression.replace("==", "===").replace("!=", "!==")
    return expression.replace("&&", "and") if language == "Python" else expression


def _named(language: str, words: str) -> str:
    if language in {"Python", "Ruby", "Rust"}:
        return words
    first, *rest = words.split("_")
    return first + "".join(word.capitalize() for word in rest)


def numbers(rng: np.random.Generator) -> Pair:
    """A function over a list of numbers in one of eight languages."""
    language = pick(rng, LANGUAGES)
    what, test, part = pick(rng, CONDITIONS)
    kind = number(rng, 0, 2)
    if kind == 0:
        goal, name, code = f"returns only the numbers that are {what}", f"keep_{part}", KEEP
    elif kind == 1:
        goal, name, code = f"counts how many numbers are {what}", f"count_{part}", COUNT
    else:
        what, test, part = pick(rng, VALUES)
        goal, name, code = f"adds up the {what} of all numbers", f"sum_{part}", SUM
    name, test = _named(language, name), _spelled(language, test)
    text = pick(rng, (
        "Write a {l} function that takes a list of integers and {g}.",
        "In {l}, implement a function `{n}` which {g} in an array.",
        "I need {l} code: a function called `{n}` that {g} in a given list. Keep it short.",
        "How would you write a function in {l} that {g} in a list?",
    ))  # fmt: skip
    body = _fence(language, code[language].format(name=name, test=test, value=test))
    answer = f"Here is the function in {language}:\n{body}\nIt {goal} in the list."
    return Pair(text.format(l=language, g=goal, n=name), answer)


def task(rng: np.random.Generator) -> Pair:
    """A classic small task in Python or JavaScript."""
    goal, python, javascript = pick(rng, TASKS)
    language, code = pick(rng, (("Python", python), ("JavaScript", javascript)))
    text = pick(rng, (
        "Write a function in {l} that {g}.", "Can you show me {l} code that {g}?",
        "Implement a {l} function which {g}, without external libraries.",
        "I'm preparing for a coding interview. Write {l} code that {g} and explain it briefly.",
        "Give me a short {l} snippet that {g}.",
    ))  # fmt: skip
    answer = f"{_fence(language, code)}\nThe function {goal}."
    return Pair(text.format(l=language, g=goal), answer)


def query(rng: np.random.Generator) -> Pair:
    """An SQL query on a table with three columns."""
    table, text, value, date = pick(rng, TABLES)
    n, year, high = number(rng, 3, 12), number(rng, 2015, 2024), 50 * number(rng, 1, 40)
    goal, sql = pick(rng, (
        (f"finds the average {value} for each {text}",
         f"SELECT {text}, AVG({value})\nFROM {table}\nGROUP BY {text};"),
        (f"lists the {n} rows with the highest {value}",
         f"SELECT *\nFROM {table}\nORDER BY {value} DESC\nLIMIT {n};"),
        (f"returns all rows since the year {year} with {value} above {high}",
         f"SELECT *\nFROM {table}\nWHERE {date} >= '{year}-01-01'\n  AND {value} > {high};"),
        (f"counts the rows per {text} and keeps only groups with more than {n}",
         f"SELECT {text}, COUNT(*)\nFROM {table}\nGROUP BY {text}\nHAVING COUNT(*) > {n};"),
        (f"deletes every row where {value} is missing",
         f"DELETE FROM {table}\nWHERE {value} IS NULL;"),  # noqa: S608 - text, never run
        (f"raises {value} by {n} percent for one {text}",
         f"UPDATE {table}\nSET {value} = {value} * {1 + n / 100:.2f}\nWHERE {text} = 'A';"),
    ))  # fmt: skip
    text_ = pick(rng, (
        "Write an SQL query on the table {t} ({c}) that {g}.",
        "I have a database table `{t}` with the columns {c}. Which SQL statement {g}?",
        "SQL: given {t}({c}), write a statement that {g}.",
    ))  # fmt: skip
    prompt = text_.format(t=table, c=f"{text}, {value}, {date}", g=goal)
    return Pair(prompt, f"{_fence('SQL', sql)}\nThis statement {goal}.")


def shell(rng: np.random.Generator) -> Pair:
    """A command for the shell."""
    goal, command = pick(rng, COMMANDS)
    fill = {"d": pick(rng, FOLDERS), "e": pick(rng, ENDINGS), "n": number(rng, 2, 30)}
    text = pick(rng, (
        "Which bash command can I use to {g}?", "How do I {g} from the Linux terminal?",
        "Write a one-line shell command to {g}.", "Give me the bash command to {g}.",
    ))  # fmt: skip
    goal = goal.format(**fill)
    answer = f"{_fence('bash', command.format(**fill))}\nRun this command to {goal}."
    return Pair(text.format(g=goal), answer)


def record(rng: np.random.Generator) -> Pair:
    """A class or struct with typed fields."""
    language = pick(rng, tuple(TYPES))
    name, fields = pick(rng, CLASSES)
    typed = [(f.split(":")[0], TYPES[language][f.split(":")[1]]) for f in fields]
    if language == "Python":
        lines = ["@dataclass", f"class {name}:", *(f"    {f}: {t}" for f, t in typed)]
        code = "from dataclasses import dataclass\n\n" + "\n".join(lines)
    elif language == "Go":
        code = "\n".join([f"type {name} struct {{", *(f"\t{f} {t}" for f, t in typed), "}"])
    elif language == "Rust":
        code = "\n".join([f"struct {name} {{", *(f"    {f}: {t}," for f, t in typed), "}"])
    elif language == "TypeScript":
        code = "\n".join([f"class {name} {{", *(f"  {f}: {t};" for f, t in typed), "}"])
    else:
        code = "\n".join(
            [f"public class {name} {{", *(f"    public {t} {f};" for f, t in typed), "}"]
        )
    word = "struct" if language in {"Go", "Rust"} else "class"
    shown = listing([f"`{f}`" for f, _ in typed])
    text = pick(rng, (
        "Define {l} {w} named `{c}` with the fields {f}.",
        "Create {l} {w} `{c}` that stores {f}. Use suitable types.",
        "How do I declare {l} {w} called `{c}` with {f} as members?",
    ))  # fmt: skip
    prompt = text.format(l=a_or_an(language), w=word, c=name, f=shown)
    return Pair(prompt, f"{_fence(language, code)}\nThe {word} `{name}` has {len(typed)} fields.")


def output(rng: np.random.Generator) -> Pair:
    """What a short Python program prints."""
    a, b, c = number(rng, 0, 6), number(rng, 8, 20), number(rng, 2, 5)
    word = pick(rng, ("python", "window", "garden", "silver", "planet", "button", "castle"))
    code, result = pick(rng, (
        (f"for i in range({a}, {b}, {c}):\n    print(i)",
         "\n".join(map(str, range(a, b, c)))),
        (f"print('{word}'[{min(a, 2)}:{c + 1}])", word[min(a, 2) : c + 1]),
        (f"x = [{a}, {b}, {c}]\nx.sort()\nprint(x)", str(sorted([a, b, c]))),
        (f"total = 0\nfor n in range({b}):\n    if n % {c} == 0:\n        total += n\nprint(total)",
         str(sum(n for n in range(b) if n % c == 0))),
        (f"print({b} // {c}, {b} % {c})", f"{b // c} {b % c}"),
        (f"print(len('{word}') * {c})", str(len(word) * c)),
        (f"d = {{'{word}': {a}}}\nd['{word}'] += {b}\nprint(d)", str({word: a + b})),
        (f"print([n * {c} for n in range({a}, {a + 4})])",
         str([n * c for n in range(a, a + 4)])),
    ))  # fmt: skip
    text = pick(rng, ("What does this Python code print?", "What is the output of this program?",
                      "Explain the following Python code and give its output:"))  # fmt: skip
    answer = f"The program prints:\n```\n{result}\n```"
    return Pair(f"{text}\n{_fence('Python', code)}", answer)


def bug(rng: np.random.Generator) -> Pair:
    """A snippet with a fault, and its repair."""
    name = pick(rng, ("items", "values", "rows", "names", "scores", "users", "lines", "orders"))
    n = number(rng, 1, 50)
    language, wrong, right, why = pick(rng, (
        ("Python", f"for x in {name}\n    print(x)", f"for x in {name}:\n    print(x)",
         "The colon after the for statement was missing."),
        ("Python", f"if len({name}) = {n}:\n    stop()", f"if len({name}) == {n}:\n    stop()",
         "A comparison needs two equal signs."),
        ("JavaScript", f"const {name} = [];\n{name} = load({n});", f"let {name} = load({n});",
         "A const variable cannot be assigned again."),
        ("JavaScript", f"for (let i = 0; i <= {name}.length; i++) use({name}[i], {n});",
         f"for (let i = 0; i < {name}.length; i++) use({name}[i], {n});",
         "The loop ran one step too far."),
        ("Java", f"String {name} = {n};", f"int {name} = {n};",
         "A number cannot be stored in a String variable."),
        ("C++", f"int {name}[{n}];\n{name}[{n}] = 0;", f"int {name}[{n}];\n{name}[{n - 1}] = 0;",
         "The last valid index is one less than the size of the array."),
        ("Python", f"print('{name}: ' + {n})", f"print('{name}: ' + str({n}))",
         "Text and a number cannot be added, so the number must be turned into text."),
        ("Go", f"{name} := load({n})\n{name} := sort({name})",
         f"{name} := load({n})\n{name} = sort({name})", "A variable is declared only once."),
    ))  # fmt: skip
    text = pick(rng, ("Fix the bug in this {} code:", "Why does this {} code fail?",
                      "My {} program gives an error. What is wrong here?"))  # fmt: skip
    prompt = f"{text.format(language)}\n{_fence(language, wrong)}"
    return Pair(prompt, f"{why} The corrected code is:\n{_fence(language, right)}")


DRAWS: tuple[Draw, ...] = (numbers, numbers, task, query, shell, record, output, bug)


def draw(rng: np.random.Generator) -> Pair:
    """Draw a programming request with code as its answer."""
    return draw_from(DRAWS, rng)
