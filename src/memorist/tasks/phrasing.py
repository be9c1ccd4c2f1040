"""Words and sentence forms of the synthetic dialogue world.

Two grammars say the same things without sharing one sentence form. Grammar "a" is what training sees; grammar
"b" is kept for the transfer test: it names attributes by other words and marks what is new, over, planned or only
imagined by other phrases (some of the marking words, such as "might", are words of both, as in any language).
"""

from __future__ import annotations

from dataclasses import dataclass

ATTRIBUTES = ("city", "job", "car", "pet", "instrument", "language", "dish", "sport")
DETAILED = ("job", "car", "pet", "instrument")
"""Attributes of which a detail can be told beside the value itself."""

# value lists: split by position among base, train, validation, test (see `dialogue.vocabulary`)
_WORDS = {
    "job": "baker nurse plumber florist surgeon welder tailor barber librarian pilot farmer sculptor journalist "
    "carpenter dentist jeweller electrician gardener translator beekeeper cartographer watchmaker optician potter "
    "locksmith chemist mason firefighter brewer roofer typist butcher postman weaver glazier notary geologist "
    "umpire curator miller saddler cobbler",
    "car": "sedan hatchback roadster minivan pickup limousine coupe jeep cabriolet hearse campervan buggy wagon "
    "lorry tractor scooter moped trike bus van microcar crossover dragster beetle speedster landau taxi truck "
    "motorhome tricycle",
    "pet": "dog cat parrot hamster tortoise rabbit ferret gecko goldfish canary python lizard hedgehog donkey goat "
    "pony chinchilla budgie iguana newt mouse gerbil cockatoo piglet duck goose llama alpaca turtle crab",
    "instrument": "cello violin viola flute oboe clarinet bassoon trumpet trombone tuba horn harp piano organ "
    "guitar banjo mandolin ukulele lute sitar marimba xylophone accordion harmonica saxophone recorder bagpipes "
    "zither fiddle cornet bugle piccolo theremin dulcimer lyre kora tabla bongo cimbalom drums",
    "language": "Spanish Welsh Finnish Korean Arabic Greek Turkish Swahili Danish Polish Hindi Basque Czech Thai "
    "Maltese Irish Latvian Hebrew Tamil Dutch Russian Persian Nepali Zulu Catalan Estonian Bengali Tagalog "
    "Hungarian Quechua",
    "dish": "lasagne paella ramen goulash pancakes risotto dumplings curry chowder moussaka pierogi tacos gnocchi "
    "falafel borscht sushi ratatouille meatloaf ceviche fondue tagine kimchi waffles quiche biryani schnitzel "
    "chili stew pizza omelettes",
    "sport": "judo rowing tennis archery climbing karate cricket fencing golf hockey sailing skating surfing "
    "badminton boxing cycling diving handball rugby squash wrestling bowling curling polo volleyball orienteering "
    "softball lacrosse running basketball",
    "colour": "red blue green silver yellow purple orange black white brown grey pink turquoise beige maroon gold "
    "crimson teal ivory violet",
}
WORDS = {name: tuple(words.split()) for name, words in _WORDS.items()}

