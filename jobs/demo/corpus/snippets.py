"""Tables of code: how each language spells a loop over numbers, short tasks, shell commands."""

# language -> fence, then the body of a function that keeps, counts, adds or maps numbers.
# {name} is the function's name, {test} a condition on x, {value} an expression in x.
KEEP = {
    "Python": "def {name}(numbers):\n    return [x for x in numbers if {test}]",
    "JavaScript": "function {name}(numbers) {{\n  return numbers.filter((x) => {test});\n}}",
    "TypeScript": "function {name}(numbers: number[]): number[] {{\n"
    "  return numbers.filter((x) => {test});\n}}",
    "Java": "static List<Integer> {name}(List<Integer> numbers) {{\n"
    "    return numbers.stream().filter(x -> {test}).toList();\n}}",
    "C++": "std::vector<int> {name}(const std::vector<int>& numbers) {{\n"
    "    std::vector<int> result;\n    for (int x : numbers) {{\n"
    "        if ({test}) result.push_back(x);\n    }}\n    return result;\n}}",
    "Go": "func {name}(numbers []int) []int {{\n\tvar result []int\n"
    "\tfor _, x := range numbers {{\n\t\tif {test} {{\n"
    "\t\t\tresult = append(result, x)\n\t\t}}\n\t}}\n\treturn result\n}}",
    "Rust": "fn {name}(numbers: &[i32]) -> Vec<i32> {{\n"
    "    numbers.iter().copied().filter(|&x| {test}).collect()\n}}",
    "Ruby": "def {name}(numbers)\n  numbers.select {{ |x| {test} }}\nend",
}
COUNT = {
    "Python": "def {name}(numbers):\n    return sum(1 for x in numbers if {test})",
    "JavaScript": "function {name}(numbers) {{\n  return numbers.filter((x) => {test}).length;\n}}",
    "TypeScript": "function {name}(numbers: number[]): number {{\n"
    "  return numbers.filter((x) => {test}).length;\n}}",
    "Java": "static long {name}(List<Integer> numbers) {{\n"
    "    return numbers.stream().filter(x -> {test}).count();\n}}",
    "C++": "int {name}(const std::vector<int>& numbers) {{\n    int count = 0;\n"
    "    for (int x : numbers) {{\n        if ({test}) ++count;\n    }}\n    return count;\n}}",
    "Go": "func {name}(numbers []int) int {{\n\tcount := 0\n"
    "\tfor _, x := range numbers {{\n\t\tif {test} {{\n\t\t\tcount++\n\t\t}}\n\t}}\n"
    "\treturn count\n}}",
    "Rust": "fn {name}(numbers: &[i32]) -> usize {{\n"
    "    numbers.iter().filter(|&&x| {test}).count()\n}}",
    "Ruby": "def {name}(numbers)\n  numbers.count {{ |x| {test} }}\nend",
}
SUM = {
    "Python": "def {name}(numbers):\n    return sum({value} for x in numbers)",
    "JavaScript": "function {name}(numbers) {{\n"
    "  return numbers.reduce((total, x) => total + ({value}), 0);\n}}",
    "TypeScript": "function {name}(numbers: number[]): number {{\n"
    "  return numbers.reduce((total, x) => total + ({value}), 0);\n}}",
    "Java": "static int {name}(int[] numbers) {{\n    int total = 0;\n"
    "    for (int x : numbers) {{\n        total += {value};\n    }}\n    return total;\n}}",
    "C++": "int {name}(const std::vector<int>& numbers) {{\n    int total = 0;\n"
    "    for (int x : numbers) {{\n        total += {value};\n    }}\n    return total;\n}}",
    "Go": "func {name}(numbers []int) int {{\n\ttotal := 0\n"
    "\tfor _, x := range numbers {{\n\t\ttotal += {value}\n\t}}\n\treturn total\n}}",
    "Rust": "fn {name}(numbers: &[i32]) -> i32 {{\n    numbers.iter().map(|&x| {value}).sum()\n}}",
    "Ruby": "def {name}(numbers)\n  numbers.sum {{ |x| {value} }}\nend",
}
LANGUAGES = tuple(KEEP)

