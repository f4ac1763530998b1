"""INVENTED posts, to try the pipeline without any data: sentences from templates, filled with terms of a tag.

Nobody wrote these posts, and an accuracy measured on them says nothing about real ones.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from urllib.parse import parse_qsl

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.data import posts
from pipeline.errors import BadInput

SCHEME = "sample://"
DEFAULTS = {"rows": 4000, "seed": 0}
ROWS_PER_BLOCK = 1024
BYTES_PER_POST = 800
"""On average, and near enough to refuse a sample that nobody can want."""

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

# Invented rates. They place the article's network between 0.84 and 0.93 on the test posts of 4,000 rows.
ASTRAY = 0.09
"""Share of posts that speak of a related tag's terms: the error that no amount of posts removes."""

STRAY = 0.05
"""Share of terms, in any post, that come from a related tag."""

FAINT = 0.2
"""The faintest posts have this share of their terms replaced by words that tell nothing."""

FEWEST, MOST = 9, 13
"""Sentences between a post's opening and its closing."""

TERMS = {
    "javascript": "closure|prototype|callback|setTimeout|JSON.parse|addEventListener|getElementById|promise|"
    "hoisting|undefined is not a function|typeof|console.log|JavaScript|arrow function|window.onload|regex literal",
    "java": "JVM|Spring|Hibernate|servlet|Maven|generics|Swing|JPanel|Tomcat|System.out.println|"
    "public static void main|checked exception|Java 8|JDBC|HashMap|interface",
    "c#": "delegate|lambda|WPF|async Task|IEnumerable|WinForms|XAML|C#|Console.WriteLine|List<string>|"
    "DataGridView|foreach|Dispatcher|INotifyPropertyChanged|partial class|event handler",
    "php": "$_POST|echo|mysqli_query|Laravel|CodeIgniter|PDO|session_start|WordPress|foreach ($rows as $row)|PHP|"
    "Composer|htaccess|isset|cURL|Symfony|include_once",
    "android": "Activity|Fragment|Intent|ListView|AsyncTask|AndroidManifest.xml|RecyclerView|SQLiteOpenHelper|APK|"
    "emulator|Bitmap|onCreate|Android Studio|LinearLayout|BroadcastReceiver|logcat",
    "jquery": "$.ajax|$(document).ready|.append()|slideToggle|datepicker|jQuery|selector|.each()|fadeIn|plugin|"
    "$(this)|.on('click')|jQuery UI|autocomplete|.val()|draggable",
    "python": "list comprehension|Django|pandas|numpy|pip install|virtualenv|def __init__(self)|tuple|dict|Flask|"
    "Python 2.7|decorator|matplotlib|import sys|IndentationError|generator",
    "html": "<table>|iframe|anchor|<form action>|doctype|HTML5|<input type>|<select>|meta tag|canvas|<ul>|"
    "hyperlink|checkbox|video tag|placeholder|markup",
    "c++": "std::vector|template|destructor|Boost|iterator|virtual function|operator overloading|C++11|"
    "std::string|smart pointer|cout <<|constructor|STL|friend class|move semantics|Qt",
    "ios": "Swift|CocoaPods|push notification|Auto Layout|iOS 8|UICollectionView|Core Data|provisioning profile|"
    "TestFlight|iPad|UINavigationController|optional|CLLocationManager|keychain|App Store|constraint",
    "css": "float|margin|padding|z-index|flexbox|media query|hover|background-image|border-radius|position: absolute|"
    "overflow|CSS3|Bootstrap|inline-block|SASS|font-size",
    "mysql": "InnoDB|phpMyAdmin|AUTO_INCREMENT|mysqldump|MySQL|LIMIT 10|MyISAM|replication|utf8_general_ci|"
    "my.cnf|EXPLAIN|ON DUPLICATE KEY|DATE_FORMAT|foreign key|Workbench|LOAD DATA INFILE",
    "sql": "stored procedure|T-SQL|SQL Server|CTE|PIVOT|Oracle|trigger|cursor|ROW_NUMBER() OVER|MERGE|varchar|"
    "NOLOCK|PostgreSQL|temp table|CASE WHEN|HAVING",
    "asp.net": "GridView|ViewState|postback|MVC 4|Razor|UpdatePanel|master page|code-behind|web forms|ASP.NET|"
    'runat="server"|Page_Load|HttpContext|membership|ActionResult|web.config',
    "ruby-on-rails": "ActiveRecord|gem|Rails 4|Devise|rake db:migrate|has_many|controller|erb|Heroku|RSpec|Bundler|"
    "routes.rb|belongs_to|Capistrano|before_filter|partial",
    "objective-c": "NSArray|@property|retain|NSDictionary|ARC|selector|NSManagedObject|alloc|Objective-C|category|"
    "NSNotificationCenter|@interface|dealloc|block|Cocoa|protocol",
    "c": "printf|scanf|malloc|fork|char *argv[]|makefile|linked list|fgets|socket|void *|#include <stdio.h>|"
    "memcpy|free|GDB|sizeof|bitwise",
    ".net": "CLR|WCF|garbage collector|.NET 4.5|reflection|serialization|AppDomain|VB.NET|GAC|Windows service|"
    "MSBuild|TcpClient|XmlSerializer|ClickOnce|app.config|interop",
    "angularjs": "$scope|ng-repeat|directive|ng-model|Angular|$http|controller|ui-router|factory|ng-click|$watch|"
    "two-way binding|Karma|Ionic|transclude|filter",
    "iphone": "iPhone 4|SDK 3.0|UIWebView|iTunes Connect|UIImage|jailbreak|accelerometer|UIScrollView|in-app purchase|"
    "Safari|touchesBegan|UITextField|ad hoc|home screen|MKMapView|UIAlertView",
}
"""What posts of a tag speak of; the tags are those of the article."""