PEOPLE = tuple(
    "Anna Ben Clara David Ella Felix Greta Hugo Irene Jonas Kira Leo Mona Nils Olga Paul Queenie Ralf Sonja Tom "
    "Ursula Victor Wanda Xaver Yara Zeno Alma Boris Celia Dario Edith Franco Gloria Henri Ilse Jakob Katrin Lars "
    "Maya Nathan Odile Pedro Quinn Rosa Stefan Tilda Umar Vera Willem Ximena Yusuf Zelda Arthur Bianca Carlos "
    "Daphne Emil Frida Gustav Helga Igor Julia Kurt Lydia Marco Nora Oscar Paula Rufus Selma Tariq Una Valerie "
    "Walter Yvonne Zachary Amira Bruno Chloe Dennis Elsa Finn Gina Harald Ines Joel Karen Linus Martha Noel Oriana "
    "Peter Rachel Simon Thea Ulrich Viola Wendy Yannick Zora".split()
)
RELATIVES = ("sister", "brother", "cousin", "mother", "father", "neighbour", "boss", "aunt", "uncle", "flatmate")
SYLLABLES = tuple(
    "ba be bi bo bu ca co da de di do du fa fe fi ga go ha he ho ja jo ka ke ki ko la le li lo lu ma me mi mo mu na "
    "ne ni no pa pe pi po ra re ri ro ru sa se si so su ta te ti to tu va ve vi vo wa we ya yo za ze zo".split()
)
ONSETS = tuple(
    "b br bl c ch cl cr d dr f fl fr g gl gr h j k kl kr l m n p ph pl pr qu r s sc sh sk sl sm sn sp st str sw t th "
    "tr v w wh x y z zh".split()
)
VOWELS = tuple("a e i o u a e i o u ai ea ee ie oo ou y au ei ia io ue".split())
ENDINGS = tuple("n r l s t m nd rk st nt sk rn ld mp th ck".split()) + ("",) * 6


@dataclass(frozen=True, slots=True)
class Frame:
    """How one attribute is talked about: verb forms around the value {v}, and questions."""

    base: str
    third: str
    doing: str
    ask: str
    ask_other: str
    ask_plan: str
    ask_both: str
    likely: str = ""
    detail: str = ""
    detail_first: str = ""
    ask_detail: str = ""


@dataclass(frozen=True, slots=True)
class Grammar:
    """Sentence forms: statements as (about a person, said by that person), with S the subject."""

    frames: dict[str, Frame]
    statements: dict[str, tuple[tuple[str, str], ...]]
    when: str
    chat: tuple[tuple[str, str], ...]
    openers: tuple[str, ...]


def _frame(verb: tuple[str, str, str, str], question: str, plural: str, likely: str = "", *detail: str) -> Frame:
    """A frame; its questions are made of a question phrase and the verb without its value (the fourth form)."""
    base, third, doing, bare = verb
    return Frame(
        base,
        third,
        doing,
        ask=f"{question} does {{S}} {bare}?",
        ask_other=f"{question} does {{S}}'s {{r}} {bare}?",
        ask_plan=f"{question} does {{S}} plan to {bare}?",
        ask_both=f"{plural} do {{S}} and {{T}} {bare}?",
        likely=likely,
        detail=detail[0] if detail else "",
        detail_first=detail[1] if detail else "",
        ask_detail=detail[2] if detail else "",
    )