# What a number must satisfy: words, expression, part of a function's name.
CONDITIONS = (
    ("even", "x % 2 == 0", "even"), ("odd", "x % 2 != 0", "odd"), ("positive", "x > 0", "positive"),
    ("negative", "x < 0", "negative"), ("not zero", "x != 0", "nonzero"),
    ("divisible by 3", "x % 3 == 0", "threes"), ("divisible by 5", "x % 5 == 0", "fives"),
    ("divisible by 7", "x % 7 == 0", "sevens"), ("greater than 10", "x > 10", "above_ten"),
    ("greater than 100", "x > 100", "above_hundred"), ("less than 50", "x < 50", "below_fifty"),
    ("at least 18", "x >= 18", "adult"), ("between 1 and 9", "x >= 1 && x <= 9", "digits"),
)  # fmt: skip
# What is added up: words, expression, part of a function's name.
VALUES = (
    ("squares", "x * x", "squares"), ("cubes", "x * x * x", "cubes"),
    ("doubles", "2 * x", "doubles"),
    ("halves", "x / 2", "halves"), ("remainders modulo 10", "x % 10", "last_digits"),
    ("negated values", "-x", "negated"), ("successors", "x + 1", "successors"),
)  # fmt: skip

# Short tasks: what is asked, Python, JavaScript.
TASKS = (
    ("reverses a string", "def reverse(text):\n    return text[::-1]",
     "function reverse(text) {\n  return [...text].reverse().join('');\n}"),
    ("checks whether a string is a palindrome",
     "def is_palindrome(text):\n    return text == text[::-1]",
     "function isPalindrome(text) {\n  return text === [...text].reverse().join('');\n}"),
    ("counts the vowels in a string",
     "def count_vowels(text):\n    return sum(c in 'aeiou' for c in text.lower())",
     "function countVowels(text) {\n  return (text.match(/[aeiou]/gi) || []).length;\n}"),
    ("computes the factorial of n",
     "def factorial(n):\n    return 1 if n <= 1 else n * factorial(n - 1)",
     "function factorial(n) {\n  return n <= 1 ? 1 : n * factorial(n - 1);\n}"),
    ("returns the n-th Fibonacci number",
     "def fibonacci(n):\n    a, b = 0, 1\n    for _ in range(n):\n"
     "        a, b = b, a + b\n    return a",
     "function fibonacci(n) {\n  let [a, b] = [0, 1];\n  while (n-- > 0) [a, b] = [b, a + b];\n"
     "  return a;\n}"),
    ("checks whether a number is prime",
     "def is_prime(n):\n    return n > 1 and all(n % d for d in range(2, int(n ** 0.5) + 1))",
     "function isPrime(n) {\n  for (let d = 2; d * d <= n; d++) {\n"
     "    if (n % d === 0) return false;\n  }\n  return n > 1;\n}"),
    ("removes duplicates from a list but keeps the order",
     "def unique(items):\n    return list(dict.fromkeys(items))",
     "function unique(items) {\n  return [...new Set(items)];\n}"),
    ("finds the longest word in a sentence",
     "def longest_word(text):\n    return max(text.split(), key=len)",
     "function longestWord(text) {\n  return text.split(' ')\n"
     "    .reduce((a, b) => (b.length > a.length ? b : a));\n}"),
    ("flattens a nested list by one level",
     "def flatten(rows):\n    return [item for row in rows for item in row]",
     "function flatten(rows) {\n  return rows.flat();\n}"),
    ("counts how often each word occurs in a text",
     "from collections import Counter\n\ndef word_counts(text):\n    return Counter(text.split())",
     "function wordCounts(text) {\n  const counts = {};\n  for (const word of text.split(' ')) {\n"
     "    counts[word] = (counts[word] || 0) + 1;\n  }\n  return counts;\n}"),
    ("merges two dictionaries or objects",
     "def merge(first, second):\n    return {**first, **second}",
     "function merge(first, second) {\n  return { ...first, ...second };\n}"),
    ("performs a binary search in a sorted array",
     "def search(items, target):\n    low, high = 0, len(items)\n    while low < high:\n"
     "        mid = (low + high) // 2\n        if items[mid] < target:\n            low = mid + 1\n"
     "        else:\n            high = mid\n    return low",
     "function search(items, target) {\n  let low = 0;\n  let high = items.length;\n"
     "  while (low < high) {\n    const mid = (low + high) >> 1;\n"
     "    if (items[mid] < target) low = mid + 1;\n    else high = mid;\n  }\n  return low;\n}"),
    ("capitalizes the first letter of every word",
     "def title(text):\n    return ' '.join(word.capitalize() for word in text.split())",
     "function title(text) {\n  return text.replace(/\\b[a-z]/g, (c) => c.toUpperCase());\n}"),
    ("converts a temperature from Celsius to Fahrenheit",
     "def fahrenheit(celsius):\n    return celsius * 9 / 5 + 32",
     "function fahrenheit(celsius) {\n  return celsius * 9 / 5 + 32;\n}"),
    ("transposes a matrix", "def transpose(rows):\n    return [list(row) for row in zip(*rows)]",
     "function transpose(rows) {\n  return rows[0].map((_, i) => rows.map((row) => row[i]));\n}"),
    ("returns the second largest value of an array",
     "def second_largest(values):\n    return sorted(set(values))[-2]",
     "function secondLargest(values) {\n"
     "  return [...new Set(values)].sort((a, b) => b - a)[1];\n}"),
)  # fmt: skip