SHARED = {
    "javascript jquery html css angularjs": "DOM|div|browser|Chrome|Firefox|button|stylesheet|web page",
    "ios objective-c iphone": "Xcode|UIViewController|UITableView|simulator|app delegate|storyboard|NSString|segue",
    "c# .net asp.net": "Visual Studio|LINQ|assembly|Entity Framework|namespace|IIS|NuGet|DLL",
    "mysql sql": "SELECT|INNER JOIN|WHERE|GROUP BY|primary key|query|index|column",
    "c c++": "pointer|gcc|struct|segmentation fault|header file|compiler|array|linker",
    "java android": "Eclipse|NullPointerException|Gradle|ArrayList|thread|jar",
    "php ruby-on-rails": "migration|session|model|cookie|redirect|Apache",
    "python": "script|module|package|Unicode|interpreter|recursion",
}
"""What related tags speak of alike; each tag is in one group."""

RELATED = {
    "javascript": "jquery angularjs html",
    "java": "android",
    "c#": ".net asp.net",
    "php": "mysql html",
    "android": "java",
    "jquery": "javascript html css",
    "python": "java php",
    "html": "css javascript",
    "c++": "c",
    "ios": "objective-c iphone",
    "css": "html jquery",
    "mysql": "sql php",
    "sql": "mysql",
    "asp.net": "c# .net",
    "ruby-on-rails": "php python",
    "objective-c": "ios iphone",
    "c": "c++",
    ".net": "c# asp.net",
    "angularjs": "javascript jquery",
    "iphone": "ios objective-c",
}
"""Where a tag's posts borrow terms from."""

TAGS = tuple(TERMS)

GENERAL = (
    "function|method|value|variable|code|error|file|object|list|string|loop|class|library|example|result|parameter|"
    "project|version|data|input|output|test|server|user|type|line|name|problem|application|folder"
).split("|")
VERBS = "get set load save parse update find make send read write check open init add remove is has count sort".split()
NOUNS = (
    "User Item Name Data List Value File Order Image Date Text Node Price Event Page Row Key Path State Result "
    "Total Index Buffer Token Color Title Email Score Group Level Widget Invoice Café Größe"
).split()
NUMBERS = 500

OPENINGS = """
How do I use {t} with {t}?
How can I get {t} to work with {t} in a {g}?
Why does {t} return null when I call {i}?
What is the best way to pass a {g} to {t}?
Is there any way to change {t} without touching {t}?
I am trying to build a small {g} with {t} and {t}.
I'm new to {t} and I can't figure out how {t} works.
Difference between {t} and {t}?
I have a {g} that uses {t}, and since yesterday it fails.
Can anybody explain what {t} does here?
Getting a strange {g} from {t} after an update.
Where should I put {t} when {t} is already there?
Hi all, I've been stuck on {t} for two days.
My boss wants {t} in our {g}, but I only know {t}.
"""