_A_FRAMES = {
    "city": _frame(("live in {v}", "lives in {v}", "living in {v}", "live in"), "Which city", "Which cities"),
    "job": _frame(
        ("work as a {v}", "works as a {v}", "working as a {v}", "work as"),
        "What job",
        "What jobs",
        "be busy on weekdays",
        "{S} has a job with a firm called {d}.",
        "I have a job with a firm called {d}.",
        "What is the firm where {S} has a job called?",
    ),
    "car": _frame(
        ("drive a {v}", "drives a {v}", "driving a {v}", "drive"),
        "What kind of vehicle",
        "What kinds of vehicle",
        "need a parking space",
        "The vehicle that {S} drives is {d}.",
        "The vehicle that I drive is {d}.",
        "What colour is the vehicle that {S} drives?",
    ),
    "pet": _frame(
        ("keep a pet {v}", "keeps a pet {v}", "keeping a pet {v}", "keep"),
        "What pet",
        "What pets",
        "need a vet",
        "{S}'s pet is called {d}.",
        "My pet is called {d}.",
        "What is {S}'s pet called?",
    ),
    "instrument": _frame(
        ("play the {v}", "plays the {v}", "playing the {v}", "play"),
        "Which instrument",
        "Which instruments",
        "read sheet music",
        "{S} plays in a band called {d}.",
        "I play in a band called {d}.",
        "What is the band called that {S} plays in?",
    ),
    "language": _frame(
        ("study {v}", "studies {v}", "studying {v}", "study"), "Which language", "Which languages", "own a dictionary"
    ),
    "dish": _frame(
        ("cook {v} on Sundays", "cooks {v} on Sundays", "cooking {v} on Sundays", "cook on Sundays"),
        "What dish",
        "What dishes",
    ),
    "sport": _frame(
        ("train for {v}", "trains for {v}", "training for {v}", "train for"),
        "Which sport",
        "Which sports",
        "own trainers",
    ),
}
_B_FRAMES = {
    "city": _frame(
        ("make a home in {v}", "makes a home in {v}", "making a home in {v}", "make a home"),
        "In what place",
        "In what places",
    ),
    "job": _frame(
        ("earn money as a {v}", "earns money as a {v}", "earning money as a {v}", "earn money"),
        "In what trade",
        "In what trades",
        "pay income tax",
        "{S} earns money at a company by the name of {d}.",
        "I earn money at a company by the name of {d}.",
        "At which company does {S} earn money?",
    ),
    "car": _frame(
        (
            "own a {v} for getting around",
            "owns a {v} for getting around",
            "owning a {v} for getting around",
            "own for getting around",
        ),
        "What set of wheels",
        "What sets of wheels",
        "visit a garage",
        "What {S} owns for getting around has {d} paint.",
        "What I own for getting around has {d} paint.",
        "Which paint is on what {S} owns for getting around?",
    ),
    "pet": _frame(
        (
            "look after a {v} at the house",
            "looks after a {v} at the house",
            "looking after a {v} at the house",
            "look after at the house",
        ),
        "Which animal",
        "Which animals",
        "buy animal food",
        "The animal {S} looks after goes by {d}.",
        "The animal I look after goes by {d}.",
        "What name does the animal {S} looks after go by?",
    ),
    "instrument": _frame(
        ("make music on the {v}", "makes music on the {v}", "making music on the {v}", "make music"),
        "On what",
        "On what things",
        "know some melodies",
        "{S} makes music with a group named {d}.",
        "I make music with a group named {d}.",
        "With which group does {S} make music?",
    ),
    "language": _frame(
        (
            "take lessons in {v} grammar",
            "takes lessons in {v} grammar",
            "taking lessons in {v} grammar",
            "take lessons",
        ),
        "In what grammar",
        "In what grammars",
        "have a teacher",
    ),
    "dish": _frame(
        ("serve {v} to guests", "serves {v} to guests", "serving {v} to guests", "serve to guests"),
        "Which meal",
        "Which meals",
    ),
    "sport": _frame(
        ("exercise by {v}", "exercises by {v}", "exercising by {v}", "exercise"),
        "By what activity",
        "By what activities",
        "sweat a lot",
    ),
}