# Things done in a shell: what is wanted, command; {d} a folder, {e} a file ending, {n} a number.
COMMANDS = (
    ("count the {e} files in the folder {d}", "find {d} -name '*.{e}' | wc -l"),
    ("delete all {e} files under {d} older than {n} days",
     "find {d} -name '*.{e}' -mtime +{n} -delete"),
    ("show the {n} largest files in {d}", "du -a {d} | sort -rn | head -n {n}"),
    ("search for the word error in every {e} file below {d}",
     "grep -rn --include='*.{e}' error {d}"),
    ("pack the folder {d} into a compressed tar archive", "tar -czf {d}.tar.gz {d}"),
    ("print the last {n} lines of {d}/app.{e}", "tail -n {n} {d}/app.{e}"),
    ("make the script {d}/run.sh executable", "chmod +x {d}/run.sh"),
    ("rename every {e} file in {d} to lower case",
     'for f in {d}/*.{e}; do mv "$f" "${{f,,}}"; done'),
    ("undo the last {n} git commits but keep the changes", "git reset --soft HEAD~{n}"),
    ("copy {d} to a server with rsync", "rsync -av {d}/ user@server:{d}/"),
)  # fmt: skip
FOLDERS = ("logs", "src", "build", "data", "backup", "images", "reports", "uploads", "cache")
ENDINGS = ("log", "txt", "csv", "json", "py", "tmp", "md", "xml")

# Tables of a database with a text column, a number column and a date column.
TABLES = (
    ("employees", "department", "salary", "hired_on"),
    ("orders", "customer", "amount", "created_at"),
    ("products", "supplier", "price", "added_on"), ("students", "school", "score", "enrolled_on"),
    ("books", "author", "pages", "published_on"), ("flights", "airline", "distance", "departed_at"),
    ("invoices", "client", "total", "issued_on"), ("players", "team", "points", "joined_on"),
    ("movies", "director", "rating", "released_on"), ("sensors", "location", "reading", "read_at"),
)  # fmt: skip

# Classes: name, then fields with a kind (text, whole or real).
CLASSES = (
    ("Book", ("title:text", "author:text", "pages:whole")),
    ("Car", ("brand:text", "model:text", "year:whole")),
    ("Point", ("x:real", "y:real")),
    ("BankAccount", ("owner:text", "balance:real")),
    ("Student", ("name:text", "grade:whole", "average:real")),
    ("Rectangle", ("width:real", "height:real")),
    ("Song", ("title:text", "artist:text", "seconds:whole")),
    ("Product", ("label:text", "price:real", "stock:whole")),
    ("Player", ("nickname:text", "level:whole", "health:real")),
    ("City", ("name:text", "population:whole")),
)