BODIES = """
I have tried to move {t} into its own {g}, but it still does not work.
When I run it I see this message: error {n} in {i} at line {n}.
Here is what I have so far: {i}({i}, {n});
The {g} is loaded first, then {t} is called from {i}.
It works fine on my machine, but not on the server of a customer.
I read the documentation of {t} twice and could not find anything about it.
After that the {g} is empty, although {t} shows {n} entries.
Someone told me to use {t} instead of {t}, is that a good idea?
if ({i} == {n}) { return {i}; }
I already looked at similar questions, but none of the answers helped.
As you can see, {t} is set before {t}, so this should be OK.
My guess is that {t} needs another {g}.
For example, {i} gives {n} and {i} gives {n}, which makes no sense to me.
I would like to keep {t}, because the rest of the {g} depends on it.
This happens only with {t}; everything else is fast enough.
What I expect: one {g} for each {t}. What I get: nothing at all.
Do I have to write my own {g} for this, or does {t} do that already?
I don't want to use any third-party {g}.
Removing {t} makes the {g} disappear, but then {i} breaks.
var {i} = {i} + {n};
The name of the {g} comes from a text box, so it can be naïve input like "Müller" or "東京".
There are about {n} rows now, and it takes {n} seconds.
Then I changed {t} to {t}, as a colleague suggested, without success.
Please note that {i} is called twice: once for {t} and once for the {g}.
I also tried {i}, {i} and {i}, same result.
On the second call the {g} is always the same, even if {t} has changed.
In the debugger I can see that {t} has the right {g}.
Unfortunately we can't upgrade, so it must work with the old {g} too.
The log says: [{n}] {i} failed -> {t}
This is my first question here, so sorry for my bad English!
My {g} looks like this: {t} {t} {i}
Is {t} even the right tool for that kind of {g}?
Both of them are in the same folder, and the path is correct.
I can post more of the {g} if that helps.
{t} = {i}[{n}];
With {t} it compiles, with {t} it doesn't.
Maybe I am missing something obvious about the way {t} handles a {g}.
A friend of mine uses {t} for this — he says it's easier.
Everything worked until I added {t} last week.
Now I want to do the same for every {g} in the {g}.
"""

CLOSINGS = """
Any help would be appreciated.
Thanks in advance!
What am I doing wrong?
Any ideas?
How can I fix this?
Is there a better way to do it with {t}?
Thank you very much for your time.
Please help, I have to finish this {g} by Monday.
Is this even possible?
EDIT: I am using version {n} of {t}.
Could someone point me in the right direction?
Cheers, José
"""

PAD, SLOTS = -1, {"{t}": -2, "{g}": -3, "{i}": -4, "{n}": -5, "{s}": -6}


def is_sample(source: str) -> bool:
    """Whether the source is of invented posts."""
    return source.startswith(SCHEME)


def parse(source: str) -> tuple[int, int]:
    """Rows and seed of sample://posts?rows=N&seed=N; BadInput names what is not understood."""
    place, _, query = source.removeprefix(SCHEME).partition("?")
    asked = parse_qsl(query, keep_blank_values=True)
    if place != "posts" or len(dict(asked)) < len(asked):
        raise _misread(source)
    for name, value in asked:
        if name not in DEFAULTS or not re.fullmatch("[0-9]{1,15}", value):
            raise _misread(source)
    wanted = DEFAULTS | {name: int(value) for name, value in asked}
    if wanted["rows"] < 1:
        raise _misread(source)
    return wanted["rows"], wanted["seed"]


def _misread(source: str) -> BadInput:
    return BadInput(
        f"{source} is no sample of invented posts; write sample://posts?rows=N&seed=N with N whole numbers and rows "
        "at least 1"
    )


def blocks(rows: int, seed: int) -> Iterator[pa.RecordBatch]:
    """`rows` INVENTED posts as posts.POSTS; with the same seed, fewer rows are the first of more rows."""
    for number, start in enumerate(range(0, rows, ROWS_PER_BLOCK)):
        yield _block(number, seed).slice(0, rows - start)


def _block(number: int, seed: int) -> pa.RecordBatch:
    dice = _Dice(seed, number)
    tag = dice.below(len(TAGS), ROWS_PER_BLOCK)
    entries = _filled(_sentences(dice), tag, dice)
    used = entries != PAD
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    words = _lexicon().entries.take(pa.array(entries[used]))
    post = pc.binary_join(pa.ListArray.from_arrays(pa.array(offsets), words), "")
    rows = np.arange(ROWS_PER_BLOCK) + number * ROWS_PER_BLOCK + 1
    return pa.record_batch([post, pa.array(TAGS).take(pa.array(tag)), rows], schema=posts.POSTS)


class _Dice:
    """Uniform numbers from PCG64's raw output, which NumPy promises never to change, for one block."""

    def __init__(self, seed: int, block: int) -> None:
        self._bits = np.random.PCG64(np.random.SeedSequence([seed, block]))

    def uniform(self, *shape: int) -> Floats:
        raw = self._bits.random_raw(int(np.prod(shape)))
        return ((raw >> np.uint64(11)) * 2.0**-53).reshape(shape)

    def below(self, limit: int | Ints, *shape: int) -> Ints:
        return (self.uniform(*shape) * limit).astype(np.int64)