_A_STATEMENTS = {
    "state": (
        ("{S} {s}.", "I {b}."),
        ("{S} {s} these days.", "I {b} these days."),
        ("Right now {S} {s}.", "Right now I {b}."),
    ),
    "change": (
        ("{S} now {s} instead.", "I now {b} instead."),
        ("{S} has switched to {g}.", "I have switched to {g}."),
        ("Since this week {S} {s}.", "Since this week I {b}."),
        ("{S} changed things and now {s}.", "I changed things and now {b}."),
    ),
    "retract": (
        ("{S} no longer {s}.", "I no longer {b}."),
        ("{S} stopped {g}.", "I stopped {g}."),
        ("{S} does not {b} any more.", "I do not {b} any more."),
        ("{S} quit {g} for good.", "I quit {g} for good."),
    ),
    "plan": (
        ("{S} plans to {b} next year.", "I plan to {b} next year."),
        ("{S} is going to {b} soon.", "I am going to {b} soon."),
        ("{S} has decided to {b} later this year.", "I have decided to {b} later this year."),
    ),
    "done": (
        ("{S} finally {s}, as planned.", "I finally {b}, as planned."),
        ("As planned, {S} now {s}.", "As planned, I now {b}."),
    ),
    "maybe": (
        ("{S} would love to {b} some day.", "I would love to {b} some day."),
        ("{S} might {b} if there were more time.", "I might {b} if there were more time."),
        ("{S} sometimes imagines {g}.", "I sometimes imagine {g}."),
        ("Perhaps {S} could {b} in another life.", "Perhaps I could {b} in another life."),
    ),
    "again": (
        ("{S} still {s}.", "I still {b}."),
        ("{S} said again: {S} {s}.", "As I said, I {b}."),
        ("{S} {s} as before.", "I {b} as before."),
    ),
    "other": (("{S}'s {r} {s}.", "My {r} {s}."), ("{S}'s {r} {s} these days.", "My {r} {s} these days.")),
}
_B_STATEMENTS = {
    "state": (
        ("It is known that {S} {s}.", "You should know that I {b}."),
        ("{S} {s} at the moment.", "I {b} at the moment."),
    ),
    "change": (
        ("There is news: {S} {s} now.", "There is news: I {b} now."),
        ("In a change from before, {S} {s}.", "In a change from before, I {b}."),
        ("{S} began {g} lately.", "I began {g} lately."),
    ),
    "retract": (
        ("{S} has given up {g}.", "I have given up {g}."),
        ("It is over: {S} does not {b} any longer.", "It is over: I do not {b} any longer."),
        ("{S} used to {b}, but that has stopped.", "I used to {b}, but that has stopped."),
    ),
    "plan": (
        ("{S} intends to {b} by next summer.", "I intend to {b} by next summer."),
        ("The plan is that {S} will {b} soon.", "The plan is that I will {b} soon."),
    ),
    "done": (("{S} went through with the plan and {s}.", "I went through with the plan and {b}."),),
    "maybe": (
        ("{S} dreams of {g} one day.", "I dream of {g} one day."),
        ("If {S} were rich, {S} might {b}.", "If I were rich, I might {b}."),
        ("{S} wonders what {g} would be like.", "I wonder what {g} would be like."),
    ),
    "again": (("As ever, {S} {s}.", "As ever, I {b}."), ("{S} keeps on {g}.", "I keep on {g}.")),
    "other": (("The {r} of {S} {s}.", "A {r} of mine {s}."),),
}
_A_CHAT = (
    ("{S} had a long day.", "I had such a long day."),
    ("{S} enjoyed the sunshine.", "The sunshine was lovely today."),
    ("{S} slept badly.", "I slept so badly last night."),
    ("{S} was glad to talk to {T}.", "It is good to talk to you."),
    ("{S} was stuck in traffic.", "I was stuck in traffic for an hour."),
    ("{S} laughed about a film.", "I laughed so much at that film."),
    ("{S} felt a bit tired.", "I feel a bit tired today."),
    ("{S} asked how {T} was.", "So how are you?"),
)
_B_CHAT = (
    ("{S} complained about the rain.", "This rain is awful, is it not?"),
    ("{S} wished {T} a good week.", "Have a good week!"),
    ("{S} was in a cheerful mood.", "I am in such a cheerful mood."),
    ("{S} thanked {T} for listening.", "Thanks for listening."),
    ("{S} burnt the toast.", "I burnt the toast this morning."),
)

GRAMMARS = {
    "a": Grammar(
        _A_FRAMES,
        _A_STATEMENTS,
        "When did {S} start to {b}?",
        _A_CHAT,
        ("", "", "Hey {T}! ", "Guess what, {T}? ", "By the way, ", "Nice to hear! "),
    ),
    "b": Grammar(
        _B_FRAMES,
        _B_STATEMENTS,
        "On which day did {S} begin to {b}?",
        _B_CHAT,
        ("", "", "Listen, {T}. ", "Well, ", "So, {T}: "),
    ),
}