def _sentences(dice: _Dice) -> Ints:
    """Entries and slots [rows, columns] of each post's opening, FEWEST to MOST sentences, and closing; the rest PAD."""
    lexicon = _lexicon()
    body = np.argsort(dice.uniform(ROWS_PER_BLOCK, len(lexicon.bodies) - 1), kind="stable")[:, :MOST]
    count = FEWEST + dice.below(MOST - FEWEST + 1, ROWS_PER_BLOCK, 1)
    body[np.arange(MOST) >= count] = -1  # the last of the bodies is blank
    opening = lexicon.openings[dice.below(len(lexicon.openings) - 1, ROWS_PER_BLOCK)]
    closing = lexicon.closings[dice.below(len(lexicon.closings) - 1, ROWS_PER_BLOCK)]
    return np.hstack([opening, lexicon.bodies[body].reshape(ROWS_PER_BLOCK, -1), closing])


def _filled(entries: Ints, tag: Ints, dice: _Dice) -> Ints:
    """The same with each slot's entry drawn: a term of the post's topic, mostly, or a word that tells nothing."""
    lexicon = _lexicon()
    topic = np.where(dice.uniform(len(tag)) < ASTRAY, _related(tag, dice), tag)
    faint = dice.uniform(len(tag)) * FAINT
    row, column = np.nonzero(entries == SLOTS["{t}"])
    own = topic[row]
    about = np.where(dice.uniform(len(row)) < STRAY, _related(own, dice), own)
    often = dice.uniform(len(row)) ** 2  # the first terms of a tag are its commonest
    term = lexicon.terms[about, (often * lexicon.terms_of[about]).astype(np.int64)]
    entries[row, column] = np.where(dice.uniform(len(row)) < faint[row], SLOTS["{g}"], term)
    for slot, (first, count) in lexicon.ranges.items():
        where = entries == slot
        entries[where] = first + dice.below(count, int(where.sum()))
    return entries


def _related(tag: Ints, dice: _Dice) -> Ints:
    lexicon = _lexicon()
    return lexicon.related[tag, dice.below(lexicon.related_to[tag], len(tag))]


@dataclass(frozen=True)
class _Lexicon:
    openings: Ints  # [templates, columns] of entries, slots and PAD; the last template of each is blank
    bodies: Ints
    closings: Ints
    terms: Ints  # [tags, columns] of entries, of which the first terms_of[tag] count
    terms_of: Ints
    related: Ints  # [tags, columns] of tags, of which the first related_to[tag] count
    related_to: Ints
    ranges: dict[int, tuple[int, int]]  # slot: its first entry, and how many there are
    entries: pa.StringArray  # all that a post is joined from


@cache
def _lexicon() -> _Lexicon:
    entries: dict[str, int] = {}
    terms = [[_entry(term, entries) for term in _terms(tag)] for tag in TAGS]
    related = [[TAGS.index(other) for other in RELATED[tag].split()] for tag in TAGS]
    ranges = {
        SLOTS["{g}"]: _range(GENERAL, entries),
        SLOTS["{i}"]: _range([verb + noun for verb in VERBS for noun in NOUNS], entries),
        SLOTS["{n}"]: _range([str(number) for number in range(NUMBERS)], entries),
        SLOTS["{s}"]: _range([" ", "\n"], entries),
    }
    return _Lexicon(
        openings=_templates(OPENINGS, "{s}", entries),
        bodies=_templates(BODIES, "{s}", entries),
        closings=_templates(CLOSINGS, "", entries),
        terms=_padded(terms),
        terms_of=np.array([len(row) for row in terms]),
        related=_padded(related),
        related_to=np.array([len(row) for row in related]),
        ranges=ranges,
        entries=pa.array(list(entries)),  # last: all of the above add to them
    )


def _terms(tag: str) -> list[str]:
    (shared,) = [terms for group, terms in SHARED.items() if tag in group.split()] or [""]
    return [*TERMS[tag].split("|"), *filter(None, shared.split("|"))]


def _entry(text: str, entries: dict[str, int]) -> int:
    return entries.setdefault(text, len(entries))


def _range(words: list[str], entries: dict[str, int]) -> tuple[int, int]:
    """New entries, side by side."""
    first = len(entries)
    for word in words:
        entries[word] = len(entries)
    return first, len(words)


def _templates(text: str, end: str, entries: dict[str, int]) -> Ints:
    """A row for each line and its end, and a blank one after all."""
    pieces = [re.split(r"(\{[tgins]\})", line + end) for line in text.strip().splitlines()]
    coded = [[SLOTS.get(piece) or _entry(piece, entries) for piece in row if piece] for row in pieces]
    return _padded([*coded, []])


def _padded(rows: list[list[int]]) -> Ints:
    width = max(map(len, rows))
    return np.array([row + [PAD] * (width - len(row)) for row in rows])
